"""
Requests that the mesh does not sample pass OpenTelemetry's layers by.

In a mesh 99 of 100 requests arrive unsampled, and OpenTelemetry's layers around server and client take as long for
them as the application itself: to make spans that nobody records. Here such a request gets the context that was read
from it, so that spans which the application makes follow the mesh's decision, and nothing else. What it calls gets the
trace headers as they came.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opentelemetry import context as otel
from opentelemetry import metrics, propagate, trace

from meshaware.instrumentation import copy_request

__all__ = ["AsyncClientBypass", "ClientBypass", "ServerBypass", "heeds_the_mesh"]

_SAMPLED = 1
_UNMEASURED = ("_ProxyMeterProvider", "NoOpMeterProvider")
_NATIVE = "fastapi.telemetry"
_EVEN = frozenset(b"02468ace")
_DENIED = (b"0", b"false")


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
    return type(metrics.get_meter_provider()).__name__ in _UNMEASURED


class _ScopeGetter:
    """Reads headers of an ASGI scope; the instrumentation's own decodes every header for each name."""

    def get(self, carrier: Any, key: str) -> list[str] | None:
        name = key.encode()
        return [value.decode("latin-1") for each, value in carrier["headers"] if each == name] or None

    def keys(self, carrier: Any) -> list[str]:
        return [name.decode("latin-1") for name, _ in carrier["headers"]]


_GETTER: Any = _ScopeGetter()


class ServerBypass:
    """
    An ASGI layer around OpenTelemetry's.

    Args:
        app: The application with OpenTelemetry's layer around it; visible as `app`, because FastAPI looks for that
            layer.
        plain: The application without.
        saw: Told of each request that passed by, as `SamplingWatch.saw` is.
    """

    def __init__(self, app: Any, plain: Any, saw: Callable[[bool], None] | None = None) -> None:
        self.app = app
        self._plain = plain
        self._saw = saw

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request, with OpenTelemetry's layer or without."""
        context = _unsampled(scope) if scope["type"] in ("http", "websocket") else None
        if context is None:
            await self.app(scope, receive, send)
            return
        if self._saw is not None:
            self._saw(False)  # noqa: FBT003 (what was seen is just this)
        # A FastAPI application that is mounted takes the request for one that is looked after.
        scope[_NATIVE] = None
        token = otel.attach(context)
        closed = False
        try:
            await self._plain(scope, receive, send)
        except GeneratorExit:
            # Left unfinished, it is closed by whoever finds it, in a context that never had the token.
            closed = True
            raise
        finally:
            if not closed:
                otel.detach(token)


def _unsampled(scope: Any) -> Any:
    """Read the context of a request that arrived unsampled; None for every other one."""
    if not _looks_unsampled(scope["headers"]) or not _unmeasured():
        return None
    # Called from inside the process it belongs to the caller's span, and OpenTelemetry reads no headers either.
    if trace.get_current_span() is not trace.INVALID_SPAN:
        return None
    context = propagate.extract(scope, otel.get_current(), _GETTER)
    position = trace.get_current_span(context).get_span_context()
    return context if position.is_valid and not position.trace_flags & _SAMPLED else None


def _looks_unsampled(headers: Any) -> bool:
    """Tell, at a glance, whether it is worth while to read the trace headers."""
    denied = False
    for name, value in headers:
        if name == b"traceparent":
            return bool(_EVEN.intersection(value[-1:]))
        if name == b"x-b3-sampled":
            denied = denied or value in _DENIED
        elif name == b"b3":
            denied = denied or value == b"0" or b"-0" in value
    return denied


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
