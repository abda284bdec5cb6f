"""What the benchmarks share: rounds in turn, comparison within one round only, and tables that show the spread."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from timeit import Timer
from typing import NamedTuple

Run = Callable[[], float]
"""Does something once, and returns the seconds it took."""
Rounds = Mapping[str, Sequence[float]]
"""What each variant took, round by round."""


ENOUGH = 8


class Spread(NamedTuple):
    """The middle of some values, and between what half of them lie."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        return cls(*statistics.quantiles(values, n=4, method="inclusive"))


def timed(subject: Callable[[], object], number: int) -> Run:
    """
    Make a run of something that does not wait: so many times in a row, and the seconds of one.

    Seconds of this process's own processor time: what others do meanwhile is not counted.
    """
    timer = Timer(subject, timer=time.process_time)
    return lambda: timer.timeit(number) / number


def interleave(runs: Mapping[str, Run], rounds: int, seconds: float = math.inf) -> dict[str, list[float]]:
    """
    Each variant once in a round, in turn, so that all meet the same noise.

    A first round is not counted. No round is begun after so many seconds, once there are `ENOUGH`.
    """
    taken: dict[str, list[float]] = {name: [] for name in runs}
    end = time.monotonic() + seconds
    for number in range(rounds + 1):
        if number > ENOUGH and time.monotonic() > end:
            break
        for name, run in runs.items():
            each = run()
            if number:
                taken[name].append(each)
    return taken


def ratio(own: Sequence[float], other: Sequence[float]) -> Spread:
    """How many times what the other took, pair by pair."""
    return Spread.of(one / another for one, another in zip(own, other, strict=True))


def added(own: Sequence[float], other: Sequence[float]) -> Spread:
    """How many microseconds more than the other, pair by pair."""
    return Spread.of((one - another) * 1e6 for one, another in zip(own, other, strict=True))


def show(title: str, taken: Rounds, base: str | None = None) -> None:
    """One row a variant: its median, and what it takes over the base (the first, if none is named), with quartiles."""
    base = next(iter(taken)) if base is None else base
    print(title)
    print(f"  {'':<44} {'us':>8} {'added':>8} {'quartiles':>17} {'ratio':>6} {'quartiles':>13}")
    for name, times in taken.items():
        row = f"  {name:<44} {statistics.median(times) * 1e6:8.2f}"
        if name != base:
            more, times_more = added(times, taken[base]), ratio(times, taken[base])
            row += f" {more.median:+8.2f} {more.low:+8.2f} {more.high:+8.2f}"
            row += f" {times_more.median:6.2f} {times_more.low:6.2f} {times_more.high:6.2f}"
        print(row)


def judge(promise: str, seen: str, *, kept: bool) -> None:
    """One line under a table: what was to be reached, what was seen."""
    print(f"  {'met    ' if kept else 'NOT MET'}  {promise}: {seen}")
