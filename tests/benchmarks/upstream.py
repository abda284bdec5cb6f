"""A server that does as little as HTTP allows: `python -m tests.benchmarks.upstream`."""

from __future__ import annotations

import asyncio

from tests.benchmarks.children import answer_parent

REPLY = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CHUNKS = 1000
STREAM = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
CHUNK = b"400\r\n" + bytes(1024) + b"\r\n"


class Tiny(asyncio.Protocol):
    """Answers each blank line that ends a request without a body; `/chunks` with as many of 1 KiB."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"GET /chunks "):
            self._transport.write(STREAM + CHUNK * CHUNKS + b"0\r\n\r\n")
        else:
            self._transport.write(REPLY * data.count(b"\r\n\r\n"))


async def main() -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    server = await loop.create_server(Tiny, "127.0.0.1", 0)
    answer_parent(server.sockets[0].getsockname()[1], {}, lambda: loop.call_soon_threadsafe(ended.set))
    await ended.wait()


if __name__ == "__main__":
    asyncio.run(main())
