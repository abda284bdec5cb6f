"""
Whether the B3 headers are what their specification says, both the single `b3` and the several `x-b3-*`.

Source: https://github.com/openzipkin/b3-propagation. Identifiers are lower-case hexadecimal, trace
identifiers of 64 or 128 bits. A sampling decision may stand alone, and a missing one leaves the decision to
the receiver.
"""

from __future__ import annotations

import re

__all__ = ["FLAGS", "SAMPLED", "match_b3", "match_span_id", "match_trace_id"]

_TRACE_ID = rb"(?!0+(?![0-9a-f]))[0-9a-f]{16}(?:[0-9a-f]{16})?"
_SPAN_ID = rb"(?!0{16})[0-9a-f]{16}"

match_trace_id = re.compile(_TRACE_ID).fullmatch
"""Return something true for 16 or 32 hexadecimal digits that are not all zero."""

match_span_id = re.compile(_SPAN_ID).fullmatch
"""Return something true for 16 hexadecimal digits that are not all zero."""

match_b3 = re.compile(rb"[01d]|" + _TRACE_ID + rb"-" + _SPAN_ID + rb"(?:-[01d](?:-" + _SPAN_ID + rb")?)?").fullmatch
"""Return something true for a well-formed single `b3`: identifiers, or a decision alone."""

SAMPLED = frozenset({b"0", b"1", b"true", b"false"})
"""Values of `x-b3-sampled`; the words are those of tracers older than the specification."""

FLAGS = frozenset({b"0", b"1"})
"""Values of `x-b3-flags`: the debug flag, set or not."""
