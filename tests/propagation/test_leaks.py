"""
A hundred thousand requests side by side, and not one header in a call of another request; nor does any memory stay.

Each request brings headers of its own: none, well-formed ones, malformed ones, some of them twice. Every call made for
it, from wherever in the application, is compared with what this request brought. The expectation is worked out where
the headers are made, without a line of the code under test.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import re
import resource
import socket
import sys
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from http.client import HTTPConnection, HTTPException
from itertools import count
from pathlib import Path
from threading import Lock, Thread
from typing import Any, NamedTuple

import anyio
import anyio.lowlevel
import anyio.to_thread
import httpx
import pytest
from fastapi import BackgroundTasks, FastAPI, Request, WebSocket
from fastapi.responses import StreamingResponse
from websockets.sync.client import connect

from meshaware import bind_headers, create_async_client, create_client, outbound_headers
from meshaware.asgi.middleware import MeshMiddleware
from meshaware.asgi.types import ASGIApp, Message, Receive, Scope, Send
from meshaware.budgets import RouteTable
from meshaware.propagation.context import attach, current
from meshaware.propagation.threads import CarryingThreadPoolExecutor, carry
from meshaware.settings import MeshSettings
from meshaware.testing.serving import AppThread

# Under coverage each line costs several times as much; the sessions without it go through all of them.
REQUESTS, WARM_UP = (100_000, 20_000) if sys.gettrace() is None else (30_000, 10_000)
AT_ONCE = 64
ON_TRIO = 5_000
OVER_SOCKETS = 3_000
CONNECTIONS = 6

# What may stay after the warm-up: one object left by every twentieth request is over it.
MAX_BLOCKS = 4_000
MAX_RESIDENT = 4 << 20

ALONE = MeshSettings(mesh="none")
NUMBER = b"x-number"
"""Says which request it is; not among the headers that are carried."""
UUID4 = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
PLAIN = (b"x-request-id", b"x-user-type", b"x-canary", b"baggage")
Pair = tuple[bytes, bytes]


# What requests bring


class Brought:
    """One request: the headers it brings, and what its calls must carry."""

    def __init__(self, number: int, place: str, raw: list[Pair], calls: dict[bytes, bytes], *, caller: int = 0) -> None:
        self.number = number
        self.caller = caller
        self.place = place
        self.raw = [*raw, (NUMBER, b"%d" % number)]
        self.calls = calls
        self.made: bytes | None = None
        """The id that its calls got where it brought none."""
        self.midway: asyncio.Future[None] | None = None


def headers_for(dice: random.Random, number: int, *, wire: bool = False) -> tuple[list[Pair], dict[bytes, bytes]]:
    """
    Random headers, with the request's number in every value, and what must go on of them.

    Args:
        dice: Throws.
        number: The request's own.
        wire: Only what an HTTP client can send and a server lets pass.
    """
    if dice.random() < 0.1:
        return [], {}
    lines = [_plain_lines(name, dice, number, wire=wire) for name in PLAIN if dice.random() < 0.6]
    lines += [_w3c_lines(dice, number), _b3_lines(dice, number)]
    dice.shuffle(lines)
    return [pair for raw, _ in lines for pair in raw], {name: value for _, calls in lines for name, value in calls}


Lines = tuple[list[Pair], list[Pair]]
"""What comes, and what goes on of it."""


def _plain_lines(name: bytes, dice: random.Random, number: int, *, wire: bool) -> Lines:
    value, kind = b"%b-%d" % (name, number), dice.random()
    if kind < 0.7:
        return [(name, value)], [(name, value)]
    if kind < 0.85:
        second = b"second-%d" % number
        return [(name, value), (name, second)], [(name, value + b"," + second if name == b"baggage" else value)]
    broken = (b"",) if wire else (b"", b"  ", value + b"\r\nx-evil: 1", value + b"\x00", value * 1000)
    return [(name, dice.choice(broken))], []


def _w3c_lines(dice: random.Random, number: int) -> Lines:
    trace, span, kind = b"%032x" % (number + 1), b"%016x" % (number + 1), dice.random()
    parent, state = (b"traceparent", b"00-%b-%b-01" % (trace, span)), (b"tracestate", b"a=%d" % number)
    if kind < 0.4:
        return [parent, state], [parent, state]
    if kind < 0.5:
        return [parent, parent, state], []
    if kind < 0.6:
        return [(b"traceparent", b"00-%b-nonsense" % trace), state], []
    return [], []


def _b3_lines(dice: random.Random, number: int) -> Lines:
    trace, span, kind = b"%032x" % (number + 1), b"%016x" % (number + 1), dice.random()
    if kind < 0.2:
        whole = [(b"x-b3-traceid", trace), (b"x-b3-spanid", span), (b"x-b3-sampled", b"1")]
        return whole, whole
    if kind < 0.3:
        return [(b"x-b3-traceid", trace), (b"x-b3-sampled", b"0")], [(b"x-b3-sampled", b"0")]
    if kind < 0.4:
        alone = [(b"b3", b"%b-%b-1" % (trace, span))]
        return alone, alone
    return [], []


class Ledger:
    """All requests in flight, every call's verdict, and what handlers left lying about."""

    def __init__(self) -> None:
        self.brought: dict[int, Brought] = {}
        self.calls = 0
        self.wrong: list[str] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.futures: deque[Future[None]] = deque(maxlen=100)
        self.unfinished: defaultdict[int, deque[Any]] = defaultdict(lambda: deque(maxlen=4))
        """By the caller."""
        self._made: dict[bytes, int] = {}
        self._numbers = count()
        self._lock = Lock()

    def begin(self, dice: random.Random, place: str, *, caller: int = 0, wire: bool = False) -> Brought:
        number = next(self._numbers)
        brought = Brought(number, place, *headers_for(dice, number, wire=wire), caller=caller)
        self.brought[number] = brought
        return brought

    def of(self, headers: list[Pair]) -> Brought:
        return self.brought[int(next(value for name, value in headers if name == NUMBER))]

    def call(self, brought: Brought, more: dict[bytes, bytes] | None = None) -> None:
        """Make a call for this request, and see what it would have on the wire."""
        self.judge(brought, list(attach([])), more)

    def judge(self, brought: Brought, sent: list[Pair], more: dict[bytes, bytes] | None = None) -> None:
        seen = dict(sent)
        expected = brought.calls if more is None else brought.calls | more
        if b"x-request-id" not in expected:
            made = seen.pop(b"x-request-id", b"")
            if not self._is_its_own(made, brought):
                self.complain(f"request {brought.number} ({brought.place}): made id {made!r}")
        if seen != expected or len(dict(sent)) != len(sent):
            self.complain(f"request {brought.number} ({brought.place}): {sent!r} instead of {expected!r}")
        self.calls += 1

    def nothing(self) -> None:
        """Where nothing may be carried, nothing is."""
        if sent := attach([]):
            self.complain(f"a place that knows no request carries {sent!r}")
        self.calls += 1

    def complain(self, problem: str) -> None:
        if len(self.wrong) < 10:
            self.wrong.append(problem)

    def _is_its_own(self, made: bytes, brought: Brought) -> bool:
        if brought.made is not None:
            return made == brought.made
        with self._lock:
            owner = self._made.setdefault(made, brought.number)
            if len(self._made) > 1000:
                del self._made[next(iter(self._made))]
        brought.made = made
        return owner == brought.number and UUID4.fullmatch(made) is not None

    def close_one(self, brought: Brought) -> None:
        """Let go of what an earlier request of the same caller left unfinished."""
        with contextlib.suppress(IndexError):
            self.unfinished[brought.caller].popleft()

    async def settle(self) -> None:
        """Wait for what outlives its request, and let go of what nobody finished."""
        while self.tasks:
            # Not gather(): it does not let the loop run where all are done already.
            await asyncio.sleep(0)
        for future in self.futures:
            await asyncio.wrap_future(future)
        self.futures.clear()
        self.unfinished.clear()
        self.brought.clear()


