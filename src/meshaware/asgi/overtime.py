"""
What is done, by choice, with a request whose time is up: it is answered 504, and its handler cancelled.

So it is with one whose caller is gone before: a proxy that tries again, or gives up, resets the try that it had made.
"""

from __future__ import annotations

import logging
from time import monotonic
from typing import Literal

import anyio

from meshaware.asgi.errors import ErrorReply
from meshaware.asgi.types import ASGIApp, Message, Receive, Scope, Send
from meshaware.deadline.work import begin, end
from meshaware.errors import DeadlineExceeded

__all__ = ["BODIES", "Timed"]

BODIES = frozenset(("http.response.body", "http.response.zerocopysend", "http.response.pathsend"))
"""The messages that can end a response; unless they say `more_body`, they do."""

_log = logging.getLogger("meshaware.deadline")


class _Inbox:
    """
    What the server has received, one message ahead of the application, so that the end of the caller is noticed.

    Only one `receive` is under way at a time; the server's code runs without the request's deadline.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._ahead: Message | None = None
        self._turn = anyio.Lock()
        self._whole = anyio.Event()
        self._gone = anyio.Event()

    async def receive(self) -> Message:
        """What the application asks for."""
        async with self._turn:
            message = await self._take()
        if message is not None:
            return message
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def wait_gone(self) -> bool:
        """Wait until the caller is gone; False where a server says more after the body, which ASGI does not know."""
        async with self._turn:
            await self._look_ahead()
        # A body is the application's to take; more than a message of it is not kept here.
        await self._whole.wait()
        if not self._gone.is_set():
            await self._pull()
        return self._gone.is_set()

    async def _take(self) -> Message | None:
        message, self._ahead = self._ahead, None
        if message is None and not self._whole.is_set():
            message = await self._pull()
        return message

    async def _look_ahead(self) -> None:
        if not self._whole.is_set():
            self._ahead = await self._pull()

    async def _pull(self) -> Message:
        token = begin(None)
        try:
            message = await self._receive()
        finally:
            end(token)
        if not message.get("more_body"):
            self._whole.set()
        if message["type"] == "http.disconnect":
            self._gone.set()
        return message


class _Answer:
    """How far the answer is that the application gives, and whether it still counts."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = self.whole = self.late = False

    async def send(self, message: Message) -> None:
        """What the application sends; nothing any more once the caller was told that it is late."""
        if self.late and not self.begun:
            return
        self.begun = True
        if message["type"] in BODIES and not message.get("more_body"):
            self.whole = True
        await self._send(message)


class Timed:
    """
    One request that is served until its answer is whole, until an instant, or until the caller is gone.

    Then the handler is cancelled. What runs after the whole answer runs on. A handler in a thread cannot be cancelled:
    the 504 goes out in time, the thread goes on to its end, and its answer is dropped.

    Args:
        at: An instant of `time.monotonic()`.
        receive: As the server gave it.
        send: As the server gave it: for the 504.
        answer: What the application sends by.
    """

    __slots__ = ("_answer", "_at", "_failure", "_handler", "_inbox", "_receive", "_send", "_told")

    def __init__(self, at: float, receive: Receive, send: Send, answer: Send) -> None:
        self._at = at
        self._receive, self._send = receive, send
        self._inbox, self._answer = _Inbox(receive), _Answer(answer)
        self._handler, self._told = anyio.CancelScope(), anyio.Event()
        self._failure: Exception | None = None

    async def serve(self, app: ASGIApp, scope: Scope) -> Literal["cut", "gone"] | None:
        """
        Have the application serve the request.

        Returns:
            `cut` or `gone` where the handler was cancelled, and why.

        Raises:
            DeadlineExceeded: Time was up and the response had begun. There cannot be a second one, and a server that is
                told of an error ends the connection, so that nobody takes half an answer for a whole one.
        """
        answer = self._answer
        async with anyio.create_task_group() as watcher:
            watcher.start_soon(self._watch, scope)
            await self._run(app, scope)
            if answer.late and not answer.begun:
                await self._told.wait()
            watcher.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure
        if answer.late and not answer.whole:
            if answer.begun:
                raise DeadlineExceeded(
                    "a request's deadline passed after its response had begun: its handler was cancelled, and the"
                    " connection is ended. Next: give its caller's route more time, or let a long stream go without a"
                    " deadline"
                )
            return "cut"
        return "gone" if self._handler.cancelled_caught else None

    async def _run(self, app: ASGIApp, scope: Scope) -> None:
        with self._handler:
            try:
                await app(scope, self._inbox.receive, self._answer.send)
            except Exception as error:  # noqa: BLE001 (raised again outside the group, which would wrap it)
                self._failure = error

    async def _watch(self, scope: Scope) -> None:
        with anyio.move_on_after(max(0.0, self._at - monotonic())):
            if await self._inbox.wait_gone():
                if not self._answer.whole:
                    self._handler.cancel()
                return
            await anyio.sleep_forever()
        if self._answer.whole:
            return
        self._answer.late = True
        self._handler.cancel()
        if not self._answer.begun:
            _log.warning("answered 504: a request's deadline passed, and its handler was cancelled")
            # This is a task of its own, so nothing has to be put back.
            begin(None)
            await ErrorReply(504, "The time to answer was up.")(scope, self._receive, self._send)
            self._told.set()
