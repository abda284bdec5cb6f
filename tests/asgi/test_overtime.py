"""By choice a request whose time is up is answered 504, and its handler cancelled."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import anyio
import anyio.lowlevel
import httpx
import pytest
from fastapi import BackgroundTasks, Body, FastAPI, Request
from fastapi.responses import StreamingResponse

from meshaware.asgi.middleware import MeshMiddleware
from meshaware.asgi.overtime import Timed
from meshaware.asgi.types import ASGIApp, Message, Receive, Scope, Send
from meshaware.deadline import remaining
from meshaware.errors import DeadlineExceeded
from meshaware.instrumentation import on_served
from meshaware.settings import MeshSettings

SLACK = 0.3
FOREVER = 30.0
GIVEN = {"x-mesh-deadline-ms": "200"}


class Seen:
    """What became of the handlers."""

    def __init__(self) -> None:
        self.ends: list[str] = []
        self.ended = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.left: list[float | None] = []

    def end(self, how: str) -> None:
        self.ends.append(how)
        self.ended.release()

    def wait(self) -> list[str]:
        assert self.ended.acquire(timeout=10)
        return self.ends


def application(seen: Seen) -> FastAPI:
    app = FastAPI()
    add_late(app, seen)
    add_others(app)
    app.add_middleware(MeshMiddleware, settings=MeshSettings(mesh="istio", deadline_cancel=True))
    return app


def add_late(app: FastAPI, seen: Seen) -> None:
    """Handlers that are late, each in its way."""

    @app.get("/slow")
    async def slow() -> None:
        try:
            await anyio.sleep(FOREVER)
        except BaseException as error:
            seen.end(type(error).__name__)
            raise

    @app.get("/thread")
    def thread() -> str:
        seen.go_on.wait(10)
        seen.left.append(remaining())
        seen.end("thread")
        return "too late"

    @app.get("/begun")
    async def begun() -> StreamingResponse:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"some"
            try:
                await anyio.sleep(FOREVER)
            finally:
                seen.end("stream")

        return StreamingResponse(chunks())

    @app.get("/background")
    async def background(tasks: BackgroundTasks) -> str:
        async def task() -> None:
            await anyio.sleep(0.4)
            seen.end("background")

        tasks.add_task(task)
        return "done"


def add_others(app: FastAPI) -> None:
    @app.post("/echo")
    async def echo(body: Annotated[bytes, Body()]) -> int:
        return len(body)

    @app.get("/listens")
    async def listens(request: Request) -> None:
        while not await request.is_disconnected():
            await anyio.sleep(0.01)

    @app.get("/fails")
    async def fails() -> None:
        raise KeyError("fails")


def until(there: Callable[[], bool]) -> None:
    """Wait for what the server does after its answer."""
    end = time.monotonic() + 10
    while not there() and time.monotonic() < end:
        threading.Event().wait(0.01)


@pytest.fixture(name="seen")
def _seen() -> Seen:
    return Seen()


@pytest.fixture(name="verdicts")
def _verdicts() -> Iterator[list[str]]:
    heard: list[str] = []
    stop = on_served(lambda outcome: heard.append(outcome.verdict))
    yield heard
    stop()


@pytest.fixture(name="client")
def _client(serving: Callable[[Any], str], seen: Seen) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=serving(application(seen)), trust_env=False, timeout=10) as client:
        yield client


def test_time_is_up(client: httpx.Client, seen: Seen, caplog: pytest.LogCaptureFixture) -> None:
    """504 in time, and the handler is cancelled; the connection goes on."""
    begin = time.monotonic()
    answer = client.get("/slow", headers=GIVEN)
    assert answer.status_code == 504
    assert answer.json() == {"detail": "The time to answer was up."}
    assert 0.2 <= time.monotonic() - begin <= 0.2 + SLACK
    assert seen.wait() == ["CancelledError"]
    assert [record.name for record in caplog.records if record.levelno >= logging.WARNING] == ["meshaware.deadline"]
    assert client.post("/echo", content=b"x", headers={"x-mesh-deadline-ms": "9000"}).json() == 1


def test_a_handler_in_a_thread_goes_on_and_its_answer_is_dropped(client: httpx.Client, seen: Seen) -> None:
    """A thread cannot be cancelled; the 504 goes out in time all the same, and there is no second answer."""
    begin = time.monotonic()
    assert client.get("/thread", headers=GIVEN).status_code == 504
    assert time.monotonic() - begin <= 0.2 + SLACK
    assert seen.ends == []
    seen.go_on.set()
    assert seen.wait() == ["thread"]
    assert seen.left == [0.0]
    assert client.post("/echo", content=b"xy", headers=GIVEN).json() == 2


def test_a_response_that_has_begun_ends_with_its_connection(client: httpx.Client, seen: Seen) -> None:
    """Nobody takes half an answer for a whole one, and there is no second one."""
    with client.stream("GET", "/begun", headers=GIVEN) as answer:
        assert answer.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            answer.read()
    assert seen.wait() == ["stream"]


def test_background_tasks_run_on(client: httpx.Client, seen: Seen) -> None:
    """The answer was whole in time, so nothing is cancelled any more."""
    assert client.get("/background", headers=GIVEN).json() == "done"
    assert seen.wait() == ["background"]


def test_without_a_deadline_nothing_is_ended(client: httpx.Client, seen: Seen) -> None:
    """Only what the caller says is held to."""
    with pytest.raises(httpx.ReadTimeout):
        client.get("/slow", timeout=0.5)
    assert seen.ends == []


@pytest.mark.parametrize("size", [0, 5, 1_000_000])
def test_bodies_arrive_whole(client: httpx.Client, size: int) -> None:
    """One message of it is taken ahead."""
    answer = client.post("/echo", content=b"x" * size, headers={"x-mesh-deadline-ms": "9000"})
    assert answer.json() == size if size else answer.status_code == 422


def test_an_error_stays_an_error(serving: Callable[[Any], str], seen: Seen) -> None:
    """The server is told of the application's own, not of a group of them."""
    errors: list[Exception] = []
    app = application(seen)

    async def layer(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except Exception as error:
            errors.append(error)
            raise

    with httpx.Client(base_url=serving(layer), trust_env=False) as client:
        assert client.get("/fails", headers={"x-mesh-deadline-ms": "9000"}).status_code == 500
    until(lambda: bool(errors))
    assert [type(error) for error in errors] == [KeyError]


def test_a_caller_that_is_gone_ends_the_handler(client: httpx.Client, seen: Seen, verdicts: list[str]) -> None:
    """As when a sidecar resets the try it had made; long before the deadline."""
    begin = time.monotonic()
    with pytest.raises(httpx.ReadTimeout):
        client.get("/slow", headers={"x-mesh-deadline-ms": "20000"}, timeout=0.2)
    assert seen.wait() == ["CancelledError"]
    assert time.monotonic() - begin < 5
    until(lambda: bool(verdicts))
    assert verdicts == ["gone"]


def test_a_caller_that_is_gone_in_the_middle_of_its_body_ends_it_too(
    serving: Callable[[Any], str], seen: Seen, verdicts: list[str]
) -> None:
    """The application is told where it asks for more."""
    host, port = serving(application(seen)).removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            b"POST /echo HTTP/1.1\r\nhost: a\r\nx-mesh-deadline-ms: 20000\r\ncontent-length: 100\r\n\r\nabc"
        )
    until(lambda: bool(verdicts))
    assert verdicts[0] in ("gone", "in_time")


