"""What a request to a host outside the mesh must not take along: what a tracer around the client put there."""

from __future__ import annotations

from collections.abc import Sequence

from meshaware.propagation.names import B3, BAGGAGE, SETS, TRACEPARENT, TRACESTATE, X_B3_SPANID, Pair
from meshaware.propagation.spans import live_baggage, live_trace_headers, tracing_here

__all__ = ["detach"]

_POSITIONS = (TRACEPARENT, B3, X_B3_SPANID)
_WRITTEN = SETS["b3"] | {TRACEPARENT, TRACESTATE}


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
    live = live_trace_headers()
    if live is not None and any(name in present and present[name] == live[name] for name in _POSITIONS):
        drop |= _WRITTEN
    baggage = present.get(BAGGAGE)
    if baggage is not None and baggage == live_baggage(None):
        drop.add(BAGGAGE)
    if drop.isdisjoint(present):
        return raw
    return [pair for pair in raw if pair[0].lower() not in drop]
