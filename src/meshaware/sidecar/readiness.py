"""`ReadinessGate`: the gate of a service or worker, with tasks beside threads, in the log and in the telemetry."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Iterable
from functools import wraps
from inspect import iscoroutinefunction
from time import monotonic
from typing import ParamSpec, Self, TypeVar, cast

import anyio
import anyio.lowlevel

from meshaware.durations import format_duration
from meshaware.flavours import Flavour
from meshaware.instrumentation import GateOutcome, announce_gate
from meshaware.settings import MeshSettings
from meshaware.sidecar.async_attempts import async_perform
from meshaware.sidecar.gate import Gate, Stage
from meshaware.sidecar.schedule import ATTEMPT, again
from meshaware.sidecar.waiting import GateState, News

__all__ = ["GateState", "ReadinessGate"]

P = ParamSpec("P")
T = TypeVar("T")
_LOGGER = logging.getLogger(__name__)


class ReadinessGate(Gate):
    """
    Opens when the proxy beside this process takes calls, and stays open.

    | usage | meaning |
    |---|---|
    | `gate.wait()`, `await gate.async_wait()` | until it is open, at most `settings.ready_timeout` |
    | `gate.wait(timeout=30)` | at most 30 s |
    | `gate.wait(fatal=False)` | False instead of an error when the time is up |
    | `gate.wait(upstreams=["inventory:8080"])` | until the proxy has a route for it as well |
    | `with gate:`, `async with gate:` | the same as `wait()` at its begin |
    | `@gate` | each call of a function or coroutine function waits first |
    | `gate.state`, `gate.is_open` | what is known now; asks nobody |

    It is open from the start where there is nothing to wait for: no mesh, one without a proxy in the pod, a
    native sidecar, or `settings.wait_disabled`. In Kubernetes with nothing known of the pod, the ports of all
    meshes are looked at for 3 s at most; if nothing answers there, the gate opens and the mesh is `unknown`:
    `find` and `async_find` look on.

    What is asked is `url`, else `settings.ready_url`, else the mesh's own addresses; where nothing listens at
    those and `settings.admin_url` is set, Envoy's `/ready` there.

    Any number of threads and tasks, of any event loop, may wait at once: together they ask as often as one
    would.

    Args:
        settings: Which mesh, which URL, how long; default `MeshSettings()`.
        url: Where readiness answers; loopback only.

    Raises:
        SettingsError: The URL is not on this host.
    """

    def __init__(self, settings: MeshSettings | None = None, *, url: str | None = None) -> None:
        known = MeshSettings() if settings is None else settings
        super().__init__(known.for_gate, url=url, tell=_tell)

    async def async_wait(
        self,
        timeout: float | None = None,  # noqa: ASYNC109  the same as wait
        *,
        fatal: bool | None = None,
        upstreams: Iterable[str] = (),
    ) -> bool:
        """The same as `wait`, on asyncio and trio; a cancellation leaves the gate to the others who wait."""
        await anyio.lowlevel.checkpoint()
        stages, end = self._begin(timeout, upstreams)
        for stage in stages:
            await self._async_pass(stage, end)
        return self._outcome(stages, fatal=fatal)

    async def async_find(self) -> Flavour:
        """The same as `find`, on asyncio and trio; it ends with its cancellation."""
        for timeout in (None, math.inf):
            await anyio.lowlevel.checkpoint()
            stages, end = self._begin(timeout, ())
            for stage in stages:
                await self._async_pass(stage, end)
        pauses = again()
        while not self._room.settled:
            await anyio.sleep(next(pauses))
            await async_perform(self._look(monotonic() + ATTEMPT))
        for stage in self._late_stages():
            await self._async_pass(stage, math.inf)
        return self.flavour

    async def _async_pass(self, stage: Stage, end: float) -> None:
        with self._waiting(stage, end) as waiter:
            while (turn := stage.room.turn(waiter, monotonic())) is not None:
                if turn.ask:
                    self._hear(stage, waiter, await async_perform(stage.attempt(monotonic() + turn.seconds)))
                else:
                    await anyio.sleep(turn.seconds)

    def __enter__(self) -> Self:
        self.wait()
        return self

    def __exit__(self, *_: object) -> None:
        pass

    async def __aenter__(self) -> Self:
        await self.async_wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        """Decorate a function, or a coroutine function, so that each call of it waits for the gate first."""
        if iscoroutinefunction(function):
            return cast("Callable[P, T]", self._async_gated(cast("Callable[P, Awaitable[object]]", function)))

        @wraps(function)
        def gated(*args: P.args, **kwargs: P.kwargs) -> T:
            if not self.is_open:
                self.wait()
            return function(*args, **kwargs)

        return gated

    def _async_gated(self, function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        @wraps(function)
        async def gated(*args: P.args, **kwargs: P.kwargs) -> T:
            if not self.is_open:
                await self.async_wait()
            return await function(*args, **kwargs)

        return gated


def _tell(news: News, flavour: Flavour) -> None:
    _log(news, flavour)
    if news.subject == "proxy" and news.what in ("opened", "absent", "failed"):
        announce_gate(GateOutcome(news.what, news.state.waited, news.state.flavour))


def _log(news: News, flavour: Flavour) -> None:
    reason, waited = news.state.reason, format_duration(news.state.waited)
    routes = news.subject == "routes"
    if news.what == "begun":
        _LOGGER.info("waiting for the sidecar (%s): %s", flavour.title, reason)
    elif news.what == "opened":
        # What was ready when it was first asked needs no line.
        if news.state.attempts > 1:
            _LOGGER.info("the sidecar %s after %s", "has the routes waited for" if routes else "is ready", waited)
    elif news.what == "absent":
        _LOGGER.info("%s; going on without a mesh. MESHAWARE_MESH says it without asking", reason)
    elif news.what == "found":
        _LOGGER.info("the mesh is %s: %s", flavour.title, reason)
    elif news.what == "needless":
        _LOGGER.info("not waiting for %s: %s", "routes" if routes else "the sidecar", reason)
    else:
        _LOGGER.warning("the sidecar (%s) is not ready after %s: %s", flavour.title, waited, reason)
