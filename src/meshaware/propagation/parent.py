"""
Where in which trace a request stands, read from the headers that came with it. Pure.

W3C Trace Context wins over B3, and the several `x-b3-*` over a single `b3`: Envoys before 1.40 advance only the
former of the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from meshaware.propagation.names import (
    B3,
    TRACEPARENT,
    TRACESTATE,
    X_B3_FLAGS,
    X_B3_SAMPLED,
    X_B3_SPANID,
    X_B3_TRACEID,
)

__all__ = ["Parent", "read_parent"]

_SAMPLED = 1
_SHORT = 16
_ACCEPT = frozenset({b"1", b"d", b"true"})


class Parent(NamedTuple):
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


def read_parent(came: Mapping[bytes, bytes]) -> Parent | None:
    """
    Read the position of a request.

    Args:
        came: What `fit` returned: each value is as its specification says, each identifier has its other half.
    """
    trace_id, span_id, decision = _read_b3(came)
    debug, short = decision == b"d", len(trace_id) == _SHORT
    line = came.get(TRACEPARENT)
    if line is not None:
        tracestate = came.get(TRACESTATE, b"")
        return Parent(int(line[3:35], 16), int(line[36:52], 16), int(line[53:55], 16), tracestate, debug, short)
    if decision is None and not trace_id:
        return None
    flags = None if decision is None else int(decision in _ACCEPT)
    return Parent(int(trace_id or b"0", 16), int(span_id or b"0", 16), flags, b"", debug, short)


def _read_b3(came: Mapping[bytes, bytes]) -> tuple[bytes, bytes, bytes | None]:
    # Debug implies the decision to sample, so that none needs to come beside it.
    decision = b"d" if came.get(X_B3_FLAGS) == b"1" else came.get(X_B3_SAMPLED)
    trace_id = came.get(X_B3_TRACEID)
    if trace_id is not None:
        return trace_id, came[X_B3_SPANID], decision
    parts = came.get(B3, b"").split(b"-")
    if len(parts) == 1:
        return b"", b"", parts[0] or decision
    return parts[0], parts[1], parts[2] if len(parts) > 2 else decision
