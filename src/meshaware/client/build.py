"""
How a client is put together: its arguments made ready, its transports wrapped, nothing left that bypasses ours.

Also what is the same for the clients of both libraries: their base classes here, and how their connections are closed.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any, NamedTuple

from meshaware.budgets import RouteSource, RouteTable
from meshaware.client.allowance import FROM_BUDGET
from meshaware.client.call import Whole
from meshaware.client.fork import InOneLoop, forget_in_children
from meshaware.client.library import Library
from meshaware.client.outgoing import WHOLE, Outgoing
from meshaware.client.repeats import Repeats
from meshaware.client.retries import MeshTries, warn_of_transports
from meshaware.client.tls import shared_context
from meshaware.settings import MeshSettings

__all__ = [
    "KEEPALIVE_EXPIRY",
    "Parts",
    "async_close_connections",
    "close_connections",
    "declared_routes",
    "mark_call",
    "parts",
    "wrap",
]

KEEPALIVE_EXPIRY = 4.0
"""
Seconds that a connection may be idle before it is closed and not used again.

The side that closes last may find the other gone with its request under way. uvicorn, hypercorn and Node close after
5 s, which is httpx's own number as well; Envoy keeps an idle connection of its downstream for an hour.
"""


class Parts(NamedTuple):
    """What the transports of one client are made from."""

    outgoing: Outgoing
    library: Library
    own_proxy: bool
    """Whether the caller named a proxy: then it serves every host, inside the mesh too."""
    own_transports: frozenset[int]
    """The caller's transports, by identity."""
    http2: bool
    repeats: Repeats


def parts(
    settings: MeshSettings | None,
    routes: RouteTable | RouteSource | None,
    library: Library,
    make_context: Callable[..., ssl.SSLContext],
    arguments: Mapping[str, Any],
) -> tuple[Parts, dict[str, Any]]:
    """
    Turn a factory's arguments into those of the library's client and the parts of its transports.

    Raises:
        TypeError: `retries` is among the arguments.
    """
    if "retries" in arguments:
        raise TypeError(
            f"retries={arguments['retries']!r}: a client of meshaware makes no call again, because the mesh does;"
            " declare retries on the route (VirtualService, spec.http[].retries)"
        )
    settings = MeshSettings() if settings is None else settings
    prepared = dict(arguments)
    prepared.setdefault("timeout", FROM_BUDGET)
    if prepared.get("transport") is None or prepared.get("proxy") is not None:
        prepared["verify"] = shared_context(
            make_context,
            prepared.get("verify", True),
            prepared.pop("cert", None),
            trust_env=prepared.get("trust_env", True),
            http2=prepared.get("http2", False),
        )
    routes = declared_routes(settings) if routes is None else routes
    mounts: Mapping[str, Any] = prepared.get("mounts") or {}
    given = (prepared.get("transport"), *mounts.values())
    tries = MeshTries(settings, routes)
    warn_of_transports(given, str(prepared.get("base_url", "")), tries)
    made = Parts(
        Outgoing(settings, routes),
        library,
        prepared.get("proxy") is not None,
        frozenset(map(id, given)),
        bool(prepared.get("http2")),
        Repeats(tries),
    )
    return made, prepared


def declared_routes(settings: MeshSettings) -> RouteTable:
    """The routes of the manifests that MESHAWARE_ROUTES names; an empty table where it names none."""
    named = [path for path in settings.routes if path != "sidecar"]
    if not named:
        return RouteTable.empty()
    workload = settings.workload
    return RouteTable.from_manifests(
        named,
        namespace=workload.namespace or "default",
        cluster_domain=settings.cluster_domain,
        source_labels=workload.labels or None,
        source_namespace=workload.namespace,
    )


def wrap(client: Any, made: Parts, transport: Callable[..., Any]) -> None:
    """
    Wrap every transport of a client that httpx has just made.

    `_transport` and `_mounts` are where both libraries keep them; OpenTelemetry's instrumentation relies on the same.
    """
    direct = client._transport  # noqa: SLF001

    def wrapped(inner: Any, inside: Any = None, *, proxied: bool = False) -> Any:
        watched = not made.http2 and id(inner) not in made.own_transports
        return transport(inner, made.outgoing, made.library, inside=inside, watched=watched, proxied=proxied)

    client._transport = wrapped(direct)  # noqa: SLF001
    for pattern, mounted in client._mounts.items():  # noqa: SLF001
        if mounted is not None:
            from_environment = not made.own_proxy and id(mounted) not in made.own_transports
            inside = direct if from_environment else None
            client._mounts[pattern] = wrapped(mounted, inside, proxied=True)  # noqa: SLF001
    forget_in_children(client)


def close_connections(client: Any) -> None:
    """Close the connections of a synchronous client; it opens new ones when it is used again."""
    for transport in _transports(client):
        transport.close()


async def async_close_connections(client: Any) -> None:
    """Close the connections of an asynchronous client; it opens new ones when it is used again."""
    if isinstance(client, InOneLoop):
        client.settle()
    for transport in _transports(client):
        await transport.aclose()


def _transports(client: Any) -> list[Any]:
    mounted: list[Any] = [transport for transport in client._mounts.values() if transport is not None]  # noqa: SLF001
    return [client._transport, *mounted]  # noqa: SLF001


def mark_call(request: Any) -> float:
    """Mark where one logical call begins, so that its redirects and auth retries share one end; return when it is."""
    request.extensions[WHOLE] = Whole()
    return monotonic()
