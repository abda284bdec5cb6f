"""
How plain threads and executors come to carry what their creator carries: the headers of a request, its deadline, and
every other context variable, OpenTelemetry's context among them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import wraps
from typing import Any, ParamSpec, TypeVar

__all__ = ["CarryingThreadPoolExecutor", "carry"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


def carry(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """
    Wrap a function so that it runs with what is carried here, wherever and whenever it is called.

    For threads and executors, which start with nothing: `Thread(target=carry(work))`,
    `executor.submit(carry(work))`, `loop.run_in_executor(None, carry(work))`. What the function sets stays its own.

    Args:
        function: A function, a method, a `partial`: anything that does its work while it is called.

    Raises:
        TypeError: A coroutine function or a generator function does its work later, where the wrapper no longer
            holds; or no function was given, but what it returned.
    """
    _refuse_what_runs_later(function)
    context = copy_context()

    @wraps(function)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        # A context runs one function at a time; each call gets its own.
        return context.copy().run(function, *args, **kwargs)

    return run


class CarryingThreadPoolExecutor(ThreadPoolExecutor):
    """
    A `ThreadPoolExecutor` whose work runs with what is carried where it was submitted.

    By `submit`, by `map`, by `loop.run_in_executor(executor, work)`; and by `loop.run_in_executor(None, work)` after
    `loop.set_default_executor(executor)`. Each piece of work has a copy of the context: what it sets stays its own,
    and nothing is left in the thread. An `initializer` belongs to no submission and runs with nothing.
    """

    def submit(self, fn: Callable[_P, _R], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_R]:
        """Have `fn(*args, **kwargs)` run in a thread, with what is carried here."""
        context = copy_context()

        def run() -> _R:
            return context.run(fn, *args, **kwargs)

        return super().submit(run)

    def map(
        self,
        fn: Callable[..., _R],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        **options: Any,
    ) -> Iterator[_R]:
        """As `Executor.map`; every call runs with what is carried here, wherever the results are asked for."""
        context = copy_context()

        def run(*args: Any) -> _R:
            return context.copy().run(fn, *args)

        return super().map(run, *iterables, timeout=timeout, chunksize=chunksize, **options)


def _refuse_what_runs_later(function: object) -> None:
    if not callable(function):
        raise TypeError(
            f"carry() takes a function and got a {type(function).__name__}: write carry(work), not carry(work())"
        )
    for each in (function, type(function).__call__):
        name = getattr(function, "__qualname__", repr(type(function).__name__))
        if inspect.iscoroutinefunction(each):
            raise TypeError(
                f"carry() got {name}, a coroutine function: calling it runs nothing yet. A task inherits what its"
                " creator carries, without carry(); for a thread with a loop of its own write"
                " carry(lambda: asyncio.run(work()))"
            )
        if inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each):
            raise TypeError(
                f"carry() got {name}, a generator function: calling it runs nothing yet. Carry the function that goes"
                " through it: carry(lambda: list(work()))"
            )
