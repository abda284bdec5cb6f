"""What a request brings goes on with the calls made for it, wherever in the application they are made."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import sys
import types
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from queue import SimpleQueue
from socket import IPPROTO_TCP, TCP_NODELAY
from threading import Thread
from typing import Annotated
from urllib.parse import quote

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import httpx
import pytest
import uvicorn
from fastapi import BackgroundTasks, Depends, FastAPI, Request, Response, WebSocket
from fastapi.responses import PlainTextResponse, StreamingResponse
from websockets.sync.client import connect

from meshaware.asgi.middleware import MeshMiddleware
from meshaware.asgi.types import ASGIApp, Message, Receive, Scope, Send
from meshaware.errors import SettingsError
from meshaware.mesh import Mesh
from meshaware.propagation.context import attach, bind_headers, current, outbound_headers
from meshaware.propagation.fitness import MAX_VALUE
from meshaware.propagation.inbound import marked
from meshaware.propagation.threads import CarryingThreadPoolExecutor, carry
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


@pytest.mark.anyio
async def test_the_application_gets_what_the_server_gave() -> None:
    asked: Message = {"type": "something.asked"}
    sent = list[Message]()
    seen = list[object]()

    async def give() -> Message:
        return asked

    async def take(message: Message) -> None:
        sent.append(message)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        seen.extend((scope, message))
        await send(message)

    for kind in ("http", "websocket", "lifespan", "something.new"):
        scope = scope_of(INBOUND, kind)
        before = dict(scope)
        await MeshMiddleware(app)(scope, give, take)
        assert seen.pop() is asked
        assert seen.pop() is scope
        assert sent.pop() is asked
        assert scope == before


@pytest.mark.anyio
async def test_the_server_and_what_stands_around_the_middleware_see_none_of_the_headers() -> None:
    """A server starts the next request of a connection from within `send`, with the context it finds there."""
    seen = list[str | None]()

    async def give() -> Message:
        seen.append(outbound_headers(URL).get("x-request-id"))
        await anyio.lowlevel.checkpoint()
        return {"type": "http.request"}

    async def take(message: Message) -> None:
        await anyio.lowlevel.checkpoint()
        seen.append(outbound_headers(URL).get("x-request-id"))
        if message["type"] == "broken":
            raise OSError

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        with bind_headers({"x-request-id": "2"}):
            await send({"type": "fine"})
            with pytest.raises(OSError):
                await send({"type": "broken"})
            assert request_id() == "2"
        assert attach([]) == CARRIED

    for kind in ("http", "websocket"):
        await MeshMiddleware(app)(scope_of(INBOUND, kind), give, take)
        assert seen == [None] * 3
        seen.clear()
        with bind_headers({"x-request-id": "caller"}):
            await MeshMiddleware(app)(scope_of(INBOUND, kind), give, take)
        assert seen == ["caller"] * 3
        seen.clear()


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

    async def alone(scope: Scope, receive: Receive, send: Send) -> None:
        await forever()

    async def receiving(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()

    async def sending(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "fine"})

    async def endless(message: Message | None = None) -> Message:
        await forever()
        return {}

    for app in (alone, receiving, sending):
        coroutine = MeshMiddleware(app)(scope_of(INBOUND), endless, endless)  # type: ignore[arg-type]
        copy_context().run(coroutine.send, None)
        del coroutine
        gc.collect()
        assert complaints == []
    assert current() is None


# In a real application, behind a real server


def request_id() -> str:
    return outbound_headers(URL).get("x-request-id", "none")


async def async_request_id() -> str:
    await anyio.lowlevel.checkpoint()
    return request_id()


def _in_thread(function: Callable[[], str]) -> str:
    returned = list[str]()
    thread = Thread(target=lambda: returned.append(function()))
    thread.start()
    thread.join(10)
    return returned[0]


async def _created_task() -> str:
    return await asyncio.create_task(async_request_id())


async def _task_group() -> str:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(async_request_id())
    return task.result()


async def _anyio_task_group() -> str:
    seen = list[str]()

    async def work() -> None:
        seen.append(await async_request_id())

    async with anyio.create_task_group() as group:
        group.start_soon(work)
    return seen[0]


async def _gather() -> str:
    one, two = await asyncio.gather(async_request_id(), _created_task())
    return one if one == two else f"{one} and {two}"


async def _timed() -> str:
    async with asyncio.timeout(10):
        return await asyncio.wait_for(async_request_id(), 10)


async def _asyncio_to_thread() -> str:
    return await asyncio.to_thread(request_id)


async def _anyio_to_thread() -> str:
    return await anyio.to_thread.run_sync(request_id)


async def _back_from_a_thread() -> str:
    return await anyio.to_thread.run_sync(anyio.from_thread.run, async_request_id)


async def _sent_to_the_loop() -> str:
    loop = asyncio.get_running_loop()
    return await asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(async_request_id(), loop).result(10))


async def _run_in_executor() -> str:
    return await asyncio.get_running_loop().run_in_executor(None, request_id)


async def _run_in_executor_carried() -> str:
    return await asyncio.get_running_loop().run_in_executor(None, carry(request_id))


async def _run_in_own_executor() -> str:
    with ThreadPoolExecutor(1) as pool:
        return await asyncio.get_running_loop().run_in_executor(pool, request_id)


async def _run_in_carrying_executor() -> str:
    with CarryingThreadPoolExecutor(1) as pool:
        return await asyncio.get_running_loop().run_in_executor(pool, request_id)


async def _submitted() -> str:
    with ThreadPoolExecutor(1) as pool:
        return await asyncio.wrap_future(pool.submit(request_id))


async def _submitted_carried() -> str:
    with ThreadPoolExecutor(1) as pool:
        return await asyncio.wrap_future(pool.submit(carry(request_id)))


async def _submitted_to_carrying_executor() -> str:
    with CarryingThreadPoolExecutor(1) as pool:
        return await asyncio.wrap_future(pool.submit(request_id))


async def _thread() -> str:
    return await asyncio.to_thread(_in_thread, request_id)


async def _thread_carried() -> str:
    return await asyncio.to_thread(_in_thread, carry(request_id))


Place = Callable[[], Awaitable[str]]
KEPT: dict[str, Place] = {
    "itself": async_request_id,
    "create_task": _created_task,
    "TaskGroup": _task_group,
    "anyio.create_task_group": _anyio_task_group,
    "gather": _gather,
    "wait_for": _timed,
    "asyncio.to_thread": _asyncio_to_thread,
    "anyio.to_thread": _anyio_to_thread,
    "anyio.from_thread": _back_from_a_thread,
    "run_coroutine_threadsafe": _sent_to_the_loop,
    "run_in_executor with carry": _run_in_executor_carried,
    "run_in_executor with CarryingThreadPoolExecutor": _run_in_carrying_executor,
    "submit with carry": _submitted_carried,
    "submit to CarryingThreadPoolExecutor": _submitted_to_carrying_executor,
    "Thread with carry": _thread_carried,
}
LOST: dict[str, Place] = {
    "run_in_executor": _run_in_executor,
    "run_in_executor with an own pool": _run_in_own_executor,
    "submit": _submitted,
    "Thread": _thread,
}
PLACES = KEPT | LOST


class Notes:
    """What was carried in places that end after the response; whoever asks waits for it."""

    def __init__(self) -> None:
        self._queues: defaultdict[str, SimpleQueue[str]] = defaultdict(SimpleQueue)

    def write(self, key: str) -> None:
        self._queues[key].put(request_id())

    def read(self, key: str) -> str:
        return self._queues[key].get(timeout=10)


NOTES = Notes()


async def _dependency() -> AsyncIterator[str]:
    yield await async_request_id()
    NOTES.write("async teardown")


def _sync_dependency() -> Iterator[str]:
    yield request_id()
    NOTES.write("sync teardown")


Dependency = Annotated[str, Depends(_dependency)]
SyncDependency = Annotated[str, Depends(_sync_dependency)]


def _application() -> FastAPI:  # noqa: C901 (an endpoint a way to be served)
    app = FastAPI()
    app.add_middleware(MeshMiddleware)
    release = asyncio.Event()
    running = set[asyncio.Task[str]]()

    async def async_note(key: str) -> None:
        await anyio.lowlevel.checkpoint()
        NOTES.write(key)

    @app.get("/place/{name}")
    async def _place(name: str) -> str:
        return await PLACES[name]()

    @app.get("/async")
    async def _async_endpoint(one: Dependency, two: SyncDependency) -> list[str]:
        return [await async_request_id(), one, two]

    @app.get("/sync")
    def _sync_endpoint(one: Dependency, two: SyncDependency) -> list[str]:
        return [request_id(), one, two, anyio.from_thread.run(async_request_id)]

    @app.get("/background")
    async def _background(tasks: BackgroundTasks) -> str:
        tasks.add_task(NOTES.write, "sync task")
        tasks.add_task(async_note, "async task")
        return request_id()

    @app.get("/outlive")
    async def _outlive() -> str:
        async def later() -> str:
            await release.wait()
            return request_id() + (await anyio.to_thread.run_sync(request_id))

        running.add(asyncio.create_task(later()))
        return request_id()

    @app.get("/release")
    async def _release() -> list[str]:
        release.set()
        return [request_id(), *(await asyncio.gather(*running))]

    @app.get("/stream")
    async def _stream() -> StreamingResponse:
        async def parts() -> AsyncIterator[str]:
            for _ in range(3):
                yield await async_request_id() + "\n"

        return StreamingResponse(parts())

    @app.get("/sync-stream")
    def _sync_stream() -> StreamingResponse:
        def parts() -> Iterator[str]:
            for _ in range(3):
                yield request_id() + "\n"

        return StreamingResponse(parts())

    @app.exception_handler(LookupError)
    async def _handler(request: Request, error: Exception) -> PlainTextResponse:
        return PlainTextResponse(request_id(), 404)

    @app.exception_handler(KeyError)
    def _sync_handler(request: Request, error: Exception) -> PlainTextResponse:
        return PlainTextResponse(request_id(), 404)

    @app.get("/handled")
    async def _handled(*, sync: bool) -> None:
        raise KeyError if sync else LookupError

    @app.get("/error")
    async def _error() -> None:
        raise OSError

    @app.post("/all")
    @app.get("/all")
    async def _all(request: Request) -> dict[str, str]:
        await request.body()
        return outbound_headers(URL)

    @app.websocket("/ws/place/{name}")
    async def _websocket(socket: WebSocket, name: str) -> None:
        await socket.accept()
        async for _ in socket.iter_text():
            await socket.send_text(await PLACES[name]())

    @app.websocket("/ws/dependencies")
    async def _websocket_dependencies(socket: WebSocket, one: Dependency, two: SyncDependency) -> None:
        await socket.accept()
        await socket.send_text(f"{one} {two}")
        await socket.close()

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


@pytest.fixture(name="address", scope="module")
def _address(serve: Serve) -> str:
    return serve(_application())


@pytest.fixture(name="client", scope="module")
def _client(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://{address}", timeout=20, trust_env=False) as client:
        yield client


@pytest.mark.parametrize("name", KEPT)
def test_these_places_see_the_headers_of_their_request(client: httpx.Client, name: str) -> None:
    """On one connection, each request its own; the one without gets an id for itself."""
    for number in ("1", "2"):
        assert client.get(f"/place/{name}", headers={"x-request-id": number}).json() == number
    assert UUID4.fullmatch(client.get(f"/place/{name}").json().encode())


@pytest.mark.parametrize("name", LOST)
def test_these_places_lose_them_without_help(client: httpx.Client, name: str) -> None:
    """They see nothing, and never another request's headers; each has a row among the others, with help."""
    for number in ("1", "2"):
        assert client.get(f"/place/{name}", headers={"x-request-id": number}).json() == "none"


