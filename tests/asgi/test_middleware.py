"""What a request brings goes on with the calls made for it, wherever in the application they are made."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import random
import re
import sys
import types
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from http.client import HTTPConnection
from socket import IPPROTO_TCP, TCP_NODELAY
from threading import Thread
from typing import Annotated, Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import httpx
import pytest
import uvicorn
from fastapi import BackgroundTasks, Depends, FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from websockets.sync.client import connect

from meshaware.asgi.middleware import MeshMiddleware
from meshaware.asgi.types import ASGIApp, Message, Receive, Scope, Send
from meshaware.errors import SettingsError
from meshaware.propagation.context import attach, bind_headers, current, outbound_headers
from meshaware.propagation.fitness import MAX_VALUE
from meshaware.propagation.inbound import marked
from meshaware.settings import MeshSettings

URL = "http://inventory:8080/items/42"
Pair = tuple[bytes, bytes]
UUID4 = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")

INBOUND: list[Pair] = [
    (b"host", b"orders:8080"),
    (b"user-agent", b"curl"),
    (b"authorization", b"Bearer secret"),
    (b"cookie", b"session=secret"),
    (b"x-forwarded-client-cert", b"By=spiffe://cluster.local/ns/shop/sa/orders"),
    (b"x-envoy-attempt-count", b"1"),
    (b"x-request-id", b"4c7b9e2a-9a1d-9f9b-8c3e-5d1f2a3b4c5d"),
    (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    (b"tracestate", b"congo=t61rcWkgMzE"),
    (b"baggage", b"user=alice;meta=1, city=New York"),
    (b"x-b3-traceid", b"0af7651916cd43dd8448eb211c80319c"),
    (b"x-b3-spanid", b"b7ad6b7169203331"),
    (b"x-b3-sampled", b"1"),
    (b"x-user-type", b"premium"),
    (b"x-canary", b"caf\xe9"),
    (b"content-length", b"0"),
]
CARRIED = [pair for pair in INBOUND if pair[0] not in (*(name for name, _ in INBOUND[:6]), b"content-length")]


async def receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: Message) -> None:
    pass


def scope_of(headers: list[Pair], kind: str = "http") -> Scope:
    return {"type": kind, "method": "GET", "path": "/", "headers": headers}


def carried_by(headers: list[Pair], settings: MeshSettings | None = None, kind: str = "http") -> list[Pair]:
    """What a call out of the application would carry."""
    seen = list[list[Pair]]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(list(attach([])))

    asyncio.run(_call(MeshMiddleware(app, settings or MeshSettings()), scope_of(headers, kind)))
    return seen[0]


async def _call(app: ASGIApp, scope: Scope) -> None:
    await app(scope, receive, send)


# What is captured


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_the_headers_of_the_mesh_go_on_as_the_bytes_they_came_as(kind: str) -> None:
    assert carried_by(INBOUND, kind=kind) == CARRIED


def test_further_headers_are_named_by_settings() -> None:
    settings = MeshSettings(headers="x-tenant,x-shop-*")
    more = [(b"x-tenant", b"a"), (b"x-shop-cart", b"b"), (b"x-shoe", b"c")]
    assert carried_by([*INBOUND, *more], settings) == [*CARRIED, *more[:2]]


def test_further_headers_are_named_by_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHAWARE_HEADERS", "x-tenant")
    assert carried_by([*INBOUND, (b"x-tenant", b"a")]) == [*CARRIED, (b"x-tenant", b"a")]


def test_a_header_that_cannot_be_carried_is_refused_when_the_application_is_built() -> None:
    with pytest.raises(SettingsError, match="MESHAWARE_HEADERS names 'host'"):
        MeshMiddleware(_nothing, MeshSettings(headers="host"))


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    pass


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"x-request-id", b"")],
        [(b"x-request-id", b"   ")],
        [(b"x-request-id", b"a\r\nx-evil: 1")],
        [(b"x-request-id", b"a" * (MAX_VALUE + 1))],
        [(b"x-request-id", b"\x00"), (b"x-request-id", b"good")],
    ],
)
def test_a_request_id_is_made_only_where_no_usable_one_came(headers: list[Pair]) -> None:
    [(name, value)] = carried_by(headers)
    assert name == b"x-request-id"
    assert UUID4.fullmatch(value)


@pytest.mark.parametrize("value", [b"1", b"4c7b9e2a-9a1d-afab-8c3e-5d1f2a3b4c5d", b"not a uuid", b"a" * MAX_VALUE])
def test_any_other_request_id_stays(value: bytes) -> None:
    assert carried_by([(b"x-request-id", value)]) == [(b"x-request-id", value)]
    assert carried_by([(b"x-request-id", b""), (b"x-request-id", value)]) == [(b"x-request-id", value)]


def test_made_request_ids_differ() -> None:
    assert len({carried_by([])[0][1] for _ in range(10)}) == 10


def test_malformed_and_over_long_values_stay_behind() -> None:
    headers = [
        (b"x-request-id", b"1"),
        (b"traceparent", b"00-zz"),
        (b"tracestate", b"congo=1"),
        (b"b3", b"nonsense"),
        (b"x-user-type", b"a" * (MAX_VALUE + 1)),
        (b"x-canary", b"1\n2"),
    ]
    assert carried_by(headers) == [(b"x-request-id", b"1")]


def test_hosts_travel_with_what_was_captured() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert outbound_headers("http://a.corp.example/") == {"x-request-id": "1"}
        assert outbound_headers("http://a.svc.mesh.corp/") == {"x-request-id": "1"}
        assert outbound_headers("http://a.svc.cluster.local/") == {}
        assert outbound_headers("http://example.com/") == {}

    settings = MeshSettings(mesh_hosts=".corp.example", cluster_domain="mesh.corp")
    asyncio.run(_call(MeshMiddleware(app, settings), scope_of([(b"x-request-id", b"1")])))


# How it behaves


def test_the_application_gets_what_the_server_gave() -> None:
    seen = list[tuple[Any, ...]]()

    async def app(*arguments: Any) -> None:
        seen.append(arguments)

    for kind in ("http", "websocket", "lifespan", "something.new"):
        scope = scope_of(INBOUND, kind)
        before = dict(scope)
        asyncio.run(MeshMiddleware(app)(scope, receive, send))
        given = seen.pop()
        assert given[0] is scope
        assert given[1:] == (receive, send)
        assert scope == before


def test_lifespan_carries_nothing() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert current() is None

    asyncio.run(_call(MeshMiddleware(app), {"type": "lifespan"}))


def test_the_application_stays_visible() -> None:
    assert MeshMiddleware(_nothing).app is _nothing


@pytest.mark.anyio
@pytest.mark.parametrize("outcome", ["return", "raise", "cancel"])
async def test_a_call_in_the_same_process_leaves_nothing_in_its_callers_context(outcome: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert attach([]) == CARRIED
        if outcome == "raise":
            raise LookupError
        if outcome == "cancel":
            await anyio.sleep_forever()

    inner = MeshMiddleware(app)
    with bind_headers({"x-request-id": "caller"}):
        with anyio.move_on_after(0.05 if outcome == "cancel" else 5) as scope:
            if outcome == "raise":
                with pytest.raises(LookupError):
                    await inner(scope_of(INBOUND), receive, send)
            else:
                await inner(scope_of(INBOUND), receive, send)
        assert scope.cancelled_caught == (outcome == "cancel")
        assert outbound_headers(URL) == {"x-request-id": "caller"}
    assert current() is None


@pytest.mark.anyio
async def test_an_error_that_ends_a_request_says_which_request_it_was() -> None:
    """The server logs it when the request's headers are not carried any more."""
    seen = list[object]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(current())
        raise LookupError

    with pytest.raises(LookupError) as raised:
        await MeshMiddleware(app)(scope_of(INBOUND), receive, send)
    assert current() is None
    assert marked(raised.value) is seen[0]


