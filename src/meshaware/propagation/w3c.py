"""
Whether `traceparent` and `tracestate` are what W3C Trace Context says.

Source: https://www.w3.org/TR/trace-context-2/. Level 2 lets a key of `tracestate` begin with a digit and
hold `@` anywhere else, which level 1 allowed in one form only; whatever level 1 accepts, level 2 accepts.
"""

from __future__ import annotations

import re

__all__ = ["match_traceparent", "valid_tracestate"]

_MAX_MEMBERS = 32

# A later version may append fields after another dash; version 00 has none, and ff is forbidden.
_TRACEPARENT = re.compile(
    rb"(?:00|(?P<later>(?!00|ff)[0-9a-f]{2}))"
    rb"-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
    rb"(?(later)(?:-[!-~]*)?)"
)
_MEMBER = rb"[a-z0-9][a-z0-9_\-*/@]{0,255}=[ -+\-.-<>-~]{0,255}[!-+\-.-<>-~]"
# Possessive, so that long runs of blanks are gone through once.
_SPACED = rb"[ \t]*+(?:" + _MEMBER + rb")?[ \t]*+"
_TRACESTATE = re.compile(rb"(?=[, \t]*+[a-z0-9])" + _SPACED + rb"(?:," + _SPACED + rb")*+")


match_traceparent = _TRACEPARENT.fullmatch
"""Return something true for a position in a trace; later versions count by what they share with 00."""


def valid_tracestate(value: bytes) -> bool:
    """
    Tell whether the value is a list of at most 32 members, at least one of them not empty.

    Two members of one key pass: a service that only passes the header on must not change it.
    """
    if value.count(b",") >= _MAX_MEMBERS:
        members = sum(1 for member in value.split(b",") if member.strip(b" \t"))
        if members > _MAX_MEMBERS:
            return False
    return _TRACESTATE.fullmatch(value) is not None
