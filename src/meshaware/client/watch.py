"""
The deadline of a connection: every read and write asks how long the call in hand still has.

httpcore announces each connection it opens through its `trace` extension; the stream it hands over is watched from then
on, also when the pool gives the connection to a later call. A thread cannot be cancelled, so for synchronous calls this
is the only way to end in time. For asynchronous ones it is the cheap way: the timer that httpcore sets for each read
anyway is set to what is left, and no cancel scope is needed beside it.

Over HTTP/1.1 a connection serves one call at a time: the one that wrote last. So it knows where that call stands, when
its upload ended above all, which is at the first read after a write; and a call on a connection that is open already
needs no events. Over HTTP/2 several calls share one, and each is known by its context and by httpcore's events.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from time import monotonic
from typing import Any, Literal

from meshaware.client.call import TOLERANCE, Call
from meshaware.client.clamp import TimeUp, active_call, shorter
from meshaware.client.library import Library, deadline_error

__all__ = ["async_tracer", "tracer"]

# One write() loops over send() with the same timeout, and one timer holds for all of a large write: in slices each asks
# anew, so that silence is what ends an upload and not its length.
_SLICE = 1 << 16

_OPENING = frozenset({"connect_tcp.started", "connect_unix_socket.started", "start_tls.started"})
_OPEN = frozenset({"connect_tcp.complete", "connect_unix_socket.complete", "start_tls.complete"})
# A tunnel through a proxy is a request of its own and goes through the same events first; the real request starts over
# with its own headers, so the last one counts.
_STEPS: Mapping[str, Literal["send", "wait"]] = {
    "send_request_headers.started": "send",
    "receive_response_headers.started": "wait",
}


def tracer(
    call: Call, library: Library, theirs: Callable[[str, Any], None] | None, *, alone: bool
) -> Callable[[str, Mapping[str, Any]], None]:
    """
    The `trace` extension for one call; a callback the user gave is called after ours.

    Args:
        call: The call.
        library: Whose errors a connection raises.
        theirs: The user's own callback.
        alone: Whether connections serve one call at a time.
    """

    def trace(name: str, info: Mapping[str, Any]) -> None:
        event = name.partition(".")[2]
        if event in _OPENING:
            call.enter("connect", monotonic())
        elif event in _OPEN:
            if alone:
                _Alone(info["return_value"], library)
            else:
                _watch_shared(info["return_value"])
        elif not alone and event in _STEPS:
            call.enter(_STEPS[event], monotonic())
        if theirs is not None:
            theirs(name, info)

    return trace


def async_tracer(
    call: Call, library: Library, theirs: Callable[[str, Any], Awaitable[None]] | None, *, alone: bool
) -> Callable[[str, Mapping[str, Any]], Awaitable[None]]:
    """As `tracer`, for httpcore's asynchronous side."""

    async def trace(name: str, info: Mapping[str, Any]) -> None:
        event = name.partition(".")[2]
        if event in _OPENING:
            call.enter("connect", monotonic())
        elif event in _OPEN:
            if alone:
                _AsyncAlone(info["return_value"], library)
            else:
                _async_watch_shared(info["return_value"])
        elif not alone and event in _STEPS:
            call.enter(_STEPS[event], monotonic())
        if theirs is not None:
            await theirs(name, info)

    return trace


class _Alone:
    """A stream that serves one call at a time: the one that wrote last."""

    __slots__ = ("_call", "_library", "_read", "_write")

    def __init__(self, stream: Any, library: Library) -> None:
        self._read: Callable[..., bytes] = stream.read
        self._write: Callable[..., None] = stream.write
        self._library = library
        self._call: Call | None = None
        stream.read, stream.write = self.read, self.write

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        call = self._call
        if call is None:
            return self._read(max_bytes, timeout=timeout)
        begun = monotonic()
        if call.phase == "send":
            call.enter("wait", begun)
        if call.end is not None:
            timeout = _left(call, self._library, begun, timeout)
        elif call.on_overdue is not None:
            return self._observe(call, max_bytes, timeout)
        try:
            return self._read(max_bytes, timeout=timeout)
        except Exception as error:
            _raise_own(error, call, self._library, begun, timeout)
            raise

    def _observe(self, call: Call, max_bytes: int, timeout: float | None) -> bytes:
        """Read, cutting nothing, and tell when the call would have been cut: not only once it is over."""
        left = _until_overdue(call)
        if left > 0 and (timeout is None or left < timeout):
            begun = monotonic()
            try:
                return self._read(max_bytes, timeout=left)
            except Exception:
                waited = monotonic() - begun
                if waited < left - TOLERANCE:
                    raise
                timeout = None if timeout is None else max(timeout - waited, TOLERANCE)
        if _until_overdue(call) <= TOLERANCE:
            call.overdue()
        return self._read(max_bytes, timeout=timeout)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if not buffer:
            return
        call = self._call = active_call.get()
        if call is None:
            self._write(buffer, timeout=timeout)
            return
        if call.phase != "send":
            call.held = True
            call.enter("send", monotonic())
        for piece in (buffer,) if len(buffer) <= _SLICE else _slices(buffer):
            begun = monotonic()
            bound = timeout if call.end is None else _left(call, self._library, begun, timeout)
            try:
                self._write(piece, timeout=bound)
            except Exception as error:
                _raise_own(error, call, self._library, begun, bound)
                raise


