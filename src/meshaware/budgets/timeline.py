"""
The longest course that a call can take in Envoy, try by try: what makes a budget's tight total. Pure.

With a timeout, everything ends there. Where a try that used its per-try timeout is not retried, all tries but the last
one fail while they connect, as only such a course reaches the total; where tries have no bound of their own, only the
last one is told as one that lasts.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from meshaware.budgets.budget import Budget, full_tries, waits

__all__ = ["Span", "course"]

_MOST = 4


class Span(NamedTuple):
    """
    A part of a call; seconds from the end of the request.

    Attributes:
        kind: An injected `delay`; what one try takes to `connect`; the `try`; the `backoff` after it; the rest of the
            `response`, whose head came in time; or `more` tries, with what is between them.
        number: Which try, from 1; for `more`, how many.
        start: When it begins.
        end: When it ends.
        cut: Whether the route's timeout ends it.
    """

    kind: Literal["delay", "connect", "try", "backoff", "response", "more"]
    number: int
    start: float
    end: float
    cut: bool = False


def course(budget: Budget) -> tuple[Span, ...]:
    """
    The longest course of a call; the last span ends at `budget.total(0.0, "tight")`.

    Of many tries the first ones and the last one are told, and the others as one span.

    Returns:
        Nothing if the mesh bounds nothing.
    """
    if budget.timeout is None and budget.per_try_timeout is None:
        return ()
    made = _Course(budget)
    if budget.delay:
        made.add("delay", 0, budget.delay, bounded=False)
    last = budget.attempts + 1
    for number in range(1, min(last, _MOST)):
        made.one_try(number, last=False)
    if last > _MOST:
        made.skip(_MOST, last - _MOST)
    made.one_try(last, last=True)
    if budget.timeout is not None and not made.over:
        made.add("response", last, budget.timeout)
    return tuple(made.spans)


class _Course:
    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._repeated = budget.per_try_timeout is not None and full_tries(budget) > 1
        self._end = None if budget.timeout is None else budget.delay + budget.timeout
        self._now = 0.0
        self.spans: list[Span] = []
        self.over = False

    def add(
        self,
        kind: Literal["delay", "connect", "try", "backoff", "response", "more"],
        number: int,
        seconds: float,
        *,
        bounded: bool = True,
    ) -> None:
        if self.over:
            return
        end = self._now + seconds
        if bounded and self._end is not None and end >= self._end:
            end, self.over = self._end, True
        self.spans.append(Span(kind, number, self._now, end, self.over))
        self._now = end

    def one_try(self, number: int, *, last: bool) -> None:
        budget = self._budget
        if budget.connect_timeout:
            self.add("connect", number, budget.connect_timeout)
        if last or self._repeated:
            seconds = budget.timeout if budget.per_try_timeout is None else budget.per_try_timeout
            self.add("try", number, seconds or 0.0)
        elif not budget.connect_timeout:
            self.add("try", number, 0.0)
        if not last:
            self.add("backoff", number, waits(budget, number) - waits(budget, number - 1))

    def skip(self, number: int, count: int) -> None:
        """The tries from `number` on, so many, each with the back-off after it."""
        budget = self._budget
        each = (budget.connect_timeout or 0.0) + ((budget.per_try_timeout or 0.0) if self._repeated else 0.0)
        between = waits(budget, number + count - 1) - waits(budget, number - 1)
        self.add("more", count, each * count + between)
