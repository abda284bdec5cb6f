"""
Requests that the mesh does not sample pass OpenTelemetry's layers by.

In a mesh 99 of 100 requests arrive unsampled, and OpenTelemetry's layers around server and client take as long for
them as the application itself: to make spans that nobody records. Here such a request gets the context that was read
from it, so that spans which the application makes follow the mesh's decision, and nothing else. What it calls gets the
trace headers as they came.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from types import EllipsisType
from typing import Any

from opentelemetry import metrics, propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext

from meshaware.propagation.boundary import boundary
from meshaware.propagation.context import current
from meshaware.propagation.fitness import fit
from meshaware.propagation.glance import denied, denied_by
from meshaware.propagation.names import BAGGAGE, FORMATS, Pair
from meshaware.propagation.position import Position
from meshaware.propagation.spans import ARRIVAL_KEY, Arrival, contexts, span_key
from meshaware.request_copy import copy_request
from meshaware.telemetry.formats import span_context
from meshaware.telemetry.propagators import installed

__all__ = ["AsyncClientBypass", "ClientBypass", "ServerBypass", "heeds_the_mesh"]

_SAMPLED = 1
_UNMEASURED = ("_ProxyMeterProvider", "NoOpMeterProvider")
_METERS = import_module("opentelemetry.metrics._internal")
_NATIVE = "fastapi.telemetry"
_READ = FORMATS | {BAGGAGE}
_WAYS = contexts()
_SPAN_KEY = span_key()


def heeds_the_mesh(provider: object) -> bool:
    """
    Tell whether a tracer provider never records below a parent that is not sampled.

    Its sampler says so in its description, as the SDK's ParentBased does; a sampler that says nothing of the kind may
    want to see every request.
    """
    sampler: Any = getattr(provider, "sampler", None)
    description = str(sampler.get_description()) if sampler is not None else ""
    return description.startswith("ParentBased{") and all(
        f"{kind}ParentNotSampled:AlwaysOffSampler" in description for kind in ("remote", "local")
    )


def _unmeasured() -> bool:
    """Whether nobody counts requests. Asked each time: a MeterProvider may be set after the layers were made."""
    # While there is none, `get_meter_provider` looks at the environment; OpenTelemetry's layers have had it do so.
    none = getattr(_METERS, "_METER_PROVIDER", ...) is None
    return none or type(metrics.get_meter_provider()).__name__ in _UNMEASURED


class _ScopeGetter:
    """Reads headers of an ASGI scope; the instrumentation's own decodes every header for each name."""

    def get(self, carrier: Any, key: str) -> list[str] | None:
        name = key.encode()
        return [value.decode("latin-1") for each, value in carrier["headers"] if each == name] or None

    def keys(self, carrier: Any) -> list[str]:
        return [name.decode("latin-1") for name, _ in carrier["headers"]]


_GETTER: Any = _ScopeGetter()


class _Unread(NonRecordingSpan, Arrival):
    """
    A request of which nothing was read but that it is not sampled, and what stands for its caller's span.

    Both are one object: two that know each other would be left to the garbage collector, request by request. What it
    has to say of the request is looked at when somebody asks: often nobody does.

    Args:
        headers: Lower-case names with values, all that came.
    """

    # Set for an instance where they differ.
    local = False
    baggage = None
    _came: Mapping[bytes, bytes] | None = None
    _position: Position | EllipsisType | None = ...
    _read: SpanContext | None = None

    def __init__(self, headers: Mapping[bytes, bytes]) -> None:
        self._headers = headers

    @property
    def span(self) -> Span:
        return self

    @property
    def came(self) -> Mapping[bytes, bytes]:
        if self._came is None:
            self._came = fit([pair for pair in self._headers.items() if pair[0] in FORMATS])
        return self._came

    def get_span_context(self) -> SpanContext:
        if self._read is None:
            position = self.position
            self._read = trace.INVALID_SPAN_CONTEXT if position is None else span_context(position, _never)
        return self._read

    def __repr__(self) -> str:
        return f"NonRecordingSpan({self.get_span_context()!r})"


def _never(_: int) -> bool:
    return False


