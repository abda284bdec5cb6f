"""
The time between being told to stop and stopping.

Kubernetes takes a pod out of its services and sends SIGTERM at the same moment; callers learn of the one some time
after the other, and go on calling meanwhile. uvicorn closes its port as soon as the signal comes, before anything in
the application's lifespan runs. So a handler of our own goes before the server's: from SIGTERM on readiness fails and
each answer asks for its connection to be closed, and the server's handler is called after a pause in which everything
is still served.

The mechanism is Python's signal handler, `signal.signal`, which uvicorn uses, alone, in `--workers` and in gunicorn's
uvicorn workers. A server that has its event loop look after signals (`loop.add_signal_handler`: hypercorn, gunicorn's
own ASGI worker) is told at once whatever we do, and needs a `preStop` in the Deployment instead.
"""

from __future__ import annotations

import _thread
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from meshaware.asgi.types import ASGIApp, Message, Receive, Scope, Send
from meshaware.durations import format_duration
from meshaware.settings import MeshSettings

if TYPE_CHECKING:
    from meshaware.sidecar.readiness import ReadinessGate

__all__ = ["Drain", "LastAnswers", "drain_time"]

_log = logging.getLogger("meshaware.drain")

_CLOSE = (b"connection", b"close")


def drain_time(settings: MeshSettings, gate: ReadinessGate) -> float:
    """
    Return for how many seconds the service goes on serving after SIGTERM.

    What `settings.drain` says, else what the mesh needs to learn of it: nothing where there is none. As long as the
    gate is closed nobody was sent here, so nobody has to be told. Takes no lock: it is asked in a signal's handler.
    """
    if not gate.is_open:
        return 0.0
    return gate.flavour.drain if settings.drain is None else settings.drain


class Drain:
    """
    Holds SIGTERM back for a while, once.

    A second SIGTERM, or SIGINT meanwhile, is passed on at once. SIGINT alone, a developer's Ctrl+C, is the server's.

    Args:
        pause: For how many seconds; asked when SIGTERM comes, in the signal's handler. 0 passes it on at once.

    Attributes:
        begun: Whether the process was told to stop, and takes no more traffic.
    """

    def __init__(self, pause: Callable[[], float]) -> None:
        self.begun = False
        self._pause = pause
        self._held: object = None
        """What SIGTERM waits for, each time another object; None: nothing."""
        self._previous: dict[int, Any] = {}
        # A bound method is a new object each time it is looked up.
        self._handler = self._handle

    @contextmanager
    def watching(self) -> Generator[None]:
        """Go before the handler of SIGTERM that there is now, which is the server's where it has one."""
        self.begun, self._held = False, None
        why = self._hindrance()
        if why:
            _log.debug("SIGTERM is not held back: %s", why)
            yield
            return
        self._go_before(signal.SIGTERM)
        try:
            yield
        finally:
            self._held = None
            for number in list(self._previous):
                self._step_aside(number)

    def _hindrance(self) -> str:
        if threading.current_thread() is not threading.main_thread():
            return "the application does not run in the main thread"
        handler = signal.getsignal(signal.SIGTERM)
        if handler is None:
            return "it has a handler that was not set from Python"
        return "it is ignored, so nothing stops" if handler == signal.SIG_IGN else ""

    def _handle(self, number: int, frame: FrameType | None) -> None:
        pause = 0.0 if self.begun else self._pause()
        self.begun = True
        if number != signal.SIGTERM or self._held is not None or pause <= 0:
            self._pass_on(number, frame)
            return
        self._held = held = object()
        if signal.getsignal(signal.SIGINT) not in (None, signal.SIG_IGN):
            self._go_before(signal.SIGINT)
        # Not `threading`, nor a line in the log: the code that the signal interrupted may hold their locks.
        _thread.start_new_thread(self._remind, (held, pause, threading.get_ident()))

    def _remind(self, held: object, pause: float, main: int) -> None:
        _log.info("SIGTERM: not ready any more, and stopping in %s", format_duration(pause))
        time.sleep(pause)
        if self._held is held:
            # To the main thread, which its event loop may have put to sleep.
            signal.pthread_kill(main, signal.SIGTERM)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self._held = None
        previous = self._previous[number]
        if callable(previous):
            previous(number, frame)
        else:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _go_before(self, number: int) -> None:
        # Two lifespans may be open at once; each would call the other for ever.
        if signal.getsignal(number) is not self._handler:
            self._previous[number] = signal.signal(number, self._handler)

    def _step_aside(self, number: int) -> None:
        previous = self._previous[number]
        # Who came after us, and calls us, is left where it is.
        if signal.getsignal(number) is self._handler:
            signal.signal(number, previous)


class LastAnswers:
    """
    Asks for each connection to be closed behind its answer, once the drain has begun; until then it changes nothing.

    Callers, their sidecars among them, keep connections open and write the next request into one that the server is
    just about to close. Only HTTP/1.1 has the header: HTTP/2 says the same by itself.

    Args:
        app: The ASGI application; it stays visible as `app`.
        drain: Says whether it has begun.
    """

    __slots__ = ("_drain", "app")

    def __init__(self, app: ASGIApp, drain: Drain) -> None:
        self.app = app
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope.get("http_version") != "1.1":
            await self.app(scope, receive, send)
            return
        drain = self._drain

        async def send_last(message: Message) -> None:
            if drain.begun and message["type"] == "http.response.start":
                message = {**message, "headers": _closing(message)}
            await send(message)

        await self.app(scope, receive, send_last)


def _closing(message: Message) -> list[tuple[bytes, bytes]]:
    kept = [(name, value) for name, value in message.get("headers", ()) if name.lower() != b"connection"]
    return [*kept, _CLOSE]
