"""What `setup_telemetry` returns: what was found, and a bounded way to get the last spans out."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

import anyio
from anyio.to_thread import run_sync
from opentelemetry.trace import TracerProvider

from meshaware.durations import format_duration
from meshaware.telemetry.flush import Errands

__all__ = ["STOP_TIMEOUT", "State", "Telemetry"]

State = Literal["off", "own", "shared"]

STOP_TIMEOUT = 2.0
"""Seconds that a stop may take longer because spans are still to be sent."""

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
    """

    def __init__(
        self, state: State, reason: str, *, target: str = "", tracer_provider: TracerProvider | None = None
    ) -> None:
        self.state: State = state
        self.reason = reason
        self.target = target
        self.tracer_provider = tracer_provider
        self._errands = None if tracer_provider is None else Errands()
        self._stopped = False
        self._told = False

    def __repr__(self) -> str:
        return f"Telemetry({self.state!r}, {self.reason!r}, target={self.target!r})"

    @property
    def resource(self) -> Mapping[str, object]:
        """What every span says about this process; empty where spans are off or nobody tells."""
        resource: Any = getattr(self.tracer_provider, "resource", None)
        return MappingProxyType(dict(getattr(resource, "attributes", {})))

    def flush(self, timeout: float = STOP_TIMEOUT) -> bool:
        """
        Send the spans that have ended.

        Safe in signal handlers. Sending goes on in the background when the time is over.

        Args:
            timeout: Seconds to wait at most; the SDK's own `force_flush` has no such bound.

        Returns:
            Whether sending ended in time. What the collector answered is in the exporter's log lines.
        """
        if self.tracer_provider is None or self._errands is None or self._stopped:
            return True
        flush = getattr(self.tracer_provider, "force_flush", None)
        return flush is None or self._bounded(flush, timeout)

    def shutdown(self, timeout: float = STOP_TIMEOUT) -> bool:
        """
        Send the spans that have ended, and take no more; a provider that somebody else made is only flushed.

        Called by itself when the process exits normally. Further calls do nothing.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            Whether all was done in time.
        """
        if self.state != "own":
            return self.flush(timeout)
        if self._stopped:
            return True
        self._stopped = True
        return self._bounded(getattr(self.tracer_provider, "shutdown"), timeout)  # noqa: B009 - the SDK's, not the API's

    async def async_flush(self, timeout: float = STOP_TIMEOUT) -> bool:  # noqa: ASYNC109 - the wait is not a task's
        """Like `flush`, for asyncio and trio; a cancellation does not cut the wait short."""
        return await self._in_thread(self.flush, timeout)

    async def async_shutdown(self, timeout: float = STOP_TIMEOUT) -> bool:  # noqa: ASYNC109 - the same
        """Like `shutdown`, for asyncio and trio; a cancellation does not cut the wait short."""
        return await self._in_thread(self.shutdown, timeout)

    @property
    def stuck(self) -> bool:
        """Whether a wait was over before what was waited for: to wait again would be in vain."""
        return self._told and self._errands is not None and self._errands.busy

    def leave(self) -> None:
        """Shut down as the process exits, unless that is stuck."""
        if not self.stuck:
            self.shutdown()

    async def _in_thread(self, work: Any, seconds: float) -> bool:
        if self._errands is None:
            return True
        outcome: list[bool] = []
        with anyio.CancelScope(shield=True):
            # A limiter of its own: at a stop all of the default one's threads may be stuck in requests.
            outcome.append(await run_sync(work, seconds, limiter=anyio.CapacityLimiter(1)))
        return all(outcome)

    def _bounded(self, work: Any, timeout: float) -> bool:
        errands = self._errands
        if errands is None or errands.run(work, timeout):
            return True
        if not self._told:
            self._told = True
            _log.warning(
                "telemetry: spans could not be sent within %s%s; those still queued when the process ends are"
                " lost. Next: does the collector answer?",
                format_duration(timeout),
                f" to {self.target}" if self.target else "",
            )
        return False
