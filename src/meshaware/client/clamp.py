"""
What a call has left, where httpcore asks for a timeout: in its `timeout` extension, once for each phase.

httpcore looks the timeout of a phase up as the phase begins. So `pool` tells that the call waits for a connection of a
pool, and `connect` that a connection is about to be opened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from time import monotonic
from typing import Any

from meshaware.client.call import Call

__all__ = ["ScopedTimeouts", "ShrinkingTimeouts", "TimeUp", "WatchedTimeouts", "active_call", "shorter"]

active_call: ContextVar[Call | None] = ContextVar("meshaware_active_call", default=None)

# `socket.settimeout(0)` means non-blocking, not "at once".
_SHORTEST = 1e-6


class TimeUp(BaseException):
    """
    The call in hand has no time left; the transport turns it into the library's own error.

    No `Exception`, because httpcore takes any of those for a fault of the connection, and fails with it all the calls
    that share one over HTTP/2.
    """


def shorter(timeout: float | None, end: float | None, now: float) -> float | None:
    """A timeout, or what is left until an instant if that is less."""
    if end is None:
        return timeout
    left = end - now
    if timeout is not None and timeout < left:
        return timeout
    return max(_SHORTEST, left)


class ScopedTimeouts(dict[str, "float | None"]):
    """httpx's four phases, for a call that a cancel scope ends: they tell where the pool begins, no more."""

    __slots__ = ("_call",)

    def __init__(self, phases: Mapping[str, float | None], call: Call) -> None:
        super().__init__(phases)
        self._call = call

    def get(self, key: str, default: float | None = None) -> float | None:  # type: ignore[override]
        """The phase's timeout."""
        if key == "pool":
            self._call.begin("pool")
        return super().get(key, default)


class ShrinkingTimeouts(ScopedTimeouts):
    """
    httpx's four phases, each cut to what the call has left when httpcore asks for it.

    For connections of which nothing is known: a phase that begins late still ends in time, if the peer is silent.
    """

    __slots__ = ()

    def get(self, key: str, default: float | None = None) -> float | None:  # type: ignore[override]
        """The phase's timeout, or what is left of the call if that is less."""
        return shorter(super().get(key, default), self._call.end, monotonic())


class WatchedTimeouts:
    """
    As `ShrinkingTimeouts`, where connections are watched: those cut reads and writes by themselves, and more exactly.

    It answers what httpcore asks and is no `dict`, since there is one for each call.

    Args:
        phases: httpx's timeouts.
        call: Whose they are.
        extensions: Those of the request that leaves.
        trace: Makes what is put in there once a connection is about to be opened.
    """

    __slots__ = ("_call", "_extensions", "_phases", "_trace")

    def __init__(
        self,
        phases: Mapping[str, float | None],
        call: Call,
        extensions: dict[str, Any],
        trace: Callable[[Call], object],
    ) -> None:
        self._phases = phases
        self._call = call
        self._extensions = extensions
        self._trace = trace

    def get(self, key: str, default: float | None = None) -> float | None:
        """The phase's timeout, or what is left of the call if that is less and no connection serves it yet."""
        timeout = self._phases.get(key, default)
        call = self._call
        if key == "connect":
            if "trace" not in self._extensions:
                self._extensions["trace"] = self._trace(call)
        elif call.held or call.end is None:
            return timeout
        return shorter(timeout, call.end, monotonic())
