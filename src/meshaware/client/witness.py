"""
Who sees what becomes of one call, and tells it: once at the answer, once at the end.

The end is when the call fails, also in its body, or when its response is closed, whichever is first. Only then is it
certain: a call may run out of time after its headers, and who answered an error may show in its body alone.

There is none where nobody wants to know, so a call pays for it with one test; and none stays for the end where only
the answer concerns anybody.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, Self

from meshaware.client.call import Call
from meshaware.errors import DeadlineExceeded, SidecarUnavailable
from meshaware.instrumentation import CallOutcome, Verdict, announce_call, calls_observed
from meshaware.sidecar.replies import Reply, classify

__all__ = ["Witness"]

# More is never looked at to tell who answered.
_MAX_BODY = 4096


class Witness:
    """
    The witness of one call.

    Args:
        call: The call.

    Attributes:
        stays: Whether the end is to be seen too; if not, the body need not be watched after the answer.
    """

    __slots__ = ("_answer", "_body", "_call", "_complete", "_ended", "_limit", "_outcome", "stays")

    def __init__(self, call: Call) -> None:
        self._call = call
        self._limit = call.observed
        self.stays = self._limit is not None or calls_observed("end")
        self._outcome = CallOutcome("answered")
        self._answer: tuple[int, Any] | None = None
        self._body = bytearray()
        self._complete = self._ended = False

    def answered(self, reply: Reply | None, response: Any) -> None:
        """The headers are here; `reply` is what they tell."""
        self._outcome = self._seen("answered", None)._replace(answered_by="application")
        announce_call(self._verdict(self._by(reply)), "answer")
        if not self.stays:
            return
        if response.status_code >= 400:
            self._answer = response.status_code, response.headers.raw
        if response.is_closed:
            # It came whole, from a cache or a mock, and is never read from its stream.
            content: object = getattr(response, "_content", None)
            if isinstance(content, bytes):
                self.read(content)
                self.whole()
            self.closed()

    def failed(self, error: BaseException) -> None:
        """The call ends here, by an error: before its answer, or in its body."""
        if self._ended:
            return
        verdict, reason = _failure(error)
        if self._outcome.answered_by is None:
            outcome = self._seen(verdict, reason)
            announce_call(self._verdict(outcome), "answer")
        else:
            outcome = self._by(None)._replace(verdict=verdict, reason=reason)
        self._end(outcome)

    def closed(self) -> None:
        """The response was closed."""
        if self._ended:
            return
        reply = None
        if self._answer is not None:
            status, headers = self._answer
            whole = self._complete and len(self._body) <= _MAX_BODY
            reply = classify(status, headers, bytes(self._body) if whole else None)
        self._end(self._by(reply))

    def watch(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Pass a body on, and see it fail."""
        while True:
            try:
                chunk = next(chunks)
            except StopIteration:
                self.whole()
                return
            except BaseException as error:
                self.failed(error)
                raise
            self.read(chunk)
            yield chunk

    def async_watch(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Pass an asynchronous body on, and see it fail."""
        return _Chunks(chunks, self)

    def read(self, chunk: bytes) -> None:
        """One chunk of the body came."""
        if self._answer is not None and len(self._body) <= _MAX_BODY:
            self._body += chunk[: _MAX_BODY + 1]

    def whole(self) -> None:
        """The body came to its end."""
        self._complete = True

    def _seen(self, verdict: Verdict, reason: str | None) -> CallOutcome:
        """What is known now that headers came, or none will come."""
        call = self._call
        route, allowance = call.route, call.allowance
        nearer = call.until is not None and call.end == call.until
        return CallOutcome(
            verdict,
            None if route is None else route.name,
            None if route is None else route.origin,
            allowance.total if self._limit is None else self._limit,
            "work" if nearer else allowance.source,
            call.left() if self._limit is None else self._limit - call.since_sent(),
            None,
            reason,
        )

    def _by(self, reply: Reply | None) -> CallOutcome:
        if reply is None:
            return self._outcome
        return self._outcome._replace(verdict="replied", answered_by=reply.by, reason=reply.reason)

    def _verdict(self, outcome: CallOutcome) -> CallOutcome:
        return outcome._replace(verdict="overdue") if self._call.late() else outcome

    def _end(self, outcome: CallOutcome) -> None:
        self._ended = True
        if self._call.late():
            self._call.overdue()
            outcome = outcome._replace(verdict="overdue")
        announce_call(outcome, "end")


def _failure(error: BaseException) -> tuple[Verdict, str | None]:
    if isinstance(error, DeadlineExceeded):
        return "deadline", error.phase or None
    if isinstance(error, SidecarUnavailable):
        return "sidecar_unavailable", error.cause
    # What is no Exception is the caller's doing: he was cancelled, or the process is interrupted.
    return ("error", type(error).__name__) if isinstance(error, Exception) else ("cancelled", None)


class _Chunks:
    """An asynchronous body on its way, seen by a witness."""

    __slots__ = ("_chunks", "_witness")

    def __init__(self, chunks: AsyncIterator[bytes], witness: Witness) -> None:
        self._chunks = chunks
        self._witness = witness

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk = await anext(self._chunks)
        except StopAsyncIteration:
            self._witness.whole()
            raise
        except BaseException as error:
            self._witness.failed(error)
            raise
        self._witness.read(chunk)
        return chunk
