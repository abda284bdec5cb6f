"""
Who answered in the application's place, and why: pure.

What tells them apart, for Envoy (`source/common/router/router.cc`; true of 1.36 to 1.40):

- `x-envoy-upstream-service-time` is set by a router that had an answer from upstream. So `server: envoy`
  without it is an answer of the own sidecar; with it, the answer came from upstream, where the peer's sidecar
  may have made it.
- A local reply has one of a few bodies, `content-type: text/plain` without a charset, and a `content-length`.

Its limits: with `proxyHeaders.envoyDebugHeaders.disabled` that header is gone from every answer, and an empty
404 or 503 of the application looks like the sidecar's; an answer that a VirtualService spells out
(`directResponse`) looks like the application's. Linkerd's proxy says it is itself, in `l5d-proxy-error`, and
removes that header from others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from meshaware.sidecar.causes import ANYTHING, CAUSES, LINKERD_CAUSES, Cause

__all__ = ["Reply", "classify"]

_FIRST_ERROR = 400
_MAX_BODY = 4096
_MAX_VALUE = 256
_SERVICE_TIME = b"x-envoy-upstream-service-time"
_WANTED = frozenset(
    (
        _SERVICE_TIME,
        b"content-length",
        b"content-type",
        b"l5d-proxy-error",
        b"server",
        b"www-authenticate",
        b"x-envoy-overloaded",
        b"x-envoy-ratelimited",
    )
)


class Reply(NamedTuple):
    """
    An answer that no application gave.

    Attributes:
        by: The proxy beside this process, or the one beside the application that was called.
        reason: A few fixed words: fit for a metric.
        hint: What to check next.
    """

    by: Literal["sidecar", "peer-sidecar"]
    reason: str
    hint: str


def classify(status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes | None) -> Reply | None:
    """
    Tell which sidecar answered in the application's place, and why.

    None: the application answered, or it cannot be told. Below 400 nothing is told.

    Args:
        status: The status of the answer.
        headers: Its headers as they came, names in any case.
        body: The whole body, or None if it has not been read: then `content-length` stands in for it, which
            is enough for the own sidecar and hardly ever for the peer's. More than 4 KiB is never looked at.
    """
    if status < _FIRST_ERROR:
        return None
    found = _pick(headers)
    linkerd = found.get(b"l5d-proxy-error")
    if linkerd is not None:
        return _of_linkerd(status, linkerd)
    by = _side(found)
    if by is None:
        return None
    cause = _cause(by, status, found, body)
    if cause is None:
        return None
    hint = cause.peer_hint if by == "peer-sidecar" and cause.peer_hint is not None else cause.hint
    return Reply(by, cause.reason, hint)


def _pick(headers: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        lower = name.lower()
        if lower in _WANTED:
            found.setdefault(lower, value[:_MAX_VALUE].strip())
    return found


def _side(found: Mapping[bytes, bytes]) -> Literal["sidecar", "peer-sidecar"] | None:
    server = found.get(b"server", b"").lower()
    # Istio's inbound sidecars and gateways call themselves istio-envoy; an own sidecar would have overwritten
    # it.
    if _SERVICE_TIME in found or server == b"istio-envoy":
        return "peer-sidecar"
    return "sidecar" if server == b"envoy" else None


def _cause(
    by: Literal["sidecar", "peer-sidecar"], status: int, found: Mapping[bytes, bytes], body: bytes | None
) -> Cause | None:
    declared = _declared_length(found)
    if not body and declared:
        body = None  # Not read; or there is none, because the request was a HEAD.
    length = declared if body is None else len(body)
    if length is None or length > _MAX_BODY:
        return None
    if found.get(b"content-type", b"").lower() != (b"text/plain" if length else b""):
        return None
    for cause in CAUSES:
        if by == "peer-sidecar" and not _tells_from_application(cause, body):
            continue
        if _fits(cause, status, found, length, body):
            return cause
    return None


def _declared_length(found: Mapping[bytes, bytes]) -> int | None:
    text = found.get(b"content-length", b"")
    return int(text) if text.isdigit() and len(text) <= len(str(_MAX_BODY)) else None


def _tells_from_application(cause: Cause, body: bytes | None) -> bool:
    # An application behind the peer's sidecar may answer with an empty error, or with a 401 that names a
    # realm.
    by_header = cause.header is not None and cause.header.startswith(b"x-envoy-")
    return by_header or (body is not None and bool(cause.text))


def _fits(cause: Cause, status: int, found: Mapping[bytes, bytes], length: int, body: bytes | None) -> bool:
    if cause.statuses and status not in cause.statuses:
        return False
    if cause.header is not None and cause.header not in found:
        return False
    if cause.rest is None:
        return length == len(cause.text) if body is None else body == cause.text
    if body is None:
        # A length tells that a body goes on, not with what.
        return cause.rest is ANYTHING and (cause.header is not None or length > len(cause.text))
    return body.startswith(cause.text) and cause.rest.search(body) is not None


def _of_linkerd(status: int, text: bytes) -> Reply:
    said = text.lower()
    # The last row fits everything.
    cause = next(each for each in LINKERD_CAUSES if each.status in (None, status) and each.text in said)
    return Reply("sidecar", cause.reason, cause.hint)
