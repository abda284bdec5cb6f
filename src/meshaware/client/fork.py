"""
Connections that a process must not use: those of its parent, and those of an event loop that is no more.

A process that was forked has copies of its parent's descriptors. Two processes that speak on one connection read each
other's answers, and a TLS session survives only one of them. So in the child every client gets empty pools, and the
copies are closed without a word to the peer, which leaves the parent's connections as they are.

The pools are httpcore's, reached through `_pool`, where both libraries have kept them since there were pools; httpcore
has no public way to forget a connection without closing it.
"""

from __future__ import annotations

import copy
import logging
import os
from asyncio import AbstractEventLoop, get_running_loop
from typing import Any
from weakref import WeakSet

from meshaware.client.nested import transports_within

__all__ = ["InOneLoop", "forget_connections", "forget_in_children"]

_clients: WeakSet[Any] = WeakSet()

_log = logging.getLogger("meshaware.client")


def forget_in_children(client: Any) -> None:
    """Have a client begin with empty pools in every process that is forked from this one."""
    _clients.add(client)


def forget_connections(client: Any) -> None:
    """
    Give a client empty pools, and close what was in the old ones without a word to the peer.

    Calls that are under way keep the old pool, and fail. Transports of the caller's are looked into as well; of those
    that are not built on httpcore nothing is known, and nothing is done to them.
    """
    old: list[Any] = []
    seen: list[Any] = []
    for transport in (client._transport, *client._mounts.values()):  # noqa: SLF001
        for each in transports_within(transport):
            pool = getattr(each, "_pool", None)
            if _is_pool(pool) and not any(each is other for other in seen):
                each._pool = _emptied(pool)  # noqa: SLF001
                old.append(pool)
            seen.append(each)
    for pool in old:
        for connection in pool.connections:
            if hasattr(connection, "close"):
                connection.close()
            else:
                _cut(connection)


def _is_pool(pool: object) -> bool:
    return all(hasattr(pool, name) for name in ("_connections", "_requests", "_optional_thread_lock"))


def _emptied(pool: Any) -> Any:
    # Another thread of the parent may have held it, and has no copy here that could ever let go of it.
    pool._optional_thread_lock = type(pool._optional_thread_lock)()  # noqa: SLF001
    fresh = copy.copy(pool)
    fresh._connections, fresh._requests = [], []  # noqa: SLF001
    return fresh


def _cut(connection: Any) -> None:
    """
    Close an asynchronous connection's descriptor behind the back of its event loop, which must not hear of it.

    To close it properly would take the loop that opened it: that loop is closed, or belongs to the parent, with whom
    the child shares its epoll. Something harmless takes the descriptor's place until its owner is collected.
    """
    while not hasattr(connection, "_network_stream"):
        connection = getattr(connection, "_connection", None)
        if connection is None:
            return
    socket = connection._network_stream.get_extra_info("socket")  # noqa: SLF001
    if socket is None or socket.fileno() < 0:
        return
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, socket.fileno(), inheritable=False)
    os.close(nothing)


class InOneLoop:
    """
    An asynchronous client that notices when the event loop of its connections is no more.

    Tests give each test, and `TestClient` outside a `with` each request, a loop of its own. httpx would take a
    connection from its pool that nobody drives any longer: "Event loop is closed".
    """

    _loop: AbstractEventLoop | None = None

    def settle(self) -> None:
        """Forget the connections of a loop that was closed; a loop that is only another one changes nothing."""
        loop = _running_loop()
        if loop is not self._loop:
            if self._loop is not None and self._loop.is_closed():
                forget_connections(self)
            self._loop = loop


def _running_loop() -> AbstractEventLoop | None:
    try:
        return get_running_loop()
    except RuntimeError:  # trio, whose sockets belong to no loop
        return None


def _after_fork() -> None:
    for client in list(_clients):
        try:
            forget_connections(client)
        except Exception:  # noqa: BLE001 (the other clients must not suffer from it)
            _log.exception("a forked process may share connections of %r with its parent", client)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
