"""The workloads of a mesh, and what the sidecar of each is told about the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from meshaware.testing.clusters import outbound_clusters
from meshaware.testing.discovery import CLUSTERS, LISTENERS, ROUTES, Resources, routes_of_port
from meshaware.testing.manifests import Manifest
from meshaware.testing.places import Place
from meshaware.testing.pod import Pod
from meshaware.testing.redirect import Named, address
from meshaware.testing.routes import check_routes, route_configuration
from meshaware.testing.service import LocalService
from meshaware.testing.sidecar import Sidecar
from meshaware.testing.view import DEFAULT_PORT, Client, Endpoint, ServiceView, View, full_name

__all__ = ["Member", "addresses", "check", "publish"]

_Items = list[dict[str, Any]]


class Member(NamedTuple):
    """
    One workload, with what only the mesh has to know of it.

    Attributes:
        service: What the user holds.
        pod: Who it is.
        port: The port of its service.
        endpoint: Where others reach it; None where there is no application.
        withdrawn: Whether the others have been told that it goes.
        place: Where it is; its ports are to be released at the end.
        start: Whether the mesh starts its sidecar.
    """

    service: LocalService
    pod: Pod
    port: int
    endpoint: Endpoint | None
    place: Place
    start: bool
    withdrawn: bool = False


def addresses(members: Sequence[Member]) -> list[Named]:
    """The address of each service, in the order in which they were added: where redirected calls go."""
    known = dict.fromkeys((each.pod.service, each.pod.namespace) for each in members if each.endpoint is not None)
    return [Named(*each, address("service", number)) for number, each in enumerate(known)]


def check(manifests: Sequence[Manifest], namespace: str, cluster_domain: str) -> None:
    """
    Translate every manifest for nobody, so that an unsupported field is refused before it matters.

    Raises:
        LocalMeshError: A manifest is not supported.
    """
    nobody = View((), Client(namespace, {}), cluster_domain)
    check_routes(manifests, nobody)
    outbound_clusters(manifests, nobody)


def publish(members: Sequence[Member], manifests: Sequence[Manifest]) -> None:
    """
    Give every sidecar the mesh as it is now; return when those that run have taken it.

    Raises:
        LocalMeshError: An Envoy refused it, or ended.
    """
    views = [(member.service.sidecar, _view(member, members)) for member in members]
    clusters = [(sidecar, outbound_clusters(manifests, view)) for sidecar, view in views]
    routes = [(sidecar, [route_configuration(manifests, view)]) for sidecar, view in views]
    # Clusters come before the routes that name them, and go after them.
    _configure([(sidecar, CLUSTERS, _with_old(sidecar, fresh)) for sidecar, fresh in clusters])
    _configure([(sidecar, ROUTES, items) for sidecar, items in routes] + _ports(members, manifests))
    _configure([(sidecar, CLUSTERS, fresh) for sidecar, fresh in clusters])


def _configure(given: Sequence[tuple[Sidecar, Resources, _Items]]) -> None:
    changed = [each for each in given if each[0].given(each[1]) != each[2]]
    for sidecar, resources, items in changed:
        sidecar.configure(resources, items)
    for sidecar in dict.fromkeys(sidecar for sidecar, _, _ in changed):
        sidecar.wait_configured()


def _ports(members: Sequence[Member], manifests: Sequence[Manifest]) -> list[tuple[Sidecar, Resources, _Items]]:
    """Routes and listeners of each port, for the sidecars that redirected connections come to."""
    given: list[tuple[Sidecar, Resources, _Items]] = []
    for member in members:
        if member.pod.redirected:
            view, sidecar = _view(member, members), member.service.sidecar
            ports = sorted({DEFAULT_PORT, *(service.port for service in view.services)})
            # The routes first: a listener that comes before them would wait for them, and so would we.
            given += [(sidecar, routes_of_port(port), [route_configuration(manifests, view, port)]) for port in ports]
            given.append((sidecar, LISTENERS, [sidecar.port_listener(port) for port in ports]))
    return given


def _with_old(sidecar: Sidecar, fresh: _Items) -> _Items:
    names = {cluster["name"] for cluster in fresh}
    return fresh + [cluster for cluster in sidecar.given(CLUSTERS) or () if cluster["name"] not in names]


def _view(member: Member, members: Sequence[Member]) -> View:
    pod = member.pod
    groups: dict[tuple[str, str], list[Member]] = {}
    for other in members:
        if other.endpoint is not None:
            groups.setdefault((other.pod.service, other.pod.namespace), []).append(other)
    known = {(each.service, each.namespace): each.address for each in addresses(members)}
    services = [
        ServiceView(
            name=name,
            namespace=namespace,
            host=full_name(name, namespace, pod.cluster_domain),
            port=group[0].port,
            endpoints=[each.endpoint for each in group if each.endpoint is not None and not each.withdrawn],
            address=known[name, namespace] if member.pod.redirected else None,
        )
        for (name, namespace), group in groups.items()
    ]
    return View(services, Client(pod.namespace, pod.labels), pod.cluster_domain)