# Where calls are made from


class Tools(NamedTuple):
    """What an application has for all its requests."""

    ledger: Ledger
    carrying: CarryingThreadPoolExecutor
    plain: ThreadPoolExecutor
    client: httpx.AsyncClient
    sync_client: httpx.Client


def _echo(ledger: Ledger, request: httpx.Request) -> httpx.Response:
    """The other end of a real client's call: the path says for which request it is."""
    brought = ledger.brought[int(request.url.path[1:])]
    own = {b"host", b"accept", b"accept-encoding", b"connection", b"user-agent"}
    ledger.judge(brought, [pair for pair in request.headers.raw if pair[0].lower() not in own])
    return httpx.Response(200)


@pytest.fixture(name="tools")
def _tools() -> Iterator[Tools]:
    ledger = Ledger()
    transport = httpx.MockTransport(partial(_echo, ledger))
    client = create_async_client(ALONE, routes=RouteTable.empty(), transport=transport)
    with (
        CarryingThreadPoolExecutor(2) as carrying,
        ThreadPoolExecutor(2) as plain,
        create_client(ALONE, routes=RouteTable.empty(), transport=transport) as sync_client,
    ):
        yield Tools(ledger, carrying, plain, client, sync_client)


Place = Callable[[Tools, Brought], Awaitable[None]]


