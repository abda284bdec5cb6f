"""Carries the headers of each request to the calls it causes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING
from uuid import uuid4

from meshaware.asgi.peers import peer_reader
from meshaware.asgi.types import ASGIApp, Receive, Scope, Send
from meshaware.propagation.boundary import boundary, put_back
from meshaware.propagation.context import Carried, bind
from meshaware.propagation.fitness import is_fit
from meshaware.propagation.headers import HeaderSet
from meshaware.propagation.hosts import HostPolicy
from meshaware.propagation.inbound import mark
from meshaware.propagation.names import REQUEST_ID, Pair
from meshaware.settings import MeshSettings

if TYPE_CHECKING:
    from meshaware.sidecar.readiness import ReadinessGate

__all__ = ["MeshMiddleware"]

_CARRYING = ("http", "websocket")


class MeshMiddleware:
    """
    Pure ASGI middleware, for HTTP and WebSocket: what a request brings goes on with the calls made for it.

    While a request is served, in its tasks, `to_thread` calls, background tasks and streamed responses,
    meshaware's clients and `outbound_headers` add to calls inside the mesh: `x-request-id`, W3C and B3 trace
    headers, `baggage`, the routing headers `x-user-type` and `x-canary`, and what `MESHAWARE_HEADERS` names.
    Values go on as the bytes they came as; over-long and malformed ones stay behind. The request itself is
    passed to the application as it is, and afterwards nothing is left in the context. Plain threads and executors
    start with nothing: see `meshaware.propagation.threads`.

    A request without a usable `x-request-id` gets one for its calls: a UUID 4, as Envoy makes them. Behind a
    sidecar that does not happen, Envoy has set it.

    Who called can be asked meanwhile (`meshaware.propagation.inbound.current_peer`), and an error that the
    application raises is marked, so that a log line about it names its request.

    Args:
        app: The ASGI application; it stays visible as `app`.
        settings: Default: `MeshSettings()`, which reads the environment.
        gate: Where settings do not tell which mesh this is, the gate of the same settings does, once it is open.

    Raises:
        SettingsError: A header or host that the settings name cannot be used.
    """

    __slots__ = ("_gate", "_hosts", "_one", "_read_peer", "_select", "app")

    def __init__(
        self, app: ASGIApp, settings: MeshSettings | None = None, *, gate: ReadinessGate | None = None
    ) -> None:
        settings = MeshSettings() if settings is None else settings
        headers = HeaderSet.DEFAULT | HeaderSet.parse(settings.headers)
        self.app = app
        self._select = headers.select
        self._read_peer = peer_reader(settings, gate)
        self._hosts = HostPolicy(
            settings.mesh_hosts, cluster_domain=settings.cluster_domain, trace_hosts=settings.trace_hosts
        )
        mesh = settings.detected
        self._one = mesh.flavour.one_trace_format
        # Only where nothing but a proxy that answers tells the mesh, it is asked for at each request.
        self._gate = None if mesh.settled else gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] not in _CARRYING:
            await self.app(scope, receive, send)
            return
        found = self._select(scope["headers"])
        if not _brings_id(found):
            found = [pair for pair in found if pair[0] != REQUEST_ID]
            found.append((REQUEST_ID, str(uuid4()).encode()))
        receive, send = boundary(receive, send)
        one = self._one if self._gate is None else self._gate.flavour.one_trace_format
        carried = Carried(found, self._hosts, (self._read_peer, scope["headers"]), one=one)
        token = bind(carried)
        try:
            await self.app(scope, receive, send)
        except Exception as error:
            mark(error, carried)
            raise
        finally:
            put_back(token)


def _brings_id(found: Iterable[Pair]) -> bool:
    for name, value in found:
        if name == REQUEST_ID and (usable := value.strip()):
            return is_fit(name, usable)
    return False