@pytest.mark.parametrize("name", PLACES)
def test_so_do_they_while_a_websocket_is_served(address: str, name: str) -> None:
    """Two side by side, all along."""
    url = f"ws://{address}/ws/place/{quote(name)}"
    with (
        connect(url, additional_headers={"x-request-id": "1"}, proxy=None) as one,
        connect(url, additional_headers={"x-request-id": "2"}, proxy=None) as two,
    ):
        for _ in range(2):
            for socket, number in ((one, "1"), (two, "2")):
                socket.send("?")
                assert socket.recv(10) == (number if name in KEPT else "none")


@pytest.mark.parametrize("path", ["/async", "/sync"])
def test_endpoints_and_their_dependencies_see_them_to_the_end(client: httpx.Client, path: str) -> None:
    for number in ("1", "2"):
        seen = client.get(path, headers={"x-request-id": number}).json()
        assert set(seen) == {number}
        assert NOTES.read("async teardown") == number
        assert NOTES.read("sync teardown") == number


def test_dependencies_of_a_websocket_see_them_to_the_end(address: str) -> None:
    for number in ("1", "2"):
        headers = {"x-request-id": number}
        with connect(f"ws://{address}/ws/dependencies", additional_headers=headers, proxy=None) as socket:
            assert socket.recv(10) == f"{number} {number}"
        assert NOTES.read("async teardown") == number
        assert NOTES.read("sync teardown") == number


