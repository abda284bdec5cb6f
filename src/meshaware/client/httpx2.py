"""The factories for httpx2: `create_async_client` and `create_client`."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import httpx2

from meshaware.client.build import KEEPALIVE_EXPIRY, Parts, mark_call, parts, wrap
from meshaware.client.clamp import TimeUp
from meshaware.client.fork import InOneLoop
from meshaware.client.library import Library
from meshaware.client.streams import AsyncBody, Body
from meshaware.client.transport import AsyncMeshTransport, MeshTransport
from meshaware.errors import DeadlineExceeded, SidecarUnavailable
from meshaware.instrumentation import announce_client

if TYPE_CHECKING:
    from meshaware.budgets import RouteSource, RouteTable
    from meshaware.settings import MeshSettings

# The library's class comes first, so that a handler for `httpx2.TimeoutException` stays nearer than one for ours.

__all__ = [
    "AsyncClientArguments",
    "ClientArguments",
    "ConnectDeadlineExceeded",
    "PoolDeadlineExceeded",
    "ReadDeadlineExceeded",
    "SidecarConnectError",
    "WriteDeadlineExceeded",
    "create_async_client",
    "create_client",
]


class PoolDeadlineExceeded(httpx2.PoolTimeout, DeadlineExceeded):
    """The budget was used up while the call waited for a connection of the pool."""


class ConnectDeadlineExceeded(httpx2.ConnectTimeout, DeadlineExceeded):
    """The budget was used up while connecting."""


class WriteDeadlineExceeded(httpx2.WriteTimeout, DeadlineExceeded):
    """The budget was used up while the request was sent."""


class ReadDeadlineExceeded(httpx2.ReadTimeout, DeadlineExceeded):
    """The budget was used up while the call waited for the response, or for the rest of its body."""


class SidecarConnectError(httpx2.ConnectError, SidecarUnavailable):
    """The sidecar did not take the connection; nothing was sent."""

    def __init__(self, message: str, cause: str = "refused") -> None:
        httpx2.ConnectError.__init__(self, message)
        self.cause = cause


class _AsyncStream(AsyncBody, httpx2.AsyncByteStream):
    pass


class _Stream(Body, httpx2.SyncByteStream):
    pass


_LIBRARY = Library(
    deadline_errors={
        "pool": PoolDeadlineExceeded,
        "connect": ConnectDeadlineExceeded,
        "send": WriteDeadlineExceeded,
        "wait": ReadDeadlineExceeded,
        "body": ReadDeadlineExceeded,
    },
    sidecar_error=SidecarConnectError,
    timeout=httpx2.TimeoutException,
    connect_error=httpx2.ConnectError,
    failures=(TimeUp, httpx2.TimeoutException, httpx2.ConnectError),
    sync_stream=_Stream,
    async_stream=_AsyncStream,
)

_LIMITS = httpx2.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=KEEPALIVE_EXPIRY)

_Text = str | bytes
_Auth = tuple[_Text, _Text] | Callable[[httpx2.Request], httpx2.Request] | httpx2.Auth


class _Common(TypedDict, total=False):
    auth: _Auth | None
    params: httpx2.QueryParams | Mapping[str, Any] | list[tuple[str, Any]] | str | bytes | None
    headers: httpx2.Headers | Mapping[str, str] | Mapping[bytes, bytes] | Sequence[tuple[str, str]] | None
    cookies: httpx2.Cookies | dict[str, str] | list[tuple[str, str]] | None
    verify: ssl.SSLContext | str | bool
    cert: str | tuple[str, str] | tuple[str, str, str] | None
    http1: bool
    http2: bool
    proxy: httpx2.URL | str | httpx2.Proxy | None
    timeout: float | tuple[float | None, float | None, float | None, float | None] | httpx2.Timeout | None
    follow_redirects: bool
    limits: httpx2.Limits
    max_redirects: int
    base_url: httpx2.URL | str
    trust_env: bool
    default_encoding: str | Callable[[bytes], str]


class ClientArguments(_Common, total=False):
    """What `httpx2.Client` takes."""

    mounts: Mapping[str, httpx2.BaseTransport | None] | None
    event_hooks: Mapping[str, list[Callable[..., Any]]] | None
    transport: httpx2.BaseTransport | None


class AsyncClientArguments(_Common, total=False):
    """What `httpx2.AsyncClient` takes."""

    mounts: Mapping[str, httpx2.AsyncBaseTransport | None] | None
    event_hooks: Mapping[str, list[Callable[..., Awaitable[Any]]]] | None
    transport: httpx2.AsyncBaseTransport | None


class _AsyncClient(InOneLoop, httpx2.AsyncClient):
    def __init__(self, made: Parts, arguments: Mapping[str, Any]) -> None:
        super().__init__(**arguments)
        self._repeats = made.repeats
        wrap(self, made, AsyncMeshTransport)

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        self.settle()
        begun = mark_call(request)
        try:
            response = await super().send(request, **options)
        except httpx2.TransportError:
            self._repeats.failed(request, begun)
            raise
        self._repeats.answered(request, response.status_code, begun)
        return response


class _Client(httpx2.Client):
    def __init__(self, made: Parts, arguments: Mapping[str, Any]) -> None:
        super().__init__(**arguments)
        self._repeats = made.repeats
        wrap(self, made, MeshTransport)

    def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        begun = mark_call(request)
        try:
            response = super().send(request, **options)
        except httpx2.TransportError:
            self._repeats.failed(request, begun)
            raise
        self._repeats.answered(request, response.status_code, begun)
        return response


def create_async_client(
    settings: MeshSettings | None = None,
    *,
    routes: RouteTable | RouteSource | None = None,
    **arguments: Unpack[AsyncClientArguments],
) -> httpx2.AsyncClient:
    """
    Make an `httpx2.AsyncClient` that keeps the mesh's budgets and carries its headers.

    As `meshaware.create_async_client` in everything else.
    """
    arguments.setdefault("limits", _LIMITS)
    made, prepared = parts(settings, routes, _LIBRARY, httpx2.create_ssl_context, arguments)
    client = _AsyncClient(made, prepared)
    announce_client(client)
    return client


def create_client(
    settings: MeshSettings | None = None,
    *,
    routes: RouteTable | RouteSource | None = None,
    **arguments: Unpack[ClientArguments],
) -> httpx2.Client:
    """
    Make an `httpx2.Client` that keeps the mesh's budgets and carries its headers.

    As `meshaware.create_client` in everything else.
    """
    arguments.setdefault("limits", _LIMITS)
    made, prepared = parts(settings, routes, _LIBRARY, httpx2.create_ssl_context, arguments)
    client = _Client(made, prepared)
    announce_client(client)
    return client