def test_a_handler_may_ask_itself_whether_the_caller_is_there(client: httpx.Client) -> None:
    """It is not told that he is gone as long as he is not."""
    assert client.get("/listens", headers=GIVEN).status_code == 504


# Without a server, on both event loops


class Exchange:
    """A request whose body is what is given, and whose caller goes when told to."""

    def __init__(self, *messages: Message) -> None:
        self.messages = list(messages)
        self.gone = anyio.Event()
        self.sent: list[Message] = []

    async def receive(self) -> Message:
        if self.messages:
            return self.messages.pop(0)
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await anyio.lowlevel.checkpoint()
        self.sent.append(message)

    async def serve(self, app: ASGIApp, seconds: float) -> str | None:
        timed = Timed(time.monotonic() + seconds, self.receive, self.send, self.send)
        with anyio.fail_after(10):
            return await timed.serve(app, {"type": "http"})

    @property
    def status(self) -> list[int]:
        return [message["status"] for message in self.sent if message["type"] == "http.response.start"]


WHOLE: Message = {"type": "http.request", "body": b"", "more_body": False}


@pytest.mark.anyio
async def test_it_works_on_both_loops() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep(FOREVER)

    exchange = Exchange(WHOLE)
    assert await exchange.serve(app, 0.05) == "cut"
    assert exchange.status == [504]

    exchange = Exchange(WHOLE)
    exchange.gone.set()
    assert await exchange.serve(app, FOREVER) == "gone"
    assert exchange.sent == []


