"""
Calls leave nothing behind: memory, descriptors, threads and tasks are the same after many calls as after a few.

Two thousand in a run of the tests; `nox -s endurance` makes a million, ENDURANCE_CALLS any number. Both clients do
what services do, in a child process each: answers, errors, redirects, bodies left unread, calls that run out of time,
hosts that refuse; each with headers and a URL of its own.
"""

from __future__ import annotations

import asyncio
import gc
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter

import httpx
import pytest

from meshaware import bind_headers, call_options, create_async_client, create_client
from meshaware.budgets import RouteTable
from meshaware.settings import MeshSettings

ROOT = Path(__file__).parents[2]
# The conftest decides which library `httpx` is.
CHILD = "import runpy, tests.conftest; runpy.run_module('tests.client.test_endurance', run_name='__main__')"
CALLS = int(os.environ.get("ENDURANCE_CALLS", "2000"))
AT_ONCE = 10
SAMPLES = 8
# What may come and go without being a leak: caches that fill to their bounds, the allocator's own arenas. One object
# that stays for each call is several times as much.
BLOCKS, KIB = max(600, CALLS // 250), 3072

REPLIES = {
    b"/busy/": b"HTTP/1.1 503 Service Unavailable\r\nserver: envoy\r\ncontent-length: 19\r\n\r\nno healthy upstream",
    b"/moved": b"HTTP/1.1 302 Found\r\nlocation: /there\r\ncontent-length: 0\r\n\r\n",
    b"/slow/": b"",
    b"/large": b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n" + b"x" * 100000,
}
LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
ROUTES = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: inventory, namespace: shop}
spec:
  hosts: [inventory]
  http:
  - timeout: 20s
    retries: {attempts: 2}
    route: [{destination: {host: inventory}}]
"""


class Upstream(asyncio.Protocol):
    """Answers each request by the beginning of its path."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport, self._data = transport, b""

    def data_received(self, data: bytes) -> None:
        self._data += data
        while b"\r\n\r\n" in self._data:
            head, _, rest = self._data.partition(b"\r\n\r\n")
            length = int(found[1]) if (found := LENGTH.search(head)) else 0
            if len(rest) < length:
                return
            self._data = rest[length:]
            self._transport.write(REPLIES.get(head.partition(b" ")[2][:6], OK))


def serve(port: socket.socket, started: threading.Event) -> None:
    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Upstream, sock=port)
        started.set()
        await server.serve_forever()

    asyncio.run(run())


def kind(number: int) -> str:
    """Most calls are answered; some are not."""
    if number % 1000 == 7:
        return "slow"
    if number % 500 == 11:
        return "refused"
    return {3: "busy", 5: "moved", 8: "large", 33: "busy"}.get(number % 50, "item")


class Memory:
    """What the process has now, as numbers that can be compared."""

    def __init__(self) -> None:
        gc.collect()
        self.blocks = sys.getallocatedblocks()
        self.kib = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
        self.descriptors = sum(1 for _ in Path("/proc/self/fd").iterdir())
        self.threads = threading.active_count()

    def __str__(self) -> str:
        return f"{self.kib} KiB, {self.blocks} blocks, {self.descriptors} descriptors, {self.threads} threads"


def settings_for(port: int) -> MeshSettings:
    return MeshSettings(mesh="none", outbound_proxy=f"http://127.0.0.1:{port}")


def call(client: httpx.Client, number: int) -> None:
    what = kind(number)
    with bind_headers({"x-request-id": f"{number:032x}", "baggage": f"number={number}"}):
        try:
            if what == "refused":
                client.get(f"https://127.0.0.1:1/{number}")
            elif what == "large":
                with client.stream("GET", f"http://inventory/large/{number}") as response:
                    next(response.iter_raw())
            elif what == "slow":
                client.get(f"http://inventory/slow/{number}", extensions=call_options(timeout=0.01))
            elif number % 7 == 0:
                client.post(f"http://inventory/item/{number}", json={"number": number})
            else:
                client.get(f"http://inventory/{what}/{number}", follow_redirects=True)
        except (httpx.ConnectError, httpx.TimeoutException):
            assert what in ("refused", "slow")


