"""The factories for httpx: `create_async_client` and `create_client`."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import httpx

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

# The library's class comes first, so that a handler for `httpx.TimeoutException` stays nearer than one for ours.

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


class PoolDeadlineExceeded(httpx.PoolTimeout, DeadlineExceeded):
    """The budget was used up while the call waited for a connection of the pool."""


class ConnectDeadlineExceeded(httpx.ConnectTimeout, DeadlineExceeded):
    """The budget was used up while connecting."""


class WriteDeadlineExceeded(httpx.WriteTimeout, DeadlineExceeded):
    """The budget was used up while the request was sent."""


class ReadDeadlineExceeded(httpx.ReadTimeout, DeadlineExceeded):
    """The budget was used up while the call waited for the response, or for the rest of its body."""


class SidecarConnectError(httpx.ConnectError, SidecarUnavailable):
    """The sidecar did not take the connection; nothing was sent."""

    def __init__(self, message: str, cause: str = "refused") -> None:
        httpx.ConnectError.__init__(self, message)
        self.cause = cause


class _AsyncStream(AsyncBody, httpx.AsyncByteStream):
    pass


class _Stream(Body, httpx.SyncByteStream):
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
    timeout=httpx.TimeoutException,
    connect_error=httpx.ConnectError,
    failures=(TimeUp, httpx.TimeoutException, httpx.ConnectError),
    sync_stream=_Stream,
    async_stream=_AsyncStream,
)

_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=KEEPALIVE_EXPIRY)

_Text = str | bytes
_Auth = tuple[_Text, _Text] | Callable[[httpx.Request], httpx.Request] | httpx.Auth


class _Common(TypedDict, total=False):
    auth: _Auth | None
    params: httpx.QueryParams | Mapping[str, Any] | list[tuple[str, Any]] | str | bytes | None
    headers: httpx.Headers | Mapping[str, str] | Mapping[bytes, bytes] | Sequence[tuple[str, str]] | None
    cookies: httpx.Cookies | dict[str, str] | list[tuple[str, str]] | None
    verify: ssl.SSLContext | str | bool
    cert: str | tuple[str, str] | tuple[str, str, str] | None
    http1: bool
    http2: bool
    proxy: httpx.URL | str | httpx.Proxy | None
    timeout: float | tuple[float | None, float | None, float | None, float | None] | httpx.Timeout | None
    follow_redirects: bool
    limits: httpx.Limits
    max_redirects: int
    base_url: httpx.URL | str
    trust_env: bool
    default_encoding: str | Callable[[bytes], str]


class ClientArguments(_Common, total=False):
    """What `httpx.Client` takes."""

    mounts: Mapping[str, httpx.BaseTransport | None] | None
    event_hooks: Mapping[str, list[Callable[..., Any]]] | None
    transport: httpx.BaseTransport | None


class AsyncClientArguments(_Common, total=False):
    """What `httpx.AsyncClient` takes."""

    mounts: Mapping[str, httpx.AsyncBaseTransport | None] | None
    event_hooks: Mapping[str, list[Callable[..., Awaitable[Any]]]] | None
    transport: httpx.AsyncBaseTransport | None


class _AsyncClient(InOneLoop, httpx.AsyncClient):
    def __init__(self, made: Parts, arguments: Mapping[str, Any]) -> None:
        super().__init__(**arguments)
        self._repeats = made.repeats
        wrap(self, made, AsyncMeshTransport)

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        self.settle()
        begun = mark_call(request)
        try:
            response = await super().send(request, **options)
        except httpx.TransportError:
            self._repeats.failed(request, begun)
            raise
        self._repeats.answered(request, response.status_code, begun)
        return response


class _Client(httpx.Client):
    def __init__(self, made: Parts, arguments: Mapping[str, Any]) -> None:
        super().__init__(**arguments)
        self._repeats = made.repeats
        wrap(self, made, MeshTransport)

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        begun = mark_call(request)
        try:
            response = super().send(request, **options)
        except httpx.TransportError:
            self._repeats.failed(request, begun)
            raise
        self._repeats.answered(request, response.status_code, begun)
        return response


def create_async_client(
    settings: MeshSettings | None = None,
    *,
    routes: RouteTable | RouteSource | None = None,
    **arguments: Unpack[AsyncClientArguments],
) -> httpx.AsyncClient:
    """
    Make an `httpx.AsyncClient` that keeps the mesh's budgets and carries its headers.

    A call lasts as long as the mesh may take for it and no longer, whatever the peer does with its bytes; nothing is
    retried, because the mesh retries. Headers that the middleware or `bind_headers` holds go along to hosts inside the
    mesh. What became of a call, `meshaware.report(response)` tells.

    Args:
        settings: Read from the environment if not given.
        routes: Where budgets come from; None takes the manifests that MESHAWARE_ROUTES names.
        **arguments: Those of `httpx.AsyncClient`. Without `timeout` the budget sets it, without `limits` idle
            connections are kept for 4 s. A `transport`, `proxy` or `mounts` is wrapped; a proxy from the environment
            serves hosts outside the mesh only.

    Raises:
        SettingsError: A variable has a value that cannot be used.
        ManifestError: A manifest cannot be used.
    """
    arguments.setdefault("limits", _LIMITS)
    made, prepared = parts(settings, routes, _LIBRARY, httpx.create_ssl_context, arguments)
    client = _AsyncClient(made, prepared)
    announce_client(client)
    return client


def create_client(
    settings: MeshSettings | None = None,
    *,
    routes: RouteTable | RouteSource | None = None,
    **arguments: Unpack[ClientArguments],
) -> httpx.Client:
    """
    Make an `httpx.Client` that keeps the mesh's budgets and carries its headers.

    As `create_async_client`. Two things a thread cannot interrupt, and so may outlast the budget: name resolution, and
    connecting to a name with several addresses, which gives each of them the whole connect timeout.

    Args:
        settings: Read from the environment if not given.
        routes: Where budgets come from; None takes the manifests that MESHAWARE_ROUTES names.
        **arguments: Those of `httpx.Client`.

    Raises:
        SettingsError: A variable has a value that cannot be used.
        ManifestError: A manifest cannot be used.
    """
    arguments.setdefault("limits", _LIMITS)
    made, prepared = parts(settings, routes, _LIBRARY, httpx.create_ssl_context, arguments)
    client = _Client(made, prepared)
    announce_client(client)
    return client
