"""
The exit of a worker of `multiprocessing`, which is none that Python knows of: it leaves by `os._exit`, and what was
registered with `atexit` is not called.

What is registered with `multiprocessing.util` is. That forgets, as a worker begins, what was registered before: in the
parent, or while a spawned worker imported the program. So it is asked to tell when a worker has begun.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any
from weakref import WeakMethod

__all__ = ["WorkerExit"]

_LATE = -10
"""After the finalizers of pools and queues, which may wait for work that is still done."""


class WorkerExit:
    """
    Has something called when this process leaves, if it is a worker of `multiprocessing`; the same in each worker
    that it forks.

    `multiprocessing` is not imported for it: without it there is no worker.

    Args:
        leave: Called without arguments; a second call must do nothing.
    """

    def __init__(self, leave: Callable[[], object]) -> None:
        self._leave = leave
        self._asked = False
        ask = WeakMethod(self._ask)

        def after_fork() -> None:
            if (alive := ask()) is not None:
                alive()

        os.register_at_fork(after_in_child=after_fork)
        self._ask()
        process = sys.modules.get("multiprocessing.process")
        if process is not None and process.parent_process() is not None:
            self._begun()

    def _ask(self) -> None:
        """Ask to be told when a worker has begun: in the child of a fork, or in one that was spawned."""
        util: Any = sys.modules.get("multiprocessing.util")
        if util is not None and not self._asked:
            self._asked = True
            util.register_after_fork(self, WorkerExit._begun)

    def _begun(self) -> None:
        util: Any = sys.modules["multiprocessing.util"]
        util.Finalize(None, self._leave, exitpriority=_LATE)
