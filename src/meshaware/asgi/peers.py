"""Which word about the caller counts: that of the proxy beside this process, where there is known to be one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from meshaware.identity import Peer, find_peer
from meshaware.propagation.names import Pair
from meshaware.settings import MeshSettings

if TYPE_CHECKING:
    from meshaware.sidecar.readiness import ReadinessGate

__all__ = ["peer_reader"]


def peer_reader(settings: MeshSettings, gate: ReadinessGate | None = None) -> Callable[[Iterable[Pair]], Peer | None]:
    """
    Return the function that reads from a request's headers who called.

    Args:
        settings: They may tell which mesh this is, and so in which header its proxy says who called.
        gate: Asked where they do not: a proxy that answered is one that is there. Without a gate, or as long as it
            is closed, nobody vouches for a caller.
    """
    detected = settings.detected
    if detected.settled:
        return _reader(detected.flavour.peer_header)
    return _nobody if gate is None else partial(_ask, gate)


def _reader(header: str | None) -> Callable[[Iterable[Pair]], Peer | None]:
    return _nobody if header is None else partial(find_peer, header)


def _ask(gate: ReadinessGate, headers: Iterable[Pair]) -> Peer | None:
    return _reader(gate.flavour.peer_header)(headers) if gate.is_open else None


def _nobody(_: Iterable[Pair]) -> Peer | None:
    return None
