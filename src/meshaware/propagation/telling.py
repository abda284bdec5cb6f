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

__all__ = ["tell"]

_SAMPLED = 1
_LOW = (1 << 64) - 1


def tell(
    trace_id: int, span_id: int, flags: int, tracestate: bytes = b"", *, debug: bool = False, short: bool = False
) -> dict[bytes, bytes]:
    """
    Write a position in a trace in W3C's format and in both of B3's.

    Args:
        trace_id: 128 bits, not 0.
        span_id: 64 bits, not 0.
        flags: Of W3C Trace Context.
        tracestate: What stands in the header, or nothing.
        debug: The trace is being debugged, which only B3 has a word for. It holds where the span is sampled;
            `x-b3-sampled` goes beside it, because Envoy does not look at `x-b3-flags`.
        short: Write B3's trace identifier with 64 bits where the rest is 0, as it came.
    """
    trace, span = b"%032x" % trace_id, b"%016x" % span_id
    written = {TRACEPARENT: b"00-%b-%b-%02x" % (trace, span, flags)}
    if tracestate:
        written[TRACESTATE] = tracestate
    if short and trace_id <= _LOW:
        trace = trace[16:]
    sampled = b"1" if flags & _SAMPLED else b"0"
    debugged = debug and sampled == b"1"
    written[B3] = b"%b-%b-%b" % (trace, span, b"d" if debugged else sampled)
    written[X_B3_TRACEID], written[X_B3_SPANID], written[X_B3_SAMPLED] = trace, span, sampled
    if debugged:
        written[X_B3_FLAGS] = b"1"
    return written
