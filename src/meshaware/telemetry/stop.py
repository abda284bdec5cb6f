"""
Where a process stops, and what was not sent yet has to leave before: an application's lifespan, SIGTERM, the
interpreter's exit.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from types import FrameType
from typing import Any

from meshaware.errors import SettingsError
from meshaware.telemetry.handle import Telemetry

__all__ = ["flush_at_lifespan_end", "flush_at_sigterm"]


def flush_at_lifespan_end(app: Any, telemetry: Telemetry) -> None:
    """
    Flush when an application's lifespan has ended, after its own shutdown code.

    uvicorn kills itself by the signal it was stopped with once the lifespan has ended, so nothing that
    Python does at exit happens then. The provider stays usable: an application may be started again, as
    tests do.

    Args:
        app: A FastAPI or Starlette application that has not been started.
        telemetry: What to flush.
    """
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(started: Any) -> AsyncGenerator[Any, None]:
        try:
            async with inner(started) as state:
                yield state
        finally:
            await telemetry.async_flush()

    app.router.lifespan_context = lifespan


def flush_at_sigterm(telemetry: Telemetry) -> None:
    """
    Flush when SIGTERM comes, then do what would have been done: run the handler that was there, or die of
    the signal.

    Raises:
        SettingsError: Called outside the main thread, where Python sets no handlers, or a handler is there
            that Python cannot run afterwards.
    """
    previous = signal.getsignal(signal.SIGTERM)
    if previous is None:
        raise SettingsError("sigterm=True cannot be used here: SIGTERM has a handler that was not set from Python")

    def handle(number: int, frame: FrameType | None) -> None:
        telemetry.flush_what_moves()
        if callable(previous):
            previous(number, frame)
        elif previous is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    try:
        signal.signal(signal.SIGTERM, handle)
    except ValueError as error:
        raise SettingsError(
            f"sigterm=True cannot be used here: call setup_telemetry in the main thread ({error})"
        ) from error
