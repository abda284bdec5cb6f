"""
Whether `traceparent` and `tracestate` are what W3C Trace Context says.

Source: https://www.w3.org/TR/trace-context-2/. Level 2 lets a key of `tracestate` begin with a digit, which is
accepted here. It also lets `@` stand anywhere in a key; here, as in level 1, it only stands between a tenant and
a system: a list with any other key is thrown away whole by the next service that knows level 1 alone.
"""

from __future__ import annotations

import re

__all__ = ["match_denial", "match_traceparent", "tracestate_members", "valid_tracestate"]

_MAX_MEMBERS = 32

# A later version may append fields after another dash; version 00 has none, and ff is forbidden.
_TRACEPARENT = re.compile(
    rb"(?:00|(?P<later>(?!00|ff)[0-9a-f]{2}))"
    rb"-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
    rb"(?(later)(?:-[!-~]*)?)"
)
_DENIAL = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f][02468ace]")
_KEY = rb"(?:[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13}|[a-z0-9][a-z0-9_\-*/]{0,255})"
_MEMBER = _KEY + rb"=[ -+\-.-<>-~]{0,255}[!-+\-.-<>-~]"
# Possessive, so that long runs of blanks are gone through once.
_SPACED = rb"[ \t]*+(?:" + _MEMBER + rb")?[ \t]*+"
_TRACESTATE = re.compile(rb"(?=[, \t]*+[a-z0-9])" + _SPACED + rb"(?:," + _SPACED + rb")*+")


match_traceparent = _TRACEPARENT.fullmatch
"""Return something true for a position in a trace; later versions count by what they share with 00."""

match_denial = _DENIAL.fullmatch
"""Return something true for a position of version 00 that is not sampled."""


def valid_tracestate(value: bytes) -> bool:
    """Tell whether the value is a list of 1 to 32 members, each key once; empty members do not count."""
    if _TRACESTATE.fullmatch(value) is None:
        return False
    first, comma, rest = value.partition(b",")
    if not comma:
        return True
    if b"," not in rest:
        # Most lists are no longer, and at most one of the two is empty.
        return first.partition(b"=")[0].strip(b" \t") != rest.partition(b"=")[0].strip(b" \t")
    members = value.split(b",")
    keys = {member.partition(b"=")[0].strip(b" \t") for member in members}
    if b"" in keys:
        keys.discard(b"")
        members = [member for member in members if member.strip(b" \t")]
    return len(keys) == len(members) <= _MAX_MEMBERS


def tracestate_members(value: bytes) -> list[tuple[bytes, bytes]]:
    """
    Read the members of a list in order.

    Args:
        value: A list that `valid_tracestate` accepts.
    """
    members: list[tuple[bytes, bytes]] = []
    for member in value.split(b","):
        key, equals, text = member.strip(b" \t").partition(b"=")
        if equals:
            members.append((key, text))
    return members
