"""The names of headers: the sets carried by name, and those that are dangerous or impossible to carry."""

from __future__ import annotations

import re
from types import MappingProxyType

from meshaware.deadline.header import DEFAULT_NAME

__all__ = [
    "B3",
    "BAGGAGE",
    "FORMATS",
    "GUARDED",
    "POSITIONS",
    "REQUEST_ID",
    "SETS",
    "TRACEPARENT",
    "TRACESTATE",
    "TRACE_NAMES",
    "W3C",
    "X_B3_FLAGS",
    "X_B3_NAMES",
    "X_B3_PARENTSPANID",
    "X_B3_SAMPLED",
    "X_B3_SPANID",
    "X_B3_TRACEID",
    "Pair",
    "danger",
    "is_name",
    "obstacle",
]

Pair = tuple[bytes, bytes]

REQUEST_ID = b"x-request-id"
TRACEPARENT = b"traceparent"
TRACESTATE = b"tracestate"
BAGGAGE = b"baggage"
B3 = b"b3"
X_B3_TRACEID = b"x-b3-traceid"
X_B3_SPANID = b"x-b3-spanid"
X_B3_PARENTSPANID = b"x-b3-parentspanid"
X_B3_SAMPLED = b"x-b3-sampled"
X_B3_FLAGS = b"x-b3-flags"

X_B3_NAMES = frozenset({X_B3_TRACEID, X_B3_SPANID, X_B3_PARENTSPANID, X_B3_SAMPLED, X_B3_FLAGS})

_VENDORS = frozenset(
    {
        b"x-ot-span-context",
        b"x-datadog-trace-id",
        b"x-datadog-parent-id",
        b"x-datadog-sampling-priority",
        b"x-datadog-origin",
        b"x-datadog-tags",
        b"x-cloud-trace-context",
        b"grpc-trace-bin",
        b"sw8",
    }
)

SETS = MappingProxyType(
    {
        "w3c": frozenset({TRACEPARENT, TRACESTATE, BAGGAGE}),
        "b3": X_B3_NAMES | {B3},
        "envoy": frozenset({REQUEST_ID, b"x-client-trace-id"}),
        "routing": frozenset({b"x-user-type", b"x-canary"}),
        "vendors": _VENDORS,
    }
)
"""Sets that `MESHAWARE_HEADERS` may name."""

W3C = SETS["w3c"] - {BAGGAGE}
"""W3C Trace Context."""

FORMATS = W3C | SETS["b3"]
"""The headers in which a live span is told."""

TRACE_NAMES = FORMATS | _VENDORS
"""Headers that tell of a request's trace: they are replaced together or not at all."""

POSITIONS = frozenset({TRACEPARENT, B3, X_B3_TRACEID, X_B3_SPANID})
"""Headers of which one is enough to say where in which trace a request stands."""

_STEERS = "it steers the next proxy the way your caller wanted its own steered: timeouts, retries, tracing"
_NAMES_CALLER = "the next proxy appends to it and takes what stands first for the caller's address"

GUARDED = MappingProxyType(
    {
        b"authorization": "whoever you call can act as your caller wherever that token is accepted",
        b"cookie": "the session of the user goes to every service you call",
        b"x-forwarded-client-cert": "the next service may take your caller's identity for yours",
        b"forwarded": _NAMES_CALLER,
        b"x-real-ip": _NAMES_CALLER,
        b"x-forwarded-": _NAMES_CALLER,
        b"x-envoy-": _STEERS,
        b"l5d-": _STEERS,
    }
)
"""
Carried only where named one by one, with the reason why that is dangerous; a name that ends in `-` is a
prefix.
"""

_IMPOSSIBLE = frozenset(
    {
        b"accept-encoding",
        b"connection",
        b"expect",
        b"host",
        b"http2-settings",
        b"keep-alive",
        b"max-forwards",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"range",
        b"set-cookie",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_IMPOSSIBLE_PREFIXES = (b"content-", b"if-", b"sec-websocket-")


# RFC 9110, 5.1; that long is none that anybody uses.
_match_name = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]{1,128}").fullmatch


def is_name(name: bytes) -> bool:
    """Tell whether it is the name of a header, lower-case."""
    return _match_name(name) is not None


_DEADLINE = DEFAULT_NAME.encode()


def obstacle(name: bytes) -> str | None:
    """
    Say why a header can never be carried; None where it can.

    Args:
        name: The header's name, lower-case; a prefix counts as the names it stands for.
    """
    if name in _IMPOSSIBLE or name.startswith(_IMPOSSIBLE_PREFIXES):
        return "it belongs to one message or one connection (RFC 9110, 7.6.1), not to what that message causes"
    if name == _DEADLINE:
        return "it is the caller's deadline, which is told anew with each call: less is left of it each time"
    return None


def danger(name: bytes) -> str | None:
    """Say why carrying a header is dangerous; None where it is not."""
    for guarded, reason in GUARDED.items():
        if name == guarded or (guarded.endswith(b"-") and name.startswith(guarded)):
            return reason
    return None
