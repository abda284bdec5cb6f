"""
Of what came in, what may go out: each name once, each value as its specification says, all of it bounded.

The values were written by whoever called, so each is hostile until looked at.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from meshaware.propagation import b3, w3c
from meshaware.propagation.names import (
    B3,
    BAGGAGE,
    TRACEPARENT,
    TRACESTATE,
    X_B3_FLAGS,
    X_B3_PARENTSPANID,
    X_B3_SAMPLED,
    X_B3_SPANID,
    X_B3_TRACEID,
    Pair,
)

__all__ = [
    "MAX_COUNT",
    "MAX_LIST",
    "MAX_TOTAL",
    "MAX_VALUE",
    "Rule",
    "fit",
    "is_fit",
    "rule_of",
]

MAX_VALUE = 4096
"""Bytes of one value."""
MAX_LIST = 8192
"""Bytes of `tracestate` and of `baggage`, which must reach 512 and 8192 by their specifications."""
MAX_TOTAL = 16384
"""Bytes of all values together."""
MAX_COUNT = 64
"""Headers."""

_BLANK = b" \t"
# RFC 9110, 5.5: visible characters, with blanks and tabs only between them; bytes over 127 pass as they are.
_match_text = re.compile(rb"(?![ \t])[\t -~\x80-\xff]++(?<![ \t])").fullmatch


class Rule(NamedTuple):
    """What the value of a header must be."""

    valid: Callable[[bytes], object]
    """Returns something true for a value that may go out."""
    limit: int
    says: str
    """The rule in words, for the error where code gives a value that breaks it."""


_SPAN_ID_SAYS = "16 lower-case hex digits, not all zero"
_PLAIN = Rule(_match_text, MAX_VALUE, "text without control characters and line breaks (RFC 9110, 5.5)")
_RULES = {
    TRACEPARENT: Rule(
        w3c.match_traceparent,
        MAX_VALUE,
        "00-<32 hex digits>-<16 hex digits>-<2 hex digits>, lower-case, identifiers not all zero",
    ),
    TRACESTATE: Rule(w3c.valid_tracestate, MAX_LIST, "key=value, up to 32 of them with commas between"),
    BAGGAGE: Rule(_match_text, MAX_LIST, _PLAIN.says),
    B3: Rule(
        b3.match_b3,
        MAX_VALUE,
        "<16 or 32 hex digits>-<16 hex digits>, then -0, -1 or -d, then -<16 hex digits>; or 0, 1 or d alone",
    ),
    X_B3_TRACEID: Rule(b3.match_trace_id, MAX_VALUE, "16 or 32 lower-case hex digits, not all zero"),
    X_B3_SPANID: Rule(b3.match_span_id, MAX_VALUE, _SPAN_ID_SAYS),
    X_B3_PARENTSPANID: Rule(b3.match_span_id, MAX_VALUE, _SPAN_ID_SAYS),
    X_B3_SAMPLED: Rule(b3.SAMPLED.__contains__, MAX_VALUE, "0 or 1"),
    X_B3_FLAGS: Rule(b3.FLAGS.__contains__, MAX_VALUE, "0 or 1"),
}
_VALID = {name: rule.valid for name, rule in _RULES.items()}
_LISTS = (TRACESTATE, BAGGAGE)


def rule_of(name: bytes) -> Rule:
    """Return what the value of this header must be."""
    return _RULES.get(name, _PLAIN)


def is_fit(name: bytes, value: bytes) -> bool:
    """Tell whether this value may go out under this name."""
    valid, limit, _ = rule_of(name)
    return len(value) <= limit and bool(valid(value))


def fit(found: Sequence[Pair]) -> dict[bytes, bytes]:
    """
    Return what may go out of what came in: verbatim, each name once, in the order of arrival.

    - Repeated lines of `tracestate` and `baggage` are joined with commas (RFC 9110, 5.3); of any other header
      the first line that is not empty counts, but two of `traceparent` are none (W3C Trace Context).
    - A value that breaks its rule is left out, and with it what means nothing alone: `tracestate` without
      `traceparent`, one B3 identifier without the other.
    - What does not fit into the bounds any more is left out.

    Args:
        found: Lower-case names with their values.
    """
    headers = dict(found)
    if len(headers) == len(found):
        # Envoy's OpenTelemetry tracer writes an empty one wherever a trace begins at the sidecar.
        if headers.get(TRACESTATE) == b"":
            del headers[TRACESTATE]
        if _in_order(headers):
            return headers
    mended = {name: value for name, value in _one_each(found).items() if is_fit(name, value)}
    if len(mended) > MAX_COUNT or len(b"".join(mended.values())) > MAX_TOTAL:
        mended = _bounded(mended)
    _drop_orphans(mended)
    return mended


def _in_order(headers: dict[bytes, bytes]) -> bool:
    """Tell, quickly, whether there is nothing to mend; so it is with nearly everything that ever comes."""
    size = 0
    for name, value in headers.items():
        size += len(value)
        if size > MAX_VALUE or not _VALID.get(name, _match_text)(value):
            return False
    return (
        len(headers) <= MAX_COUNT
        and (TRACEPARENT in headers or TRACESTATE not in headers)
        and (X_B3_TRACEID in headers) == (X_B3_SPANID in headers)
        and (X_B3_TRACEID in headers or X_B3_PARENTSPANID not in headers)
    )


def _one_each(found: Iterable[Pair]) -> dict[bytes, bytes]:
    kept: dict[bytes, bytes] = {}
    ambiguous = False
    for name, line in found:
        # Blanks around a value are not part of it (RFC 9110, 5.5), and few servers leave any.
        value = line.strip(_BLANK)
        if not value:
            continue
        earlier = kept.get(name)
        if earlier is None:
            kept[name] = value
        elif name in _LISTS:
            # Once it is too long it stays so; growing on would let a thousand lines cost a million copies.
            if len(earlier) <= MAX_LIST:
                kept[name] = earlier + b"," + value
        elif name == TRACEPARENT:
            ambiguous = True
    if ambiguous:
        del kept[TRACEPARENT]
    return kept


def _bounded(headers: dict[bytes, bytes]) -> dict[bytes, bytes]:
    kept: dict[bytes, bytes] = {}
    total = 0
    for name, value in headers.items():
        if len(kept) < MAX_COUNT and total + len(value) <= MAX_TOTAL:
            kept[name] = value
            total += len(value)
    return kept


def _drop_orphans(headers: dict[bytes, bytes]) -> None:
    if TRACESTATE in headers and TRACEPARENT not in headers:
        del headers[TRACESTATE]
    if (X_B3_TRACEID in headers) != (X_B3_SPANID in headers):
        headers.pop(X_B3_TRACEID, None)
        headers.pop(X_B3_SPANID, None)
    if X_B3_PARENTSPANID in headers and X_B3_TRACEID not in headers:
        del headers[X_B3_PARENTSPANID]