async def _itself(tools: Tools, brought: Brought) -> None:
    tools.ledger.call(brought)
    await anyio.lowlevel.checkpoint()
    # As the collector may do at any time: a generator of an earlier request is closed, often in the same context.
    tools.ledger.close_one(brought)
    tools.ledger.call(brought)


async def _in_a_task(tools: Tools, brought: Brought) -> None:
    await asyncio.create_task(_itself(tools, brought))


async def _in_a_task_group(tools: Tools, brought: Brought) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(_itself, tools, brought)
        group.start_soon(_itself, tools, brought)


async def _in_a_task_that_outlives_it(tools: Tools, brought: Brought) -> None:
    async def later() -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        tools.ledger.call(brought)

    task = asyncio.create_task(later())
    tools.ledger.tasks.add(task)
    task.add_done_callback(tools.ledger.tasks.discard)


async def _in_a_block(tools: Tools, brought: Brought) -> None:
    mine = b"block-%d" % brought.number
    with bind_headers([("x-canary", mine)]):
        await anyio.lowlevel.checkpoint()
        tools.ledger.call(brought, {b"x-canary": mine})
    tools.ledger.call(brought)


def _numbers(tools: Tools, brought: Brought) -> Generator[None]:
    mine = b"generator-%d" % brought.number
    with bind_headers([("x-user-type", mine)]):
        while True:
            tools.ledger.call(brought, {b"x-user-type": mine})
            yield


async def _async_numbers(tools: Tools, brought: Brought) -> AsyncGenerator[None]:
    mine = b"generator-%d" % brought.number
    with bind_headers([("x-user-type", mine)]):
        while True:
            await anyio.lowlevel.checkpoint()
            tools.ledger.call(brought, {b"x-user-type": mine})
            yield


async def _in_a_generator(tools: Tools, brought: Brought) -> None:
    with contextlib.closing(_numbers(tools, brought)) as numbers:
        next(numbers)
        next(numbers)
    tools.ledger.call(brought)


async def _in_an_async_generator(tools: Tools, brought: Brought) -> None:
    async with contextlib.aclosing(_async_numbers(tools, brought)) as numbers:
        await anext(numbers)
    tools.ledger.call(brought)


async def _in_a_generator_left_unfinished(tools: Tools, brought: Brought) -> None:
    """It is closed while a later request is served."""
    numbers = _numbers(tools, brought)
    next(numbers)
    tools.ledger.unfinished[brought.caller].append(numbers)


async def _in_an_async_generator_left_unfinished(tools: Tools, brought: Brought) -> None:
    numbers = _async_numbers(tools, brought)
    await anext(numbers)
    tools.ledger.unfinished[brought.caller].append(numbers)


async def _and_raises(tools: Tools, brought: Brought) -> None:
    tools.ledger.call(brought)
    try:
        with bind_headers({"x-canary": "raising"}):
            await anyio.lowlevel.checkpoint()
            raise LookupError
    finally:
        tools.ledger.call(brought)


