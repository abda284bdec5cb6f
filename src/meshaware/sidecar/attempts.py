"""
What is asked of a proxy in one attempt, and what follows from the answers: generators that do no I/O.

Each yields what is to be done and is sent what came of it, so threads and tasks ask the same (`perform`, and
`async_perform` in `readiness`).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from time import monotonic
from typing import Any, NamedTuple, TypeVar

from meshaware.errors import SidecarUnavailable
from meshaware.flavours import PORTS, Detected, Heard, recognise
from meshaware.flavours.recognise import unrecognised
from meshaware.sidecar.blocking import fetch
from meshaware.sidecar.exchange import AdminReply
from meshaware.sidecar.knocking import Knock, knock
from meshaware.sidecar.waiting import Answer

__all__ = ["Attempt", "Fetch", "Knocks", "Steps", "ask_ready", "find_mesh", "left", "perform", "search", "what_came"]

T = TypeVar("T")
_MAX_BYTES = 1 << 16
_SUCCESS = range(200, 300)
_SAID = {
    "refused": "refused",
    "timeout": "silent",
    "invalid": "no valid HTTP",
    "too_large": "too long an answer",
}


class Fetch(NamedTuple):
    """Ask one URL; what came of it is an `AdminReply` or a `SidecarUnavailable`."""

    url: str
    timeout: float
    max_bytes: int = _MAX_BYTES


class Knocks(NamedTuple):
    """Knock at several ports at once; what came of it is a `Heard` for each port."""

    knocks: tuple[Knock, ...]
    timeout: float


Steps = Generator[Fetch | Knocks, Any, T]
Attempt = Steps[Answer]
"""One attempt; its result is the answer that tells most."""


def perform(steps: Steps[T]) -> T:
    """Do what an attempt asks for, in this thread."""
    try:
        step = next(steps)
        while True:
            step = steps.send(_do(step))
    except StopIteration as end:
        result: T = end.value
        return result


def _do(step: Fetch | Knocks) -> object:
    if isinstance(step, Knocks):
        return knock(step.knocks, step.timeout)
    try:
        return fetch(step.url, timeout=step.timeout, max_bytes=step.max_bytes)
    except SidecarUnavailable as error:
        return error


def ask_ready(urls: tuple[str, ...], end: float) -> Attempt:
    """
    Ask whether the proxy is ready: one address after another, for as long as they refuse.

    Args:
        urls: The addresses.
        end: When to be done, on the clock of `time.monotonic`.
    """
    first: Answer | None = None
    answer = Answer("", "refused")
    for url in urls:
        came = yield Fetch(url, left(end))
        answer = Answer(url, what_came(came))
        first = first or answer
        if answer.said != "refused":
            return answer
    return first or answer


def find_mesh(detected: Detected, end: float) -> Steps[Detected]:
    """Return what was detected, or what a search finds where that is not settled; it may stay so."""
    if detected.settled:
        return detected
    found, _ = yield from search(end)
    return found or detected


def search(end: float) -> Steps[tuple[Detected | None, Answer]]:
    """
    Look for a mesh's proxy at the ports of this host; return what was found, and what was heard where nothing was.

    Ports that answer a question are asked first, all at once; only where these prove nothing are the others connected
    to, which a proxy may count as a broken connection.
    """
    heard: dict[int, Heard] = {}
    asked = tuple(Knock(port, path) for port, path in PORTS.items() if path is not None)
    silent = tuple(Knock(port, path) for port, path in PORTS.items() if path is None)
    for knocks in (asked, silent):
        came: Mapping[int, Heard] = yield Knocks(knocks, left(end))
        heard |= came
        if (found := recognise(heard)) is not None:
            return found, Answer("", "")
    return None, Answer(*unrecognised(heard))


def left(end: float) -> float:
    """Seconds until then; never 0, which means something else to a socket."""
    return max(0.001, end - monotonic())


def what_came(came: AdminReply | SidecarUnavailable) -> str:
    """An answer in a word: `ready`, `refused`, `silent`, a status such as `503`, or what was wrong."""
    if isinstance(came, SidecarUnavailable):
        return _SAID.get(came.cause, came.cause)
    return "ready" if came.status in _SUCCESS else str(came.status)
