"""
Response bodies that end with their call's budget.

Mixed with each library's own stream class in its factory file, because the clients check the type.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NoReturn

import anyio

from meshaware.client.call import Call
from meshaware.client.clamp import TimeUp, active_call

__all__ = ["AsyncBody", "Body", "Fate"]


class Fate:
    """What a body needs to know of its call: when it ends, which errors to raise, whom to tell when it closes."""

    __slots__ = ("call", "fail", "finished", "timeout")

    def __init__(
        self, call: Call, timeout: type[Exception], fail: Callable[[Exception | None], NoReturn], finished: Callable[[], None] | None
    ) -> None:
        self.call = call
        self.timeout = timeout
        self.fail = fail
        self.finished = finished


class AsyncBody:
    """An asynchronous body; each chunk is awaited under a cancel scope that ends with the call."""

    def __init__(self, inner: Any, fate: Fate) -> None:
        self._inner = inner
        self._fate = fate

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The inner stream's own iterator where nothing bounds the body."""
        chunks: AsyncIterator[bytes] = aiter(self._inner)
        return chunks if self._fate.call.end is None else _BoundedChunks(chunks, self._fate)

    async def aclose(self) -> None:
        """Close the inner stream."""
        await self._inner.aclose()
        if self._fate.finished is not None:
            self._fate.finished()


class _BoundedChunks:
    __slots__ = ("_chunks", "_fate")

    def __init__(self, chunks: AsyncIterator[bytes], fate: Fate) -> None:
        self._chunks = chunks
        self._fate = fate

    def __aiter__(self) -> _BoundedChunks:
        return self

    async def __anext__(self) -> bytes:
        fate = self._fate
        left = fate.call.left()
        # Never held across a yield: the scope is opened and closed within one chunk.
        with anyio.CancelScope(deadline=math.inf if left is None else anyio.current_time() + left):
            try:
                return await anext(self._chunks)
            except fate.timeout as error:
                if fate.call.expired():
                    fate.fail(error)
                raise
        fate.fail(None)


class Body:
    """A synchronous body; each chunk is read with what is left of the call."""

    def __init__(self, inner: Any, fate: Fate) -> None:
        self._inner = inner
        self._fate = fate

    def __iter__(self) -> Iterator[bytes]:
        """Chunk by chunk."""
        chunks: Iterator[bytes] = iter(self._inner)
        return chunks if self._fate.call.end is None else self._bounded(chunks)

    def _bounded(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        fate = self._fate
        while True:
            if fate.call.expired():
                fate.fail(None)
            token = active_call.set(fate.call)
            try:
                chunk = next(chunks, None)
            except TimeUp:
                fate.fail(None)
            except fate.timeout as error:
                if fate.call.expired():
                    fate.fail(error)
                raise
            finally:
                active_call.reset(token)
            if chunk is None:
                return
            yield chunk

    def close(self) -> None:
        """Close the inner stream."""
        self._inner.close()
        if self._fate.finished is not None:
            self._fate.finished()

