"""
Waiting until the proxy beside this process takes calls: the gate itself, in threads, for services and commands alike.

It loads neither pydantic nor an event loop, and logs nothing: what happens is handed to `tell`.

Sources: Istio's `pilot-agent wait` for what is asked (`15021/healthz/ready`; the status alone tells); Linkerd's
`linkerd-await` for a timeout that is fatal or not by choice, and for `LINKERD_AWAIT_DISABLED`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from functools import partial
from threading import Event
from time import monotonic, sleep
from typing import NamedTuple

from meshaware.errors import SettingsError, SidecarNotReady
from meshaware.flavours import Detected, Flavour
from meshaware.settings.addresses import parse_loopback
from meshaware.settings.gate import GateSettings
from meshaware.settings.readers import read_upstreams
from meshaware.settings.upstreams import Upstream, parse_upstream
from meshaware.sidecar.attempts import Attempt, ask_ready, perform, search
from meshaware.sidecar.schedule import ATTEMPT, again
from meshaware.sidecar.upstreams import Upstreams
from meshaware.sidecar.waiting import Answer, GateState, News, Waiter, WaitingRoom
from meshaware.sidecar.words import no_routes_in_time, not_ready

__all__ = ["Gate", "Stage"]

Tell = Callable[[News, Flavour], object]


class Stage(NamedTuple):
    """One thing to wait for: who waits for it, how it is asked until an instant, what is said if it does not come."""

    room: WaitingRoom
    attempt: Callable[[float], Attempt]
    failure: Callable[[GateState, Flavour], str]


class Gate:
    """
    Opens when the proxy beside this process takes calls, and stays open.

    Args:
        settings: Which mesh, which URL, how long, for what.
        url: Where readiness answers; loopback only.
        tell: Called with each change of state and the mesh; it must be quick.

    Raises:
        SettingsError: The URL is not on this host.
    """

    def __init__(self, settings: GateSettings, *, url: str | None = None, tell: Tell) -> None:
        self._settings = settings if url is None else settings._replace(ready_url=_checked_url(url))
        self._tell = tell
        self._untold: list[News] = []
        detected = self._settings.detected
        self._urls = self._addresses(detected.flavour)
        self._room = WaitingRoom(detected, self._needless(detected))
        self._late: WaitingRoom | None = None
        self._upstreams: dict[frozenset[Upstream], Stage] = {}
        self._stages = [Stage(self._room, self._attempt, not_ready)]
        self._stages += self._upstream_stages(self._settings.wait_for)

    def __repr__(self) -> str:
        state = self.state
        return f"<{type(self).__name__} {state.status}: {state.reason}>"

    @property
    def is_open(self) -> bool:
        """Whether calls may be made; asks nobody."""
        return all(stage.room.is_open for stage in self._stages)

    @property
    def state(self) -> GateState:
        """What is known at this moment; asks nobody."""
        now = monotonic()
        states = [stage.room.state(now) for stage in self._stages]
        reached = next((state for state in states if state.status != "open"), states[0])
        return reached._replace(flavour=self.flavour.name, waited=sum(state.waited for state in states))

    @property
    def flavour(self) -> Flavour:
        """The mesh; `unknown` for as long as neither the settings nor a proxy that answers tell."""
        return self._room.flavour

    def wait(self, timeout: float | None = None, *, fatal: bool | None = None, upstreams: Iterable[str] = ()) -> bool:
        """
        Wait until the proxy takes calls, and return True.

        Args:
            timeout: Seconds at most; default `settings.ready_timeout`. 0 asks nobody and tells what is known.
            fatal: Whether it is an error when the time is up; default `settings.ready_fatal`. If not: False.
            upstreams: Wait until the proxy has routes for these too, each `host:port`, beside those of
                `settings.wait_for`. They are passed over where the proxy does not tell which hosts it has routes for.

        Raises:
            SidecarNotReady: The time was up; the message says who was asked, how often, the last answer, and
                what to check next.
            ValueError: The timeout is negative or not a number, or an upstream is not `host:port`.
        """
        stages, end = self._begin(timeout, upstreams)
        for stage in stages:
            self._pass(stage, end)
        return self._outcome(stages, fatal=fatal)

    def find(self, stopping: Event | None = None) -> Flavour:
        """
        Wait without end until the gate is open, the mesh is known and its proxy is ready; return the mesh.

        A proxy that had not come when the gate opened is looked for further on, slowly. It may never come: this is for
        a thread of its own.

        Args:
            stopping: Set by another thread that wants this to end; the mesh is then what is known by now.
        """
        stopping = Event() if stopping is None else stopping
        # The first time ends with a line in the log.
        for timeout in (None, math.inf):
            stages, end = self._begin(timeout, ())
            for stage in stages:
                self._pass(stage, end, stopping)
        pauses = again()
        while not self._room.settled and not stopping.wait(next(pauses)):
            perform(self._look(monotonic() + ATTEMPT))
        for stage in self._late_stages():
            self._pass(stage, math.inf, stopping)
        return self.flavour

    def _pass(self, stage: Stage, end: float, stopping: Event | None = None) -> None:
        rest = sleep if stopping is None else stopping.wait
        with self._waiting(stage, end) as waiter:
            while (turn := stage.room.turn(waiter, monotonic())) is not None:
                if stopping is not None and stopping.is_set():
                    return
                if turn.ask:
                    self._hear(stage, waiter, perform(stage.attempt(monotonic() + turn.seconds)))
                else:
                    rest(turn.seconds)

    # What threads and tasks have in common

    def _begin(self, timeout: float | None, upstreams: Iterable[str]) -> tuple[list[Stage], float]:
        """What is to be waited for, one after another, and until when."""
        seconds = self._settings.ready_timeout if timeout is None else timeout
        if math.isnan(seconds) or seconds < 0:
            raise ValueError(f"timeout={seconds!r}: the time to wait is a number of seconds, 0 or more")
        stages = [*self._stages, *self._upstream_stages(read_upstreams(upstreams))]
        self._say_untold()
        return stages, monotonic() + seconds if seconds else -math.inf

    @contextmanager
    def _waiting(self, stage: Stage, end: float) -> Generator[Waiter]:
        now = monotonic()
        if stage.room.is_open or now >= end:
            yield Waiter(until=-math.inf)
            return
        waiter = stage.room.join(now, end - now)
        try:
            yield waiter
        finally:
            stage.room.leave(waiter, monotonic())
            self._publish(stage)

    def _hear(self, stage: Stage, waiter: Waiter, answer: Answer) -> None:
        stage.room.hear(waiter, answer, monotonic())
        self._publish(stage)

    def _publish(self, stage: Stage) -> None:
        for news in stage.room.take_news():
            self._tell(news, self.flavour)
        self._say_untold()

    def _say_untold(self) -> None:
        untold, self._untold = self._untold, []
        for news in untold:
            self._tell(news, self.flavour)

    def _outcome(self, stages: list[Stage], *, fatal: bool | None) -> bool:
        missing = next((stage for stage in stages if not stage.room.is_open), None)
        if missing is None:
            return True
        if self._settings.ready_fatal if fatal is None else fatal:
            raise SidecarNotReady(missing.failure(missing.room.state(monotonic()), self.flavour))
        return False

    def _late_stages(self) -> list[Stage]:
        late, self._late = self._late, None
        return [] if late is None else [Stage(late, self._attempt, not_ready)]

    # What is asked

    def _attempt(self, end: float) -> Attempt:
        """Whether the proxy is ready; and first, where that is not known, which mesh's it is."""
        if not self._room.settled:
            found, silence = yield from search(end)
            if found is None:
                return silence
            self._take(found)
        if not self._urls:
            return Answer("", "ready")
        return (yield from ask_ready(self._urls, end))

    def _look(self, end: float) -> Attempt:
        found, silence = yield from search(end)
        if found is not None:
            self._take(found)
            self._publish(self._stages[0])
        return silence

    def _take(self, found: Detected) -> None:
        self._urls = self._addresses(found.flavour)
        if self._room.is_open:
            self._late = WaitingRoom(found, None if self._urls else found.reason)
        self._room.find(found, monotonic(), needless=not self._urls)

    def _ask_upstreams(self, upstreams: Upstreams, end: float) -> Attempt:
        admin = self._settings.admin_url or self.flavour.admin_url
        if admin is None or not self.flavour.tells_hosts:
            return Answer(self._untellable(upstreams.missing), "ready")
        return (yield from upstreams.attempt(admin, end))

    def _upstream_stages(self, texts: tuple[str, ...]) -> list[Stage]:
        names = frozenset(map(parse_upstream, texts))
        if not names:
            return []
        if names not in self._upstreams:
            upstreams, needless = Upstreams(names), None
            if self._settings.wait_disabled:
                needless = "waiting is disabled"
            elif self._room.settled and not self.flavour.tells_hosts:
                needless = self._untellable(upstreams.missing)
            wanted = f"routes for {', '.join(map(str, upstreams.missing))}"
            room = WaitingRoom(Detected(self.flavour, wanted, settled=True), needless, "routes")
            self._upstreams[names] = Stage(room, partial(self._ask_upstreams, upstreams), no_routes_in_time)
        return [self._upstreams[names]]

    def _untellable(self, upstreams: Iterable[Upstream]) -> str:
        reason = f"{self.flavour.title}: nothing tells whether there are routes for {', '.join(map(str, upstreams))}"
        if self.flavour.container is not None:
            self._untold.append(News("needless", GateState("open", reason, 0.0, 0, self.flavour.name), "routes"))
        return reason

    def _needless(self, detected: Detected) -> str | None:
        """Why there is nothing to wait for; None if there is."""
        if self._settings.wait_disabled:
            reason = f"waiting is disabled: {self._settings.wait_disabled}"
            self._untold.append(News("needless", GateState("open", reason, 0.0, 0, detected.flavour.name)))
            return reason
        if detected.settled and not detected.flavour.gates:
            return detected.reason
        if detected.native:
            return f"a native sidecar is ready before the application starts: {detected.reason}"
        return None

    def _addresses(self, flavour: Flavour) -> tuple[str, ...]:
        if not flavour.gates:
            return ()
        if self._settings.ready_url is not None:
            return (self._settings.ready_url,)
        admin = self._settings.admin_url
        known = (flavour.ready_url, flavour.ready_fallback_url, None if admin is None else f"{admin}/ready")
        return tuple(url for url in known if url is not None)


def _checked_url(url: str) -> str:
    try:
        parse_loopback(url)
    except ValueError as error:
        raise SettingsError(f"url={url[:200]!r} cannot be asked whether the proxy is ready; write {error}") from error
    return url