async def _until_it_is_cancelled(tools: Tools, brought: Brought) -> None:
    tools.ledger.call(brought)
    try:
        with bind_headers({"x-canary": "cancelled"}):
            if brought.midway is not None:
                brought.midway.set_result(None)
            await anyio.sleep_forever()
    finally:
        tools.ledger.call(brought)


async def _in_anyio_s_thread(tools: Tools, brought: Brought) -> None:
    await anyio.to_thread.run_sync(tools.ledger.call, brought)


async def _in_asyncio_s_thread(tools: Tools, brought: Brought) -> None:
    await asyncio.to_thread(tools.ledger.call, brought)


async def _in_the_default_executor(tools: Tools, brought: Brought) -> None:
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, carry(lambda: tools.ledger.call(brought)))
    await loop.run_in_executor(None, tools.ledger.nothing)


async def _in_the_carrying_executor(tools: Tools, brought: Brought) -> None:
    await asyncio.get_running_loop().run_in_executor(tools.carrying, tools.ledger.call, brought)


async def _in_submitted_work_that_outlives_it(tools: Tools, brought: Brought) -> None:
    tools.ledger.futures.append(tools.carrying.submit(tools.ledger.call, brought))


async def _in_a_plain_executor(tools: Tools, brought: Brought) -> None:
    await asyncio.wrap_future(tools.plain.submit(tools.ledger.nothing))
    await asyncio.wrap_future(tools.plain.submit(carry(tools.ledger.call), brought))


async def _in_a_thread_of_its_own(tools: Tools, brought: Brought) -> None:
    for target in (carry(partial(tools.ledger.call, brought)), tools.ledger.nothing):
        thread = Thread(target=target)
        thread.start()
        await asyncio.to_thread(thread.join, 10)


async def _by_a_client(tools: Tools, brought: Brought) -> None:
    await tools.client.get(f"http://inventory/{brought.number}")


async def _by_a_client_in_a_thread(tools: Tools, brought: Brought) -> None:
    await asyncio.to_thread(tools.sync_client.get, f"http://inventory/{brought.number}")


# On both event loops; with the weights, mostly what is cheap.
ANYWHERE: dict[Place, int] = {
    _itself: 50,
    _in_a_task_group: 6,
    _in_a_block: 20,
    _in_a_generator: 5,
    _in_a_generator_left_unfinished: 5,
    _in_an_async_generator: 5,
    _and_raises: 6,
    _in_anyio_s_thread: 1,
    _by_a_client: 1,
}
ON_ASYNCIO: dict[Place, int] = {
    **ANYWHERE,
    _in_a_task: 20,
    _in_a_task_that_outlives_it: 6,
    _in_an_async_generator_left_unfinished: 3,
    _until_it_is_cancelled: 6,
    _in_asyncio_s_thread: 1,
    _in_the_default_executor: 1,
    _in_the_carrying_executor: 1,
    _in_submitted_work_that_outlives_it: 1,
    _in_a_plain_executor: 1,
    _by_a_client_in_a_thread: 1,
}
RARELY = _in_a_thread_of_its_own
PLACES = {place.__name__: place for place in (*ON_ASYNCIO, RARELY)}


def service(tools: Tools) -> ASGIApp:
    """An application that streams its answer, makes calls between the parts, and one more when it has answered."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        brought = tools.ledger.of(scope["headers"])
        await PLACES[brought.place](tools, brought)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        if "generator_left" not in brought.place:
            tools.ledger.call(brought)

    return MeshMiddleware(app, ALONE)


async def receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: Message) -> None:
    pass


async def ask(app: ASGIApp, brought: Brought, *, kind: str, own_task: bool) -> None:
    """One request: in a task of its own, as servers do it, or in its caller's, as a call in the same process."""
    scope: Scope = {"type": kind, "method": "GET", "path": "/", "headers": brought.raw}
    cancelled = brought.place == _until_it_is_cancelled.__name__
    if own_task or cancelled:
        brought.midway = asyncio.get_running_loop().create_future() if cancelled else None
        task = asyncio.ensure_future(app(scope, receive, send))
        if brought.midway is not None:
            await brought.midway
            task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() == cancelled
        if not cancelled:
            assert isinstance(task.exception(), LookupError | None)
    else:
        with contextlib.suppress(LookupError):
            await app(scope, receive, send)


