"""
Waiting until the proxy beside this process takes calls.

Sources: Istio's `pilot-agent wait` for what is asked (`15021/healthz/ready`; the status alone tells, the body
is empty); Linkerd's `linkerd-await` for a timeout that is fatal or not by choice.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Generator
from contextlib import contextmanager
from time import monotonic, sleep

import anyio
import anyio.lowlevel

from meshaware.durations import format_duration
from meshaware.errors import SettingsError, SidecarNotReady, SidecarUnavailable
from meshaware.flavours import Flavour, detect
from meshaware.instrumentation import GateOutcome, announce_gate
from meshaware.settings import MeshSettings
from meshaware.settings.addresses import parse_loopback
from meshaware.sidecar.admin import async_fetch, fetch
from meshaware.sidecar.waiting import Answer, GateState, News, Waiter, WaitingRoom

__all__ = ["GateState", "ReadinessGate"]

_LOGGER = logging.getLogger(__name__)
_MAX_BYTES = 1 << 16
_SUCCESS = range(200, 300)
_SAID = {
    "refused": "refused",
    "timeout": "silent",
    "invalid": "no valid HTTP",
    "too_large": "too long an answer",
}


class ReadinessGate:
    """
    Opens when the proxy beside this process takes calls, and stays open.

    | usage | meaning |
    |---|---|
    | `gate.wait()`, `await gate.async_wait()` | until it is open, at most `settings.ready_timeout` |
    | `gate.wait(timeout=30)` | at most 30 s |
    | `gate.wait(fatal=False)` | False instead of an error when the time is up |
    | `gate.state`, `gate.is_open` | what is known now; asks nobody |

    It is open from the start where there is nothing to wait for: no mesh, or one without a proxy in the pod.
    In Kubernetes with nothing known of the pod, Istio's ports are asked for 3 s at most; if nothing answers
    there, there is no sidecar.

    What is asked is `url`, else `settings.ready_url`, else the mesh's own addresses; where nothing listens at
    those and `settings.admin_url` is set, Envoy's `/ready` there.

    Any number of threads and tasks, of any event loop, may wait at once: together they ask as often as one
    would.

    Args:
        settings: Which mesh, which URL, how long; default `MeshSettings()`.
        url: Where readiness answers; loopback only.

    Raises:
        SettingsError: The URL is not on this host.
    """

    def __init__(self, settings: MeshSettings | None = None, *, url: str | None = None) -> None:
        self._settings = MeshSettings() if settings is None else settings
        declared = self._settings.ready_url if url is None else _checked_url(url)
        admin, workload = self._settings.admin_url, self._settings.workload
        detected = detect(
            self._settings.mesh,
            workload.labels,
            workload.annotations,
            self._settings.in_kubernetes,
            proxy_declared=declared is not None or admin is not None,
        )
        self._urls = _addresses(detected.flavour, declared, admin)
        self._room = WaitingRoom(detected, self._urls)

    def __repr__(self) -> str:
        state = self.state
        return f"<ReadinessGate {state.status}: {state.reason}>"

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

    async def async_wait(
        self,
        timeout: float | None = None,  # noqa: ASYNC109  the same as wait
        *,
        fatal: bool | None = None,
    ) -> bool:
        """The same as `wait`, on asyncio and trio; a cancellation leaves the gate to the others who wait."""
        await anyio.lowlevel.checkpoint()
        with self._waiting(timeout) as waiter:
            while (turn := self._room.turn(waiter, monotonic())) is not None:
                if turn.ask:
                    self._hear(waiter, await self._async_ask(turn.seconds))
                else:
                    await anyio.sleep(turn.seconds)
        return self._outcome(fatal=fatal)

    @contextmanager
    def _waiting(self, timeout: float | None) -> Generator[Waiter]:
        seconds = self._settings.ready_timeout if timeout is None else timeout
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
        end = monotonic() + seconds
        answers: list[Answer] = []
        for url in self._urls:
            try:
                said = _status(fetch(url, timeout=_left(end), max_bytes=_MAX_BYTES).status)
            except SidecarUnavailable as error:
                said = _SAID.get(error.cause, error.cause)
            answers.append(Answer(url, said))
            if said != "refused":
                break
        return _telling(answers)

    async def _async_ask(self, seconds: float) -> Answer:
        end = monotonic() + seconds
        answers: list[Answer] = []
        for url in self._urls:
            try:
                reply = await async_fetch(url, timeout=_left(end), max_bytes=_MAX_BYTES)
                said = _status(reply.status)
            except SidecarUnavailable as error:
                said = _SAID.get(error.cause, error.cause)
            answers.append(Answer(url, said))
            if said != "refused":
                break
        return _telling(answers)

    def _outcome(self, *, fatal: bool | None) -> bool:
        if self.is_open:
            return True
        if self._settings.ready_fatal if fatal is None else fatal:
            raise SidecarNotReady(_not_ready(self.state, self.flavour))
        return False

    def _publish(self) -> None:
        for news in self._room.take_news():
            _log(news, self.flavour)
            if news.what != "begun":
                announce_gate(GateOutcome(news.what, news.state.waited, news.state.flavour))


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


def _left(end: float) -> float:
    # A timeout of 0 means something else to a socket.
    return max(0.001, end - monotonic())


def _status(status: int) -> str:
    return "ready" if status in _SUCCESS else str(status)


def _telling(answers: list[Answer]) -> Answer:
    return answers[0] if answers[-1].said == "refused" else answers[-1]


def _log(news: News, flavour: Flavour) -> None:
    reason, waited = news.state.reason, format_duration(news.state.waited)
    if news.what == "begun":
        _LOGGER.info("waiting for the sidecar (%s): %s", flavour.title, reason)
    elif news.what == "opened":
        # What was ready when it was first asked needs no line.
        if news.state.attempts > 1:
            _LOGGER.info("the sidecar is ready after %s", waited)
    elif news.what == "absent":
        _LOGGER.info("%s; going on without a mesh. MESHAWARE_MESH says it without asking", reason)
    else:
        _LOGGER.warning("the sidecar (%s) is not ready after %s: %s", flavour.title, waited, reason)


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