@pytest.mark.anyio
async def test_nothing_of_the_caller_goes_on_through_a_call_in_the_same_process() -> None:
    seen = list[dict[str, str]]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(outbound_headers(URL))

    with bind_headers({"x-request-id": "caller", "x-user-type": "premium"}):
        await MeshMiddleware(app)(scope_of([(b"x-canary", b"1")]), receive, send)
    assert seen[0].keys() == {"x-request-id", "x-canary"}
    assert seen[0]["x-request-id"] != "caller"


def test_a_request_that_nobody_finishes_makes_no_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    complaints = list[object]()
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)

    @types.coroutine
    def forever() -> Generator[None]:
        yield

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await forever()

    coroutine = MeshMiddleware(app)(scope_of(INBOUND), receive, send)
    copy_context().run(coroutine.send, None)
    del coroutine
    gc.collect()
    assert complaints == []
    assert current() is None


# In a real application, behind a real server


def request_id() -> str:
    return outbound_headers(URL).get("x-request-id", "none")


async def _dependency() -> AsyncIterator[str]:
    before = request_id()
    yield before
    assert request_id() == before


def _sync_dependency() -> str:
    return request_id()


Dependency = Annotated[str, Depends(_dependency)]
SyncDependency = Annotated[str, Depends(_sync_dependency)]


