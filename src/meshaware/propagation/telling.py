"""
A span of this process as trace headers, in every format, all of them in agreement. Pure.

W3C Trace Context 2 and B3 (https://github.com/openzipkin/b3-propagation).
"""

from __future__ import annotations

from meshaware.propagation.names import (
    B3,
    TRACEPARENT,
    TRACESTATE,
    X_B3_FLAGS,
    X_B3_SAMPLED,
    X_B3_SPANID,
    X_B3_TRACEID,
)
from meshaware.propagation.position import Position

__all__ = ["tell"]

_SAMPLED = 1
_LOW = (1 << 64) - 1


def tell(position: Position) -> dict[bytes, bytes]:
    """
    Write a position in a trace in W3C's format and in both of B3's.

    A trace identifier of 64 bits is written with so many in B3 where it came so. Debug, for which only B3 has a word,
    holds where the span is sampled; `x-b3-sampled` goes beside it, because Envoy does not look at `x-b3-flags`.

    Args:
        position: Of a span, its decision made.
    """
    trace_id, flags = position.trace_id, position.flags or 0
    trace, span = b"%032x" % trace_id, b"%016x" % position.span_id
    written = {TRACEPARENT: b"00-%b-%b-%02x" % (trace, span, flags)}
    if position.tracestate:
        written[TRACESTATE] = position.tracestate
    if position.short and trace_id <= _LOW:
        trace = trace[16:]
    sampled = b"1" if flags & _SAMPLED else b"0"
    debugged = position.debug and sampled == b"1"
    written[B3] = b"%b-%b-%b" % (trace, span, b"d" if debugged else sampled)
    written[X_B3_TRACEID], written[X_B3_SPANID], written[X_B3_SAMPLED] = trace, span, sampled
    if debugged:
        written[X_B3_FLAGS] = b"1"
    return written
