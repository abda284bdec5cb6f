"""
The trace headers of OpenTelemetry's live span.

The one file of this room that touches OpenTelemetry, and only where somebody else has loaded it: a process
without tracing does not pay for the import.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import TYPE_CHECKING

from meshaware.propagation.fitness import MAX_LIST
from meshaware.propagation.names import (
    B3,
    TRACEPARENT,
    TRACESTATE,
    X_B3_SAMPLED,
    X_B3_SPANID,
    X_B3_TRACEID,
)
from meshaware.propagation.position import Position

if TYPE_CHECKING:
    from opentelemetry.trace import Span

__all__ = ["live_baggage", "live_position", "live_trace_headers", "tracing_loaded", "without_client_spans"]

_SAMPLED = 1
_POSITIONS = (TRACEPARENT, X_B3_SPANID, B3)


def tracing_loaded() -> bool:
    """Tell whether there can be a live span at all."""
    return "opentelemetry.trace" in sys.modules


def live_trace_headers(came: Mapping[bytes, bytes], *, b3: bool, multi: bool) -> dict[bytes, bytes] | None:
    """
    Write the live span as trace headers: W3C always, B3 as asked. None where no span is live.

    A span that only stands for the caller's, as instrumentation without a tracer provider leaves it, is not
    live when the headers that came in tell of it: those say more, such as that the sampling decision is left
    to the receiver.

    Args:
        came: The headers that came in.
        b3: Also as the single `b3`.
        multi: Also as `x-b3-traceid`, `x-b3-spanid` and `x-b3-sampled`.
    """
    if not tracing_loaded():
        return None
    position = _current_span()().get_span_context()
    if not position.is_valid:
        return None
    trace_id = b"%032x" % position.trace_id
    span_id = b"%016x" % position.span_id
    if position.is_remote and any(span_id in came.get(name, b"") for name in _POSITIONS):
        return None
    sampled = b"1" if position.trace_flags & _SAMPLED else b"0"
    written = {TRACEPARENT: b"00-%b-%b-%02x" % (trace_id, span_id, position.trace_flags & 0xFF)}
    if position.trace_state:
        written[TRACESTATE] = position.trace_state.to_header().encode("ascii", "ignore")
    if b3:
        written[B3] = b"%b-%b-%b" % (trace_id, span_id, sampled)
    if multi:
        written[X_B3_TRACEID] = trace_id
        written[X_B3_SPANID] = span_id
        written[X_B3_SAMPLED] = sampled
    return written


def live_position(came: Mapping[bytes, bytes]) -> Position | None:
    """
    Return the live span, under the same conditions as `live_trace_headers`; None where no span is live.

    Args:
        came: The headers that came in.
    """
    if not tracing_loaded():
        return None
    position = _current_span()().get_span_context()
    if not position.is_valid:
        return None
    span_id = f"{position.span_id:016x}"
    if position.is_remote and any(span_id.encode() in came.get(name, b"") for name in _POSITIONS):
        return None
    return Position(f"{position.trace_id:032x}", span_id, bool(position.trace_flags & _SAMPLED))


def live_baggage(captured: bytes | None) -> bytes | None:
    """
    Write OpenTelemetry's baggage where the application has put something into it; None where it has not.

    What OpenTelemetry read from the request and would write again differs from what came in: it drops
    properties and values with blanks. So as long as it holds nothing that did not come in, what came in goes
    on as it was.
    """
    if not tracing_loaded():
        return None
    get_all, read, write = _baggage()
    entries = get_all()
    if not entries:
        return None
    if captured is not None:
        came = read(captured.decode("latin-1"))
        if all(came.get(key) == value for key, value in entries.items()):
            return None
    value = write().encode("ascii", "ignore")
    return value if 0 < len(value) <= MAX_LIST else None


def without_client_spans() -> AbstractContextManager[None]:
    """Keep OpenTelemetry's HTTP clients from making spans inside the block: the call has one already."""
    if "opentelemetry.instrumentation.utils" not in sys.modules:
        return nullcontext()
    from opentelemetry.instrumentation.utils import suppress_http_instrumentation  # noqa: PLC0415

    return suppress_http_instrumentation()


@cache
def _current_span() -> Callable[[], Span]:
    from opentelemetry.trace import get_current_span  # noqa: PLC0415

    return get_current_span


@cache
def _baggage() -> tuple[Callable[[], Mapping[str, object]], Callable[[str], Mapping[str, object]], Callable[[], str]]:
    from opentelemetry import baggage  # noqa: PLC0415
    from opentelemetry.baggage.propagation import W3CBaggagePropagator  # noqa: PLC0415
    from opentelemetry.context import Context  # noqa: PLC0415

    propagator = W3CBaggagePropagator()

    def read(value: str) -> Mapping[str, object]:
        return baggage.get_all(propagator.extract({"baggage": value}, Context()))

    def write() -> str:
        carrier: dict[str, str] = {}
        propagator.inject(carrier)
        return carrier.get("baggage", "")

    return baggage.get_all, read, write