@pytest.mark.parametrize("path", ["/stream", "/sync-stream"])
def test_streamed_responses_see_them(client: httpx.Client, path: str) -> None:
    for number in ("1", "2"):
        assert client.get(path, headers={"x-request-id": number}).text == f"{number}\n" * 3


def test_background_tasks_see_them(client: httpx.Client) -> None:
    for number in ("1", "2"):
        assert client.get("/background", headers={"x-request-id": number}).json() == number
        assert NOTES.read("sync task") == number
        assert NOTES.read("async task") == number


def test_a_task_that_outlives_the_response_keeps_those_of_its_own_request(client: httpx.Client) -> None:
    for number in ("1", "2"):
        assert client.get("/outlive", headers={"x-request-id": number}).json() == number
    assert sorted(client.get("/release", headers={"x-request-id": "3"}).json()) == ["11", "22", "3"]


@pytest.mark.parametrize("sync", [False, True])
def test_error_handlers_see_them(client: httpx.Client, *, sync: bool) -> None:
    for number in ("1", "2"):
        seen = client.get("/handled", params={"sync": sync}, headers={"x-request-id": number})
        assert seen.text == number


@pytest.mark.anyio
@pytest.mark.parametrize("installed", [False, True])
async def test_the_handler_of_last_resort_sees_them_where_the_mesh_is_installed(*, installed: bool) -> None:
    """Starlette puts the handler of `Exception` around every middleware that is added."""
    app = FastAPI()

    @app.exception_handler(Exception)
    async def _handler(request: Request, error: Exception) -> PlainTextResponse:
        return PlainTextResponse(request_id(), 500)

    @app.get("/")
    async def _raise() -> None:
        raise OSError

    if installed:
        Mesh(MeshSettings(mesh="none")).install(app, telemetry=False)
    else:
        app.add_middleware(MeshMiddleware)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        seen = await client.get("/", headers={"x-request-id": "1"})
    assert (seen.status_code, seen.text) == (500, "1" if installed else "none")


