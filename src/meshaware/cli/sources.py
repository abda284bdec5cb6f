"""Where the routes of an answer come from: what the command line names, else what the settings do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from meshaware.budgets import RouteTable
from meshaware.cli.exits import EX_CONFIG, EX_DATAERR, EX_UNAVAILABLE, EX_USAGE, CommandError
from meshaware.cli.terminal import say
from meshaware.errors import RouteError, SidecarUnavailable

if TYPE_CHECKING:
    from meshaware.settings import MeshSettings

__all__ = ["Asked", "Source", "admin_url", "find_routes"]

_LOOK = 1.0


class Asked(NamedTuple):
    """What the command line says about it; None where it says nothing."""

    manifests: tuple[str, ...] | None = None
    sidecar: bool = False
    admin_url: str | None = None
    namespace: str | None = None


class Source(NamedTuple):
    """
    Routes and where they come from.

    Attributes:
        table: The routes.
        kind: What they were read from.
        at: The paths, or the admin address.
        namespace: The caller's; None if it is not known.
    """

    table: RouteTable
    kind: Literal["manifests", "sidecar"]
    at: tuple[str, ...]
    namespace: str | None


def find_routes(asked: Asked, settings: MeshSettings) -> Source:
    """
    Read the routes: what was asked for, else what an application with these settings would use.

    Raises:
        CommandError: There are none, or they cannot be read.
    """
    if asked.manifests is not None:
        return _manifests(asked.manifests, asked, settings)
    named = tuple(path for path in settings.routes if path != "sidecar")
    if not asked.sidecar and named and "sidecar" not in settings.routes:
        return _manifests(named, asked, settings)
    admin = admin_url(asked, settings)
    if admin is None:
        if named:
            return _manifests(named, asked, settings)
        raise CommandError(
            "which routes? Give --manifests PATH, or --sidecar where one runs, or set MESHAWARE_ROUTES", EX_USAGE
        )
    try:
        return _sidecar(admin, asked, settings)
    except CommandError as error:
        if asked.sidecar or not named:
            raise
        say(f"meshaware: warning: {error}; the manifests of MESHAWARE_ROUTES hold then")
    return _manifests(named, asked, settings)


def _manifests(paths: tuple[str, ...], asked: Asked, settings: MeshSettings) -> Source:
    workload = settings.workload
    namespace = asked.namespace or workload.namespace
    # The labels are those of the pod that this runs in: they say nothing about a caller elsewhere.
    here = workload.namespace in (None, namespace)
    try:
        table = RouteTable.from_manifests(
            paths,
            namespace=namespace or "default",
            cluster_domain=settings.cluster_domain,
            source_labels=(workload.labels or None) if here else None,
            source_namespace=namespace,
        )
    except RouteError as error:
        raise CommandError(str(error), EX_DATAERR) from error
    return Source(table, "manifests", paths, namespace or "default")


def admin_url(asked: Asked, settings: MeshSettings) -> str | None:
    """
    The admin address; None if nothing says that there is a sidecar which tells routes.

    Raises:
        CommandError: The sidecar was asked for, and this mesh's tells none.
    """
    from time import monotonic  # noqa: PLC0415 (for the sidecar only)

    from meshaware.flavours import USUAL  # noqa: PLC0415
    from meshaware.sidecar.attempts import find_mesh, perform  # noqa: PLC0415

    given = asked.admin_url or settings.admin_url
    if given is not None:
        return given
    mesh = perform(find_mesh(settings.detected, monotonic() + _LOOK))
    if mesh.flavour.has_routes:
        return mesh.flavour.admin_url
    if not asked.sidecar:
        return None
    if mesh.flavour.is_mesh:
        raise CommandError(
            f"--sidecar: the mesh is {mesh.flavour.title} ({mesh.reason}), and its proxy does not tell routes;"
            " give --manifests, or --admin-url of an Envoy",
            EX_CONFIG,
        )
    return USUAL.admin_url


def _sidecar(admin: str, asked: Asked, settings: MeshSettings) -> Source:
    from meshaware.budgets.once import read_sidecar  # noqa: PLC0415 (sockets for the sidecar only)
    from meshaware.flavours import USUAL  # noqa: PLC0415
    from meshaware.sidecar.workload import load_workload  # noqa: PLC0415

    known = asked.namespace or settings.workload.namespace

    def namespace() -> str | None:
        there = settings.model_copy(update={"mesh": USUAL.name, "admin_url": admin})
        return known or load_workload(there).namespace

    try:
        table, home = read_sidecar(admin, namespace=namespace, cluster_domain=settings.cluster_domain)
    except SidecarUnavailable as error:
        raise CommandError(f"the sidecar cannot be asked: {error}", EX_UNAVAILABLE) from error
    except RouteError as error:
        raise CommandError(f"what answers at {admin} is not a sidecar with routes: {error}", EX_DATAERR) from error
    return Source(table, "sidecar", (admin,), home)
