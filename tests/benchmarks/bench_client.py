"""
One small GET on loopback: bare httpx, httpx with the same promises written by hand, and meshaware's clients.

The server is a process of its own that does as little as HTTP allows, so the client is what is measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from meshaware import MeshSettings, bind_headers, create_async_client, create_client
from meshaware.budgets import RouteTable

ROUNDS = 40
CALLS = 50
CARRIED = {
    "x-request-id": "5a4e6c1e-2f0a-9b1c-8d2e-000000000001",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
    "x-user-type": "premium",
}
SERVER = """
import asyncio, sys
class Tiny(asyncio.Protocol):
    def connection_made(self, transport): self.transport = transport
    def data_received(self, data):
        self.transport.write(b"HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\n\\r\\nok" * data.count(b"\\r\\n\\r\\n"))
async def main():
    server = await asyncio.get_running_loop().create_server(Tiny, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
asyncio.run(main())
"""
MANIFEST = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: inventory}
spec:
  hosts: ["127.0.0.1"]
  http:
  - match: [{uri: {prefix: /admin}}]
    timeout: 9s
    route: [{destination: {host: inventory}}]
  - timeout: 3s
    retries: {attempts: 2, perTryTimeout: 1s}
    route: [{destination: {host: inventory}}]
"""


@contextlib.contextmanager
def server() -> Generator[int]:
    """A tiny HTTP server in a process of its own; yields its port."""
    with subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            if process.stdout is None or process.stdin is None:
                raise RuntimeError("pipes were asked for")
            yield int(process.stdout.readline())
            process.stdin.close()
            process.wait(5)
        finally:
            process.kill()


def parts(port: int) -> tuple[MeshSettings, RouteTable, str]:
    """Settings under which the server is inside the mesh, and has a budget."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / "inventory.yaml"
        path.write_text(MANIFEST)
        routes = RouteTable.from_manifests(path)
    return MeshSettings(mesh="none", mesh_hosts=("127.0.0.1",)), routes, f"http://127.0.0.1:{port}/items/42"


def rounds(variants: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Seconds per call of each variant, round by round, in turn."""
    taken: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(ROUNDS):
        for name, run in variants.items():
            taken[name].append(run() / CALLS)
    return taken


def show(title: str, taken: dict[str, list[float]]) -> None:
    """Medians, and the ratio to the first variant, pair by pair."""
    print(title)
    base = next(iter(taken.values()))
    for name, times in taken.items():
        ratio = statistics.median(own / other for own, other in zip(times, base, strict=True))
        print(f"  {name:<42} {statistics.median(times) * 1e6:7.1f} us   {ratio:5.2f} x")


def synchronous(port: int) -> None:
    settings, routes, url = parts(port)

    def calls(get: Callable[[str], httpx.Response]) -> Callable[[], float]:
        def run() -> float:
            begin = time.perf_counter()
            for _ in range(CALLS):
                get(url)
            return time.perf_counter() - begin

        return run

    with httpx.Client() as bare, create_client(settings, routes=routes) as ours, bind_headers(CARRIED):
        variants = {
            "httpx.Client": calls(bare.get),
            "by hand: headers=, timeout=": calls(lambda url: bare.get(url, headers=CARRIED, timeout=5.25)),
            "create_client": calls(ours.get),
        }
        for run in variants.values():
            run()
        show("one synchronous GET", rounds(variants))


def asynchronous(port: int) -> None:
    settings, routes, url = parts(port)

    async def by_hand(client: httpx.AsyncClient) -> httpx.Response:
        async with asyncio.timeout(5.25):
            return await client.get(url, headers=CARRIED)

    async def main() -> None:
        async with httpx.AsyncClient() as bare, create_async_client(settings, routes=routes) as ours:

            async def calls(get: Callable[[], Awaitable[httpx.Response]]) -> float:
                begin = time.perf_counter()
                for _ in range(CALLS):
                    await get()
                return time.perf_counter() - begin

            variants: dict[str, Callable[[], Awaitable[httpx.Response]]] = {
                "httpx.AsyncClient": lambda: bare.get(url),
                "by hand: headers=, asyncio.timeout": lambda: by_hand(bare),
                "create_async_client": lambda: ours.get(url),
            }
            taken: dict[str, list[float]] = {name: [] for name in variants}
            with bind_headers(CARRIED):
                for number in range(ROUNDS + 1):
                    for name, get in variants.items():
                        seconds = await calls(get) / CALLS
                        if number:
                            taken[name].append(seconds)
            show("one asynchronous GET", taken)

    asyncio.run(main())


def construction() -> None:
    settings, routes, _ = parts(1)

    def made(make: Callable[[], httpx.Client], count: int) -> list[float]:
        times: list[float] = []
        for _ in range(count):
            begin = time.perf_counter()
            client = make()
            times.append(time.perf_counter() - begin)
            client.close()
        return times

    create_client(settings, routes=routes).close()
    bare, ours = made(httpx.Client, 5), made(lambda: create_client(settings, routes=routes), 200)
    print("making a client, not the first one")
    print(f"  {'httpx.Client':<42} {statistics.median(bare) * 1e3:7.2f} ms")
    print(f"  {'create_client':<42} {statistics.median(ours) * 1e3:7.2f} ms")


def main() -> None:
    with server() as port:
        asynchronous(port)
        synchronous(port)
    construction()


if __name__ == "__main__":
    main()
