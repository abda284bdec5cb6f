"""
The deadline of the work in hand: an instant of `time.monotonic()` that calls made meanwhile are held to.

It lives in a context variable, so it follows tasks and `asyncio.to_thread`, and ends with the block that set it.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from time import monotonic

__all__ = ["current_deadline", "limit", "remaining"]

_deadline: ContextVar[float | None] = ContextVar("meshaware_deadline", default=None)


def current_deadline() -> float | None:
    """The instant, in `time.monotonic()` seconds, at which the work in hand must be over; None where nothing says."""
    return _deadline.get()


def remaining() -> float | None:
    """
    Seconds left of the work in hand, never below 0.0; None where no deadline holds.

    Meant for what meshaware does not call itself: `cursor.execute(..., timeout=remaining())`.
    """
    at = _deadline.get()
    return None if at is None else max(0.0, at - monotonic())


@contextmanager
def limit(seconds: float | None) -> Generator[None]:
    """
    Hold everything in the block to this many seconds; a deadline that is there already can only be shortened.

    Args:
        seconds: From now on, not negative. None detaches the block: no deadline holds in it.

    Raises:
        ValueError: The number is negative or not a number.
    """
    if seconds is None:
        at = None
    elif math.isnan(seconds) or seconds < 0:
        raise ValueError(f"seconds={seconds!r}: a limit is a number of seconds from now, 0 or more")
    else:
        outer = _deadline.get()
        at = monotonic() + seconds if outer is None else min(outer, monotonic() + seconds)
    token = _deadline.set(at)
    try:
        yield
    finally:
        _deadline.reset(token)
