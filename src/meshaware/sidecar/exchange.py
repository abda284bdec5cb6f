"""What is said on the wire to the proxy, and what comes back: HTTP/1.1 as bytes, without any I/O."""

from __future__ import annotations

import math
from typing import NamedTuple

import h11

from meshaware.durations import format_duration
from meshaware.errors import SidecarUnavailable
from meshaware.settings.addresses import parse_loopback

__all__ = ["AdminReply", "Exchange"]

_METHODS = ("GET", "HEAD", "POST")
_MAX_HEADER_BYTES = 1 << 15
_SHOWN_URL = 200
_SHOWN_BYTES = 40
# What h11 would answer if it were a server whose peer sends such headers.
_HEADERS_TOO_LARGE = 431


class AdminReply(NamedTuple):
    """What the proxy answered: the HTTP status and the complete body."""

    status: int
    body: bytes


class Exchange:
    """
    One request and its reply, as bytes; and the errors that name them.

    Args:
        url: `http`, and on loopback.
        method: `GET`, `HEAD` or `POST`.
        timeout: Seconds that the whole exchange may take; more than 0. Who does the I/O keeps to it.
        max_bytes: How long a body may be.

    Raises:
        ValueError: One of them cannot be used.
    """

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