@pytest.mark.anyio
async def test_what_a_cancelled_handler_still_sends_is_dropped() -> None:
    """Such as the error page of a layer inside."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await anyio.sleep(FOREVER)
        finally:
            with anyio.CancelScope(shield=True):
                await send({"type": "http.response.start", "status": 500, "headers": []})
                await send({"type": "http.response.body", "body": b""})

    exchange = Exchange(WHOLE)
    assert await exchange.serve(app, 0.05) == "cut"
    assert exchange.status == [504]


@pytest.mark.anyio
async def test_an_answer_that_becomes_whole_after_all_counts() -> None:
    """The handler had begun it, and does not let itself be cancelled."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.1)
            await send({"type": "http.response.body", "body": b"late"})

    exchange = Exchange(WHOLE)
    await exchange.serve(app, 0.05)
    assert exchange.status == [200]
    assert exchange.sent[-1]["body"] == b"late"


@pytest.mark.anyio
async def test_a_half_answer_is_an_error_for_the_server() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await anyio.sleep(FOREVER)

    exchange = Exchange(WHOLE)
    with pytest.raises(DeadlineExceeded, match="after its response had begun"):
        await exchange.serve(app, 0.05)
    assert exchange.status == [200]


@pytest.mark.anyio
async def test_an_outer_cancellation_stays_one() -> None:
    """A server that shuts down is no deadline."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep(FOREVER)

    exchange = Exchange(WHOLE)
    with anyio.move_on_after(0.05) as outer:
        await exchange.serve(app, FOREVER)
    assert outer.cancelled_caught
    assert exchange.sent == []


@pytest.mark.anyio
async def test_the_application_is_told_that_the_caller_is_gone() -> None:
    """Each time it asks, also after its answer, when nothing is cancelled any more."""
    told: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (message := await receive()).get("more_body"):
            told.append(message["type"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        exchange.gone.set()
        told.extend([(await receive())["type"], (await receive())["type"]])

    exchange = Exchange({"type": "http.request", "body": b"a", "more_body": True}, WHOLE)
    assert await exchange.serve(app, FOREVER) is None
    assert told == ["http.request", "http.disconnect", "http.disconnect"]


@pytest.mark.anyio
async def test_a_server_that_says_more_than_asgi_knows_is_not_taken_for_a_caller_that_is_gone() -> None:
    """As stubs do in tests."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep(0.05)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    exchange = Exchange(WHOLE, WHOLE, WHOLE)
    assert await exchange.serve(app, FOREVER) is None
    assert exchange.status == [200]


@pytest.mark.anyio
@pytest.mark.parametrize("pause", [0.0, 0.05])
@pytest.mark.parametrize("count", [1, 3])
async def test_a_body_is_whole_whoever_looked_first(pause: float, count: int) -> None:
    """The application at once, or later, when the first message was taken ahead; then the caller goes."""
    taken: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if pause:
            await anyio.sleep(pause)
        more = True
        while more:
            message = await receive()
            taken.append(message["body"])
            more = message["more_body"]
        exchange.gone.set()
        await anyio.sleep(FOREVER)

    parts: list[Message] = [
        {"type": "http.request", "body": b"%d" % number, "more_body": number + 1 < count} for number in range(count)
    ]
    exchange = Exchange(*parts)
    assert await exchange.serve(app, FOREVER) == "gone"
    assert taken == [part["body"] for part in parts]
