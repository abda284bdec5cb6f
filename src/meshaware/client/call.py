"""One call under way: which phase it is in, when its clock started, and when it must end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import monotonic
from typing import Literal

from meshaware.budgets import Route
from meshaware.client.allowance import Allowance

__all__ = ["STEPS", "Call", "Phase", "Whole"]

# A timer may fire a hair early.
_TOLERANCE = 0.001

Phase = Literal["pool", "connect", "send", "wait", "body"]

# httpcore's trace events that move a call on. A tunnel through a proxy is a request of its own and goes through
# the same events first; the real request starts over with its own headers, so the last one counts.
STEPS: Mapping[str, Phase] = {
    "connection.connect_tcp.started": "connect",
    "connection.connect_unix_socket.started": "connect",
    "connection.start_tls.started": "connect",
    "http11.send_request_headers.started": "send",
    "http2.send_request_headers.started": "send",
    "http11.send_request_body.complete": "wait",
    "http2.send_request_body.complete": "wait",
    "http11.receive_response_headers.complete": "body",
    "http2.receive_response_headers.complete": "body",
}


class Whole:
    """What the hops of one logical call share: redirects and auth retries all end when the first one's time is up."""

    __slots__ = ("until",)

    def __init__(self) -> None:
        self.until: float | None = None


class Call:
    """
    One request to one host.

    The total runs from the end of the upload, as Envoy's does. Until then each phase has its own bound on silence, and
    only `until`, the deadline of the work in hand, counts from the begin. A transport that reports no events has
    its clock started at the begin: then there is nothing better to go by.
    """

    __slots__ = ("allowance", "end", "line", "marks", "on_end", "phase", "route", "until", "whole")

    def __init__(
        self, line: str, route: Route | None, allowance: Allowance, until: float | None, whole: Whole | None
    ) -> None:
        now = monotonic()
        self.line = line
        self.route = route
        self.allowance = allowance
        self.whole = whole
        if whole is not None and whole.until is not None:
            until = whole.until if until is None else min(until, whole.until)
        self.until = until
        self.phase: Phase = "pool"
        self.marks: list[tuple[Phase, float]] = [("pool", now)]
        self.end: float | None = self._by(now, allowance.head)
        self.on_end: Callable[[float | None], None] | None = None

    def _by(self, now: float, seconds: float | None) -> float | None:
        if seconds is None:
            return self.until
        return now + seconds if self.until is None else min(now + seconds, self.until)

    def enter(self, phase: Phase) -> None:
        """Move on: httpcore has begun a phase."""
        now = monotonic()
        self.phase = phase
        self.marks.append((phase, now))
        if phase == "wait":
            self.end = self._by(now, self.allowance.head)
            self.share(now)
        elif phase == "body":
            return
        else:
            self.end = self.until
        if self.on_end is not None:
            self.on_end(self.end)

    def share(self, now: float) -> None:
        """Hold the hops that follow to this one's total."""
        if self.whole is not None and self.whole.until is None and self.allowance.total is not None:
            self.whole.until = self._by(now, self.allowance.total)

    def answered(self) -> None:
        """The response's headers are here: from now on the total holds, from when the clock started."""
        started = self._started()
        if self.phase != "body":
            self.phase = "body"
            self.marks.append(("body", monotonic()))
        self.end = self._by(started, self.allowance.total)
        self.share(started)

    def _started(self) -> float:
        return next((at for phase, at in reversed(self.marks) if phase == "wait"), self.marks[0][1])

    def since_sent(self) -> float:
        """Seconds since the upload ended."""
        return monotonic() - self._started()

    def left(self) -> float | None:
        """Seconds until the end, possibly negative; None where nothing ends it."""
        return None if self.end is None else self.end - monotonic()

    def expired(self) -> bool:
        """Whether its time is up, to the millisecond."""
        return self.end is not None and self.end - monotonic() <= _TOLERANCE

    def spent(self) -> dict[str, float]:
        """Seconds by phase until now; a phase entered twice counts both times."""
        sums: dict[str, float] = {}
        ends = [*(at for _, at in self.marks[1:]), monotonic()]
        for (phase, start), end in zip(self.marks, ends, strict=True):
            sums[phase] = sums.get(phase, 0.0) + end - start
        return sums