async def serve_many(tools: Tools, requests: int, seed: int) -> None:
    """So many requests, from callers side by side; half of them carry something themselves."""
    app = service(tools)
    left = iter(range(requests))
    places, weights = [place.__name__ for place in ON_ASYNCIO], list(ON_ASYNCIO.values())

    async def caller(number: int) -> None:
        dice = random.Random(seed * AT_ONCE + number)
        mine = {"x-request-id": f"caller-{number}", "x-user-type": f"caller-{number}"}
        with bind_headers(mine) if number % 2 else contextlib.nullcontext():
            before = current()
            for turn in left:
                place = dice.choices(places, weights)[0] if turn % 1000 else RARELY.__name__
                brought = tools.ledger.begin(dice, place, caller=number)
                await ask(app, brought, kind=dice.choice(("http", "websocket")), own_task=dice.random() < 0.5)
                if current() is not before:
                    tools.ledger.complain(f"request {brought.number} ({place}) left {current()!r} with its caller")
                del tools.ledger.brought[brought.number]

    async with asyncio.TaskGroup() as group:
        for number in range(AT_ONCE):
            group.create_task(caller(number))
    await tools.ledger.settle()


# Memory


def _resident() -> int:
    """Bytes of memory that the process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _held() -> tuple[int, int]:
    """What the process holds once the collector has been: small objects, and bytes."""
    for _ in range(3):
        gc.collect()
    return sys.getallocatedblocks(), _resident()


# The tests


@pytest.mark.timeout(150)
def test_a_hundred_thousand_requests_never_mix_and_leave_nothing(tools: Tools) -> None:
    """Half of them in their caller's own context; the memory is weighed after a warm-up and at the end."""
    held: list[tuple[int, int]] = []

    async def main() -> None:
        async with asyncio.timeout(120):
            for seed, requests in enumerate((WARM_UP, REQUESTS - WARM_UP)):
                await serve_many(tools, requests, seed)
                held.append(_held())

    asyncio.run(main())
    assert tools.ledger.wrong == []
    assert tools.ledger.calls > REQUESTS
    blocks, resident = (after - before for before, after in zip(*held, strict=True))
    grown = f"{REQUESTS - WARM_UP} requests after the warm-up left {blocks} objects and {resident / 1024:.0f} KiB"
    assert blocks < MAX_BLOCKS, f"{grown}: at most {MAX_BLOCKS} objects"
    assert resident < MAX_RESIDENT, f"{grown}: at most {MAX_RESIDENT >> 10} KiB"


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_nor_do_they_on_trio(tools: Tools) -> None:
    """In the caller's context, and cut off by cancel scopes at any checkpoint."""
    app = service(tools)
    left = iter(range(ON_TRIO))
    places, weights = [place.__name__ for place in ANYWHERE], list(ANYWHERE.values())

    async def caller(number: int) -> None:
        dice = random.Random(number)
        for _ in left:
            brought = tools.ledger.begin(dice, dice.choices(places, weights)[0], caller=number)
            scope: Scope = {"type": "http", "method": "GET", "path": "/", "headers": brought.raw}
            with anyio.CancelScope() as cut, contextlib.suppress(LookupError):
                if dice.random() < 0.1:
                    cut.cancel()
                await app(scope, receive, send)
            if current() is not None:
                tools.ledger.complain(f"request {brought.number} ({brought.place}) left {current()!r} with its caller")

    async with anyio.create_task_group() as group:
        for number in range(AT_ONCE):
            group.start_soon(caller, number)
    assert tools.ledger.wrong == []
    assert tools.ledger.calls > ON_TRIO


