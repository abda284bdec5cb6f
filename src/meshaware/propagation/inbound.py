"""What can be asked about the request that is being served: who called, and which request an error came from."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from meshaware.identity import Peer
from meshaware.propagation.context import Carried, current
from meshaware.propagation.spans import arrival, tracing_here

__all__ = ["current_peer", "mark", "marked", "served"]

_MARK = "__meshaware__"
_NOTHING: Mapping[bytes, bytes] = MappingProxyType({})


class _Mark:
    """Keeps what a request carried; empty once it is copied or pickled, for it belongs to this process."""

    __slots__ = ("carried",)

    def __init__(self, carried: Carried | None = None) -> None:
        self.carried = carried

    def __reduce__(self) -> tuple[type[_Mark], tuple[()]]:
        return _Mark, ()


def current_peer() -> Peer | None:
    """
    Tell who called, by the word of the proxy beside this process; None where it does not say.

    None means unauthenticated: a call without mTLS, a mesh whose proxy does not tell, no mesh, or no request.
    It is the last hop, perhaps a gateway. A caller that reaches the application past the proxy (on loopback, on
    a port that the mesh does not capture) can write anything here.
    """
    carried = current()
    return None if carried is None else carried.peer


def mark(error: Exception, carried: Carried) -> None:
    """Note on an error which request it came from: a server logs it when that request is not served any more."""
    error.__dict__[_MARK] = _Mark(carried)


def marked(error: object) -> Carried | None:
    """Return what the request carried that the error came from, if a mark says so."""
    found = getattr(error, _MARK, None)
    return found.carried if isinstance(found, _Mark) else None


def served(error: object = None) -> tuple[Mapping[bytes, bytes], Peer | None]:
    """
    Return the headers of the request that is being served, and who called.

    Args:
        error: An error to be told about. Outside a request it may tell which one it came from.
    """
    carried = current()
    if carried is None and error is not None:
        carried = marked(error)
    if carried is not None:
        return carried.cargo.came, carried.peer
    arrived = arrival() if tracing_here() else None
    return (_NOTHING if arrived is None else arrived.came), None
