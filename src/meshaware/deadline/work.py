"""
Which deadline holds here.

It lives in a context variable, so it follows tasks, `asyncio.to_thread` and AnyIO's worker threads, and ends with the
request or the block that set it. A plain thread or executor starts without: see `meshaware.propagation.threads`.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from contextvars import ContextVar, Token
from time import monotonic
from types import TracebackType

__all__ = ["Work", "begin", "current_deadline", "detached", "end", "in_hand", "limit", "remaining", "told_deadline"]


class Work:
    """
    A piece of work that must be over at some time.

    Tasks and threads that began with it share it, so they are all let go at once when `at` is taken back.

    Attributes:
        at: The instant of `time.monotonic()`; None where nothing says, or nothing says any more.
        held: Whether calls end there; False where deadlines are only observed.
        outer: The work that this is a part of, and whose deadline holds it as well.
        name: The header in which the next service is told, where somebody has said which.
    """

    __slots__ = ("at", "held", "name", "outer")

    def __init__(
        self, at: float | None, *, held: bool = True, outer: Work | None = None, name: bytes | None = None
    ) -> None:
        self.at = at
        self.held = held
        self.outer = outer
        self.name = name


class _Part(Work):
    """The work of a block; it knows the block, and what was in hand around it, be it a part of that or not."""

    __slots__ = ("around", "block")

    def __init__(self, at: float | None, *, outer: Work | None, block: object, around: Work | None) -> None:
        super().__init__(at, outer=outer, name=None if around is None else around.name)
        self.block = block
        self.around = around


_work: ContextVar[Work | None] = ContextVar("meshaware_work", default=None)

in_hand = _work.get
"""Return the work in hand, or None."""
begin = _work.set
"""Take this work in hand, and return the token that `end` takes; None takes nothing."""


def end(token: Token[Work | None]) -> None:
    """Take in hand again what was before, if this is still the context in which something else was begun."""
    try:
        _work.reset(token)
    except ValueError:
        # Left unfinished, it is closed by whoever finds it, in a context where it never began.
        return


def current_deadline() -> float | None:
    """The instant, in `time.monotonic()` seconds, at which the work in hand must be over; None where nothing says."""
    work = _work.get()
    return None if work is None else _earliest(work, observed=False)


def told_deadline() -> float | None:
    """As `current_deadline`, but also where deadlines are only observed: what the next service is told."""
    work = _work.get()
    return None if work is None else _earliest(work, observed=True)


def _earliest(work: Work | None, *, observed: bool) -> float | None:
    earliest = None
    while work is not None:
        at = work.at
        if at is not None and (work.held or observed) and (earliest is None or at < earliest):
            earliest = at
        work = work.outer
    return earliest


def remaining() -> float | None:
    """
    Seconds left of the work in hand, never below 0.0; None where no deadline holds, or it is only observed.

    Meant for what meshaware does not call itself: `cursor.execute(..., timeout=remaining())`. Mind that some drivers
    take 0 for "without end".
    """
    at = current_deadline()
    return None if at is None else max(0.0, at - monotonic())


class _Block(AbstractContextManager[None]):
    # Tokens would not do: a generator that nobody finished is closed at any later time, and where its context is in
    # use still, its token would put back what an earlier piece of work had.

    __slots__ = ("_seconds",)

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        around = _work.get()
        if self._seconds is None:
            _work.set(_Part(None, outer=None, block=self, around=around))
        else:
            _work.set(_Part(monotonic() + self._seconds, outer=around, block=self, around=around))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        work = _work.get()
        while isinstance(work, _Part) and work.block is not self:
            work = work.around
        if isinstance(work, _Part):
            _work.set(work.around)
        elif kind is None:
            raise RuntimeError(
                "a block of limit() or detached() ends where it did not begin, so it did not hold all along: a"
                " generator went on in another thread or task (a `def` dependency with `yield`, a streamed response),"
                " or in turn with another one. Write the block around each call instead of around a `yield`"
            )


def limit(seconds: float | None) -> AbstractContextManager[None]:
    """
    Hold everything in the block to this many seconds; a deadline that is there already can only be shortened.

    Args:
        seconds: From the begin of the block on, not negative. None detaches it, as `detached` does.

    Raises:
        ValueError: The number is negative or not a number.
        RuntimeError: At the end of the block: that is not where it began, such as around the `yield` of a generator.
    """
    if seconds is not None and (math.isnan(seconds) or seconds < 0):
        raise ValueError(f"seconds={seconds!r}: a limit is a number of seconds from now, 0 or more")
    return _Block(seconds)


def detached() -> AbstractContextManager[None]:
    """
    Let the block outlive the request: no deadline holds in it, nor in the tasks and threads that begin in it.

    Calls keep their own budgets. `call_options(detached=True)` lets go of one call's budget too.

    Raises:
        RuntimeError: As for `limit`.
    """
    return _Block(None)
