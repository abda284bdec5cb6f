"""
Response bodies that end with their call's budget.

Mixed with each library's own stream class in its factory file, because the clients check the type.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator
from typing import Any, NoReturn, Self

import anyio

from meshaware.client.call import Call
from meshaware.client.clamp import TimeUp, active_call
from meshaware.client.library import Library, deadline_error
from meshaware.client.witness import Witness

__all__ = ["AsyncBody", "Body", "Fate"]


class Fate:
    """What a body needs to know of its call: when it ends, how it fails, who sees it."""

    __slots__ = ("call", "library", "request", "timeout", "watched", "witness")

    def __init__(
        self, call: Call, library: Library, request: object, witness: Witness | None, *, watched: bool
    ) -> None:
        self.call = call
        self.library = library
        self.request = request
        self.timeout = library.timeout
        self.watched = watched
        self.witness = witness

    def fail(self, cause: Exception | None) -> NoReturn:
        """End the body with the call's own error."""
        raise deadline_error(self.library, self.call, self.request) from cause


class AsyncBody:
    """An asynchronous body; each chunk is read with what is left of the call, or awaited no longer than that."""

    def __init__(self, inner: Any, fate: Fate) -> None:
        self._inner = inner
        self._fate = fate

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The inner stream's own iterator where nothing bounds the body and nobody wants to know of it."""
        fate = self._fate
        chunks: AsyncIterator[bytes] = aiter(self._inner)
        if fate.call.end is not None:
            chunks = _WatchedChunks(chunks, fate) if fate.watched else _ScopedChunks(chunks, fate)
        return chunks if fate.witness is None else fate.witness.async_watch(chunks)

    async def aclose(self) -> None:
        """Close the inner stream."""
        try:
            await self._inner.aclose()
        finally:
            if self._fate.witness is not None:
                self._fate.witness.closed()


class _Chunks:
    __slots__ = ("_chunks", "_fate")

    def __init__(self, chunks: AsyncIterator[bytes], fate: Fate) -> None:
        self._chunks = chunks
        self._fate = fate

    def __aiter__(self) -> Self:
        return self


class _WatchedChunks(_Chunks):
    """Chunks of a watched connection: its reads end with the call."""

    __slots__ = ()

    async def __anext__(self) -> bytes:
        fate = self._fate
        if fate.call.expired():
            fate.fail(None)
        token = active_call.set(fate.call)
        try:
            return await anext(self._chunks)
        except TimeUp:
            fate.fail(None)
        except fate.timeout as error:
            if fate.call.expired():
                fate.fail(error)
            raise
        finally:
            active_call.reset(token)


class _ScopedChunks(_Chunks):
    """Chunks of any other stream: each is awaited under a cancel scope, opened and closed within one chunk."""

    __slots__ = ()

    async def __anext__(self) -> bytes:
        fate = self._fate
        left = fate.call.left()
        with anyio.CancelScope(deadline=math.inf if left is None else anyio.current_time() + left):
            try:
                return await anext(self._chunks)
            except fate.timeout as error:
                if fate.call.expired():
                    fate.fail(error)
                raise
        return fate.fail(None)


class Body:
    """A synchronous body; each chunk is read with what is left of the call."""

    def __init__(self, inner: Any, fate: Fate) -> None:
        self._inner = inner
        self._fate = fate

    def __iter__(self) -> Iterator[bytes]:
        """Chunk by chunk."""
        fate = self._fate
        chunks: Iterator[bytes] = iter(self._inner)
        if fate.call.end is not None:
            chunks = self._bounded(chunks)
        return chunks if fate.witness is None else fate.witness.watch(chunks)

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
        try:
            self._inner.close()
        finally:
            if self._fate.witness is not None:
                self._fate.witness.closed()
