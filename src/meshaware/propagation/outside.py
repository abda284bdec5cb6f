"""What a request to a host outside the mesh must not take along: what a tracer around the client put there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from meshaware.propagation.names import B3, BAGGAGE, FORMATS, TRACEPARENT, X_B3_SPANID, Pair
from meshaware.propagation.position import Position
from meshaware.propagation.spans import arrival, baggage_as_written, live_trace_headers, tracing_here
from meshaware.propagation.telling import tell

__all__ = ["detach"]

_POSITIONS = (TRACEPARENT, B3, X_B3_SPANID)


def detach(raw: Sequence[Pair]) -> Sequence[Pair]:
    """
    Return the headers with which a request goes to a host outside the mesh: its own, without the live span's.

    OpenTelemetry's client layer stands outside meshaware's and writes the span and its baggage on every request,
    whatever the host. Trace headers that tell of another span were set by the caller and stay.

    Args:
        raw: The request's headers in order, names in any case.

    Returns:
        `raw` itself where there is nothing to change.
    """
    if not tracing_here():
        return raw
    present = {name.lower(): value for name, value in raw}
    drop: set[bytes] = set()
    if any(name in present and present[name] == told.get(name) for told in _tellers() for name in _POSITIONS):
        drop |= FORMATS
    baggage = present.get(BAGGAGE)
    if baggage is not None and baggage == baggage_as_written():
        drop.add(BAGGAGE)
    if drop.isdisjoint(present):
        return raw
    return [pair for pair in raw if pair[0].lower() not in drop]


def _tellers() -> Iterator[Mapping[bytes, bytes]]:
    """What a tracer may have written: the live span, or without one the caller's, as it came or written anew."""
    live = live_trace_headers()
    arrived = arrival()
    if live is not None:
        yield live
    elif arrived is not None and arrived.span is not None:
        span = arrived.span.get_span_context()
        yield arrived.came
        yield tell(Position(span.trace_id, span.span_id, span.trace_flags & 0xFF))
