"""
The errors that a mesh's proxy makes itself, one row a cause: pure data.

Sources: Envoy's `source/common/router/router.cc`, `source/common/http/conn_manager_impl.cc`, `resetReasonToString` in
`source/common/http/utility.cc` and the filters under `source/extensions/filters/http`; for Linkerd
`linkerd/app/{inbound,outbound}/src/http` of linkerd2-proxy.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["ANYTHING", "CAUSES", "LINKERD_CAUSES", "Cause", "LinkerdCause"]


class Cause(NamedTuple):
    """
    One of Envoy's local replies.

    Attributes:
        reason: As in `Reply`.
        statuses: The statuses it comes with; none is any error.
        text: The whole body, or its beginning.
        rest: What the body goes on with somewhere; None if `text` is all of it.
        header: A header that it comes with, or None.
        hint: What to check where the own sidecar says so.
        peer_hint: What to check where the peer's says so; None if it is the same.
    """

    reason: str
    statuses: tuple[int, ...]
    text: bytes
    hint: str
    peer_hint: str | None = None
    rest: re.Pattern[bytes] | None = None
    header: bytes | None = None


class LinkerdCause(NamedTuple):
    """One of the errors that Linkerd's proxy names in `l5d-proxy-error`."""

    reason: str
    status: int | None
    text: bytes
    hint: str


_CONNECT = b"upstream connect error or disconnect/reset before headers. "
ANYTHING = re.compile(rb"")

# The first that fits counts, so the particular stands before the general.
CAUSES: tuple[Cause, ...] = (
    Cause(
        "upstream request timeout",
        (504, 408),
        b"upstream request timeout",
        "the route's timeout or perTryTimeout ran out: compare the VirtualService with the time that the callee takes",
        "the callee's sidecar gave its application no more time: its inbound timeout (Consul: local_request_timeout_ms)",
    ),
    Cause(
        "max stream duration",
        (504, 408),
        b"upstream max stream duration reached",
        "the route's longest stream duration is shorter than this call",
    ),
    Cause(
        "stream timeout",
        (504, 408),
        b"stream timeout",
        "nothing moved for the proxy's stream idle timeout: does a body stall, is that timeout shorter than the call?",
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
        "no endpoint takes calls: the callee's pods and their readiness, the Service's selector, the subset's labels, "
        "outlier detection",
        "the callee's sidecar has no address to call: is it a gateway, are the pods behind it ready?",
    ),
    Cause(
        "circuit breaker",
        (503,),
        _CONNECT,
        "a connection pool of the callee's DestinationRule is full: http1MaxPendingRequests, http2MaxRequests, maxConnections",
        "the callee's sidecar has reached its own limit of connections or requests",
        rest=re.compile(rb"reset reason: overflow"),
    ),
    Cause(
        "circuit breaker",
        (503,),
        b"",
        "a connection pool of the callee's DestinationRule is full: http1MaxPendingRequests, http2MaxRequests, maxConnections",
        "the callee's sidecar has reached its own limit of connections or requests",
        rest=ANYTHING,
        header=b"x-envoy-overloaded",
    ),
    Cause(
        "TLS failure",
        (503, 502),
        _CONNECT,
        "one side speaks mutual TLS, the other does not, or not of this mesh: PeerAuthentication and the DestinationRule's tls.mode",
        "the callee's sidecar speaks TLS to an application that does not, or the other way round",
        rest=re.compile(rb"transport failure reason: TLS"),
    ),
    Cause(
        "connection failure",
        (503, 502),
        _CONNECT,
        "nothing accepted the connection: does the callee run, does it listen on the Service's targetPort?",
        "the callee's sidecar runs, its application does not accept: has it crashed, does it listen on that port?",
        rest=re.compile(rb"reset reason: ((local |remote )?connection failure|connection timeout)"),
    ),
    Cause(
        "connection reset",
        (503, 502),
        _CONNECT,
        "the connection ended before an answer: did the callee restart, is its keep-alive shorter than the proxy's?",
        "the callee's application ended the connection: did it restart, is its keep-alive shorter than the sidecar's "
        "(uvicorn: --timeout-keep-alive, 5 s)?",
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
        "the body of the answer says why the callee was not reached",
        rest=ANYTHING,
    ),
    Cause(
        "proxy overloaded",
        (503,),
        b"envoy overloaded",
        "the sidecar sheds load: its memory and CPU limits, its overload manager",
        "the callee's sidecar sheds load: its memory and CPU limits, its overload manager",
    ),
    Cause(
        "rbac",
        (403,),
        b"RBAC: access denied",
        "an AuthorizationPolicy that holds at this end denies the call",
        "an AuthorizationPolicy of the callee denies the call: is this workload's service account among its principals?",
    ),
    Cause(
        "jwt",
        (401, 403),
        b"Jwt ",
        "a RequestAuthentication that holds at this end does not accept the token of the call",
        "a RequestAuthentication of the callee does not accept the token of the call",
        rest=re.compile(rb"^Jwt [a-z]"),
    ),
    Cause(
        "jwt",
        (401,),
        b"",
        "a RequestAuthentication that holds at this end does not accept the token of the call",
        rest=ANYTHING,
        header=b"www-authenticate",
    ),
    Cause(
        "jwt",
        (403, 401),
        b"Audiences in Jwt are not allowed",
        "a RequestAuthentication that holds at this end wants another audience in the token",
        "a RequestAuthentication of the callee wants another audience in the token",
    ),
    Cause(
        "rate limited",
        (),
        b"local_rate_limited",
        "the sidecar's local rate limit is used up: it counts calls of this pod",
        "the callee's local rate limit is used up: it counts calls to one pod of it",
    ),
    Cause(
        "rate limited",
        (429,),
        b"",
        "the mesh's rate limit service refuses the call",
        rest=ANYTHING,
        header=b"x-envoy-ratelimited",
    ),
    Cause(
        "fault abort",
        (),
        b"fault filter abort",
        "a VirtualService injects this error (fault.abort)",
    ),
    Cause(
        "request too large to retry",
        (507,),
        b"exceeded request buffer limit while retrying upstream",
        "the body is longer than the proxy keeps for a retry: no retries for this route, or a smaller body",
    ),
    Cause(
        "no route",
        (404,),
        b"",
        "no route matches this host, method, path and headers: does the VirtualService lack a rule without a match?",
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
        "the mesh lets no unknown host be called (REGISTRY_ONLY): is the name right, does it need a ServiceEntry?",
    ),
)

# Texts of `l5d-proxy-error`, from linkerd2-proxy's `app/outbound/src/http` and `app/inbound/src/http`.
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
        "a timeout of the route or the Service ran out: timeout.linkerd.io annotations",
    ),
    LinkerdCause(
        "identity mismatch",
        502,
        b"required id",
        "the callee has another identity than l5d-require-id asks for",
    ),
    LinkerdCause(
        "connection failure", 502, b"", "the callee refused or ended the connection: does it run and listen?"
    ),
    LinkerdCause(
        "proxy overloaded", 503, b"", "the proxy sheds load: its CPU limit, how many calls are on the way"
    ),
    LinkerdCause("rbac", 403, b"", "an AuthorizationPolicy denies the call"),
    LinkerdCause("rate limited", 429, b"", "an HTTPLocalRateLimitPolicy refuses the call"),
    LinkerdCause("no route", 404, b"", "no route matches this host, method, path and headers"),
    LinkerdCause("proxy error", None, b"", "the proxy's log says more: kubectl logs <pod> -c linkerd-proxy"),
)
