"""
The only socket to the proxy: one request, one reply, on loopback, within a bound of time and size.

No proxies, no redirects, no name look-ups, no connection kept: an HTTP client library would have to be talked
out of each of these. What is said on the wire is decided once, without any I/O, for both worlds. anyio is
loaded with the first asynchronous call, so that a command that only asks and goes does not pay for it.
"""

from __future__ import annotations

import math
import socket
import time
from typing import TYPE_CHECKING, NamedTuple

import h11

from meshaware.durations import format_duration
from meshaware.errors import SidecarUnavailable
from meshaware.settings.addresses import parse_loopback

if TYPE_CHECKING:
    from anyio.abc import SocketStream

__all__ = ["AdminReply", "async_fetch", "fetch"]

_METHODS = ("GET", "HEAD", "POST")
_CHUNK = 1 << 16
_MAX_HEADER_BYTES = 1 << 15
_SHOWN_URL = 200
_SHOWN_BYTES = 40
# What h11 would answer if it were a server whose peer sends such headers.
_HEADERS_TOO_LARGE = 431


class AdminReply(NamedTuple):
    """What the proxy answered: the HTTP status and the complete body."""

    status: int
    body: bytes


def fetch(url: str, *, timeout: float = 1.0, max_bytes: int = 1 << 20, method: str = "GET") -> AdminReply:
    """
    Ask the proxy beside this process, and return whatever it answers, of any status.

    `timeout` bounds the whole exchange, from connecting to the last byte: a peer that sends a byte now and
    then does not extend it. Redirects are returned as they are. `HTTP_PROXY` and its kin mean nothing here.

    Args:
        url: `http`, and on loopback.
        timeout: Seconds; more than 0.
        max_bytes: How long a body may be.
        method: `GET`, `HEAD` or `POST`; Envoy wants `POST` for everything that changes something.

    Raises:
        SidecarUnavailable: There was no complete reply; its `cause` is `refused`, `timeout`, `invalid` or
            `too_large`.
        ValueError: The URL is not one on loopback, or another argument cannot be used; no socket was opened.
    """
    exchange = _Exchange(url, method, timeout, max_bytes)
    deadline = time.monotonic() + timeout
    try:
        with _connect(exchange, deadline) as connection:
            connection.settimeout(_left(deadline))
            connection.sendall(exchange.request)
            while True:
                connection.settimeout(_left(deadline))
                reply = exchange.receive(connection.recv(_CHUNK))
                if reply is not None:
                    return reply
    except TimeoutError:
        raise exchange.timed_out() from None
    except OSError as error:
        raise exchange.broken(error) from error


async def async_fetch(
    url: str,
    *,
    timeout: float = 1.0,  # noqa: ASYNC109  the same as fetch
    max_bytes: int = 1 << 20,
    method: str = "GET",
) -> AdminReply:
    """
    The same as `fetch`, on asyncio and trio; cancellation ends it at once.

    Raises:
        SidecarUnavailable: As for `fetch`.
        ValueError: As for `fetch`.
    """
    import anyio  # noqa: PLC0415 (heavy)

    exchange = _Exchange(url, method, timeout, max_bytes)
    try:
        with anyio.move_on_after(timeout):
            async with await _async_connect(exchange) as connection:
                await connection.send(exchange.request)
                while True:
                    reply = exchange.receive(await _async_receive(connection))
                    if reply is not None:
                        return reply
    except (OSError, anyio.BrokenResourceError) as error:
        raise exchange.broken(error) from error
    raise exchange.timed_out()


class _Exchange:
    """One request and its reply, as bytes; and the errors that name them."""

    def __init__(self, url: str, method: str, timeout: float, max_bytes: int) -> None:
        self.address = parse_loopback(url)
        if method not in _METHODS:
            raise ValueError(f"method {method!r} is none of {', '.join(_METHODS)}")
        if not 0 < timeout < math.inf:
            raise ValueError(f"timeout {timeout!r} is not a number of seconds, more than 0")
        self._what = f"{method} {url[:_SHOWN_URL]}"
        self._timeout, self._max_bytes = timeout, max_bytes
        self._wire = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEADER_BYTES)
        self._status, self._body, self._arrived, self._first = 0, bytearray(), 0, b""
        headers = [("Host", self.address.authority), ("User-Agent", "meshaware"), ("Connection", "close")]
        if method == "POST":
            headers.append(("Content-Length", "0"))
        head = self._wire.send(h11.Request(method=method, target=self.address.target, headers=headers))
        self.request: bytes = (head or b"") + (self._wire.send(h11.EndOfMessage()) or b"")

    def receive(self, data: bytes) -> AdminReply | None:
        """Take what the peer sent, `b""` for the end; return the reply once it is complete."""
        self._arrived += len(data)
        self._first = self._first or data[:_SHOWN_BYTES]
        # Informational replies and the framing of chunks come without end too.
        if self._arrived > 2 * self._max_bytes + _MAX_HEADER_BYTES:
            raise self._too_large()
        try:
            self._wire.receive_data(data)
            return self._events()
        except h11.RemoteProtocolError as error:
            if error.error_status_hint == _HEADERS_TOO_LARGE:
                raise self._too_large() from error
            if not data:
                raise self._cut_off() from error
            raise SidecarUnavailable(
                f"{self._what}: the answer is not HTTP/1.1: it begins with {self._first!r}", "invalid"
            ) from error

    def refused(self) -> SidecarUnavailable:
        """Nobody accepts connections there."""
        return SidecarUnavailable(f"{self._what}: connection refused: nothing listens there", "refused")

    def timed_out(self) -> SidecarUnavailable:
        """The time is over."""
        came = f"{self._arrived} bytes of it came" if self._arrived else "nothing came"
        return SidecarUnavailable(f"{self._what}: no reply within {format_duration(self._timeout)}: {came}", "timeout")

    def broken(self, error: Exception) -> SidecarUnavailable:
        """The connection broke."""
        return SidecarUnavailable(f"{self._what}: the connection broke: {type(error).__name__}", "invalid")

    def _events(self) -> AdminReply | None:
        while True:
            event = self._wire.next_event()
            if event is h11.NEED_DATA:
                return None
            if isinstance(event, h11.Response):
                self._status = event.status_code
            elif isinstance(event, h11.Data):
                self._body += event.data
                if len(self._body) > self._max_bytes:
                    raise self._too_large()
            elif isinstance(event, h11.EndOfMessage):
                return AdminReply(self._status, bytes(self._body))

    def _cut_off(self) -> SidecarUnavailable:
        return SidecarUnavailable(f"{self._what}: the connection was closed before the reply was complete", "invalid")

    def _too_large(self) -> SidecarUnavailable:
        return SidecarUnavailable(f"{self._what}: the reply is larger than {self._max_bytes} bytes", "too_large")


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _connect(exchange: _Exchange, deadline: float) -> socket.socket:
    for address in exchange.address.addresses:
        try:
            return socket.create_connection((address, exchange.address.port), timeout=_left(deadline))
        except TimeoutError:
            raise
        except OSError:
            continue
    raise exchange.refused()


async def _async_connect(exchange: _Exchange) -> SocketStream:
    import anyio  # noqa: PLC0415 (heavy)

    for address in exchange.address.addresses:
        try:
            return await anyio.connect_tcp(address, exchange.address.port)
        except OSError:
            continue
    raise exchange.refused()


async def _async_receive(connection: SocketStream) -> bytes:
    import anyio  # noqa: PLC0415 (heavy)

    try:
        return await connection.receive(_CHUNK)
    except anyio.EndOfStream:
        return b""
