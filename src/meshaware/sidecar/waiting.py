"""
All who wait at one gate, threads and tasks alike: time and answers in, turns out; pure but for a lock.

The schedule belongs to the room, not to those in it. Whoever finds that an attempt is due makes it; the
others sleep and look at what came of it. So the proxy is asked once a step however many wait, nobody has to
tell another thread or event loop anything, and one that is cancelled is replaced by the next to look.
"""

from __future__ import annotations

from threading import Lock
from typing import Literal, NamedTuple

from meshaware.durations import format_duration
from meshaware.flavours import Detected, Flavour
from meshaware.sidecar.schedule import ATTEMPT, GRACE, look, step

__all__ = ["Answer", "GateState", "News", "Subject", "Turn", "Waiter", "WaitingRoom"]

Subject = Literal["proxy", "routes"]


class GateState(NamedTuple):
    """
    What a gate knows.

    Attributes:
        status: `waiting`, also before anybody has waited; `open`; `failed` once the time of all is up.
        reason: What answered last, or why there is nothing to wait for.
        waited: Seconds.
        attempts: How often the proxy was asked.
        flavour: The mesh; `unknown` for as long as nothing tells.
    """

    status: Literal["waiting", "open", "failed"]
    reason: str
    waited: float
    attempts: int
    flavour: str

    def describe(self) -> dict[str, object]:
        """The part of it that a readiness endpoint shows."""
        return {"status": self.status, "reason": self.reason, "waited_ms": round(self.waited * 1000)}


class Answer(NamedTuple):
    """What came of one attempt: `ready`, `refused`, `silent`, a status such as `503`, or what was wrong."""

    url: str
    said: str


class Turn(NamedTuple):
    """What one who waits has to do next: ask, for so many seconds at most, or sleep them."""

    ask: bool
    seconds: float


class News(NamedTuple):
    """
    Something to tell others; the room itself would do so under its lock.

    Attributes:
        what: `begun`, `opened` or `failed`, of a wait; `absent`, where no proxy showed itself in time; `found`, where
            one did later; `needless`, where something was not waited for that somebody may think was.
        state: What is known then.
        subject: What is waited for: the proxy, or routes of its.
    """

    what: Literal["begun", "opened", "absent", "failed", "found", "needless"]
    state: GateState
    subject: Subject = "proxy"


class Waiter:
    """One who waits, until an instant; and when it asked last, and how long it could listen."""

    __slots__ = ("asked_at", "listened", "until")

    def __init__(self, until: float) -> None:
        self.until = until
        self.asked_at = self.listened = 0.0


