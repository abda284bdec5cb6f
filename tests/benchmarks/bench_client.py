"""
One small GET on loopback: bare httpx, httpx with the same promises written by hand, and meshaware's clients.

The server is a process of its own, and what is measured is the client's processor time.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable

import httpx

from meshaware import bind_headers, create_async_client, create_client
from tests.benchmarks.children import Child
from tests.benchmarks.harness import Run, interleave, show, timed
from tests.benchmarks.service import in_mesh

ROUNDS = 40
CALLS = 50
CARRIED = {
    "x-request-id": "5a4e6c1e-2f0a-9b1c-8d2e-000000000001",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
    "x-user-type": "premium",
}


def synchronous(url: str, rounds: int) -> None:
    settings, routes = in_mesh()
    with httpx.Client() as bare, create_client(settings, routes=routes) as ours, bind_headers(CARRIED):
        variants = {
            "httpx.Client": timed(lambda: bare.get(url), CALLS),
            "by hand: headers=, timeout=": timed(lambda: bare.get(url, headers=CARRIED, timeout=5.25), CALLS),
            "create_client": timed(lambda: ours.get(url), CALLS),
        }
        show("One synchronous GET", interleave(variants, rounds))


def asynchronous(url: str, rounds: int) -> None:
    settings, routes = in_mesh()
    with bind_headers(CARRIED), asyncio.Runner() as runner:
        bare, ours = httpx.AsyncClient(), create_async_client(settings, routes=routes)

        async def by_hand() -> httpx.Response:
            async with asyncio.timeout(5.25):
                return await bare.get(url, headers=CARRIED)

        def calls(get: Callable[[], Awaitable[object]]) -> Run:
            async def some() -> None:
                for _ in range(CALLS):
                    await get()

            once = timed(lambda: runner.run(some()), 1)
            return lambda: once() / CALLS

        variants = {
            "httpx.AsyncClient": calls(lambda: bare.get(url)),
            "by hand: headers=, asyncio.timeout": calls(by_hand),
            "create_async_client": calls(lambda: ours.get(url)),
        }
        try:
            show("One asynchronous GET", interleave(variants, rounds))
        finally:
            runner.run(bare.aclose())
            runner.run(ours.aclose())


def construction() -> None:
    settings, routes = in_mesh()

    def made(make: Callable[[], httpx.Client], count: int) -> list[float]:
        times: list[float] = []
        for _ in range(count):
            begin = time.process_time()
            client = make()
            times.append(time.process_time() - begin)
            client.close()
        return times

    create_client(settings, routes=routes).close()
    bare, ours = made(httpx.Client, 5), made(lambda: create_client(settings, routes=routes), 200)
    print("Making a client, not the first one")
    print(f"  {'httpx.Client':<42} {statistics.median(bare) * 1e3:7.2f} ms")
    print(f"  {'create_client':<42} {statistics.median(ours) * 1e3:7.2f} ms")


def main(times: float = 1.0) -> None:
    with Child("upstream") as upstream:
        url = f"http://127.0.0.1:{upstream.port}/items/42"
        asynchronous(url, round(ROUNDS * times))
        synchronous(url, round(ROUNDS * times))
    construction()


if __name__ == "__main__":
    main()
