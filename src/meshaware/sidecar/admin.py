"""
The only socket to the proxy: one request, one reply, on loopback, within a bound of time and size.

No proxies, no redirects, no name look-ups, no connection kept: an HTTP client library would have to be talked
out of each of these. What is said on the wire is decided once, without any I/O (`exchange`), for both worlds: threads
(`blocking`) and tasks.
"""

from __future__ import annotations

import anyio
import anyio.abc

from meshaware.sidecar.blocking import fetch
from meshaware.sidecar.exchange import AdminReply, Exchange

__all__ = ["AdminReply", "async_fetch", "fetch"]

_CHUNK = 1 << 16


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
    exchange = Exchange(url, method, timeout, max_bytes)
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


async def _async_connect(exchange: Exchange) -> anyio.abc.SocketStream:
    for address in exchange.address.addresses:
        try:
            return await anyio.connect_tcp(address, exchange.address.port)
        except OSError:
            continue
    raise exchange.refused()


async def _async_receive(connection: anyio.abc.SocketStream) -> bytes:
    try:
        return await connection.receive(_CHUNK)
    except anyio.EndOfStream:
        return b""