class ServerBypass:
    """
    An ASGI layer around OpenTelemetry's.

    Args:
        app: The application with OpenTelemetry's layer around it; visible as `app`, because FastAPI looks for that
            layer.
        plain: The application without.
        quiet: Paths of which no request is to make spans.
        heed: Whether unsampled requests may pass by, as `heeds_the_mesh` tells.
        saw: Told of each unsampled request that passed by, as `SamplingWatch.saw` is.
    """

    def __init__(
        self,
        app: Any,
        plain: Any,
        *,
        quiet: frozenset[str] = frozenset(),
        heed: bool = True,
        saw: Callable[[bool], None] | None = None,
    ) -> None:
        self.app = app
        self._plain = plain
        self._quiet = quiet
        self._ends = tuple(quiet)
        self._heed = heed
        self._saw = saw

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request, with OpenTelemetry's layer or without."""
        kind = scope["type"]
        if kind not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        # A FastAPI application that is mounted takes the request for one that is looked after.
        scope[_NATIVE] = None
        get_current, attach, detach = _WAYS
        here: Context = get_current()
        if kind == "http" and current() is None:
            # With a mesh layer outside this one, that has done it.
            receive, send = boundary(receive, send, _WAYS)
        context = _unsampled(scope, here) if self._heed else None
        if context is None:
            quiet = scope["path"].endswith(self._ends) and _path(scope) in self._quiet
            await (self._plain if quiet else self.app)(scope, receive, send)
            return
        if self._saw is not None:
            self._saw(False)  # noqa: FBT003 (what was seen is just this)
        token = attach(context)
        closed = False
        try:
            await self._plain(scope, receive, send)
        except GeneratorExit:
            # Left unfinished, it is closed by whoever finds it, in a context that never had the token.
            closed = True
            raise
        finally:
            if not closed:
                detach(token)


def _path(scope: Any) -> str:
    # A server that is told a root path puts it in front of the path.
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path.removeprefix(root) if root else path


def _unsampled(scope: Any, here: Context) -> Context | None:
    """Return the context of a request that arrived unsampled in the context `here`; None for every other one."""
    raw: Sequence[Pair] = scope["headers"]
    headers = dict(raw)
    said = denied_by(headers) if len(headers) == len(raw) else denied([pair for pair in raw if pair[0] in _READ])
    if said is False or not _unmeasured():
        return None
    # Called from inside the process it belongs to the caller's span, and OpenTelemetry reads no headers either.
    if here and trace.get_current_span(here) is not trace.INVALID_SPAN:
        return None
    if said and propagate.get_global_textmap() is installed():
        unread = _Unread(headers)
        return Context({**here, ARRIVAL_KEY: unread, _SPAN_KEY: unread})
    context = propagate.extract(scope, here, _GETTER)
    position = trace.get_current_span(context).get_span_context()
    return context if position.is_valid and not position.trace_flags & _SAMPLED else None


Call = Callable[[Any], Any]


class ClientBypass:
    """
    What a synchronous client calls in the place of its transport's `handle_request`.

    Args:
        traced: The transport with OpenTelemetry's layer around it.
        plain: The transport without.
        heed: Whether requests may pass by at all, as `heeds_the_mesh` tells.
    """

    def __init__(self, traced: Call, plain: Call, *, heed: bool) -> None:
        self._traced = traced
        self._plain = plain
        self._heed = heed

    def __call__(self, request: Any) -> Any:
        """Send one request. OpenTelemetry writes its headers on a copy: the caller's request stays as it was made."""
        if self._heed and _belongs_to_unsampled():
            return self._plain(request)
        return self._traced(copy_request(request))


class AsyncClientBypass(ClientBypass):
    """The same for an asynchronous client's `handle_async_request`."""

    async def __call__(self, request: Any) -> Any:
        """Send one request."""
        if self._heed and _belongs_to_unsampled():
            return await self._plain(request)
        return await self._traced(copy_request(request))


def _belongs_to_unsampled() -> bool:
    position = trace.get_current_span().get_span_context()
    return position.is_valid and not position.trace_flags & _SAMPLED and _unmeasured()