async def async_call(client: httpx.AsyncClient, number: int) -> None:
    what = kind(number)
    with bind_headers({"x-request-id": f"{number:032x}", "baggage": f"number={number}"}):
        try:
            if what == "refused":
                await client.get(f"https://127.0.0.1:1/{number}")
            elif what == "large":
                async with client.stream("GET", f"http://inventory/large/{number}") as response:
                    await anext(response.aiter_raw())
            elif what == "slow":
                await client.get(f"http://inventory/slow/{number}", extensions=call_options(timeout=0.01))
            elif number % 7 == 0:
                await client.post(f"http://inventory/item/{number}", json={"number": number})
            else:
                await client.get(f"http://inventory/{what}/{number}", follow_redirects=True)
        except (httpx.ConnectError, httpx.TimeoutException):
            assert what in ("refused", "slow")


def spans(calls: int) -> Iterator[range]:
    """All numbers, in as many parts as there are samples."""
    size = calls // SAMPLES
    for first in range(0, size * SAMPLES, size):
        yield range(first, first + size)


def many(port: int, calls: int, sample: Callable[[], None]) -> None:
    routes = RouteTable.from_manifests(ROUTES_FILE, namespace="shop")
    with create_client(settings_for(port), routes=routes) as client:
        for numbers in spans(calls):
            for number in numbers:
                call(client, number)
            sample()


async def async_many(port: int, calls: int, sample: Callable[[], None]) -> None:
    routes = RouteTable.from_manifests(ROUTES_FILE, namespace="shop")
    async with create_async_client(settings_for(port), routes=routes) as client:
        for numbers in spans(calls):
            todo = iter(numbers)

            async def work(todo: Iterator[int] = todo) -> None:
                for number in todo:
                    await async_call(client, number)

            async with asyncio.TaskGroup() as tasks:
                for _ in range(AT_ONCE):
                    tasks.create_task(work())
            sample()
        assert len(asyncio.all_tasks()) == 1


ROUTES_FILE = os.environ.get("ENDURANCE_ROUTES", "")


def child(side: str, port: int, calls: int) -> None:
    """Make the calls, and say what there was after each part of them."""
    begun = perf_counter()
    seen: list[Memory] = []

    def sample() -> None:
        seen.append(Memory())
        line = f"{side}: {len(seen) * (calls // SAMPLES)} calls, {perf_counter() - begun:.0f} s: {seen[-1]}"
        print(line, flush=True)  # noqa: T201 (a million calls take a while)

    if side == "sync":
        many(port, calls, sample)
    else:
        asyncio.run(async_many(port, calls, sample))
    # The first parts warm up; from then on nothing grows but by what comes and goes.
    early, late = seen[1], seen[-1]
    assert late.blocks - early.blocks <= BLOCKS, "objects are left behind"
    assert late.kib - early.kib <= KIB, "memory is left behind"
    assert late.descriptors - early.descriptors <= AT_ONCE, "descriptors are left behind"
    assert late.threads == early.threads, "threads are left behind"


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read as Linux tells it")
@pytest.mark.parametrize("side", ["sync", "async"])
def test_memory_is_flat(side: str, tmp_path: Path) -> None:
    """Half of the calls by each client."""
    (tmp_path / "routes.yaml").write_text(ROUTES)
    port, started = socket.create_server(("127.0.0.1", 0)), threading.Event()
    threading.Thread(target=serve, args=(port, started), daemon=True).start()
    assert started.wait(10)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, side, str(port.getsockname()[1]), str(CALLS // 2)],
        cwd=ROOT,
        env={**os.environ, "ENDURANCE_ROUTES": str(tmp_path / "routes.yaml")},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    child(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
