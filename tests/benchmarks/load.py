"""Load on one service: the same bytes again and again, on connections that stay open, with as little work as can be."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

PATIENCE = 60.0


class _Connection(asyncio.Protocol):
    def __init__(self, load: Load) -> None:
        self._load = load
        self._received = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        if self._received == self._load.length:
            self._received = 0
            self._load.answered(self.transport)
        elif self._received > self._load.length:
            self._load.fail(RuntimeError(f"an answer is longer than the first: {data[:200]!r}"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.fail(exc or ConnectionError("the service closed a connection"))


class Load:
    """
    So many requests over several connections, each sent as soon as its connection has its answer.

    All answers are as long as the first: the framework's headers and the body are always the same.
    """

    def __init__(self, port: int, request: bytes, connections: int) -> None:
        self._port = port
        self._request = request
        self._number = connections
        self._connections: Sequence[_Connection] = ()
        self._left = 0
        self._open = 0
        self._ended: asyncio.Future[None] | None = None
        self.length = 0

    async def connect(self) -> None:
        """Open the connections, and learn how long an answer is."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        async with asyncio.timeout(PATIENCE):
            writer.write(self._request)
            head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"the service answered {head[:200]!r}")
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
        self.length = len(head) + int(fields[b"content-length"])
        writer.close()
        loop = asyncio.get_running_loop()
        self._connections = [
            (await loop.create_connection(lambda: _Connection(self), "127.0.0.1", self._port))[1]
            for _ in range(self._number)
        ]

    async def run(self, requests: int) -> None:
        """Make the requests; end when the last answer is there."""
        self._ended = asyncio.get_running_loop().create_future()
        self._left = requests - len(self._connections)
        self._open = len(self._connections)
        for connection in self._connections:
            connection.transport.write(self._request)
        async with asyncio.timeout(PATIENCE):
            await self._ended

    def answered(self, transport: asyncio.Transport) -> None:
        """Send the next one, if there is one."""
        if self._left > 0:
            self._left -= 1
            transport.write(self._request)
            return
        self._open -= 1
        if self._open == 0 and self._ended is not None:
            self._ended.set_result(None)

    def fail(self, error: Exception) -> None:
        """End with an error what is under way."""
        if self._ended is not None and not self._ended.done():
            self._ended.set_exception(error)

    def close(self) -> None:
        """Close the connections."""
        for connection in self._connections:
            connection.transport.abort()
