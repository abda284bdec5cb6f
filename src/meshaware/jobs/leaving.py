"""The last step of a job: whether its sidecar is let go, and what came of it."""

from __future__ import annotations

import logging
from typing import Protocol

from anyio import CapacityLimiter
from anyio.to_thread import run_sync

from meshaware.settings import MeshSettings, Workload
from meshaware.sidecar.parting import Outcome, QuitPolicy, objection
from meshaware.sidecar.readiness import ReadinessGate
from meshaware.sidecar.shutdown import Dismissal, async_dismiss, dismiss
from meshaware.sidecar.workload import async_load_workload, load_workload

__all__ = ["Host", "Leaving", "Sender"]

_log = logging.getLogger("meshaware.job")


class Sender(Protocol):
    """What is left of telemetry when there is nothing more to tell."""

    def leave(self) -> None:
        """Send what there is, and take no more."""
        ...


class Host(Protocol):
    """What leaving needs of a `Mesh`."""

    @property
    def settings(self) -> MeshSettings:
        """What it was told."""
        ...

    @property
    def gate(self) -> ReadinessGate:
        """Which mesh it is, by now."""
        ...

    @property
    def workload(self) -> Workload:
        """What is known of the pod, by now."""
        ...

    @property
    def telemetry(self) -> Sender | None:
        """What sends spans, if anything does."""
        ...


class Leaving:
    """
    How one job leaves.

    Args:
        host: The mesh.
        policy: When the sidecar is let go; None: as the settings say.
        shared: Whether other containers of the application do not matter; None: as the settings say.
    """

    def __init__(self, host: Host, policy: QuitPolicy | None, shared: bool | None) -> None:  # noqa: FBT001
        self._host = host
        self._policy: QuitPolicy = host.settings.quit if policy is None else policy
        self._shared = host.settings.quit_shared if shared is None else shared

    def leave(self, outcome: Outcome) -> None:
        """Let the sidecar go, if that is right; a sidecar that stays is a line in the log, never an error."""
        host = self._host
        workload = load_workload(host.settings, flavour=host.gate.flavour) if self._must_ask() else host.workload
        dismissal = self._objection(outcome, workload)
        if dismissal is None:
            if host.telemetry is not None:
                # Nothing leaves once the sidecar has gone: what the exit of the process sends would wait in vain.
                host.telemetry.leave()
            dismissal = dismiss(host.gate.flavour, url=host.settings.quit_url)
        _tell(dismissal)

    async def async_leave(self, outcome: Outcome) -> None:
        """The same as `leave`, on asyncio and trio."""
        host = self._host
        workload = (
            await async_load_workload(host.settings, flavour=host.gate.flavour) if self._must_ask() else host.workload
        )
        dismissal = self._objection(outcome, workload)
        if dismissal is None:
            if host.telemetry is not None:
                await run_sync(host.telemetry.leave, limiter=CapacityLimiter(1))
            dismissal = await async_dismiss(host.gate.flavour, url=host.settings.quit_url)
        _tell(dismissal)

    def _must_ask(self) -> bool:
        """Whether the sidecar may know something of the pod that matters and was not asked yet."""
        host = self._host
        undecided = host.gate.flavour.quit.url is not None and self._policy != "never"
        return undecided and host.workload is host.settings.workload

    def _objection(self, outcome: Outcome, workload: Workload) -> Dismissal | None:
        return objection(
            self._host.gate.flavour,
            self._policy,
            outcome,
            labels=workload.labels,
            annotations=workload.annotations,
            containers=workload.app_containers,
            shared=self._shared,
        )


def _tell(dismissal: Dismissal) -> None:
    level = logging.WARNING if dismissal.refused else logging.INFO if dismissal.told else logging.DEBUG
    _log.log(level, "%s", dismissal.reason)
