"""
Work that may hang, done where nobody has to wait for it longer than he wants to.

The SDK's `force_flush(timeout)` ignores its timeout
(https://github.com/open-telemetry/opentelemetry-python/issues/4568), an export to a collector that is silent
takes 10 seconds, and to one that refuses nearly as long. So it is done by a thread that no exit of the
process waits for. The thread is started early and kept, because Python 3.12 starts none while it exits,
which is when it is needed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from queue import SimpleQueue
from threading import TIMEOUT_MAX, Lock, Thread
from weakref import WeakMethod

__all__ = ["Errand", "Errands"]

_log = logging.getLogger("meshaware.telemetry")


class Errand:
    """
    One piece of work, and whether it is done.

    A bare lock is held until then. An `Event` has a lock of its own that a signal handler would wait for without a
    bound where it interrupts a wait for the same errand.
    """

    __slots__ = ("_undone", "done", "failed", "started", "work")

    def __init__(self, work: Callable[[], object]) -> None:
        self.work = work
        self.started = False
        self.failed = False
        self.done = False
        self._undone = Lock()
        self._undone.acquire()

    def finish(self) -> None:
        """Let everybody go who waits."""
        self.done = True
        self._undone.release()

    def wait(self, timeout: float) -> bool:
        """Wait so many seconds at most; returns whether it was done in time and without an error."""
        # Looked at first: whom a signal handler interrupted may have the lock in hand.
        if not self.done and self._undone.acquire(timeout=min(max(timeout, 0.0), TIMEOUT_MAX)):
            self._undone.release()
        return self.done and not self.failed


class Errands:
    """
    Runs work in one daemon thread, in order.

    Safe to use from signal handlers: no lock is held that the interrupted code could hold too. In a forked
    child the thread is started again and what was queued is the parent's.
    """

    def __init__(self) -> None:
        self._start()
        restart = WeakMethod(self._start)

        def after_fork() -> None:
            if (start := restart()) is not None:
                start()

        os.register_at_fork(after_in_child=after_fork)

    def _start(self) -> None:
        self._queue: SimpleQueue[Errand] = SimpleQueue()
        self._last: Errand | None = None
        Thread(target=_run, args=(self._queue,), name="meshaware-telemetry", daemon=True).start()

    @property
    def busy(self) -> bool:
        """Whether work that was given earlier is still not done: it hangs, or somebody waits for it."""
        return self._last is not None and not self._last.done

    def begin(self, work: Callable[[], object]) -> Errand:
        """
        Have work done, without waiting for it.

        Work that hangs goes on hanging in the background, and what comes after it waits its turn; the same
        work is queued once, however often it is asked for.

        Args:
            work: Called without arguments. An error it raises is logged, not raised.
        """
        errand = self._last
        if errand is None or errand.started or errand.work != work:
            errand = Errand(work)
            self._last = errand
            self._queue.put(errand)
        return errand

    def run(self, work: Callable[[], object], timeout: float) -> bool:
        """Have work done, and wait for it so many seconds; returns whether it was done in time and without an error."""
        return self.begin(work).wait(timeout)


def _run(queue: SimpleQueue[Errand]) -> None:
    while True:
        errand = queue.get()
        errand.started = True
        try:
            errand.work()
        except Exception:  # noqa: BLE001 - a provider of somebody else may raise anything
            errand.failed = True
            _log.exception("telemetry: %r failed", errand.work)
        finally:
            errand.finish()