def _application(notes: dict[str, list[str]]) -> FastAPI:  # noqa: C901 (an endpoint a way to be served)
    app = FastAPI()
    app.add_middleware(MeshMiddleware)

    def note(key: str) -> None:
        notes.setdefault(key, []).append(request_id())

    async def async_note(key: str) -> None:
        await anyio.lowlevel.checkpoint()
        note(key)

    @app.get("/async")
    async def _async_endpoint(one: Dependency, two: SyncDependency) -> list[str]:
        await asyncio.sleep(0)
        task = asyncio.create_task(anyio.to_thread.run_sync(request_id))
        return [request_id(), one, two, await task, await asyncio.to_thread(request_id)]

    @app.get("/sync")
    def _sync_endpoint(one: Dependency, two: SyncDependency) -> list[str]:
        return [request_id(), one, two, anyio.from_thread.run_sync(request_id)]

    @app.get("/background/{key}")
    async def _background(key: str, tasks: BackgroundTasks) -> list[str]:
        tasks.add_task(note, key)
        tasks.add_task(async_note, key)
        return [request_id()]

    @app.get("/stream")
    async def _stream() -> StreamingResponse:
        async def parts() -> AsyncIterator[str]:
            for _ in range(3):
                await asyncio.sleep(0)
                yield request_id() + "\n"

        return StreamingResponse(parts())

    @app.get("/sync-stream")
    def _sync_stream() -> StreamingResponse:
        def parts() -> Iterator[str]:
            for _ in range(3):
                yield request_id() + "\n"

        return StreamingResponse(parts())

    @app.get("/error")
    async def _error() -> None:
        raise LookupError

    @app.get("/all")
    async def _all() -> dict[str, str]:
        first = outbound_headers(URL)
        await asyncio.sleep(random.random() / 500)
        second = await asyncio.to_thread(outbound_headers, URL)
        return first if first == second else {"mixed": json.dumps([first, second])}

    @app.websocket("/ws")
    async def _websocket(socket: WebSocket) -> None:
        await socket.accept()
        async for _ in socket.iter_text():
            await socket.send_text(request_id())

    return app


Serve = Callable[[ASGIApp], str]


@pytest.fixture(name="serve", scope="module")
def _serve() -> Iterator[Serve]:
    """Serves applications with uvicorn, in threads, on ports that are free; returns host and port."""
    running = list[tuple[uvicorn.Server, Thread]]()

    def serve(app: ASGIApp) -> str:
        config = uvicorn.Config(app, port=0, log_level="critical", lifespan="off", ws="websockets-sansio")
        server = uvicorn.Server(config)
        socket = config.bind_socket()
        # Replies in two parts would wait 40 ms for the first to be acknowledged.
        socket.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        # From here on whoever connects waits for the server to accept.
        socket.listen()
        host, port = socket.getsockname()[:2]
        thread = Thread(target=server.run, kwargs={"sockets": [socket]}, daemon=True)
        thread.start()
        running.append((server, thread))
        return f"{host}:{port}"

    yield serve
    for server, thread in running:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture(name="notes", scope="module")
def _notes() -> dict[str, list[str]]:
    return {}


@pytest.fixture(name="address", scope="module")
def _address(serve: Serve, notes: dict[str, list[str]]) -> str:
    return serve(_application(notes))


