"""
Whether the B3 headers are what their specification says, both the single `b3` and the several `x-b3-*`.

Source: https://github.com/openzipkin/b3-propagation. Identifiers are lower-case hexadecimal, trace
identifiers of 64 or 128 bits. A sampling decision may stand alone, and a missing one leaves the decision to
the receiver.
"""

from __future__ import annotations

import re

__all__ = ["valid_b3", "valid_flags", "valid_sampled", "valid_span_id", "valid_trace_id"]

_TRACE_ID = rb"(?!0+(?![0-9a-f]))(?:[0-9a-f]{16}){1,2}"
_SPAN_ID = rb"(?!0{16})[0-9a-f]{16}"

_match_trace_id = re.compile(_TRACE_ID).fullmatch
_match_span_id = re.compile(_SPAN_ID).fullmatch
_match_b3 = re.compile(
    rb"[01d]|" + _TRACE_ID + rb"-" + _SPAN_ID + rb"(?:-[01d](?:-[0-9a-f]{16})?)?"
).fullmatch


def valid_b3(value: bytes) -> bool:
    """
    Tell whether a single `b3` header is well-formed: identifiers with what may follow, or a decision alone.
    """
    return _match_b3(value) is not None


def valid_trace_id(value: bytes) -> bool:
    """Tell whether it is 16 or 32 hexadecimal digits, not all zero."""
    return _match_trace_id(value) is not None


def valid_span_id(value: bytes) -> bool:
    """Tell whether it is 16 hexadecimal digits, not all zero."""
    return _match_span_id(value) is not None


def valid_sampled(value: bytes) -> bool:
    """Tell whether it is a decision; `true` and `false` are of tracers older than the specification."""
    return value in (b"0", b"1", b"true", b"false")


def valid_flags(value: bytes) -> bool:
    """Tell whether it is the debug flag, set or not."""
    return value in (b"0", b"1")
