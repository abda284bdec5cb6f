"""
Where in which trace a request stands, read from the headers that came with it. Pure.

W3C Trace Context counts before B3, and the several `x-b3-*` before a single `b3`, unless what they say of each other
proves another one newer: a sidecar's tracer writes into one form and leaves the others as they came. Zipkin's writes
into `x-b3-*`, since Envoy 1.40 into `b3` where that came; docs/tracing.md has the tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from meshaware.propagation.names import (
    B3,
    TRACEPARENT,
    TRACESTATE,
    X_B3_FLAGS,
    X_B3_PARENTSPANID,
    X_B3_SAMPLED,
    X_B3_SPANID,
    X_B3_TRACEID,
)

__all__ = ["Position", "read_position", "single_is_newer"]

_SAMPLED = 1
_SHORT = 16
_ABOVE = 3
_ACCEPT = frozenset({b"1", b"d", b"true"})


class Position(NamedTuple):
    """
    A position in a trace, or a sampling decision alone: then both identifiers are 0.

    Source: W3C Trace Context 2, 3.2; B3, https://github.com/openzipkin/b3-propagation.
    """

    trace_id: int
    span_id: int
    flags: int | None
    """The flags of W3C Trace Context; None where the decision is left to the receiver, as only B3 can."""
    tracestate: bytes = b""
    debug: bool = False
    """B3's debug: sampled, whatever samplers say, and told on."""
    short: bool = False
    """The trace identifier came as 64 bits, which services that know no more must get back."""

    @property
    def sampled(self) -> bool | None:
        """The decision that came, or None where there is none."""
        return None if self.flags is None else bool(self.flags & _SAMPLED)


def read_position(came: Mapping[bytes, bytes]) -> Position | None:
    """
    Read the position of a request.

    Args:
        came: What `fit` returned: each value is as its specification says, each identifier has its other half.
    """
    trace_id, span_id, above, decision = _read_b3(came)
    debug, short = decision == b"d", len(trace_id) == _SHORT
    flags = None if decision is None else int(decision in _ACCEPT)
    line = came.get(TRACEPARENT)
    if line is not None:
        tracestate = came.get(TRACESTATE, b"")
        one_trace = line[35 - len(trace_id) : 35] == trace_id
        if flags is None or not (above and one_trace and above == line[36:52]):
            span_id, flags = line[36:52], int(line[53:55], 16)
        return Position(int(line[3:35], 16), int(span_id, 16), flags, tracestate, debug, short)
    if decision is None and not trace_id:
        return None
    return Position(int(trace_id or b"0", 16), int(span_id or b"0", 16), flags, b"", debug, short)


def single_is_newer(came: Mapping[bytes, bytes]) -> bool:
    """
    Tell whether a single `b3` was advanced by proxies that left the `x-b3-*` beside it as they were.

    It then names the span above its own, and is of the same trace, but neither of the span of the `x-b3-*` nor of the
    one above that.
    """
    trace_id, span_id, *rest = (*came.get(B3, b"").split(b"-"), b"")
    older = (came.get(X_B3_SPANID), came.get(X_B3_PARENTSPANID))
    return len(rest) > 2 and trace_id == came.get(X_B3_TRACEID) and span_id not in older


def _read_b3(came: Mapping[bytes, bytes]) -> tuple[bytes, bytes, bytes, bytes | None]:
    """Trace, span, the span above it, and the decision; empty where there is none."""
    # Debug implies the decision to sample, so that none needs to come beside it.
    decision = b"d" if came.get(X_B3_FLAGS) == b"1" else came.get(X_B3_SAMPLED)
    trace_id = came.get(X_B3_TRACEID)
    if trace_id is not None and not single_is_newer(came):
        return trace_id, came[X_B3_SPANID], came.get(X_B3_PARENTSPANID, b""), decision
    parts = came.get(B3, b"").split(b"-")
    if len(parts) == 1:
        return b"", b"", b"", parts[0] or decision
    above = parts[_ABOVE] if len(parts) > _ABOVE else b""
    return parts[0], parts[1], above, parts[2] if len(parts) > 2 else decision
