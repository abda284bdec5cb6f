"""Does what the generators of `attempts` ask for, on an event loop."""

from __future__ import annotations

from typing import TypeVar

import anyio
import anyio.to_thread

from meshaware.errors import SidecarUnavailable
from meshaware.sidecar.admin import async_fetch
from meshaware.sidecar.attempts import Fetch, Knocks, Steps
from meshaware.sidecar.knocking import knock

__all__ = ["async_perform"]

T = TypeVar("T")


async def async_perform(steps: Steps[T]) -> T:
    """Do what an attempt asks for, on asyncio and trio; cancellation ends it at once."""
    try:
        step = next(steps)
        while True:
            step = steps.send(await _do(step))
    except StopIteration as end:
        result: T = end.value
        return result


async def _do(step: Fetch | Knocks) -> object:
    if isinstance(step, Knocks):
        # A thread costs less than a task for each port, and its time is bounded.
        return await anyio.to_thread.run_sync(knock, step.knocks, step.timeout, abandon_on_cancel=True)
    try:
        return await async_fetch(step.url, timeout=step.timeout, max_bytes=step.max_bytes)
    except SidecarUnavailable as error:
        return error
