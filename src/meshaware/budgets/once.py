"""The live sidecar's routes, read once: for tools that look and go, and share nothing with the pod's workers."""

from __future__ import annotations

import threading
from collections.abc import Callable

from meshaware.budgets.config_dump import MAX_BYTES, left_out, outbound
from meshaware.budgets.domains import Namespace
from meshaware.budgets.driving import run
from meshaware.budgets.polling import NOTHING, Limits, Steps, learn
from meshaware.budgets.table import RouteTable

__all__ = ["read_sidecar"]

_REQUEST = 5.0
_ALL = 30.0


def read_sidecar(
    admin_url: str,
    *,
    namespace: Callable[[], str | None],
    cluster_domain: str = "cluster.local",
    max_bytes: int = MAX_BYTES,
) -> tuple[RouteTable, str | None]:
    """
    Read the routes of the Envoy whose admin answers there, as gently as `SidecarRoutes` does.

    Args:
        admin_url: The admin address, such as `http://127.0.0.1:15000`.
        namespace: Tells where the caller runs, which decides what short names mean; asked once the sidecar answered.
        cluster_domain: The cluster's DNS domain.
        max_bytes: What all replies may come to.

    Returns:
        The routes, and the namespace.

    Raises:
        SidecarUnavailable: It cannot be asked, or takes too long.
        ConfigDumpError: What it answers is none of Envoy's.
        ValueError: The address is not one on loopback.
    """
    known = NOTHING

    def steps() -> Steps[bool]:
        nonlocal known
        known, _ = yield from learn(NOTHING, Limits(_REQUEST, _ALL, max_bytes), None, _not_saved)
        return True

    run(steps(), admin_url.rstrip("/"), threading.Event())
    name = namespace()
    home = None if name is None else Namespace(name, cluster_domain)
    read = [part.read for _, part in sorted(known.parts.items()) if part.read is not None]
    return RouteTable(outbound(read), namespace=home, skipped=left_out(read)), name


def _not_saved(_: str) -> None:
    return None