@pytest.mark.anyio
async def test_other_middleware_sees_them_where_it_stands_inside() -> None:
    """Starlette's BaseHTTPMiddleware runs what is inside it in another task, and that one sees them too."""
    app = FastAPI()
    seen = dict[str, list[str]]()

    def note_around(name: str) -> None:
        @app.middleware("http")
        async def _around(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
            seen[name] = [request_id()]
            response = await call_next(request)
            seen[name].append(request_id())
            return response

    note_around("inner")
    app.add_middleware(MeshMiddleware)
    note_around("outer")

    @app.get("/")
    async def _endpoint() -> str:
        return await _anyio_to_thread()

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        assert (await client.get("/", headers={"x-request-id": "1"})).json() == "1"
    assert seen == {"inner": ["1", "1"], "outer": ["none", "none"]}


@pytest.mark.anyio
async def test_a_mounted_application_sees_them() -> None:
    app, inner = FastAPI(), FastAPI()
    app.add_middleware(MeshMiddleware)
    app.mount("/inner", inner)

    @inner.get("/")
    def _endpoint() -> str:
        return request_id()

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        assert (await client.get("/inner/", headers={"x-request-id": "1"})).json() == "1"


@pytest.mark.anyio
async def test_headers_bound_in_an_asynchronous_dependency_hold_in_the_endpoint_and_in_a_synchronous_one_do_not() -> (
    None
):
    """A `def` dependency runs in a thread with a copy of the context; with `yield`, leaving the block says so."""
    app = FastAPI()
    app.add_middleware(MeshMiddleware)

    async def dependency() -> AsyncIterator[None]:
        with bind_headers({"x-user-type": "premium"}):
            yield

    def sync_dependency() -> Iterator[None]:
        with bind_headers({"x-user-type": "basic"}):
            yield

    @app.get("/async", dependencies=[Depends(dependency)])
    async def _async() -> dict[str, str]:
        return outbound_headers(URL)

    @app.get("/async-def", dependencies=[Depends(dependency)])
    def _async_def() -> dict[str, str]:
        return outbound_headers(URL)

    @app.get("/sync", dependencies=[Depends(sync_dependency)])
    async def _sync() -> dict[str, str]:
        return outbound_headers(URL)

    headers = {"x-request-id": "1"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", headers=headers) as client:
        for path in ("/async", "/async-def"):
            assert (await client.get(path)).json() == {"x-request-id": "1", "x-user-type": "premium"}
        with pytest.raises(RuntimeError, match="a `def` dependency"):
            await client.get("/sync")


# From one request to the next


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


def test_nor_where_the_server_begins_the_next_one_from_within_the_one_before(serve: Serve) -> None:
    """
    uvicorn begins a pipelined request in the context of the one before, and after a body that it held up it reads on
    in that context. Neither the application nor a layer around the middleware may see what was carried there.
    """
    around = list[dict[str, str]]()
    application = _application()

    async def layer(scope: Scope, receive: Receive, send: Send) -> None:
        around.append(outbound_headers(URL))
        await application(scope, receive, send)

    host, port = serve(layer).split(":")
    large = b"x" * 300_000
    requests = [
        b"POST /all HTTP/1.1\r\nHost: a\r\nx-request-id: 1\r\nx-user-type: a\r\ncontent-length: 300000\r\n\r\n" + large,
        b"GET /all HTTP/1.1\r\nHost: a\r\nx-request-id: 2\r\nx-canary: 1\r\n\r\n",
        b"GET /all HTTP/1.1\r\nHost: a\r\nx-request-id: 3\r\n\r\n",
    ]

    async def talk(*parts: bytes) -> list[dict[str, str]]:
        reader, writer = await asyncio.open_connection(host, int(port))
        seen = list[dict[str, str]]()
        for part in parts:
            writer.write(part)
            await writer.drain()
            for _ in range(part.count(b"HTTP/1.1")):
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head)
                assert length is not None
                seen.append(json.loads(await reader.readexactly(int(length[1]))))
        writer.close()
        await writer.wait_closed()
        return seen

    async def main() -> None:
        async with asyncio.timeout(20):
            for parts in (requests, [b"".join(requests)]):
                assert await talk(*parts) == [
                    {"x-request-id": "1", "x-user-type": "a"},
                    {"x-request-id": "2", "x-canary": "1"},
                    {"x-request-id": "3"},
                ]

    asyncio.run(main())
    assert around == [{}] * 6


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
