"""
Waiting until the proxy beside this process takes calls: the gate itself, in threads, for services and commands alike.

It loads neither pydantic nor an event loop, and logs nothing: what happens is handed to `tell`.

Sources: Istio's `pilot-agent wait` for what is asked (`15021/healthz/ready`; the status alone tells);
Linkerd's `linkerd-await` for a timeout that is fatal or not by choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from time import monotonic, sleep

from meshaware.durations import format_duration
from meshaware.errors import SettingsError, SidecarNotReady, SidecarUnavailable
from meshaware.flavours import Flavour
from meshaware.settings.addresses import parse_loopback
from meshaware.settings.gate import GateSettings
from meshaware.sidecar.blocking import fetch
from meshaware.sidecar.exchange import AdminReply
from meshaware.sidecar.waiting import Answer, GateState, News, Waiter, WaitingRoom

__all__ = ["MAX_BYTES", "Gate", "Round"]

MAX_BYTES = 1 << 16
"""How long an answer of a readiness port may be."""

_SUCCESS = range(200, 300)
_SAID = {
    "refused": "refused",
    "timeout": "silent",
    "invalid": "no valid HTTP",
    "too_large": "too long an answer",
}

Tell = Callable[[News, Flavour], object]


class Gate:
    """
    Opens when the proxy beside this process takes calls, and stays open.

    Args:
        settings: Which mesh, which URL, how long.
        url: Where readiness answers; loopback only.
        tell: Called with each change of state and the mesh; it must be quick.

    Raises:
        SettingsError: The URL is not on this host.
    """

    def __init__(self, settings: GateSettings, *, url: str | None = None, tell: Tell) -> None:
        declared = settings.ready_url if url is None else _checked_url(url)
        self._timeout, self._fatal, self._tell = settings.ready_timeout, settings.ready_fatal, tell
        detected = settings._replace(ready_url=declared).detected
        self._urls = _addresses(detected.flavour, declared, settings.admin_url)
        self._room = WaitingRoom(detected, self._urls)

    def __repr__(self) -> str:
        state = self.state
        return f"<{type(self).__name__} {state.status}: {state.reason}>"

    @property
    def is_open(self) -> bool:
        """Whether calls may be made; asks nobody."""
        return self._room.is_open

    @property
    def state(self) -> GateState:
        """What is known at this moment; asks nobody."""
        return self._room.state(monotonic())

    @property
    def flavour(self) -> Flavour:
        """The mesh; `none` also once a sidecar that was merely possible turned out not to exist."""
        return self._room.flavour

    def wait(self, timeout: float | None = None, *, fatal: bool | None = None) -> bool:
        """
        Wait until the proxy takes calls, and return True.

        Args:
            timeout: Seconds at most; default `settings.ready_timeout`. 0 asks nobody and tells what is known.
            fatal: Whether it is an error when the time is up; default `settings.ready_fatal`. If not: False.

        Raises:
            SidecarNotReady: The time was up; the message says who was asked, how often, the last answer, and
                what to check next.
            ValueError: The timeout is negative or not a number.
        """
        with self._waiting(timeout) as waiter:
            while (turn := self._room.turn(waiter, monotonic())) is not None:
                if turn.ask:
                    self._hear(waiter, self._ask(turn.seconds))
                else:
                    sleep(turn.seconds)
        return self._outcome(fatal=fatal)

    @contextmanager
    def _waiting(self, timeout: float | None) -> Generator[Waiter]:
        seconds = self._timeout if timeout is None else timeout
        if math.isnan(seconds) or seconds < 0:
            raise ValueError(f"timeout={seconds!r}: the time to wait is a number of seconds, 0 or more")
        if seconds == 0 or self.is_open:
            yield Waiter(until=-math.inf)
            return
        waiter = self._room.join(monotonic(), seconds)
        try:
            yield waiter
        finally:
            self._room.leave(waiter, monotonic())
            self._publish()

    def _hear(self, waiter: Waiter, answer: Answer) -> None:
        self._room.hear(waiter, answer, monotonic())
        self._publish()

    def _ask(self, seconds: float) -> Answer:
        attempt = Round(self._urls, seconds)
        for url in attempt:
            try:
                attempt.take(fetch(url, timeout=attempt.left(), max_bytes=MAX_BYTES))
            except SidecarUnavailable as error:
                attempt.fail(error)
        return attempt.answer

    def _outcome(self, *, fatal: bool | None) -> bool:
        if self.is_open:
            return True
        if self._fatal if fatal is None else fatal:
            raise SidecarNotReady(_not_ready(self.state, self.flavour))
        return False

    def _publish(self) -> None:
        for news in self._room.take_news():
            self._tell(news, self.flavour)


class Round:
    """One attempt: the addresses to ask, one after another for as long as they refuse, and what came of it."""

    def __init__(self, urls: tuple[str, ...], seconds: float) -> None:
        self._urls, self._end = urls, monotonic() + seconds
        self._answers: list[Answer] = []

    def __iter__(self) -> Generator[str]:
        for url in self._urls:
            yield url
            if self._answers[-1].said != "refused":
                return

    def left(self) -> float:
        """Seconds for the next question."""
        # A timeout of 0 means something else to a socket.
        return max(0.001, self._end - monotonic())

    def take(self, reply: AdminReply) -> None:
        """Take in what the address just asked has answered."""
        self._answers.append(Answer(self._url, "ready" if reply.status in _SUCCESS else str(reply.status)))

    def fail(self, error: SidecarUnavailable) -> None:
        """Take in that it has not."""
        self._answers.append(Answer(self._url, _SAID.get(error.cause, error.cause)))

    @property
    def _url(self) -> str:
        return self._urls[len(self._answers)]

    @property
    def answer(self) -> Answer:
        """The answer that tells most: of several that refuse, the first."""
        return self._answers[0] if self._answers[-1].said == "refused" else self._answers[-1]


def _addresses(flavour: Flavour, declared: str | None, admin: str | None) -> tuple[str, ...]:
    if not flavour.gates:
        return ()
    if declared is not None:
        return (declared,)
    known = (flavour.ready_url, flavour.ready_fallback_url, None if admin is None else f"{admin}/ready")
    return tuple(url for url in known if url is not None)


def _checked_url(url: str) -> str:
    try:
        parse_loopback(url)
    except ValueError as error:
        raise SettingsError(f"url={url[:200]!r} cannot be asked whether the proxy is ready; write {error}") from error
    return url


def _not_ready(state: GateState, flavour: Flavour) -> str:
    waited = format_duration(state.waited)
    times = "once" if state.attempts == 1 else f"{state.attempts} times"
    container = flavour.container or "proxy"
    check = {
        "refused": f"is there a container {container}, and does it run? Without one, set MESHAWARE_MESH=none",
        "503": f"why has the proxy no configuration yet? The log of the container {container} says",
        "silent": f"is it the proxy that listens there? Has the container {container} enough CPU to answer?",
    }.get(state.reason.rpartition(": ")[2], "is it the proxy that listens there? See MESHAWARE_READY_URL")
    return (
        f"the sidecar ({flavour.title}) was not ready in {waited}; asked {times}, last: {state.reason}. "
        f"To check next: {check}"
    )
