"""
OpenTelemetry's layer around clients: outside the client's own transport, so outside the mesh transport.

The instrumentation package is imported when there is a client. Neither httpx nor httpx2 is imported here.
"""

from __future__ import annotations

import logging
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

__all__ = ["instrument_client", "instrument_httpx"]

_INSTRUMENTORS = {"httpx": "HTTPXClientInstrumentor", "httpx2": "HTTPX2ClientInstrumentor"}
_MARK = "_is_instrumented_by_opentelemetry"

_log = logging.getLogger("meshaware.telemetry")


def instrument_client(client: object, provider: TracerProvider, meters: MeterProvider | None = None) -> bool:
    """
    Have each request of an httpx or httpx2 client make one client span.

    Args:
        client: The client.
        provider: Where the spans go.
        meters: What counts the requests; None: the process's, if there is one.

    Returns:
        False where it was instrumented already, or is a client of neither.
    """
    packages = (cls.__module__.partition(".")[0] for cls in type(client).__mro__)
    library = next((name for name in packages if name in _INSTRUMENTORS), None)
    if library is None or getattr(client, _MARK, False):
        return False
    instrumentor = _instrumentor(library)
    if instrumentor is None:
        return False
    instrumentor.instrument_client(client, tracer_provider=provider, meter_provider=meters)
    _let_unsampled_pass(client, provider, meters)
    return True


def _let_unsampled_pass(client: Any, provider: TracerProvider, meters: MeterProvider | None) -> None:
    """
    Put our layer around OpenTelemetry's, at each transport.

    `_transport` and `_mounts` are where both libraries keep them; OpenTelemetry's instrumentation relies on the same.
    """
    from meshaware.telemetry.bypass import AsyncClientBypass, ClientBypass, heeds_the_mesh  # noqa: PLC0415 (as above)

    # Who counts requests is to see each of them; whether the process's meter provider does is asked each time.
    heed = meters is None and heeds_the_mesh(provider)
    for name, layer in (("handle_request", ClientBypass), ("handle_async_request", AsyncClientBypass)):
        transports: list[Any] = [client._transport, *client._mounts.values()]  # noqa: SLF001
        for transport in transports:
            own: dict[str, Any] = getattr(transport, "__dict__", {})
            traced = own.get(name)
            if traced is not None and not isinstance(traced, ClientBypass):
                setattr(transport, name, layer(traced, _own(transport, name), heed=heed))


def _own(transport: object, name: str) -> Any:
    """The method that OpenTelemetry's layer hides."""
    return getattr(type(transport), name).__get__(transport)


def instrument_httpx(provider: TracerProvider, meters: MeterProvider | None = None) -> None:
    """Have every client of httpx, and of httpx2 if it is there, make spans: also those of other libraries."""
    for library in _INSTRUMENTORS:
        instrumentor = _instrumentor(library) if find_spec(library) is not None else None
        if instrumentor is not None and not instrumentor().is_instrumented_by_opentelemetry:
            instrumentor().instrument(tracer_provider=provider, meter_provider=meters)


def _instrumentor(library: str) -> Any:
    name = _INSTRUMENTORS[library]
    instrumentor = getattr(import_module("opentelemetry.instrumentation.httpx"), name, None)
    if instrumentor is None:
        _log.warning(
            "telemetry: calls made with %s make no spans, because the installed"
            " opentelemetry-instrumentation-httpx has no %s: a newer one has",
            library,
            name,
        )
    return instrumentor
