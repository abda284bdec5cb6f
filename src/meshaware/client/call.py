"""One call under way: which phase it is in, when its clock started, and when it must end."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any, Literal, NamedTuple

from meshaware.budgets import Route
from meshaware.client.allowance import Allowance

__all__ = ["TOLERANCE", "Call", "Limit", "Phase", "Whole"]

# A timer may fire a hair early.
TOLERANCE = 0.001
# Whoever raises a timeout after most of the time has waited for it; a mock that raises one at once has not.
_MOST = 0.9

Phase = Literal["pool", "connect", "send", "wait", "body"]

_BOUNDED_BY = {"pool": "pool", "connect": "connect", "send": "write", "wait": "read", "body": "read"}


class Limit(NamedTuple):
    """When something must be over, and whose time that is."""

    at: float
    allowance: Allowance
    route: Route | None


class Whole:
    """
    What the hops of one logical call share: redirects and auth retries all end when the first one's time is up.

    Attributes:
        total: When the body of the last hop must be complete; None as long as no hop has a total.
        head: When the headers of the last hop must be here, where the first one has no total.
    """

    __slots__ = ("head", "total")

    def __init__(self) -> None:
        self.total: Limit | None = None
        self.head: Limit | None = None


class Call:
    """
    One request to one host.

    The total runs from the end of the upload, as Envoy's does. Until then each phase has its own bound on silence, and
    only `until`, the deadline of the work in hand, counts from the begin. A transport that tells nothing of its phases
    has its clock started at the begin: then there is nothing better to go by.

    Attributes:
        held: Whether the connection that serves this call, and no other meanwhile, ends it in time.
        observed: Where deadlines are only observed: seconds after which it would have been cut.
        observed_head: Whether that holds until the headers are here, and no longer.
        on_overdue: Who is told of that, once.
    """

    __slots__ = (
        "allowance",
        "end",
        "held",
        "marks",
        "observed",
        "observed_head",
        "on_end",
        "on_overdue",
        "phase",
        "request",
        "route",
        "until",
        "whole",
    )

    def __init__(
        self, request: Any, route: Route | None, allowance: Allowance, until: float | None, whole: Whole | None
    ) -> None:
        now = monotonic()
        self.request = request
        self.route = route
        self.allowance = allowance
        self.whole = whole
        if whole is not None and whole.total is not None and (until is None or whole.total.at < until):
            until = whole.total.at
        self.until = until
        self.phase: Phase = "pool"
        self.marks: list[tuple[Phase, float]] = [("pool", now)]
        self.end: float | None = self._headers_by(now)
        self.on_end: Callable[[float | None], None] | None = None
        self.held = False
        self.observed: float | None = None
        self.observed_head = False
        self.on_overdue: Callable[[Call, float], None] | None = None

    def _by(self, now: float, seconds: float | None) -> float | None:
        until = self.until
        if seconds is None:
            return until
        return now + seconds if until is None or now + seconds < until else until

    def _headers_by(self, now: float) -> float | None:
        end = self._by(now, self.allowance.head)
        if self.whole is None or self.whole.head is None:
            return end
        return self.whole.head.at if end is None else min(end, self.whole.head.at)

    def begin(self, phase: Literal["pool", "wait"]) -> None:
        """Say what the call begins with, for a transport of which nothing is known: `wait`, until it asks for more."""
        if len(self.marks) == 1:
            self.phase = phase
            self.marks[0] = (phase, self.marks[0][1])

    def enter(self, phase: Literal["connect", "send", "wait"], now: float) -> None:
        """Move on: a phase has begun."""
        self.phase = phase
        self.marks.append((phase, now))
        self.end = self._headers_by(now) if phase == "wait" else self.until
        if self.on_end is not None:
            self.on_end(self.end)

    def answered(self, *, upgraded: bool = False) -> None:
        """
        The response's headers are here: from now on the total holds, from when the clock started.

        Args:
            upgraded: The connection speaks another protocol now, in both directions: that is no answer to wait for.
        """
        phase, started = self.marks[-1]
        if phase != "wait":
            started = self._started()
        self.phase = "body"
        self.marks.append(("body", monotonic()))
        if upgraded:
            self.allowance = self.allowance._replace(head=None, total=None, ours=False)
            self.until = None
        if self.observed_head:
            if self.late():
                self.overdue()
            self.on_overdue = None
        allowance, whole = self.allowance, self.whole
        self.end = end = self._by(started, allowance.total)
        if whole is not None:
            # What follows, a redirect or another try with credentials, is held to this one's time.
            if allowance.total is None:
                if whole.head is None and allowance.head is not None:
                    whole.head = Limit(started + allowance.head, allowance, self.route)
            elif whole.total is None and end is not None:
                whole.total = Limit(end, allowance, self.route)

    def _started(self) -> float:
        for phase, at in reversed(self.marks):
            if phase == "wait":
                return at
        return self.marks[0][1]

    @property
    def began(self) -> float:
        """The instant at which the call was made."""
        return self.marks[0][1]

    def since_sent(self) -> float:
        """Seconds since the upload ended."""
        return monotonic() - self._started()

    def late(self) -> bool:
        """Whether it would have been cut by now; until the request is sent the time does not run."""
        if self.observed is None or self.phase not in ("wait", "body"):
            return False
        until = self.marks[-1][1] if self.observed_head and self.phase == "body" else monotonic()
        return until - self._started() > self.observed

    def overdue(self) -> None:
        """Say, the first time only, that it would have been cut by now."""
        tell, self.on_overdue = self.on_overdue, None
        if tell is not None and self.observed is not None:
            tell(self, self.observed)

    def left(self) -> float | None:
        """Seconds until the end, possibly negative; None where nothing ends it."""
        return None if self.end is None else self.end - monotonic()

    def expired(self) -> bool:
        """Whether its time is up, to the millisecond."""
        return self.end is not None and self.end - monotonic() <= TOLERANCE

    def bound(self) -> float | None:
        """Seconds that the phase it is in may be silent."""
        return self.allowance.phases.get(_BOUNDED_BY[self.phase])

    def silent(self, since: float | None = None) -> bool:
        """Whether it has been silent for longer than the budget lets it, since an instant or the phase's begin."""
        bound = self.bound()
        since = self.marks[-1][1] if since is None else since
        return self.allowance.ours and bound is not None and monotonic() - since >= bound * _MOST

    def spent(self) -> dict[str, float]:
        """Seconds by phase until now; a phase entered twice counts both times."""
        sums: dict[str, float] = {}
        ends = [*(at for _, at in self.marks[1:]), monotonic()]
        for (phase, start), end in zip(self.marks, ends, strict=True):
            sums[phase] = sums.get(phase, 0.0) + end - start
        return sums