@pytest.mark.anyio
async def test_a_call_to_an_application_in_the_same_process_leaves_nothing_with_its_caller(tools: Tools) -> None:
    """Through httpx.ASGITransport, the way tests and composed services do it: a chain of two, and what raises."""
    ledger = tools.ledger

    async def inventory(scope: Scope, receive: Receive, send: Send) -> None:
        brought = ledger.of(scope["headers"])
        ledger.judge(brought, [pair for pair in scope["headers"] if pair[0] in brought.calls | {b"x-request-id": b""}])
        ledger.call(brought)
        if brought.number % 3 == 0:
            raise LookupError
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    inner = httpx.ASGITransport(MeshMiddleware(inventory, ALONE))
    client = create_async_client(ALONE, routes=RouteTable.empty(), transport=inner)

    async def orders(scope: Scope, receive: Receive, send: Send) -> None:
        brought = ledger.of(scope["headers"])
        carried = current()
        with contextlib.suppress(LookupError):
            await client.get("http://inventory/", headers={"x-number": str(brought.number)})
        assert current() is carried
        ledger.call(brought)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    dice = random.Random(7)
    async with client, httpx.AsyncClient(transport=httpx.ASGITransport(MeshMiddleware(orders, ALONE))) as browser:
        for turn in range(300):
            brought = ledger.begin(dice, "chain", wire=True)
            with bind_headers({"x-request-id": "caller"}) if turn % 2 else contextlib.nullcontext():
                before = current()
                response = await browser.get("http://orders/", headers=brought.raw)
                assert response.status_code == 200
                assert current() is before
    assert ledger.wrong == []
    assert ledger.calls == 900


# Behind a real server


def shop(tools: Tools) -> FastAPI:  # noqa: C901 (an endpoint a way to be served)
    """A FastAPI application in which every way of serving makes calls."""
    app = FastAPI()
    app.add_middleware(MeshMiddleware, settings=ALONE)
    ledger = tools.ledger

    def of(request: Request | WebSocket) -> Brought:
        return ledger.of(request.scope["headers"])

    @app.get("/place/{name}")
    async def _place(request: Request, name: str) -> None:
        await PLACES[name](tools, of(request))

    @app.get("/sync")
    def _sync(request: Request) -> None:
        ledger.call(of(request))

    @app.post("/upload")
    async def _upload(request: Request) -> int:
        size = 0
        async for part in request.stream():
            ledger.call(of(request))
            size += len(part)
        return size

    @app.get("/stream")
    async def _stream(request: Request) -> StreamingResponse:
        async def parts() -> AsyncIterator[str]:
            for _ in range(3):
                await asyncio.sleep(0)
                ledger.call(of(request))
                yield "part\n"

        return StreamingResponse(parts())

    @app.get("/sync-stream")
    def _sync_stream(request: Request) -> StreamingResponse:
        def parts() -> Iterator[str]:
            for _ in range(3):
                ledger.call(of(request))
                yield "part\n"

        return StreamingResponse(parts())

    @app.get("/endless")
    async def _endless(request: Request) -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            try:
                while True:
                    await asyncio.sleep(0)
                    ledger.call(of(request))
                    yield b"x" * 10_000
            finally:
                ledger.call(of(request))

        return StreamingResponse(parts())

    @app.get("/background")
    async def _background(request: Request, tasks: BackgroundTasks) -> None:
        tasks.add_task(ledger.call, of(request))
        tasks.add_task(_itself, tools, of(request))

    @app.websocket("/ws")
    async def _websocket(socket: WebSocket) -> None:
        await socket.accept()
        async for _ in socket.iter_text():
            ledger.call(of(socket))
            await _in_asyncio_s_thread(tools, of(socket))
            await socket.send_text("done")

    return app


@pytest.fixture(name="address")
def _address(tools: Tools) -> Iterator[tuple[str, int]]:
    """The shop behind uvicorn; around it stands a layer that must never carry anything."""
    application = shop(tools)

    async def layer(scope: Scope, receive: Receive, send: Send) -> None:
        tools.ledger.nothing()
        await application(scope, receive, send)
        tools.ledger.nothing()

    listening = socket.create_server(("127.0.0.1", 0))
    # Replies in two parts would wait 40 ms for the first to be acknowledged.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    options = {"lifespan": "off", "log_level": "critical", "ws": "websockets-sansio", "timeout_graceful_shutdown": 5}
    server = AppThread(layer, listening, "shop", options)
    server.start()
    yield listening.getsockname()[:2]
    server.stop()


SERVED = {
    **{
        f"/place/{place.__name__}": weight
        for place, weight in ON_ASYNCIO.items()
        if place is not _until_it_is_cancelled
    },
    "/sync": 10,
    "/upload": 3,
    "/stream": 5,
    "/sync-stream": 5,
    "/endless": 2,
    "/background": 10,
}


