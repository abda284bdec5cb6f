"""
Knocking at several ports of this host at once, in one thread.

Where nothing listens the kernel refuses at once, so an empty machine costs a few system calls. No port holds up
another, and all of them together take no longer than the bound.
"""

from __future__ import annotations

import errno
import selectors
import socket
from collections.abc import Iterator
from contextlib import suppress
from time import monotonic
from typing import NamedTuple

from meshaware.errors import SidecarUnavailable
from meshaware.flavours import Heard
from meshaware.settings.addresses import parse_loopback
from meshaware.sidecar.exchange import Exchange

__all__ = ["MAX_BYTES", "Knock", "knock"]

MAX_BYTES = 1 << 14
"""How long an answer may be: that of a proxy is a word."""

_CHUNK = 1 << 14


class Knock(NamedTuple):
    """A port of this host, and what to ask there; None: nothing, to connect is enough."""

    port: int
    path: str | None

    @property
    def url(self) -> str:
        """Where that is."""
        return f"http://localhost:{self.port}{self.path or ''}"


def knock(knocks: tuple[Knock, ...], timeout: float) -> dict[int, Heard]:
    """
    Knock at all of them at once, and return what was heard, by port.

    Args:
        knocks: Where, one for each port.
        timeout: Seconds for all of them together; more than 0.
    """
    end = monotonic() + timeout
    with selectors.DefaultSelector() as selector:
        visits = [_Visit(each, timeout, selector) for each in knocks]
        while selector.get_map() and (left := end - monotonic()) > 0:
            for key, _ in selector.select(left):
                visit: _Visit = key.data
                visit.go_on()
        return {visit.port: visit.leave() for visit in visits}


class _Visit:
    """One port: its addresses one after another, until one does not refuse."""

    def __init__(self, knock: Knock, timeout: float, selector: selectors.BaseSelector) -> None:
        self.port = knock.port
        self._exchange = None if knock.path is None else Exchange(knock.url, "GET", timeout, MAX_BYTES)
        self._selector = selector
        # For as long as no connection stands, nobody may be there: the kernel of a busy host takes its time to refuse.
        self._heard = Heard("unreached")
        self._connection: socket.socket | None = None
        self._asked: tuple[Exchange, socket.socket] | None = None
        self._addresses = self._try_addresses(parse_loopback(knock.url).addresses)
        next(self._addresses, None)

    def _try_addresses(self, addresses: tuple[str, ...]) -> Iterator[None]:
        for address in addresses:
            try:
                connection = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
            except OSError:
                # A host without IPv6.
                continue
            connection.settimeout(0)
            self._connection = connection
            problem = connection.connect_ex((address, self.port))
            if problem == errno.EINPROGRESS:
                self._selector.register(connection, selectors.EVENT_WRITE, self)
                yield
                problem = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                self._selector.unregister(connection)
            if problem == 0:
                self._begin(connection)
                return
            self._close()
        self._heard = Heard("refused")

    def go_on(self) -> None:
        """Take the next step; the socket is ready for it."""
        if self._asked is None:
            next(self._addresses, None)
            return
        heard = _receive(*self._asked)
        if heard is not None:
            self._heard = heard
            self.leave()

    def leave(self) -> Heard:
        """End it, wherever it is, and tell what was heard."""
        if self._connection is not None and self._connection in self._selector.get_map():
            self._selector.unregister(self._connection)
        self._close()
        return self._heard

    def _begin(self, connection: socket.socket) -> None:
        if self._exchange is None:
            self._heard = Heard("listening")
            self._close()
            return
        self._heard = Heard("silent")
        self._asked = self._exchange, connection
        # A question is far smaller than what a socket takes at once; if the connection is broken, reading it tells.
        with suppress(OSError):
            connection.send(self._exchange.request)
        self._selector.register(connection, selectors.EVENT_READ, self)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _receive(exchange: Exchange, connection: socket.socket) -> Heard | None:
    try:
        reply = exchange.receive(connection.recv(_CHUNK))
    except SidecarUnavailable as error:
        return Heard(error.cause)
    except OSError:
        return Heard("invalid")
    return None if reply is None else Heard("answered", reply.status, reply.body)
