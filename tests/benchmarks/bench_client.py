"""
One small GET on loopback, and 1,000 chunks: bare httpx, httpx with the same promises by hand, and meshaware's clients.

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
from tests.benchmarks.harness import Run, interleave, judge, ratio, show, timed
from tests.benchmarks.service import in_mesh

ROUNDS = 40
CALLS = 50
STREAMS = 4
CARRIED = {
    "x-request-id": "5a4e6c1e-2f0a-9b1c-8d2e-000000000001",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
    "x-user-type": "premium",
}


Taken = dict[str, list[float]]


def carrying(run: Run) -> Run:
    """The same inside a block that carries headers, as in a request that was served."""

    def carried() -> float:
        with bind_headers(CARRIED):
            return run()

    return carried


def synchronous(url: str, rounds: int) -> None:
    settings, routes = in_mesh()
    with httpx.Client() as bare, create_client(settings, routes=routes) as ours:

        def read(client: httpx.Client) -> None:
            with client.stream("GET", f"{url}/chunks") as response:
                for _ in response.iter_raw():
                    pass

        small = f"{url}/items/42"
        get = timed(lambda: ours.get(small), CALLS)
        variants = {
            "httpx.Client": timed(lambda: bare.get(small), CALLS),
            "by hand: headers=, timeout=": timed(lambda: bare.get(small, headers=CARRIED, timeout=5.25), CALLS),
            "create_client": get,
            "create_client, headers carried": carrying(get),
        }
        taken = interleave(variants, rounds)
        show("One synchronous GET", taken)
        _judge(taken, 1.20, "create_client", "httpx.Client")
        chunks = {
            "httpx.Client": timed(lambda: read(bare), STREAMS),
            "create_client": timed(lambda: read(ours), STREAMS),
        }
        taken = interleave(chunks, rounds)
        show("1,000 chunks of 1 KiB, read in a thread", taken)
        _judge(taken, 1.10, "create_client", "httpx.Client")


def asynchronous(url: str, rounds: int) -> None:
    settings, routes = in_mesh()
    with asyncio.Runner() as runner:
        bare, ours = httpx.AsyncClient(), create_async_client(settings, routes=routes)
        small = f"{url}/items/42"

        async def by_hand() -> httpx.Response:
            async with asyncio.timeout(5.25):
                return await bare.get(small, headers=CARRIED)

        async def read(client: httpx.AsyncClient) -> None:
            async with client.stream("GET", f"{url}/chunks") as response:
                async for _ in response.aiter_raw():
                    pass

        async def read_by_hand() -> None:
            async with asyncio.timeout(5.25):
                await read(bare)

        def calls(call: Callable[[], Awaitable[object]], number: int) -> Run:
            async def some() -> None:
                for _ in range(number):
                    await call()

            once = timed(lambda: runner.run(some()), 1)
            return lambda: once() / number

        get = calls(lambda: ours.get(small), CALLS)
        variants = {
            "httpx.AsyncClient": calls(lambda: bare.get(small), CALLS),
            "by hand: headers=, asyncio.timeout": calls(by_hand, CALLS),
            "create_async_client": get,
            "create_async_client, headers carried": carrying(get),
        }
        chunks = {
            "httpx.AsyncClient": calls(lambda: read(bare), STREAMS),
            "by hand: asyncio.timeout": calls(read_by_hand, STREAMS),
            "create_async_client": calls(lambda: read(ours), STREAMS),
        }
        try:
            taken = interleave(variants, rounds)
            show("One asynchronous GET", taken)
            _judge(taken, 1.10, "create_async_client", "httpx.AsyncClient")
            _judge(taken, 1.00, "create_async_client, headers carried", "by hand: headers=, asyncio.timeout")
            taken = interleave(chunks, rounds)
            show("1,000 chunks of 1 KiB", taken)
            _judge(taken, 1.10, "create_async_client", "httpx.AsyncClient")
            _judge(taken, 1.00, "create_async_client", "by hand: asyncio.timeout")
        finally:
            runner.run(bare.aclose())
            runner.run(ours.aclose())


def _judge(taken: Taken, most: float, own: str, other: str) -> None:
    seen = ratio(taken[own], taken[other])
    spread = f"{seen.median:.2f} ({seen.low:.2f} to {seen.high:.2f})"
    judge(f"{own}: at most {most:.2f} of {other}", spread, kept=seen.median <= most)


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
    seen = statistics.median(ours) * 1e3
    judge("a client that is not the first: at most 0.3 ms", f"{seen:.2f} ms", kept=seen <= 0.3)


def main(times: float = 1.0) -> None:
    with Child("upstream") as upstream:
        url = f"http://127.0.0.1:{upstream.port}"
        asynchronous(url, round(ROUNDS * times))
        synchronous(url, round(ROUNDS * times))
    construction()


if __name__ == "__main__":
    main()