class WaitingRoom:
    """
    The state of one gate.

    Every `now` is of one monotonic clock, in seconds.

    Args:
        detected: The mesh. If it is not settled, a proxy of which nothing is heard is waited for no longer than
            `GRACE` seconds, or the time of one who waits.
        needless: Why there is nothing to wait for; the gate is open from the start then.
        subject: What is waited for.
    """

    def __init__(self, detected: Detected, needless: str | None = None, subject: Subject = "proxy") -> None:
        self.flavour: Flavour = detected.flavour
        self._settled = detected.settled
        self._subject: Subject = subject
        self._lock = Lock()
        self._open = needless is not None
        self._failed = False
        self._reason = f"not asked yet: {detected.reason}" if needless is None else needless
        self._attempts = 0
        self._began = self._ended = 0.0
        self._waiters: set[Waiter] = set()
        self._asking: Waiter | None = None
        self._asking_until = self._due = 0.0
        self._announced = False
        self._news: list[News] = []

    @property
    def is_open(self) -> bool:
        """Whether nobody has to wait any more."""
        return self._open

    @property
    def settled(self) -> bool:
        """Whether it is known which mesh this is."""
        return self._settled

    def find(self, detected: Detected, now: float, *, needless: bool) -> None:
        """Take in which mesh this is, and whether that leaves nothing to wait for."""
        with self._lock:
            if self._settled:
                return
            self.flavour, self._settled, self._reason = detected.flavour, True, detected.reason
            if self._open:
                self._tell("found", now)
            elif needless:
                self._open_now(now, "opened")

    def state(self, now: float) -> GateState:
        """What is known at this moment."""
        with self._lock:
            return self._state(now)

    def take_news(self) -> list[News]:
        """What has happened since this was last called."""
        with self._lock:
            news, self._news = self._news, []
        return news

    def join(self, now: float, timeout: float) -> Waiter:
        """Let one more wait. Where nobody waits yet, the schedule begins anew."""
        waiter = Waiter(now + timeout)
        with self._lock:
            if not self._waited_for(now):
                # Some may be here still: abandoned by their event loop, or by a fork of the process.
                self._waiters.clear()
                self._began = self._ended = self._due = now
                self._asking_until = 0.0
                self._attempts = 0
                self._failed = self._announced = False
            self._waiters.add(waiter)
        return waiter

    def turn(self, waiter: Waiter, now: float) -> Turn | None:
        """What the waiter has to do next; None: nothing more, the gate is open or its time is up."""
        with self._lock:
            up = now >= waiter.until
            nobody = not self._settled and not self._open and self._attempts
            if nobody and (up or now - self._began >= GRACE):
                self._give_up_looking(now)
            if self._open or up:
                return None
            left = waiter.until - now
            if now < self._asking_until:
                return Turn(ask=False, seconds=min(look(now - self._began), left))
            if now < self._due:
                return Turn(ask=False, seconds=min(self._due - now, left))
            seconds = min(ATTEMPT, left)
            waiter.asked_at, waiter.listened = now, seconds
            self._asking = waiter
            # Whoever asks says what it heard, or leaves; should it do neither, the next one takes over.
            self._asking_until = now + seconds + ATTEMPT
            return Turn(ask=True, seconds=seconds)

    def hear(self, waiter: Waiter, answer: Answer, now: float) -> None:
        """Take in what came of an attempt."""
        with self._lock:
            self._stop_asking(waiter)
            if self._open:
                return
            refused = answer.said == "refused"
            self._due = max(now, waiter.asked_at + step(waiter.asked_at - self._began, refused=refused))
            self._attempts += 1
            # The last attempt may have had no time for an answer; what was said before is then worth more.
            if self._attempts == 1 or answer.said != "silent" or waiter.listened >= ATTEMPT:
                self._reason = f"{answer.url}: {answer.said}"
            if answer.said == "ready":
                self._open_now(now, "opened")
            elif self._settled and not self._announced:
                self._announced = True
                self._tell("begun", now)

    def leave(self, waiter: Waiter, now: float) -> None:
        """Let one go: its time is up, the gate is open, or it was cancelled."""
        with self._lock:
            self._stop_asking(waiter)
            self._waiters.discard(waiter)
            if self._open or self._waited_for(now):
                return
            self._ended = now
            if now >= waiter.until and not self._failed:
                self._failed = True
                self._tell("failed", now)

    def _waited_for(self, now: float) -> bool:
        return any(now < waiter.until for waiter in self._waiters)

    def _state(self, now: float) -> GateState:
        status: Literal["waiting", "open", "failed"]
        status = "open" if self._open else "failed" if self._failed else "waiting"
        ended = now if not self._open and self._waited_for(now) else self._ended
        return GateState(status, self._reason, ended - self._began, self._attempts, self.flavour.name)

    def _stop_asking(self, waiter: Waiter) -> None:
        if self._asking is waiter:
            self._asking = None
            self._asking_until = 0.0

    def _give_up_looking(self, now: float) -> None:
        waited = format_duration(max(0.0, now - self._began))
        self._reason = f"no sidecar: {self._reason}, {self._attempts} times in {waited}"
        self._open_now(now, "absent")

    def _open_now(self, now: float, what: Literal["opened", "absent"]) -> None:
        self._open = True
        self._ended = now
        self._tell(what, now)

    def _tell(self, what: Literal["begun", "opened", "absent", "failed", "found"], now: float) -> None:
        self._news.append(News(what, self._state(now), self._subject))
