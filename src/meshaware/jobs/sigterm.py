"""
SIGTERM as something that ends a job's work in an orderly way.

By default Python dies of SIGTERM on the spot, and what was measured and traced is lost; and as the first process of a
container it does not even notice it, for the kernel keeps a signal without a handler from that one. So while a job
runs, SIGTERM ends it as Ctrl+C would. Where somebody handles SIGTERM already, that stays as it is.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, closing, contextmanager
from types import FrameType

import anyio

__all__ = ["AsyncEar", "Ear", "Terminated", "async_hear_sigterm", "hear_sigterm"]

_CODE = 128 + signal.SIGTERM


class Terminated(SystemExit):
    """SIGTERM came while a job ran; not caught, it ends the process with the exit code 143."""

    def __init__(self) -> None:
        super().__init__(_CODE)


class Ear:
    """
    Whether SIGTERM came, and whether it ends what is done now.

    Attributes:
        told: Whether it came, and nothing was ended for it.
    """

    def __init__(self) -> None:
        self.told = False
        self._at_work = False

    @contextmanager
    def at_work(self) -> Generator[None]:
        """Do what SIGTERM ends by raising `Terminated`, also one that came before; elsewhere it is only noted."""
        self._at_work = True
        if self.told:
            self.told = self._at_work = False
            raise Terminated
        try:
            yield
        finally:
            self._at_work = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Be the handler of SIGTERM."""
        del number, frame
        if self._at_work:
            raise Terminated
        self.told = True


@contextmanager
def hear_sigterm() -> Generator[Ear]:
    """Hear SIGTERM, where nobody else does; one that was only noted is sent again at the end."""
    ear = Ear()
    if not _unheard():
        yield ear
        return
    signal.signal(signal.SIGTERM, ear.handle)
    try:
        yield ear
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _send_again(told=ear.told)


class AsyncEar:
    """
    As `Ear`, for asyncio and trio: SIGTERM cancels.

    An event loop's own way to hear signals forgets one that comes as it stops listening, and this one must not be lost:
    so the handler notes it at once, and wakes the loop through a pipe.

    Attributes:
        told: Whether it came, and nothing was ended for it.
    """

    def __init__(self) -> None:
        self.told = False
        self._work = anyio.CancelScope()
        self._heard, self._tell = os.pipe()

    @contextmanager
    def at_work(self) -> Generator[None]:
        """Do what SIGTERM cancels, also one that came before, and raise `Terminated` if it did."""
        with self._work:
            yield
        if self.told and self._work.cancelled_caught:
            self.told = False
            raise Terminated

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Be the handler of SIGTERM."""
        del number, frame
        if not self.told:
            self.told = True
            os.write(self._tell, b"!")

    async def listen(self) -> None:
        """Be the task that cancels the work."""
        await anyio.wait_readable(self._heard)
        self._work.cancel()

    def close(self) -> None:
        """Let the pipe go, when nobody handles and nobody listens any more."""
        os.close(self._heard)
        os.close(self._tell)


@asynccontextmanager
async def async_hear_sigterm() -> AsyncGenerator[AsyncEar]:
    """The same as `hear_sigterm`, on asyncio and trio."""
    with closing(AsyncEar()) as ear:
        if not _unheard():
            yield ear
            return
        failure: BaseException | None = None
        signal.signal(signal.SIGTERM, ear.handle)
        try:
            async with anyio.create_task_group() as listening:
                listening.start_soon(ear.listen)
                try:
                    yield ear
                except BaseException as error:  # noqa: BLE001 (raised again below, outside the group that would wrap it)
                    failure = error
                listening.cancel_scope.cancel()
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            _send_again(told=ear.told)
        if failure is not None:
            raise failure


def _unheard() -> bool:
    main = threading.current_thread() is threading.main_thread()
    return main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def _send_again(*, told: bool) -> None:
    if told:
        os.kill(os.getpid(), signal.SIGTERM)
