"""What httpx and httpx2 name differently: the errors and the stream classes. Each factory file makes one of these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from meshaware.budgets import Route
from meshaware.client.allowance import Allowance
from meshaware.client.call import Call, Limit, Phase
from meshaware.client.options import OPTIONS, CallOptions
from meshaware.client.unsent import Unsent
from meshaware.durations import format_duration
from meshaware.errors import DeadlineExceeded

__all__ = ["Library", "deadline_error", "describe_allowance", "sidecar_error"]

_WORTH_NAMING = 0.0005
_LONGEST = 200


class Library(NamedTuple):
    """The parts of one client library that the transports use."""

    deadline_errors: Mapping[Phase, type[DeadlineExceeded]]
    """By phase: our error that is also the library's timeout of that phase."""
    sidecar_error: type[Exception]
    """Our SidecarUnavailable that is also the library's ConnectError."""
    timeout: type[Exception]
    connect_error: type[Exception]
    failures: tuple[type[BaseException], ...]
    """Those two and `TimeUp`: what a transport looks at before it passes an error on."""
    sync_stream: type[Any]
    async_stream: type[Any]


def describe_allowance(allowance: Allowance, route: Route | None) -> str:
    """Say where the time of a call comes from, in the words of an error message."""
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
_SILENCE: Mapping[Phase, str] = {
    "pool": "no connection of the pool was free",
    "connect": "no connection",
    "send": "the peer took no byte",
    "wait": "not a byte came",
    "body": "not a byte came",
}


class _Reason(NamedTuple):
    """Why a call was ended: in words, and whose time it was."""

    words: str
    seconds: float | None
    route: Route | None


def deadline_error(library: Library, call: Call, raised: Exception | None = None) -> DeadlineExceeded:
    """
    Make the error for a call whose time is up: ours, and the library's timeout of the phase it was in.

    Args:
        library: The client library.
        call: The call.
        raised: The timeout that its transport raised; it knows the phase where the transport tells none.
    """
    if isinstance(call, Unsent):
        return _unsent(library, call)
    phase = call.phase if raised is None else _phase(library, call, raised)
    words, seconds, route = _reason(call)
    spent = call.spent()
    parts = ", ".join(f"{name} {format_duration(took)}" for name, took in spent.items() if took >= _WORTH_NAMING)
    error = library.deadline_errors[phase](
        f"{_line(call.request)}: {words}. Spent: {parts or 'nothing yet'}. Next: {_NEXT[phase]}"
    )
    error.phase, error.seconds, error.spent = phase, seconds, spent
    if route is not None:
        error.route, error.origin = route.name, route.origin
    cast("Any", error).request = call.request
    return error


def _unsent(library: Library, call: Unsent) -> DeadlineExceeded:
    left = f"{format_duration(call.had)} left" if call.had > 0 else "nothing left"
    error = library.deadline_errors[call.phase](
        f"{_line(call.request)}: not begun, with {left} of the deadline of the work in hand and at least"
        f" {format_duration(call.floor)} wanted (MESHAWARE_DEADLINE_FLOOR). Next: what used the time"
        " up before this call? Work that may outlive its request is done under meshaware.deadline.detached()"
    )
    error.phase, error.spent = "unsent", {}
    if call.route is not None:
        error.route, error.origin = call.route.name, call.route.origin
    cast("Any", error).request = call.request
    return error


def _phase(library: Library, call: Call, raised: Exception) -> Phase:
    phases: tuple[Phase, ...] = (call.phase, "pool", "connect", "send", "wait")
    for phase in phases:
        if issubclass(library.deadline_errors[phase], type(raised)):
            return phase
    return call.phase


def _reason(call: Call) -> _Reason:
    allowance, route, whole = call.allowance, call.route, call.whole
    if not call.expired():
        seconds = call.bound()
        within = "" if seconds is None else f" within {format_duration(seconds)}"
        return _Reason(f"{_SILENCE[call.phase]}{within} ({describe_allowance(allowance, route)})", seconds, route)
    shared = None if whole is None else whole.total
    if shared is not None and call.end == shared.at:
        return _of_whole(shared, shared.allowance.total, "complete answer")
    if call.end == call.until:
        options: CallOptions | None = call.request.extensions.get(OPTIONS)
        given = options is not None and options.deadline == call.until
        by = "the deadline given with call_options" if given else "the deadline of the work in hand"
        after = (call.until or 0.0) - call.began
        when = f"passed {format_duration(after)} after the call began" if after > 0 else "had passed before the call"
        return _Reason(f"{by} {when}", None, route)
    shared = None if whole is None else whole.head
    if shared is not None and call.end == shared.at:
        return _of_whole(shared, shared.allowance.head, "answer")
    seconds = allowance.total if call.phase == "body" else allowance.head
    what = "complete answer" if allowance.total is not None else "answer"
    within = format_duration(seconds or 0.0)
    return _Reason(f"no {what} within {within} ({describe_allowance(allowance, route)})", seconds, route)


def _of_whole(limit: Limit, seconds: float | None, what: str) -> _Reason:
    within = format_duration(seconds or 0.0)
    source = describe_allowance(limit.allowance, limit.route)
    return _Reason(
        f"no {what} within {within} of the first request, redirects and auth retries included ({source})",
        seconds,
        limit.route,
    )


def _line(request: Any) -> str:
    """The request as one line, without what may be secret in its URL."""
    url = request.url
    path, mark, _ = url.raw_path.partition(b"?")
    line = f"{request.method} {url.scheme}://{url.netloc.decode('ascii')}{path.decode('ascii')}"
    return (line if len(line) <= _LONGEST else line[:_LONGEST] + "...") + ("?..." if mark else "")


def sidecar_error(library: Library, call: Call, sidecar: str, cause: Exception) -> Exception:
    """Make the error for a connection that the sidecar itself refused: ours, and the library's ConnectError."""
    error = library.sidecar_error(
        f"{_line(call.request)}: {sidecar} did not take the connection ({cause}). Nothing was sent, so the call"
        f" may be made again. Next: is the sidecar up? /readyz and its log say so"
    )
    cast("Any", error).request = call.request
    return error
