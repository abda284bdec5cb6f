"""
The errors that a mesh's proxy makes itself, one row a cause: pure data.

Sources: Envoy's `source/common/router/router.cc`, `source/common/http/conn_manager_impl.cc`,
`resetReasonToString` in `source/common/http/utility.cc` and the filters under
`source/extensions/filters/http`; for Linkerd `linkerd/app/{inbound,outbound}/src/http` of linkerd2-proxy.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["ANYTHING", "CAUSES", "LINKERD_CAUSES", "Cause", "LinkerdCause"]

ANYTHING = re.compile(rb"")


class Cause(NamedTuple):
    """
    One of Envoy's local replies.

    Attributes:
        reason: A few fixed words.
        statuses: The statuses it comes with; none is any error.
        text: The whole body, or its beginning.
        hint: What to check next where the own sidecar says so.
        peer_hint: What to check next where the peer's says so; None if it is the same.
        rest: What the body has besides; None if `text` is all of it.
        header: A header that it comes with, or None.
    """

    reason: str
    statuses: tuple[int, ...]
    text: bytes
    hint: str
    peer_hint: str | None = None
    rest: re.Pattern[bytes] | None = None
    header: bytes | None = None


class LinkerdCause(NamedTuple):
    """
    One of the errors that Linkerd's proxy names in `l5d-proxy-error`.

    Attributes:
        reason: A few fixed words.
        status: The status it comes with; None is any error.
        text: A part of the header's value, in lower case.
        hint: What to check next.
    """

    reason: str
    status: int | None
    text: bytes
    hint: str


_CONNECT = b"upstream connect error or disconnect/reset before headers. "
_POOL = (
    "a connection pool of the callee's DestinationRule is full: "
    "http1MaxPendingRequests, http2MaxRequests, maxConnections"
)
_PEER_POOL = "the callee's sidecar has reached its own limit of connections or requests"
_OWN_LIMIT = "a local rate limit of the sidecar is used up: it counts the calls of this pod"
_PEER_LIMIT = "a local rate limit of the callee is used up: it counts the calls to one of its pods"
_SHEDS = "sheds load: its memory and CPU limits, its overload manager"

# The first that fits counts, so the particular stands before the general.
CAUSES: tuple[Cause, ...] = (
    Cause(
        "upstream request timeout",
        (504, 408),
        b"upstream request timeout",
        "the route's timeout or perTryTimeout ran out: compare the VirtualService with what the callee needs",
        "the callee's sidecar gave its application no more time (Consul: local_request_timeout_ms, or 15 s)",
    ),
    Cause(
        "max stream duration",
        (504, 408),
        b"downstream duration timeout",
        "the route's or listener's longest stream duration is shorter than this call",
    ),
    Cause(
        "max stream duration",
        (504, 408),
        b"upstream max stream duration reached",
        "the callee's cluster has a longest stream duration that is shorter than this call",
    ),
    Cause(
        "stream timeout",
        (504, 408),
        b"stream timeout",
        "nothing moved for the proxy's stream idle timeout: does a body stall, is that timeout too short?",
    ),
    Cause(
        "request timeout",
        (408, 504),
        b"request timeout",
        "the request was not complete in the proxy's request timeout: does the upload stall?",
    ),
    Cause(
        "no healthy upstream",
        (503,),
        b"no healthy upstream",
        "no endpoint takes calls: the readiness of the callee's pods, the Service's selector, the subset's "
        "labels, outlier detection",
        "the callee's proxy has no endpoint to call: is it a gateway, are the pods behind it ready?",
    ),
    Cause("circuit breaker", (503,), _CONNECT, _POOL, _PEER_POOL, rest=re.compile(rb"reset reason: overflow")),
    Cause("circuit breaker", (503,), b"", _POOL, _PEER_POOL, rest=ANYTHING, header=b"x-envoy-overloaded"),
    Cause(
        "TLS failure",
        (503, 502),
        _CONNECT,
        "one side speaks mutual TLS and the other does not, or trusts another root: PeerAuthentication, the "
        "DestinationRule's tls.mode",
        "the callee's sidecar speaks TLS to an application that does not, or the other way round",
        rest=re.compile(rb"transport failure reason: TLS"),
    ),
    Cause(
        "connection failure",
        (503, 502),
        _CONNECT,
        # Since 1.38 Envoy does not tell a client that it was TLS that failed.
        "the connection came to nothing: does the callee run and listen on the Service's targetPort, do both sides "
        "agree on mutual TLS?",
        "the callee's sidecar runs, its application does not accept: has it crashed, does it listen there?",
        rest=re.compile(rb"reset reason: ((local |remote )?connection failure|connection timeout)"),
    ),
    Cause(
        "connection reset",
        (503, 502),
        _CONNECT,
        "the callee ended the connection early: did it restart, is its keep-alive shorter than Envoy's?",
        "the callee's application ended the connection: did it restart, is its keep-alive shorter than the "
        "sidecar's (uvicorn: --timeout-keep-alive, 5 s)?",
        rest=re.compile(
            rb"reset reason: (connection termination|(local|remote) (refused stream )?reset|HTTP/1 premature)"
        ),
    ),
    Cause(
        "protocol error",
        (502, 503),
        _CONNECT,
        "the callee does not speak the HTTP version that the port's name or appProtocol promises",
        rest=re.compile(rb"reset reason: protocol error"),
    ),
    Cause(
        "connection failure or reset",
        (503, 502),
        _CONNECT,
        "the callee was not reached: the body of the answer says why",
        rest=ANYTHING,
    ),
    Cause(
        "proxy overloaded",
        (503,),
        b"envoy overloaded",
        f"the sidecar {_SHEDS}",
        f"the callee's sidecar {_SHEDS}",
    ),
    Cause(
        "rbac",
        (403,),
        b"RBAC: access denied",
        "an AuthorizationPolicy that holds at this end denies the call",
        "an AuthorizationPolicy of the callee denies the call: is this service account among its principals?",
    ),
    Cause(
        "jwt",
        (401, 403),
        b"Jwt ",
        "a RequestAuthentication that holds at this end does not accept the call's token",
        "a RequestAuthentication of the callee does not accept the call's token",
        rest=re.compile(rb"^Jwt [a-z]"),
    ),
    Cause(
        "jwt",
        (403, 401),
        b"Audiences in Jwt are not allowed",
        "a RequestAuthentication that holds at this end wants another audience in the call's token",
        "a RequestAuthentication of the callee wants another audience in the call's token",
    ),
    Cause(
        "jwt",
        (401,),
        b"",
        "a RequestAuthentication that holds at this end does not accept the call's token",
        rest=ANYTHING,
        header=b"www-authenticate",
    ),
    Cause("rate limited", (429,), b"local_rate_limited", _OWN_LIMIT, _PEER_LIMIT),
    # With another status it is known by its words only: `fault filter abort` is as long.
    Cause("rate limited", (), b"local_rate_limited", _OWN_LIMIT, _PEER_LIMIT, rest=re.compile(rb"limited$")),
    Cause(
        "rate limited",
        (429,),
        b"",
        "the mesh's rate limit service refuses the call",
        rest=ANYTHING,
        header=b"x-envoy-ratelimited",
    ),
    Cause("fault abort", (), b"fault filter abort", "a VirtualService injects this error (fault.abort)"),
    Cause(
        "request too large to retry",
        (507,),
        b"exceeded request buffer limit while retrying upstream",
        "the body is longer than the proxy keeps for a retry: no retries on this route, or a smaller body",
    ),
    Cause(
        "no route",
        (404,),
        b"",
        "no route fits this host, method, path and headers: has the VirtualService no rule without a match?",
    ),
    Cause(
        "unknown cluster",
        (503,),
        b"",
        "the route leads to a host or subset that the proxy does not know: the DestinationRule's subsets",
    ),
    Cause(
        "blocked host",
        (502,),
        b"",
        "no unknown host may be called (REGISTRY_ONLY): is the name right, does it need a ServiceEntry?",
    ),
)

LINKERD_CAUSES: tuple[LinkerdCause, ...] = (
    LinkerdCause(
        "no healthy upstream",
        504,
        b"fail-fast",
        "no endpoint takes calls: the callee's pods, circuit breaking",
    ),
    LinkerdCause(
        "upstream request timeout",
        504,
        b"",
        "a timeout of the route or Service ran out: timeout.linkerd.io/*",
    ),
    LinkerdCause(
        "identity mismatch",
        502,
        b"required id",
        "the callee has another identity than l5d-require-id asks for",
    ),
    LinkerdCause("connection failure", 502, b"", "the callee refused or ended the connection: does it run and listen?"),
    LinkerdCause("proxy overloaded", 503, b"", "the proxy sheds load: its CPU limit, the calls on their way"),
    LinkerdCause("rbac", 403, b"", "an AuthorizationPolicy denies the call"),
    LinkerdCause("rate limited", 429, b"", "an HTTPLocalRateLimitPolicy refuses the call"),
    LinkerdCause("no route", 404, b"", "no route fits this host, method, path and headers"),
    LinkerdCause("loop", 508, b"", "the proxy calls itself: does a host lead back to this pod?"),
    LinkerdCause("proxy error", None, b"", "the proxy's log says more: the container linkerd-proxy"),
)