class Browser:
    """A connection that is kept alive as long as the server does."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._connection = HTTPConnection(*address, timeout=30)

    def ask(self, path: str, brought: Brought) -> None:
        connection = self._connection
        body = b"x" * 200_000 if path == "/upload" else b""
        connection.putrequest("POST" if body else "GET", path)
        for name, value in brought.raw:
            connection.putheader(name, value)
        if body:
            connection.putheader("content-length", str(len(body)))
        connection.endheaders(body or None)
        response = connection.getresponse()
        if path == "/endless":
            response.read(100_000)
            response.close()
            connection.close()
            return
        response.read()
        failed = path.endswith(_and_raises.__name__)
        assert response.status == (500 if failed else 200), path
        if failed:
            # uvicorn closes the connection of an application that raised, a little later.
            connection.close()

    def close(self) -> None:
        self._connection.close()


def test_thousands_of_requests_over_kept_alive_connections_never_mix(tools: Tools, address: tuple[str, int]) -> None:
    """uvicorn, FastAPI, and clients that send some headers twice, hang up in the middle, or talk over WebSockets."""
    paths, weights = list(SERVED), list(SERVED.values())

    def browse(seed: int) -> None:
        dice = random.Random(seed)
        with contextlib.closing(Browser(address)) as browser:
            for _ in range(OVER_SOCKETS // CONNECTIONS):
                path = dice.choices(paths, weights)[0]
                with contextlib.suppress(HTTPException, ConnectionError):
                    browser.ask(path, tools.ledger.begin(dice, path, caller=seed, wire=True))

    def talk(seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(20):
            brought = tools.ledger.begin(dice, "/ws", wire=True)
            headers = [(name.decode(), value.decode()) for name, value in brought.raw]
            url = f"ws://{address[0]}:{address[1]}/ws"
            with connect(url, additional_headers=headers, proxy=None) as websocket:
                for _ in range(3):
                    websocket.send("?")
                    assert websocket.recv(10) == "done"

    with ThreadPoolExecutor(CONNECTIONS + 2) as pool:
        for each in [
            *(pool.submit(browse, seed) for seed in range(CONNECTIONS)),
            *(pool.submit(talk, -n) for n in (1, 2)),
        ]:
            each.result(50)
    assert tools.ledger.wrong == []
    assert tools.ledger.calls > OVER_SOCKETS


# The measure itself


def test_a_header_of_another_request_would_be_noticed(tools: Tools) -> None:
    """And so would a missing one, one too many, one twice, and an id that was made for another request."""
    dice = random.Random(1)
    ledger = tools.ledger
    one = Brought(1, "one", [], {b"x-user-type": b"1", b"x-request-id": b"1"})
    for sent in (
        [(b"x-user-type", b"2"), (b"x-request-id", b"1")],
        [(b"x-request-id", b"1")],
        [(b"x-user-type", b"1"), (b"x-request-id", b"1"), (b"x-canary", b"2")],
        [(b"x-user-type", b"1"), (b"x-user-type", b"1"), (b"x-request-id", b"1")],
    ):
        ledger.judge(one, sent)
        assert ledger.wrong.pop().startswith("request 1 (one): [")
    made = [(b"x-request-id", b"4c7b9e2a-9a1d-4f9b-8c3e-5d1f2a3b4c5d")]
    ledger.judge(Brought(2, "two", [], {}), made)
    assert ledger.wrong == []
    ledger.judge(Brought(3, "three", [], {}), made)
    assert ledger.wrong.pop().startswith("request 3 (three): made id")
    with bind_headers({"x-canary": "1"}):
        ledger.nothing()
    assert ledger.wrong.pop().startswith("a place that knows no request")
    assert outbound_headers("http://inventory/") == {}
    kinds = [headers_for(dice, number) for number in range(200)]
    assert any(not raw for raw, _ in kinds)
    assert any(len(dict(raw)) < len(raw) for raw, _ in kinds)
    assert any(not dict(raw).keys() <= calls.keys() for raw, calls in kinds)
