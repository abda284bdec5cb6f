"""
One request through an ASGI application that does nothing: bare, behind a middleware written by hand, behind
asgi-correlation-id, and behind meshaware's; and what a call out of it costs to get the headers.

No server and no client stand between: a coroutine is run to its end, so the middleware is what is measured.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextvars import ContextVar
from timeit import Timer

from asgi_correlation_id import CorrelationIdMiddleware

from meshaware import MeshMiddleware, MeshSettings
from meshaware.asgi.types import ASGIApp, Message, Receive, Scope, Send
from meshaware.propagation.context import attach, bind_headers

ROUNDS = 60
REQUESTS = 1000

HEADERS = [
    (b"host", b"orders:8080"),
    (b"user-agent", b"python-httpx/0.28.1"),
    (b"accept", b"*/*"),
    (b"accept-encoding", b"gzip, deflate"),
    (b"authorization", b"Bearer " + b"x" * 800),
    (b"x-forwarded-proto", b"http"),
    (b"x-envoy-attempt-count", b"1"),
    (b"x-forwarded-client-cert", b"By=spiffe://cluster.local/ns/shop/sa/orders;Hash=" + b"4a" * 32 + b';Subject=""'),
    (b"x-request-id", b"4c7b9e2a-9a1d-9f9b-8c3e-5d1f2a3b4c5d"),
    (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    (b"tracestate", b"rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
    (b"baggage", b"userId=alice,serverNode=DF%2028,isProduction=false"),
    (b"x-b3-traceid", b"0af7651916cd43dd8448eb211c80319c"),
    (b"x-b3-spanid", b"b7ad6b7169203331"),
    (b"x-b3-parentspanid", b"05e3ac9a4f6e3b90"),
    (b"x-b3-sampled", b"1"),
    (b"x-user-type", b"premium"),
    (b"x-canary", b"true"),
    (b"content-length", b"0"),
    (b"cookie", b"session=" + b"x" * 40),
    (b"cache-control", b"no-cache"),
    (b"x-b3-flags", b"0"),
]
NAMES = frozenset(name for name, _ in HEADERS[8:18]) | {b"x-b3-flags", b"b3"}
OUTGOING = [
    (b"Host", b"inventory:8080"),
    (b"Accept", b"*/*"),
    (b"Accept-Encoding", b"gzip, deflate"),
    (b"Connection", b"keep-alive"),
    (b"User-Agent", b"python-httpx/0.28.1"),
]


class ByHand:
    """What a careful team writes: the same headers, unlooked at, kept and taken back."""

    carried: ContextVar[dict[bytes, bytes]] = ContextVar("carried")

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        token = self.carried.set({name: value for name, value in scope["headers"] if name in NAMES})
        try:
            await self.app(scope, receive, send)
        finally:
            self.carried.reset(token)


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


async def calling(scope: Scope, receive: Receive, send: Send) -> None:
    attach(OUTGOING)
    await application(scope, receive, send)


async def receive() -> Message:
    return {"type": "http.request"}


async def send(message: Message) -> None:
    pass


def request_to(app: ASGIApp) -> Callable[[], None]:
    """One request, without a loop: nothing in it waits."""
    scope = {"type": "http", "method": "GET", "path": "/", "headers": HEADERS}

    def run() -> None:
        try:
            app(scope, receive, send).send(None)  # type: ignore[attr-defined]
        except StopIteration:
            return

    return run


def measure(subjects: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median microseconds of one run of each, the rounds interleaved so that all meet the same noise."""
    timers = {name: Timer(subject) for name, subject in subjects.items()}
    rounds: dict[str, list[float]] = {name: [] for name in timers}
    for _ in range(ROUNDS):
        for name, timer in timers.items():
            rounds[name].append(timer.timeit(REQUESTS) / REQUESTS * 1e6)
    return {name: statistics.median(times) for name, times in rounds.items()}


def main() -> None:
    settings = MeshSettings(mesh="none")
    inbound = measure(
        {
            "bare application": request_to(application),
            "12 lines by hand": request_to(ByHand(application)),
            "asgi-correlation-id, 1 header": request_to(CorrelationIdMiddleware(application)),
            "MeshMiddleware": request_to(MeshMiddleware(application, settings)),
            "MeshMiddleware and a call": request_to(MeshMiddleware(calling, settings)),
        }
    )
    bare = inbound["bare application"]
    by_hand = inbound["12 lines by hand"] - bare
    print(f"A request with {len(HEADERS)} headers, {len(NAMES) - 1} of them carried: what a middleware adds")
    for name, each in inbound.items():
        added = each - bare
        print(f"  {name:<30} {each:6.2f} us  {added:+6.2f} us  {added / by_hand:5.2f} x by hand")
    carried = {name.decode(): value.decode() for name, value in HEADERS[8:18]}
    with bind_headers(carried):
        attaching = measure({"copying": lambda: [*OUTGOING, *OUTGOING], "attach": lambda: attach(OUTGOING)})
    print(f"A call with {len(OUTGOING)} headers of its own: what attaching {len(carried)} more takes")
    for name, each in attaching.items():
        print(f"  {name:<30} {each:6.2f} us")


if __name__ == "__main__":
    main()
