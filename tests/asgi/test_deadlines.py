"""The deadline that a request brings is read, held while it is served, and gone with the answer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import httpx
import pytest
from fastapi import BackgroundTasks, FastAPI
from fastapi.responses import StreamingResponse
from hypothesis import given
from hypothesis import strategies as st

from meshaware.asgi.deadlines import read_deadline
from meshaware.asgi.middleware import MeshMiddleware
from meshaware.asgi.types import Message, Receive, Scope, Send
from meshaware.deadline import detached, limit, remaining
from meshaware.deadline.work import told_deadline
from meshaware.errors import SettingsError
from meshaware.instrumentation import ServedOutcome, on_served
from meshaware.propagation.context import attach, outbound_headers
from meshaware.settings import MeshSettings

Pair = tuple[bytes, bytes]
NAME = b"x-mesh-deadline-ms"
URL = "http://inventory:8080/items/42"


def read(*headers: Pair, envoy: bool = True) -> tuple[float, str, bool] | None:
    return read_deadline(headers, NAME, envoy=envoy)


@pytest.mark.parametrize(
    ("headers", "seconds", "source"),
    [
        ([(NAME, b"1500")], 1.5, "header"),
        ([(b"grpc-timeout", b"250m")], 0.25, "grpc-timeout"),
        ([(b"x-envoy-expected-rq-timeout-ms", b"15000")], 15.0, "envoy"),
        # The shortest holds.
        ([(NAME, b"1500"), (b"grpc-timeout", b"1S")], 1.0, "grpc-timeout"),
        ([(NAME, b"500"), (b"grpc-timeout", b"1S"), (b"x-envoy-expected-rq-timeout-ms", b"15000")], 0.5, "header"),
        # One that is nothing does not spoil the others.
        ([(NAME, b"soon"), (b"grpc-timeout", b"1S")], 1.0, "grpc-timeout"),
        ([(NAME, b"1500"), (NAME, b"1500"), (b"grpc-timeout", b"2S")], 2.0, "grpc-timeout"),
        # Envoy's runs from the end of the upload, so a short body is no matter.
        ([(b"x-envoy-expected-rq-timeout-ms", b"300"), (b"content-length", b"65536")], 0.3, "envoy"),
    ],
)
def test_the_shortest_time_that_is_told_counts(headers: list[Pair], seconds: float, source: str) -> None:
    assert read(*headers) == (seconds, source, False)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(NAME, b"-5")],
        [(NAME, b"99999999999")],
        [(NAME, b"soon")],
        [(NAME, b"100, 200")],
        [(NAME, b" 100")],
        [(NAME, "١٢٣".encode())],
        [(NAME, b"100"), (NAME, b"100")],
        [(NAME, b"100"), (NAME, b"soon")],
        [(b"grpc-timeout", b"1s")],
        [(b"x-envoy-expected-rq-timeout-ms", b"0")],
        # The body may take longer than that to come.
        [(b"x-envoy-expected-rq-timeout-ms", b"300"), (b"content-length", b"65537")],
        [(b"x-envoy-expected-rq-timeout-ms", b"300"), (b"content-length", b"9" * 5000)],
        [(b"x-envoy-expected-rq-timeout-ms", b"300"), (b"content-length", b"1"), (b"content-length", b"2")],
        [(b"x-envoy-expected-rq-timeout-ms", b"300"), (b"transfer-encoding", b"chunked")],
    ],
)
def test_what_is_not_exactly_a_time_is_not_there(headers: list[Pair]) -> None:
    """Negative, huge, text, blanks, other digits, and twice the same."""
    assert read(*headers) is None


@given(
    st.lists(
        st.tuples(
            st.sampled_from([NAME, b"grpc-timeout", b"x-envoy-expected-rq-timeout-ms", b"content-length", b"x-other"]),
            st.one_of(st.binary(max_size=12), st.integers(0, 10**12).map(lambda number: str(number).encode())),
        ),
        max_size=6,
    )
)
def test_whatever_comes_there_is_a_time_or_none(headers: list[Pair]) -> None:
    """And a header that comes twice is never the one."""
    found = read(*headers)
    if found is not None:
        name = {"header": NAME, "grpc-timeout": b"grpc-timeout", "envoy": b"x-envoy-expected-rq-timeout-ms"}[found[1]]
        assert 0 < found[0] < 1_000_000
        assert [key for key, _ in headers].count(name) == 1


@pytest.mark.parametrize(
    ("attempt", "retried"),
    [(b"1", False), (b"2", True), (b"10", True), (b"01", False), (b"0", False), (b"x", False), (b"-2", False)],
)
def test_after_the_first_try_the_time_is_an_upper_bound(attempt: bytes, retried: bool) -> None:
    assert read((NAME, b"100"), (b"x-envoy-attempt-count", attempt)) == (0.1, "header", retried)


def test_envoy_counts_only_where_the_mesh_delivers_its_word() -> None:
    assert read((b"x-envoy-expected-rq-timeout-ms", b"300"), envoy=False) is None


# Through the middleware


async def receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def serve(
    headers: list[Pair], look: Callable[[], Any], settings: MeshSettings | None = None, kind: str = "http"
) -> Any:
    """What a handler sees that a request with these headers comes to, and what is there after its answer."""
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(look())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        seen.append(look())
        await send({"type": "http.response.body", "body": b"b"})
        seen.append(look())

    async def send(message: Message) -> None:
        del message

    middleware = MeshMiddleware(app, settings or MeshSettings(mesh="istio"))
    await middleware({"type": kind, "method": "GET", "path": "/", "headers": headers}, receive, send)
    return seen


@pytest.mark.anyio
async def test_the_deadline_holds_until_the_answer_is_whole() -> None:
    """What a handler does after that, such as background tasks, nobody waits for."""
    first, second, after = await serve([(NAME, b"5000")], remaining)
    assert 4 < second <= first <= 5
    assert after is None
    assert remaining() is None


@pytest.mark.anyio
async def test_it_is_told_anew_with_each_call_and_never_handed_on() -> None:
    """A call of any other client gets what is left, once; the header itself is no header that is carried."""
    headers = [(NAME, b"5000"), (b"x-user-type", b"premium"), (b"grpc-timeout", b"4S")]

    def look() -> tuple[dict[str, str], list[Pair]]:
        return outbound_headers(URL), list(attach([]))

    (told, carried), *_ = await serve(headers, look)
    left = int(told.pop("x-mesh-deadline-ms"))
    assert 3000 < left <= 4000
    assert {name for name in told if name != "x-request-id"} == {"x-user-type"}
    assert {name for name, _ in carried} == {b"x-user-type", b"x-request-id"}


@pytest.mark.anyio
async def test_a_prefix_does_not_mean_it_and_naming_it_is_refused() -> None:
    """Under whatever name."""
    for name, settings in (
        (NAME, MeshSettings(mesh="istio", headers="x-mesh-*")),
        (b"x-shop-deadline", MeshSettings(mesh="istio", headers="x-shop-*", deadline_header="x-shop-deadline")),
    ):
        carried, *_ = await serve([(name, b"5000")], lambda: [name for name, _ in attach([])], settings)
        assert carried == [b"x-request-id"]
    with pytest.raises(SettingsError, match="told anew with each call"):
        MeshMiddleware(places(), MeshSettings(deadline_header="x-own", headers="x-mesh-deadline-ms"))
    with pytest.raises(SettingsError, match="told anew with each call"):
        MeshSettings(deadline_header="x-own", headers="X-Own")


@pytest.mark.anyio
async def test_other_headers_that_tell_a_time_go_on_where_they_are_named() -> None:
    carried, *_ = await serve(
        [(b"grpc-timeout", b"4S")],
        lambda: [name for name, _ in attach([])],
        MeshSettings(mesh="istio", headers="grpc-timeout"),
    )
    assert b"grpc-timeout" in carried


@pytest.mark.anyio
async def test_observed_it_holds_nothing_and_is_told() -> None:
    """`MESHAWARE_DEADLINES=observe`."""
    settings = MeshSettings(mesh="istio", deadlines="observe")
    (left, told), *_ = await serve([(NAME, b"5000")], lambda: (remaining(), told_deadline()), settings)
    assert left is None
    assert told is not None


@pytest.mark.anyio
async def test_off_it_is_not_read() -> None:
    """`MESHAWARE_DEADLINES=off`."""
    settings = MeshSettings(mesh="istio", deadlines="off")
    assert await serve([(NAME, b"5000")], told_deadline, settings) == [None] * 3


@pytest.mark.anyio
async def test_a_websocket_outlives_the_request_that_opens_it() -> None:
    assert await serve([(NAME, b"5000")], told_deadline, kind="websocket") == [None] * 3


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("mesh", "told"),
    [
        *(("istio", False), ("linkerd", False), ("consul", True)),
        *(("kuma", True), ("ambient", True), ("none", True)),
    ],
)
async def test_envoys_word_counts_by_mesh(mesh: Any, told: bool) -> None:
    found, *_ = await serve([(b"x-envoy-expected-rq-timeout-ms", b"15000")], remaining, MeshSettings(mesh=mesh))
    assert (found is not None) is told


@pytest.mark.anyio
@pytest.mark.parametrize("headers", [[], [(NAME, b"9000")], [(NAME, b"soon")]])
async def test_a_request_begins_anew_also_where_it_is_called_in_the_same_process(headers: list[Pair]) -> None:
    """As with headers: nothing of the caller goes on, but what the request itself brings."""
    with limit(3):
        found, *_ = await serve(headers, remaining)
        assert found is None if headers != [(NAME, b"9000")] else 8 < found <= 9
        assert (remaining() or 0) > 2


@pytest.mark.anyio
async def test_it_is_gone_when_the_application_fails() -> None:
    """Whoever kept its context is let go."""
    kept: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def later() -> None:
            kept.append(remaining())

        kept.append(later)
        kept.append(remaining())
        raise KeyError

    with pytest.raises(KeyError):
        await MeshMiddleware(app, MeshSettings(mesh="istio"))(
            {"type": "http", "headers": [(NAME, b"5000")]}, receive, lambda _: anyio.lowlevel.checkpoint()
        )
    assert kept[1] > 4
    assert remaining() is None


@pytest.fixture(name="outcomes")
def _outcomes() -> Iterator[list[ServedOutcome]]:
    heard: list[ServedOutcome] = []
    stop = on_served(heard.append)
    yield heard
    stop()


@pytest.mark.anyio
@pytest.mark.parametrize(("deadlines", "held"), [("enforce", True), ("observe", False)])
async def test_how_it_ended_is_told(outcomes: list[ServedOutcome], deadlines: Any, held: bool) -> None:
    """In time or late; nothing of requests without a deadline."""
    settings = MeshSettings(mesh="istio", deadlines=deadlines)
    await serve([(NAME, b"5000"), (b"x-envoy-attempt-count", b"2")], remaining, settings)
    await serve([], remaining, settings)
    await serve([(b"grpc-timeout", b"1m")], lambda: threading.Event().wait(0.02), settings)
    assert [(each.verdict, each.source, each.held, each.retried) for each in outcomes] == [
        ("in_time", "header", held, True),
        ("late", "grpc-timeout", held, False),
    ]
    assert 4 < outcomes[0].left <= outcomes[0].seconds == 5
    assert outcomes[1].left < 0


# In an application, on a real server


def places() -> FastAPI:
    """Handlers of every kind that say what is left, and background tasks that say what is left for them."""
    app = FastAPI()
    app.state.background = []
    done = app.state.done = threading.Semaphore(0)

    def tell() -> None:
        app.state.background.append(remaining())
        done.release()

    async def atell() -> None:
        tell()

    @app.get("/async")
    async def asynchronous() -> float | None:
        return remaining()

    @app.get("/sync")
    def synchronous() -> float | None:
        return remaining()

    @app.get("/thread")
    async def thread() -> float | None:
        return await anyio.to_thread.run_sync(remaining)

    @app.get("/detached")
    async def alone() -> float | None:
        with detached():
            return remaining()

    @app.get("/stream")
    def stream() -> StreamingResponse:
        return StreamingResponse(str(remaining()) for _ in range(1))

    @app.get("/background")
    async def background(tasks: BackgroundTasks) -> float | None:
        tasks.add_task(tell)
        tasks.add_task(atell)
        return remaining()

    app.add_middleware(MeshMiddleware, settings=MeshSettings(mesh="istio"))
    return app


@pytest.mark.parametrize("path", ["/async", "/sync", "/thread", "/stream", "/background"])
def test_handlers_of_every_kind_know_what_is_left(serving: Callable[[Any], str], path: str) -> None:
    """And the next request on the same connection, which brings none, has none."""
    with httpx.Client(base_url=serving(places()), trust_env=False) as client:
        for _ in range(2):
            assert 4 < float(client.get(path, headers={"x-mesh-deadline-ms": "5000"}).text) <= 5
            assert client.get(path).text in ("null", "None")


def test_a_block_detaches(serving: Callable[[Any], str]) -> None:
    with httpx.Client(base_url=serving(places()), trust_env=False) as client:
        assert client.get("/detached", headers={"x-mesh-deadline-ms": "5000"}).json() is None


def test_background_tasks_run_without_their_requests_deadline(serving: Callable[[Any], str]) -> None:
    """The answer is with the caller when they begin."""
    app = places()
    with httpx.Client(base_url=serving(app), trust_env=False) as client:
        client.get("/background", headers={"x-mesh-deadline-ms": "5000"})
        assert app.state.done.acquire(timeout=10)
        assert app.state.done.acquire(timeout=10)
    assert app.state.background == [None, None]


@pytest.mark.parametrize("cancel", [False, True])
def test_the_next_request_of_a_connection_begins_without(serving: Callable[[Any], str], *, cancel: bool) -> None:
    """
    uvicorn begins a pipelined request in the context of the one before, and after a body that it held up it reads on
    in that context. Neither the application nor a layer around the middleware may see what held there.
    """
    around: list[float | None] = []
    inside: list[float | None] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        inside.append(told_deadline())
        while (await receive()).get("more_body"):
            pass
        await anyio.sleep(0.02)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    middleware = MeshMiddleware(app, MeshSettings(mesh="istio", deadline_cancel=cancel))

    async def layer(scope: Scope, receive: Receive, send: Send) -> None:
        around.append(told_deadline())
        await middleware(scope, receive, send)

    host, port = serving(layer).removeprefix("http://").split(":")
    large = b"x" * 300_000
    held = b"POST / HTTP/1.1\r\nHost: a\r\nx-mesh-deadline-ms: 9000\r\ncontent-length: 300000\r\n\r\n" + large
    free = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        for requests in (held + free + free, held, free):
            connection.sendall(requests)
            answers = b""
            while answers.count(b"\r\n\r\nok") < requests.count(b"HTTP/1.1"):
                more = connection.recv(65536)
                assert more
                answers += more
    assert around == [None] * 5
    assert [at is not None for at in inside] == [True, False, False, True, False]
