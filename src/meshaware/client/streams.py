"""
Response bodies that end with their call's budget.

A connection that serves one call at a time ends its body by itself, see `watch`: then there is none of these, or only
to let a witness see it. Mixed with each library's own stream class in its factory file, because the clients check the
type.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator
from time import monotonic
from typing import Any, NoReturn, Self

import anyio

from meshaware.client.call import Call
from meshaware.client.clamp import TimeUp, active_call
from meshaware.client.library import Library, deadline_error
from meshaware.client.witness import Witness

__all__ = ["AsyncBody", "Body", "Fate"]


class Fate:
    """What a body needs to know of its call: when it ends, how it fails, who sees it."""

    __slots__ = ("bounds", "call", "library", "timeout", "witness")

    def __init__(self, call: Call, library: Library, witness: Witness | None) -> None:
        self.call = call
        self.library = library
        self.timeout = library.timeout
        self.witness = witness
        self.bounds = not call.held and (call.end is not None or call.allowance.ours)

    def fail(self, cause: BaseException | None) -> NoReturn:
        """End the body with the call's own error."""
        raise deadline_error(self.library, self.call) from cause

    def raise_own(self, error: Exception, begun: float) -> None:
        """Raise the call's own error where that is what a timeout of the library means."""
        if self.call.expired() or self.call.silent(begun):
            self.fail(error)


class AsyncBody:
    """An asynchronous body; each chunk is awaited no longer than is left of the call."""

    def __init__(self, inner: Any, fate: Fate) -> None:
        self._inner = inner
        self._fate = fate

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The inner stream's own iterator where its connection bounds the body and nobody wants to know of it."""
        fate = self._fate
        chunks: AsyncIterator[bytes] = aiter(self._inner)
        if fate.bounds:
            chunks = _Chunks(chunks, fate)
        return chunks if fate.witness is None else fate.witness.async_watch(chunks)

    async def aclose(self) -> None:
        """Close the inner stream."""
        try:
            await self._inner.aclose()
        finally:
            if self._fate.witness is not None:
                self._fate.witness.closed()


class _Chunks:
    """Chunks that are each awaited under a cancel scope, opened and closed within one chunk."""

    __slots__ = ("_chunks", "_fate")

    def __init__(self, chunks: AsyncIterator[bytes], fate: Fate) -> None:
        self._chunks = chunks
        self._fate = fate

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        fate = self._fate
        left, begun = fate.call.left(), monotonic()
        with anyio.CancelScope(deadline=math.inf if left is None else anyio.current_time() + left):
            try:
                return await anext(self._chunks)
            except fate.timeout as error:
                fate.raise_own(error, begun)
                raise
        return fate.fail(None)


class Body:
    """A synchronous body; each chunk is read with what is left of the call."""

    def __init__(self, inner: Any, fate: Fate) -> None:
        self._inner = inner
        self._fate = fate

    def __iter__(self) -> Iterator[bytes]:
        """As `AsyncBody` does it."""
        fate = self._fate
        chunks: Iterator[bytes] = iter(self._inner)
        if fate.bounds:
            chunks = self._bounded(chunks)
        return chunks if fate.witness is None else fate.witness.watch(chunks)

    def _bounded(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        fate = self._fate
        while True:
            if fate.call.expired():
                fate.fail(None)
            begun = monotonic()
            token = active_call.set(fate.call)
            try:
                chunk = next(chunks, None)
            except TimeUp as error:
                fate.fail(error.__cause__)
            except fate.timeout as error:
                fate.raise_own(error, begun)
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
