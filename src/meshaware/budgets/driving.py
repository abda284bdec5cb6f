"""Does what the generators of `polling.py` and `rounds.py` ask for: in a thread, or on an event loop."""

from __future__ import annotations

import threading
from typing import Any

import anyio
import anyio.to_thread

from meshaware.budgets.polling import Ask, Do, Step, Steps
from meshaware.errors import SidecarUnavailable
from meshaware.sidecar.admin import AdminReply, async_fetch, fetch

__all__ = ["async_run", "run"]

_OK = 200


def run(steps: Steps[bool], url: str, stopping: threading.Event) -> bool:
    """
    Do the steps in this thread.

    Args:
        steps: What to do.
        url: The admin address.
        stopping: Set by another thread that wants this to end; then the result is False.
    """
    try:
        step = next(steps)
        while not stopping.is_set():
            try:
                came = _perform(step, url, stopping)
            except Exception as error:  # noqa: BLE001 (what it means, the steps know)
                step = steps.throw(error)
            else:
                step = steps.send(came)
    except StopIteration as end:
        done: bool = end.value
        return done
    finally:
        steps.close()
    return False


def _perform(step: Step, url: str, stopping: threading.Event) -> Any:
    if isinstance(step, Ask):
        return _body(step, url, fetch(url + step.path, timeout=step.timeout, max_bytes=step.max_bytes))
    if isinstance(step, Do):
        return step.work()
    return stopping.wait(step.seconds)


async def async_run(steps: Steps[bool], url: str) -> bool:
    """The same on asyncio and trio; beside the event loop what takes long."""
    try:
        step = next(steps)
        while True:
            try:
                came = await _async_perform(step, url)
            except Exception as error:  # noqa: BLE001 (as above)
                step = steps.throw(error)
            else:
                step = steps.send(came)
    except StopIteration as end:
        done: bool = end.value
        return done
    finally:
        steps.close()


async def _async_perform(step: Step, url: str) -> Any:
    if isinstance(step, Ask):
        return _body(step, url, await async_fetch(url + step.path, timeout=step.timeout, max_bytes=step.max_bytes))
    if isinstance(step, Do):
        return await anyio.to_thread.run_sync(step.work, abandon_on_cancel=True)
    return await anyio.sleep(step.seconds)


def _body(step: Ask, url: str, reply: AdminReply) -> bytes:
    if reply.status != _OK:
        said = reply.body[:100].decode(errors="replace").strip()
        raise SidecarUnavailable(f"GET {url}{step.path} answered {reply.status}, not 200: {said!r}", "invalid")
    return reply.body
