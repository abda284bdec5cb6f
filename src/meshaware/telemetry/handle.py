"""What `setup_telemetry` returns: what was found, and a bounded way to get out what was not sent yet."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from time import monotonic
from types import MappingProxyType
from typing import Any

import anyio
from anyio.to_thread import run_sync
from opentelemetry.trace import TracerProvider

from meshaware.durations import format_duration
from meshaware.telemetry.flush import Errand
from meshaware.telemetry.outlet import Outlet, State

__all__ = ["STOP_TIMEOUT", "Telemetry"]

STOP_TIMEOUT = 2.0
"""Seconds that a stop may take longer because spans, metrics and log records are still to be sent: all together."""

_WORDS = {"traces": "spans", "metrics": "metrics", "logs": "log records"}

_log = logging.getLogger("meshaware.telemetry")


class Telemetry:
    """
    Telemetry as it was set up in this process.

    Made by `setup_telemetry`; nobody needs to keep it, because the process's exit and the applications that
    were given flush by themselves.

    Attributes:
        state: `off`: no spans are made. `own`: meshaware made the tracer provider and exports. `shared`:
            somebody else made it, and meshaware only instruments.
        reason: Why so: the variable or the object that decided.
        target: Where spans go, as far as meshaware knows.
        tracer_provider: The provider in use; None where the state is `off`.
        metrics: The same four for metrics: an `Outlet` with `state`, `reason`, `target` and `provider`.
        logs: The same for log records.
    """

    def __init__(
        self, state: State, reason: str, *, target: str = "", tracer_provider: TracerProvider | None = None
    ) -> None:
        self.state: State = state
        self.reason = reason
        self.target = target
        self.tracer_provider = tracer_provider
        self.metrics = Outlet("metrics", "off", "not set up")
        self.logs = Outlet("logs", "off", "not set up")
        self._outlets = [Outlet("traces", state, reason, target=target, provider=tracer_provider)]

    def __repr__(self) -> str:
        return f"Telemetry({self.state!r}, {self.reason!r}, target={self.target!r})"

    @property
    def resource(self) -> Mapping[str, object]:
        """What every span says about this process; empty where spans are off or nobody tells."""
        resource: Any = getattr(self.tracer_provider, "resource", None)
        return MappingProxyType(dict(getattr(resource, "attributes", {})))

    @property
    def works(self) -> bool:
        """Whether there is anything to flush."""
        return any(outlet.provider is not None for outlet in self._outlets)

    @property
    def owns(self) -> bool:
        """Whether there is anything to shut down."""
        return any(outlet.state == "own" for outlet in self._outlets)

    def add(self, outlet: Outlet) -> None:
        """Take on one more signal, or say why it is off; what works already is still flushed."""
        present = self.metrics if outlet.signal == "metrics" else self.logs
        if outlet.provider is not None and outlet not in self._outlets:
            self._outlets.append(outlet)
        if outlet.provider is None and present.provider is not None:
            return
        if outlet.signal == "metrics":
            self.metrics = outlet
        else:
            self.logs = outlet

    def flush(self, timeout: float = STOP_TIMEOUT) -> bool:
        """
        Send the spans that have ended, what was measured, and what was logged.

        Safe in signal handlers. Sending goes on in the background when the time is over.

        Args:
            timeout: Seconds to wait at most, for all of it; the SDK's own `force_flush` has no such bound.

        Returns:
            Whether sending ended in time. What the collector answered is in the exporters' log lines.
        """
        return _bounded(Outlet.flush, self._outlets, timeout)

    def shutdown(self, timeout: float = STOP_TIMEOUT) -> bool:
        """
        Send the same, and take no more; providers that somebody else made are only flushed.

        Called by itself when the process exits normally. Further calls do nothing.

        Args:
            timeout: Seconds to wait at most, for all of it.

        Returns:
            Whether all was done in time.
        """
        return _bounded(Outlet.shutdown, self._outlets, timeout)

    async def async_flush(self, timeout: float = STOP_TIMEOUT) -> bool:  # noqa: ASYNC109 - the wait is not a task's
        """Like `flush`, for asyncio and trio; a cancellation does not cut the wait short."""
        return await self._in_thread(self.flush, timeout)

    async def async_shutdown(self, timeout: float = STOP_TIMEOUT) -> bool:  # noqa: ASYNC109 - the same
        """Like `shutdown`, for asyncio and trio; a cancellation does not cut the wait short."""
        return await self._in_thread(self.shutdown, timeout)

    def flush_what_moves(self) -> bool:
        """Flush, but do not wait again for what was waited for in vain."""
        return _bounded(Outlet.flush, self._moving(), STOP_TIMEOUT)

    async def async_flush_what_moves(self) -> bool:
        """Like `flush_what_moves`, for asyncio and trio; a cancellation does not cut the wait short."""
        return await self._in_thread(self.flush_what_moves)

    def leave(self) -> None:
        """Shut down as the process exits, but do not wait again for what was waited for in vain."""
        _bounded(Outlet.shutdown, self._moving(), STOP_TIMEOUT)

    def _moving(self) -> list[Outlet]:
        return [outlet for outlet in self._outlets if not outlet.stuck]

    async def _in_thread(self, work: Callable[..., bool], *arguments: float) -> bool:
        if not self.works:
            return True
        outcome: list[bool] = []
        with anyio.CancelScope(shield=True):
            # A limiter of its own: at a stop all of the default one's threads may be stuck in requests.
            outcome.append(await run_sync(work, *arguments, limiter=anyio.CapacityLimiter(1)))
        return all(outcome)


def _bounded(work: Callable[[Outlet], Errand | None], outlets: Iterable[Outlet], timeout: float) -> bool:
    """Begin the work of all at once, and wait for all together."""
    end = monotonic() + timeout
    begun = [(outlet, errand) for outlet in outlets if (errand := work(outlet)) is not None]
    failed = [outlet for outlet, errand in begun if not errand.wait(end - monotonic())]
    untold = [outlet for outlet in failed if not outlet.late]
    for outlet in untold:
        outlet.late = True
    if untold:
        targets = list(dict.fromkeys(outlet.target for outlet in untold if outlet.target))
        _log.warning(
            "telemetry: %s could not be sent within %s%s; those still queued when the process ends are"
            " lost. Next: does the collector answer?",
            _listed([_WORDS[outlet.signal] for outlet in untold]),
            format_duration(timeout),
            f" to {_listed(targets)}" if targets else "",
        )
    return not failed


def _listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
