"""
Where the clients that meshaware makes meet whoever wants to instrument them.

The factories announce each client they make; telemetry, where it is set up, is called for each. Neither
knows the other, and the order does not matter: clients that were made before are kept in mind as long as
they live.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Any
from weakref import WeakSet

__all__ = ["announce_client", "copy_request", "on_client"]

_clients: WeakSet[object] = WeakSet()
_callbacks: list[Callable[[object], None]] = []
_lock = Lock()


def announce_client(client: object) -> None:
    """
    Tell everybody who asked that a client was made, and remember it as long as it lives.

    Args:
        client: A client that can be referred to weakly, as those of httpx and httpx2 can.
    """
    with _lock:
        _clients.add(client)
        callbacks = tuple(_callbacks)
    for callback in callbacks:
        callback(client)


def on_client(callback: Callable[[object], None]) -> None:
    """
    Have a function called for each client made from now on, and at once for each that is alive.

    Args:
        callback: Called in the thread that makes the client. Asking again with an equal callback changes
            nothing: it is still called once for each client.
    """
    with _lock:
        if callback in _callbacks:
            return
        _callbacks.append(callback)
        alive = tuple(_clients)
    for client in alive:
        callback(client)


def copy_request(request: object) -> Any:
    """
    Return a request of httpx or httpx2 that shares the stream of another, so that a layer may change its headers.

    Neither library has such a copy: `copy.copy` takes the way of pickling, which loses the stream and the extensions.
    """
    twin = object.__new__(type(request))
    vars(twin).update(vars(request))
    return twin
