"""
One request through an ASGI application that does nothing: bare, behind a middleware written by hand, behind
asgi-correlation-id, and behind meshaware's; and what a call out of it costs to get the headers.

No server stands between: a coroutine is run to its end, so the middleware is what is measured. OpenTelemetry's API is
loaded, as it is in every FastAPI application, and no span is live.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import ContextVar, copy_context
from typing import Any

import httpx
import opentelemetry.trace  # noqa: F401  # pyright: ignore[reportUnusedImport]
from asgi_correlation_id import CorrelationIdMiddleware

from meshaware import MeshMiddleware, MeshSettings, bind_headers, create_async_client
from meshaware.asgi.types import ASGIApp, Message, Receive, Scope, Send
from meshaware.propagation.context import attach
from meshaware.propagation.headers import HeaderSet
from tests.benchmarks.harness import Run, added, interleave, judge, show, timed

ROUNDS = 60
REQUESTS = 1000
CALLS = 100
CAPTURE_US = 4.0
ATTACH_US = 8.0

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
CARRIED = [pair for pair in HEADERS if pair[0] in HeaderSet.DEFAULT]
NAMES = frozenset(name for name, _ in CARRIED)
OUTGOING = [
    (b"Host", b"inventory:8080"),
    (b"Accept", b"*/*"),
    (b"Accept-Encoding", b"gzip, deflate"),
    (b"Connection", b"keep-alive"),
    (b"User-Agent", b"python-httpx/0.28.1"),
]
URL = "http://inventory:8080/items/42"


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


class HandTransport(httpx.AsyncBaseTransport):
    """The same for calls: what is kept goes along, unless the request has it."""

    carried: ContextVar[dict[str, str]] = ContextVar("carried")

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        for name, value in self.carried.get().items():
            if name not in request.headers:
                request.headers[name] = value
        return await self._inner.handle_async_request(request)


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


def calling(calls: int) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(calls):
            attach(OUTGOING)
        await application(scope, receive, send)

    return app


async def receive() -> Message:
    return {"type": "http.request"}


async def send(message: Message) -> None:
    pass


def to_its_end(coroutine: Coroutine[Any, Any, object]) -> None:
    """Run what does not wait, without a loop."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise RuntimeError("it waits for something")


def request_to(app: ASGIApp) -> Run:
    scope = {"type": "http", "method": "GET", "path": "/", "headers": HEADERS}
    return timed(lambda: to_its_end(app(scope, receive, send)), REQUESTS)  # type: ignore[arg-type]


def inbound(rounds: int) -> None:
    settings = MeshSettings(mesh="none")
    correlation, mesh = "asgi-correlation-id, 1 header", "MeshMiddleware"
    taken = interleave(
        {
            "ASGI application": request_to(application),
            "12 lines by hand": request_to(ByHand(application)),
            correlation: request_to(CorrelationIdMiddleware(application)),
            mesh: request_to(MeshMiddleware(application, settings)),
            f"{mesh}, 1 call gets the headers": request_to(MeshMiddleware(calling(1), settings)),
            f"{mesh}, 2 calls": request_to(MeshMiddleware(calling(2), settings)),
        },
        rounds,
    )
    show(f"A request with {len(HEADERS)} headers, {len(CARRIED)} of them carried", taken)
    more = added(taken[mesh], taken["ASGI application"]).median
    judge(f"at most {CAPTURE_US:.0f} us a request", f"{more:+.2f} us", kept=more <= CAPTURE_US)
    less = added(taken[mesh], taken[correlation]).median
    judge("less than asgi-correlation-id for its one header", f"{less:+.2f} us", kept=less < 0)
    first = added(taken[f"{mesh}, 1 call gets the headers"], taken[mesh]).median
    second = added(taken[f"{mesh}, 2 calls"], taken[f"{mesh}, 1 call gets the headers"]).median
    judge(f"at most {ATTACH_US:.0f} us for a request's first call", f"{first:+.2f} us", kept=first <= ATTACH_US)
    judge(f"at most {ATTACH_US:.0f} us for a further call", f"{second:+.2f} us", kept=second <= ATTACH_US)


def outbound(rounds: int) -> None:
    """Through httpx, and a transport that answers at once: also what the budget costs."""

    async def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=b"ok")

    peer = httpx.MockTransport(answer)
    settings = MeshSettings(mesh="none")
    bare, by_hand = httpx.AsyncClient(transport=peer), httpx.AsyncClient(transport=HandTransport(peer))
    ours = create_async_client(settings, transport=peer)
    nothing, everything = copy_context(), copy_context()
    carried = {name.decode(): value.decode() for name, value in CARRIED}
    everything.run(HandTransport.carried.set, carried)
    everything.run(bind_headers(carried).__enter__)

    with asyncio.Runner() as runner:

        async def calls(client: httpx.AsyncClient) -> None:
            for _ in range(CALLS):
                await client.get(URL)

        def run_of(client: httpx.AsyncClient, context: Any) -> Run:
            once = timed(lambda: runner.run(calls(client), context=context), 1)
            return lambda: once() / CALLS

        hand, mesh = "a transport by hand that sets them", "create_async_client, carrying them"
        taken = interleave(
            {
                "httpx.AsyncClient": run_of(bare, nothing),
                hand: run_of(by_hand, everything),
                "create_async_client, nothing carried": run_of(ours, nothing),
                mesh: run_of(ours, everything),
            },
            rounds,
        )
    show(f"A call with httpx that {len(CARRIED)} headers are added to", taken)
    more = added(taken[mesh], taken["create_async_client, nothing carried"]).median
    judge(f"at most {ATTACH_US:.0f} us a call for the headers", f"{more:+.2f} us", kept=more <= ATTACH_US)


def main(times: float = 1.0) -> None:
    inbound(round(ROUNDS * times))
    outbound(round(ROUNDS * times))


if __name__ == "__main__":
    main()