@pytest.fixture(name="client", scope="module")
def _client(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://{address}", timeout=20, trust_env=False) as client:
        yield client


@pytest.mark.parametrize("path", ["/async", "/sync"])
def test_endpoints_their_dependencies_threads_and_tasks_see_the_headers(client: httpx.Client, path: str) -> None:
    for number in ("1", "2"):
        seen = client.get(path, headers={"x-request-id": number}).json()
        assert set(seen) == {number}


@pytest.mark.parametrize("path", ["/stream", "/sync-stream"])
def test_streamed_responses_see_them(client: httpx.Client, path: str) -> None:
    assert client.get(path, headers={"x-request-id": "1"}).text == "1\n" * 3


def test_background_tasks_see_them(client: httpx.Client, notes: dict[str, list[str]]) -> None:
    for number in "12":
        assert client.get(f"/background/{number}", headers={"x-request-id": number}).json() == [number]
    # The same connection serves this one only after their background tasks.
    client.get("/async")
    assert notes == {"1": ["1", "1"], "2": ["2", "2"]}


def test_websockets_see_them_all_along(address: str) -> None:
    with (
        connect(f"ws://{address}/ws", additional_headers={"x-request-id": "1"}, proxy=None) as one,
        connect(f"ws://{address}/ws", additional_headers={"x-request-id": "2"}, proxy=None) as two,
    ):
        for _ in range(3):
            for socket, number in ((one, "1"), (two, "2")):
                socket.send("?")
                assert socket.recv(10) == number


def test_a_kept_alive_connection_carries_nothing_from_one_request_to_the_next(client: httpx.Client) -> None:
    assert client.get("/all", headers={"x-request-id": "1", "x-user-type": "premium"}).json() == {
        "x-request-id": "1",
        "x-user-type": "premium",
    }
    # uvicorn closes the connection of an application that raised; the client must not count on it.
    failing = {"x-request-id": "2", "x-canary": "1", "connection": "close"}
    assert client.get("/error", headers=failing).status_code == 500
    alone = client.get("/all").json()
    assert alone.keys() == {"x-request-id"}
    assert UUID4.fullmatch(alone["x-request-id"].encode())


def test_the_wire_reaches_the_next_call_byte_for_byte(serve: Serve) -> None:
    """With what only a hand-written client sends: repeated lines, blanks around values, bytes over 127."""
    seen = list[list[Pair]]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(list(attach([])))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    host, port = serve(MeshMiddleware(app)).split(":")
    lines = [
        b"X-Request-Id: \t4C7B9E2A-9a1d-9f9b-8c3e-5d1f2a3b4c5d \t",
        b"TraceParent:00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        b"tracestate: a=1 , b=2",
        b"tracestate:",
        b"tracestate: c=3",
        b"baggage: k=v;p=1",
        b"X-Canary: caf\xe9",
        b"x-user-type:",
    ]

    async def main() -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + b"\r\n".join(lines) + b"\r\n\r\n")
        await asyncio.wait_for(reader.read(), 10)
        writer.close()
        await writer.wait_closed()

    asyncio.run(main())
    assert dict(seen[0]) == {
        b"x-request-id": b"4C7B9E2A-9a1d-9f9b-8c3e-5d1f2a3b4c5d",
        b"traceparent": b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        b"tracestate": b"a=1 , b=2,c=3",
        b"baggage": b"k=v;p=1",
        b"x-canary": b"caf\xe9",
    }
    assert len(seen[0]) == len(dict(seen[0]))


# Nothing leaks


def _random_headers(dice: random.Random) -> dict[str, str]:
    names = ["x-request-id", "x-user-type", "x-canary", "baggage", "traceparent", "x-b3-sampled"]
    headers = dict[str, str]()
    for name in dice.sample(names, dice.randrange(1, len(names) + 1)):
        headers[name] = {
            "traceparent": f"00-{dice.getrandbits(128) | 1:032x}-{dice.getrandbits(64) | 1:016x}-01",
            "x-b3-sampled": dice.choice("01"),
        }.get(name, f"v{dice.getrandbits(64)}")
    return headers


def test_concurrent_requests_never_see_each_others_headers(address: str) -> None:
    """2000 requests with random headers, from clients side by side on connections that are kept alive."""

    def client_of(seed: int) -> int:
        dice = random.Random(seed)
        wrong = 0
        with contextlib.closing(HTTPConnection(address, timeout=30)) as connection:
            for _ in range(500):
                headers = _random_headers(dice)
                connection.request("GET", "/all", headers=headers)
                seen = json.loads(connection.getresponse().read())
                if "x-request-id" not in headers:
                    wrong += seen.pop("x-request-id", "none") == "none"
                wrong += seen != headers
        return wrong

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(client_of, range(4))) == 0


@pytest.mark.anyio
async def test_ten_thousand_interleaved_requests_in_one_process_never_mix() -> None:
    dice = random.Random(20)
    wrong = list[object]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(dice.randrange(1, 5)):
            await anyio.lowlevel.checkpoint()
            sent = dict(attach([]))
            if sent != dict(scope["headers"]):
                wrong.append((sent, scope["headers"]))
        if dice.random() < 0.1:
            raise LookupError

    inner = MeshMiddleware(app)

    async def client_of(number: int) -> None:
        for turn in range(200):
            headers = _random_headers(dice)
            headers.setdefault("x-request-id", f"{number}-{turn}")
            raw = [(name.encode(), value.encode()) for name, value in headers.items()]
            with contextlib.suppress(LookupError):
                await inner(scope_of(raw), receive, send)
            if current() is not None:
                wrong.append(current())

    async with anyio.create_task_group() as group:
        for number in range(50):
            group.start_soon(client_of, number)
    assert wrong == []