class _AsyncAlone:
    """As `_Alone`, for httpcore's asynchronous side."""

    __slots__ = ("_call", "_library", "_read", "_write")

    def __init__(self, stream: Any, library: Library) -> None:
        self._read: Callable[..., Awaitable[bytes]] = stream.read
        self._write: Callable[..., Awaitable[None]] = stream.write
        self._library = library
        self._call: Call | None = None
        stream.read, stream.write = self.read, self.write

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        call = self._call
        if call is None:
            return await self._read(max_bytes, timeout=timeout)
        begun = monotonic()
        if call.phase == "send":
            call.enter("wait", begun)
        if call.end is not None:
            timeout = _left(call, self._library, begun, timeout)
        elif call.on_overdue is not None:
            return await self._observe(call, max_bytes, timeout)
        try:
            return await self._read(max_bytes, timeout=timeout)
        except Exception as error:
            _raise_own(error, call, self._library, begun, timeout)
            raise

    async def _observe(self, call: Call, max_bytes: int, timeout: float | None) -> bytes:  # noqa: ASYNC109
        """Read, cutting nothing, and tell when the call would have been cut: not only once it is over."""
        left = _until_overdue(call)
        if left > 0 and (timeout is None or left < timeout):
            begun = monotonic()
            try:
                return await self._read(max_bytes, timeout=left)
            except Exception:
                waited = monotonic() - begun
                if waited < left - TOLERANCE:
                    raise
                timeout = None if timeout is None else max(timeout - waited, TOLERANCE)
        if _until_overdue(call) <= TOLERANCE:
            call.overdue()
        return await self._read(max_bytes, timeout=timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        if not buffer:
            return
        call = self._call = active_call.get()
        if call is None:
            await self._write(buffer, timeout=timeout)
            return
        if call.phase != "send":
            call.held = True
            call.enter("send", monotonic())
        for piece in (buffer,) if len(buffer) <= _SLICE else _slices(buffer):
            begun = monotonic()
            bound = timeout if call.end is None else _left(call, self._library, begun, timeout)
            try:
                await self._write(piece, timeout=bound)
            except Exception as error:
                _raise_own(error, call, self._library, begun, bound)
                raise


def _watch_shared(stream: Any) -> None:
    read: Callable[..., bytes] = stream.read
    write: Callable[..., None] = stream.write

    def bounded(do: Callable[..., Any], what: Any, timeout: float | None) -> Any:
        call = active_call.get()
        if call is None or call.end is None:
            return do(what, timeout=timeout)
        now = monotonic()
        if call.end <= now:
            raise TimeUp
        try:
            return do(what, timeout=shorter(timeout, call.end, now))
        except Exception as error:
            if call.expired():
                raise TimeUp from error
            raise

    def watched_read(max_bytes: int, timeout: float | None = None) -> Any:
        return bounded(read, max_bytes, timeout)

    def watched_write(buffer: bytes, timeout: float | None = None) -> None:
        for piece in _slices(buffer):
            bounded(write, piece, timeout)

    stream.read, stream.write = watched_read, watched_write


def _async_watch_shared(stream: Any) -> None:
    # A cancel scope holds the calls; only the bound on silence is left to see to.
    write: Callable[..., Awaitable[None]] = stream.write

    async def watched_write(buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        for piece in _slices(buffer):
            await write(piece, timeout=timeout)

    stream.write = watched_write


def _until_overdue(call: Call) -> float:
    return (call.observed or 0.0) - call.since_sent()


def _slices(buffer: bytes) -> Iterable[bytes]:
    return (buffer[start : start + _SLICE] for start in range(0, len(buffer), _SLICE))


def _left(call: Call, library: Library, now: float, timeout: float | None) -> float | None:
    end = call.end
    if end is not None and end <= now:
        raise deadline_error(library, call)
    return shorter(timeout, end, now)


def _raise_own(error: Exception, call: Call, library: Library, begun: float, timeout: float | None) -> None:
    """Raise the call's own error where that is what a timeout of the stream means."""
    waited = timeout is not None and monotonic() - begun >= timeout - TOLERANCE
    if waited and (call.expired() or call.allowance.ours):
        raise deadline_error(library, call) from error
