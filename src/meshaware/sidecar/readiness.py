"""`ReadinessGate`: the gate of a service or worker, with tasks beside threads, in the log and in the telemetry."""

from __future__ import annotations

import logging
from time import monotonic

import anyio
import anyio.lowlevel

from meshaware.durations import format_duration
from meshaware.errors import SidecarUnavailable
from meshaware.flavours import Flavour
from meshaware.instrumentation import GateOutcome, announce_gate
from meshaware.settings import MeshSettings
from meshaware.sidecar.admin import async_fetch
from meshaware.sidecar.gate import MAX_BYTES, Gate, Round
from meshaware.sidecar.waiting import Answer, GateState, News

__all__ = ["GateState", "ReadinessGate"]

_LOGGER = logging.getLogger(__name__)


class ReadinessGate(Gate):
    """
    Opens when the proxy beside this process takes calls, and stays open.

    | usage | meaning |
    |---|---|
    | `gate.wait()`, `await gate.async_wait()` | until it is open, at most `settings.ready_timeout` |
    | `gate.wait(timeout=30)` | at most 30 s |
    | `gate.wait(fatal=False)` | False instead of an error when the time is up |
    | `gate.state`, `gate.is_open` | what is known now; asks nobody |

    It is open from the start where there is nothing to wait for: no mesh, or one without a proxy in the pod.
    In Kubernetes with nothing known of the pod, Istio's ports are asked for 3 s at most; if nothing answers
    there, there is no sidecar.

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
    ) -> bool:
        """The same as `wait`, on asyncio and trio; a cancellation leaves the gate to the others who wait."""
        await anyio.lowlevel.checkpoint()
        with self._waiting(timeout) as waiter:
            while (turn := self._room.turn(waiter, monotonic())) is not None:
                if turn.ask:
                    self._hear(waiter, await self._async_ask(turn.seconds))
                else:
                    await anyio.sleep(turn.seconds)
        return self._outcome(fatal=fatal)

    async def _async_ask(self, seconds: float) -> Answer:
        attempt = Round(self._urls, seconds)
        for url in attempt:
            try:
                attempt.take(await async_fetch(url, timeout=attempt.left(), max_bytes=MAX_BYTES))
            except SidecarUnavailable as error:
                attempt.fail(error)
        return attempt.answer


def _tell(news: News, flavour: Flavour) -> None:
    _log(news, flavour)
    if news.what != "begun":
        announce_gate(GateOutcome(news.what, news.state.waited, news.state.flavour))


def _log(news: News, flavour: Flavour) -> None:
    reason, waited = news.state.reason, format_duration(news.state.waited)
    if news.what == "begun":
        _LOGGER.info("waiting for the sidecar (%s): %s", flavour.title, reason)
    elif news.what == "opened":
        # What was ready when it was first asked needs no line.
        if news.state.attempts > 1:
            _LOGGER.info("the sidecar is ready after %s", waited)
    elif news.what == "absent":
        _LOGGER.info("%s; going on without a mesh. MESHAWARE_MESH says it without asking", reason)
    else:
        _LOGGER.warning("the sidecar (%s) is not ready after %s: %s", flavour.title, waited, reason)
