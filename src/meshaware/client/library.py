"""What httpx and httpx2 name differently: the errors and the stream classes. Each factory file makes one of these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from meshaware.client.call import Call, Phase
from meshaware.client.unsent import Unsent
from meshaware.durations import format_duration
from meshaware.errors import DeadlineExceeded

_WORTH_NAMING = 0.0005

__all__ = ["Library", "deadline_error", "describe_allowance", "sidecar_error"]


class Library(NamedTuple):
    """The parts of one client library that the transports use."""

    deadline_errors: Mapping[Phase, type[DeadlineExceeded]]
    """By phase: our error that is also the library's timeout of that phase."""
    sidecar_error: type[Exception]
    """Our SidecarUnavailable that is also the library's ConnectError."""
    timeout: type[Exception]
    connect_error: type[Exception]
    failures: tuple[type[Exception], ...]
    """Those two and `TimeUp`: what a transport looks at before it passes an error on."""
    sync_stream: type[Any]
    async_stream: type[Any]


def describe_allowance(call: Call) -> str:
    """Say where the time of a call comes from, in the words of an error message."""
    allowance, route = call.allowance, call.route
    if allowance.source == "caller":
        return "set by the caller"
    if allowance.source == "default":
        return "meshaware's default for what the mesh does not bound"
    if allowance.source == "settings":
        return "from MESHAWARE_TIMEOUT and its like"
    return f"the budget of route {route.name!r} ({route.origin}): {route.budget}" if route is not None else "a route"


_NEXT: Mapping[Phase, str] = {
    "pool": "every connection of the pool was busy: are responses left unread, or is `limits` too small?",
    "connect": "is anything listening at that address, and is the sidecar up?",
    "send": "the peer stopped taking bytes: is it overloaded?",
    "wait": "the request was sent and nothing answered: look at the upstream's own latency and at the sidecar's log",
    "body": "headers came, the body did not end: does the upstream stream or dribble?",
}


def deadline_error(library: Library, call: Call, request: object) -> DeadlineExceeded:
    """Make the error for a call whose time is up: ours, and the library's timeout of the phase it was in."""
    if isinstance(call, Unsent):
        return _unsent(library, call, request)
    seconds = call.allowance.total if call.phase == "body" else call.allowance.head
    if call.end == call.until:
        seconds = None
    if seconds is None:
        reason = "the deadline of the work in hand passed"
    else:
        whole = "complete answer" if call.allowance.total is not None else "answer"
        reason = f"no {whole} within {format_duration(seconds)} ({describe_allowance(call)})"
    spent = call.spent()
    parts = ", ".join(f"{phase} {format_duration(took)}" for phase, took in spent.items() if took >= _WORTH_NAMING)
    error = library.deadline_errors[call.phase](
        f"{call.line}: {reason}. Spent: {parts or 'nothing yet'}. Next: {_NEXT[call.phase]}"
    )
    error.phase, error.seconds, error.spent = call.phase, seconds, spent
    if call.route is not None:
        error.route, error.origin = call.route.name, call.route.origin
    cast("Any", error).request = request
    return error


def _unsent(library: Library, call: Unsent, request: object) -> DeadlineExceeded:
    left = f"{format_duration(call.had)} left" if call.had > 0 else "nothing left"
    error = library.deadline_errors[call.phase](
        f"{call.line}: not begun, with {left} of the deadline of the work in hand and at least"
        f" {format_duration(call.floor)} wanted (MESHAWARE_DEADLINE_FLOOR). Next: what used the time"
        " up before this call? Work that may outlive its request is done under meshaware.deadline.detached()"
    )
    error.phase, error.spent = "unsent", {}
    if call.route is not None:
        error.route, error.origin = call.route.name, call.route.origin
    cast("Any", error).request = request
    return error


def sidecar_error(library: Library, call: Call, sidecar: str, cause: Exception, request: object) -> Exception:
    """Make the error for a connection that the sidecar itself refused: ours, and the library's ConnectError."""
    error = library.sidecar_error(
        f"{call.line}: {sidecar} did not take the connection ({cause}). Nothing was sent, so the call"
        f" may be made again. Next: is the sidecar up? /readyz and its log say so"
    )
    cast("Any", error).request = request
    return error
