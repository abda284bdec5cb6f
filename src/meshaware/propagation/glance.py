"""
Whether a request says, plainly, that it is not sampled: looked at before anything is read. Pure.

Most requests in a mesh say so. Where it takes more than a glance to tell, nothing is told here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from meshaware.propagation.b3 import match_span_id, match_trace_id
from meshaware.propagation.names import (
    B3,
    BAGGAGE,
    TRACEPARENT,
    X_B3_FLAGS,
    X_B3_SAMPLED,
    X_B3_SPANID,
    X_B3_TRACEID,
    Pair,
)
from meshaware.propagation.w3c import match_denial

__all__ = ["denied", "denied_by"]

# Of a `traceparent` of version 00.
_LENGTH = 55
# The last digits of flags that deny sampling.
_EVEN = b"02468ace"
_NO = (b"0", b"false")
_NEVER_PLAIN = (BAGGAGE, B3)
_BESIDE = frozenset({BAGGAGE, B3, X_B3_TRACEID})


def denied(found: Sequence[Pair]) -> bool | None:
    """
    Tell whether the trace headers deny sampling.

    Args:
        found: Lower-case names with values: trace headers and `baggage`.

    Returns:
        True where they plainly do: a valid `traceparent` of version 00, or else valid `x-b3-*`, and nothing beside
        that makes it doubtful. False where `traceparent` samples, or no header denies. None where one has to read.
    """
    headers = dict(found)
    return denied_by(headers) if len(headers) == len(found) else None


def denied_by(headers: Mapping[bytes, bytes]) -> bool | None:
    """
    Tell it from headers of which none came twice; others may be among them.

    Args:
        headers: Lower-case names with values.
    """
    line = headers.get(TRACEPARENT)
    if line is not None:
        if match_denial(line) is not None:
            return True if headers.keys().isdisjoint(_BESIDE) else None
        return False if len(line) == _LENGTH and line[-1:] not in _EVEN else None
    sampled = headers.get(X_B3_SAMPLED)
    if sampled not in _NO:
        return None if B3 in headers else False
    plain = (
        match_trace_id(headers.get(X_B3_TRACEID, b"")) is not None
        and match_span_id(headers.get(X_B3_SPANID, b"")) is not None
        and headers.get(X_B3_FLAGS) != b"1"
        and headers.keys().isdisjoint(_NEVER_PLAIN)
    )
    return True if plain else None
