"""Where in which trace a request stands, as text for people: read from the headers that came in. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from meshaware.propagation.names import B3, TRACEPARENT, X_B3_FLAGS, X_B3_SAMPLED, X_B3_SPANID, X_B3_TRACEID

__all__ = ["Position", "came_from"]

_SAMPLED = 1
_DECISIONS = {b"1": True, b"d": True, b"true": True, b"0": False, b"false": False}


class Position(NamedTuple):
    """A span, by its identifiers in hexadecimal."""

    trace_id: str
    span_id: str
    sampled: bool | None
    """Whether the trace is recorded; None where that is left to the receiver."""


def came_from(came: Mapping[bytes, bytes]) -> Position | None:
    """
    Return the caller's span, of the headers that came in; None where they name none.

    Of several forms the one counts that proxies keep up to date: `traceparent`, then `x-b3-*`, then `b3`.

    Args:
        came: Headers that are fit: each is what its specification says.
    """
    traceparent = came.get(TRACEPARENT)
    if traceparent is not None:
        flags = int(traceparent[53:55], 16)
        return Position(traceparent[3:35].decode(), traceparent[36:52].decode(), bool(flags & _SAMPLED))
    trace_id, span_id = came.get(X_B3_TRACEID), came.get(X_B3_SPANID)
    if trace_id is not None and span_id is not None:
        sampled = True if came.get(X_B3_FLAGS) == b"1" else _DECISIONS.get(came.get(X_B3_SAMPLED, b""))
        return Position(trace_id.decode(), span_id.decode(), sampled)
    parts = came.get(B3, b"").split(b"-")
    if len(parts) > 1:
        return Position(parts[0].decode(), parts[1].decode(), _DECISIONS.get(parts[2]) if len(parts) > 2 else None)
    return None
