"""`mesh.job()` and `mesh.async_job()`: wait for the sidecar, run, flush, let it go."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from types import TracebackType
from typing import Any, ParamSpec, Protocol, TypeVar

import anyio

from meshaware.jobs.leaving import Host, Leaving
from meshaware.jobs.sigterm import Terminated, async_hear_sigterm, hear_sigterm
from meshaware.sidecar.parting import Outcome, QuitPolicy

__all__ = ["AsyncJob", "Holder", "Job", "outcome_of"]

P = ParamSpec("P")
T = TypeVar("T")


class Holder(Host, Protocol):
    """What a job needs of a `Mesh`."""

    def sync_lifespan(self) -> AbstractContextManager[None]:
        """Hold it open."""
        ...

    def lifespan(self) -> AbstractAsyncContextManager[None]:
        """Hold it open, on asyncio and trio."""
        ...


def outcome_of(error: BaseException | None) -> Outcome:
    """How a job ended that ended with this error; `sys.exit()` and `sys.exit(0)` are a success."""
    if error is None or (isinstance(error, SystemExit) and error.code in {None, 0}):
        return "success"
    return "terminated" if isinstance(error, Terminated) else "failure"


class Job:
    """
    One piece of work beside a sidecar: `with mesh.job():`, or `@mesh.job()` on a function.

    Waits for the gate, runs, closes the mesh's clients, flushes telemetry, and then lets a classic sidecar go. SIGTERM
    meanwhile raises `SystemExit(143)` in the main thread, if nobody else handles it.

    Args:
        holder: The mesh.
        policy: When its sidecar is let go; None: as the settings say.
        shared: Whether other containers of the application do not matter; None: as the settings say.

    Raises:
        SidecarNotReady: As the work would begin: the sidecar was not ready in `settings.ready_timeout`.
    """

    def __init__(self, holder: Holder, policy: QuitPolicy | None = None, shared: bool | None = None) -> None:  # noqa: FBT001
        self._holder, self._leaving = holder, Leaving(holder, policy, shared)
        self._entered: list[AbstractContextManager[None]] = []

    def __enter__(self) -> None:
        held = _hold(self._holder, self._leaving)
        held.__enter__()
        self._entered.append(held)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self._entered.pop().__exit__(kind, error, trace)

    def __call__(self, work: Callable[P, T]) -> Callable[P, T]:
        """
        Make each call of a function a job of its own.

        Raises:
            TypeError: The function only makes what is run later: a coroutine or a generator.
        """
        if inspect.iscoroutinefunction(work) or inspect.isasyncgenfunction(work):
            raise TypeError(f"{work.__qualname__} is asynchronous: write @mesh.async_job()")
        if inspect.isgeneratorfunction(work):
            raise TypeError(f"{work.__qualname__} is a generator: write `with mesh.job():` around what runs through it")

        @functools.wraps(work)
        def job(*args: P.args, **kwargs: P.kwargs) -> T:
            with _hold(self._holder, self._leaving):
                return work(*args, **kwargs)

        return job


class AsyncJob:
    """
    The same as `Job`, on asyncio and trio: `async with mesh.async_job():`, or `@mesh.async_job()` on an `async def`.

    SIGTERM meanwhile cancels the work; `SystemExit(143)` is raised when all is closed.

    Args:
        holder: The mesh.
        policy: When its sidecar is let go; None: as the settings say.
        shared: Whether other containers of the application do not matter; None: as the settings say.

    Raises:
        SidecarNotReady: As the work would begin: the sidecar was not ready in `settings.ready_timeout`.
    """

    def __init__(self, holder: Holder, policy: QuitPolicy | None = None, shared: bool | None = None) -> None:  # noqa: FBT001
        self._holder, self._leaving = holder, Leaving(holder, policy, shared)
        self._entered: list[AbstractAsyncContextManager[None]] = []

    async def __aenter__(self) -> None:
        held = _async_hold(self._holder, self._leaving)
        await held.__aenter__()
        self._entered.append(held)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._entered.pop().__aexit__(kind, error, trace)

    def __call__(self, work: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """
        Make each call of a coroutine function a job of its own.

        Raises:
            TypeError: It is not one.
        """
        if not inspect.iscoroutinefunction(work):
            raise TypeError(f"{work.__qualname__} is no `async def`: write @mesh.job()")

        @functools.wraps(work)
        async def job(*args: P.args, **kwargs: P.kwargs) -> T:
            async with _async_hold(self._holder, self._leaving):
                return await work(*args, **kwargs)

        return job


@contextmanager
def _hold(holder: Holder, leaving: Leaving) -> Generator[None]:
    ended: BaseException | None = None
    with hear_sigterm() as ear:
        try:
            with holder.sync_lifespan(), ear.at_work():
                holder.gate.wait()
                yield
        except BaseException as error:
            ended = error
            raise
        finally:
            leaving.leave(outcome_of(ended))


@asynccontextmanager
async def _async_hold(holder: Holder, leaving: Leaving) -> AsyncGenerator[None]:
    ended: BaseException | None = None
    async with async_hear_sigterm() as ear:
        try:
            async with holder.lifespan():
                with ear.at_work():
                    await holder.gate.async_wait()
                    yield
        except BaseException as error:
            ended = error
            raise
        finally:
            with anyio.CancelScope(shield=True):
                await leaving.async_leave(outcome_of(ended))
