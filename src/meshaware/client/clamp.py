"""
The deadline of a connection: every read and write asks how long the call in hand still has.

httpcore announces each connection it opens through its `trace` extension; the stream it hands over is watched from then
on, also when the pool gives the connection to a later call. A thread cannot be cancelled, so for synchronous calls this
is the only way to end in time. For asynchronous ones it is the cheap way: the timer that httpcore sets for each read
anyway is set to what is left, and no cancel scope is needed beside it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextvars import ContextVar
from time import monotonic
from typing import Any

from meshaware.client.call import STEPS, Call

__all__ = ["ShrinkingTimeouts", "TimeUp", "active_call", "async_tracer", "tracer"]

active_call: ContextVar[Call | None] = ContextVar("meshaware_active_call", default=None)

_BORN = frozenset(
    {"connection.connect_tcp.complete", "connection.connect_unix_socket.complete", "connection.start_tls.complete"}
)
# `socket.settimeout(0)` means non-blocking, not "at once".
_SHORTEST = 1e-6
# One write() loops over send() with the same timeout; in slices each send() asks anew.
_SLICE = 1 << 16


class TimeUp(Exception):
    """The call in hand has no time left; the transport turns it into the library's own error."""


class ShrinkingTimeouts(dict[str, "float | None"]):
    """
    httpx's four phases, each cut to what the call has left when httpcore asks for it.

    For connections that a transport of the user's opened before we could watch them: then a phase that begins late
    still ends in time, if the peer is silent.
    """

    def __init__(self, phases: Mapping[str, float | None], call: Call) -> None:
        super().__init__(phases)
        self._call = call

    def get(self, key: str, default: float | None = None) -> float | None:  # type: ignore[override]
        """The phase's timeout, or what is left of the call if that is less."""
        timeout = super().get(key, default)
        end = self._call.end
        return timeout if end is None else _shorter(timeout, end - monotonic())


def _shorter(timeout: float | None, left: float) -> float:
    if timeout is not None and timeout < left:
        return timeout
    return max(_SHORTEST, left)


def tracer(call: Call, theirs: Callable[[str, Any], None] | None) -> Callable[[str, Mapping[str, Any]], None]:
    """The `trace` extension for one call; a callback the user gave is called after ours."""

    def trace(name: str, info: Mapping[str, Any]) -> None:
        if name in STEPS:
            call.enter(STEPS[name])
        elif name in _BORN:
            _watch(info["return_value"])
        if theirs is not None:
            theirs(name, info)

    return trace


def async_tracer(
    call: Call, theirs: Callable[[str, Any], Awaitable[None]] | None
) -> Callable[[str, Mapping[str, Any]], Awaitable[None]]:
    """As `tracer`, for httpcore's asynchronous side."""

    async def trace(name: str, info: Mapping[str, Any]) -> None:
        if name in STEPS:
            call.enter(STEPS[name])
        elif name in _BORN:
            _async_watch(info["return_value"])
        if theirs is not None:
            await theirs(name, info)

    return trace


def _async_watch(stream: Any) -> None:
    read: Callable[..., Awaitable[bytes]] = stream.read
    write: Callable[..., Awaitable[None]] = stream.write

    async def watched_read(max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        return await read(max_bytes, timeout=_clamped(timeout))

    async def watched_write(buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        await write(buffer, timeout=_clamped(timeout))

    stream.read, stream.write = watched_read, watched_write


def _watch(stream: Any) -> None:
    read: Callable[..., bytes] = stream.read
    write: Callable[..., None] = stream.write

    def watched_read(max_bytes: int, timeout: float | None = None) -> bytes:
        return read(max_bytes, timeout=_clamped(timeout))

    def watched_write(buffer: bytes, timeout: float | None = None) -> None:
        for start in _slices(len(buffer)):
            write(buffer[start : start + _SLICE], timeout=_clamped(timeout))

    stream.read, stream.write = watched_read, watched_write


def _slices(length: int) -> Iterable[int]:
    return range(0, max(length, 1), _SLICE)


def _clamped(timeout: float | None) -> float | None:
    call = active_call.get()
    if call is None or call.end is None:
        return timeout
    left = call.end - monotonic()
    if left <= _SHORTEST:
        raise TimeUp
    return _shorter(timeout, left)
