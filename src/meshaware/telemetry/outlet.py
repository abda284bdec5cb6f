"""One signal as a process has it: its provider, whose that is, and how it is flushed and shut down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from meshaware.telemetry.flush import Errand, Errands
from meshaware.telemetry.variables import SignalName

__all__ = ["Outlet", "State"]

State = Literal["off", "own", "shared"]


class Outlet:
    """
    Where one signal of this process leaves.

    Each has a thread of its own for what may hang, so that a collector that swallows one signal does not hold up
    the others.

    Attributes:
        signal: `traces`, `metrics` or `logs`.
        state: `off`: nothing leaves. `own`: meshaware made the provider and exports. `shared`: somebody else
            made it.
        reason: Why so: the variable, the argument or the object that decided.
        target: Where it goes, as far as meshaware knows.
        provider: OpenTelemetry's provider in use; None where the state is `off`.
        late: Whether a wait was over before what was waited for.
    """

    def __init__(
        self,
        signal: SignalName,
        state: State,
        reason: str,
        *,
        target: str = "",
        provider: Any = None,
        before_shutdown: Callable[[], None] | None = None,
    ) -> None:
        self.signal: SignalName = signal
        self.state: State = state
        self.reason = reason
        self.target = target
        self.provider = provider
        self.late = False
        self._before_shutdown = before_shutdown
        self._errands = None if provider is None else Errands()
        self._stopped = False

    def __repr__(self) -> str:
        return f"Outlet({self.signal!r}, {self.state!r}, {self.reason!r}, target={self.target!r})"

    @property
    def stuck(self) -> bool:
        """Whether to wait again would be in vain: a wait was over before its work, and that goes on still."""
        return self.late and self._errands is not None and self._errands.busy

    def flush(self) -> Errand | None:
        """Begin to send what is there; None where there is nothing to do."""
        flush = None if self._stopped else getattr(self.provider, "force_flush", None)
        return None if self._errands is None or flush is None else self._errands.begin(flush)

    def shutdown(self) -> Errand | None:
        """Begin to send what is there and take no more; somebody else's provider is only flushed."""
        if self.state != "own":
            return self.flush()
        if self._errands is None or self._stopped:
            return None
        self._stopped = True
        return self._errands.begin(self._shut_down)

    def _shut_down(self) -> None:
        if self._before_shutdown is not None:
            self._before_shutdown()
        self.provider.shutdown()
