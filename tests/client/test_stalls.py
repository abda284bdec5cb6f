"""Whatever a peer does with its bytes, and however it is reached: the call ends in time, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import anyio
import anyio.lowlevel
import h2.config
import h2.connection
import h2.events
import httpx
import pytest
import trio
import trustme

from meshaware import call_options, create_async_client, create_client
from meshaware.budgets import RouteTable
from meshaware.client.httpx import (
    ConnectDeadlineExceeded,
    PoolDeadlineExceeded,
    ReadDeadlineExceeded,
    WriteDeadlineExceeded,
)
from meshaware.deadline import limit
from meshaware.errors import DeadlineExceeded
from meshaware.settings import MeshSettings

from .conftest import Conversation, Peer, Script

INSIDE = "http://inventory/items"
BUDGET = 0.4
# The promise is 50 ms; the rest is for a machine that does other things as well.
SLACK = 0.3
HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"
LARGE = bytes(16 << 20)

Send = Callable[..., Awaitable[httpx.Response]]
MakePeer = Callable[[Script], Peer]


@pytest.fixture(name="way", params=["asyncio", "trio", "sync"])
def _way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run(way: str, main: Callable[[], Awaitable[None]]) -> None:
    """Run it on the loop that its calls are made on; and see that no task and no thread is left."""
    before = set(threading.enumerate())

    async def watched() -> None:
        tasks = count_tasks(way)
        await main()
        with anyio.fail_after(1):
            while count_tasks(way) > tasks:
                await anyio.lowlevel.checkpoint()

    anyio.run(watched, backend="trio" if way == "trio" else "asyncio")
    left = {each.name for each in set(threading.enumerate()) - before if "_talk" not in each.name}
    assert not left


def count_tasks(way: str) -> int:
    return trio.lowlevel.current_statistics().tasks_living if way == "trio" else len(asyncio.all_tasks())


@asynccontextmanager
async def calling(
    way: str, settings: MeshSettings, routes: RouteTable | None = None, **more: Any
) -> AsyncGenerator[Send]:
    """A client of that way, as one function that makes a call."""
    routes = RouteTable.empty() if routes is None else routes
    if way == "sync":
        with create_client(settings, routes=routes, **more) as client:

            async def send(url: str, method: str = "GET", **options: Any) -> httpx.Response:
                return client.request(method, url, **options)

            yield send
    else:
        async with create_async_client(settings, routes=routes, **more) as asynchronous:

            async def async_send(url: str, method: str = "GET", **options: Any) -> httpx.Response:
                return await asynchronous.request(method, url, **options)

            yield async_send


class Late(NamedTuple):
    """What became of a call that was ended."""

    error: DeadlineExceeded
    took: float


async def ended(send: Send, url: str, **options: Any) -> Late:
    begin = time.monotonic()
    with pytest.raises(DeadlineExceeded) as caught:
        await send(url, **options)
    return Late(caught.value, time.monotonic() - begin)


@pytest.fixture(name="in_time")
def _in_time(record_property: Callable[[str, object], None]) -> Callable[[Late], None]:
    """Check that a call ended when it had to, and write down by how much it was late."""

    def check(late: Late, after: float = BUDGET) -> None:
        record_property("late_ms", round((late.took - after) * 1000, 1))
        assert after - 0.05 <= late.took <= after + SLACK

    return check


def stall_head(conversation: Conversation) -> None:
    conversation.stay_silent()


def dribble_head(conversation: Conversation) -> None:
    conversation.send(b"HTTP/1.1 200 OK\r\n")
    conversation.dribble(b"x-a: b\r\n")


def stall_body(conversation: Conversation) -> None:
    conversation.send(HEAD)
    conversation.stay_silent()


def dribble_body(conversation: Conversation) -> None:
    conversation.send(HEAD)
    conversation.dribble(b"x")


def late_byte_then_silence(conversation: Conversation) -> None:
    conversation.stay_silent(BUDGET * 0.8)
    conversation.send(b"H")
    conversation.stay_silent()


STALLS: list[Script] = [stall_head, dribble_head, stall_body, dribble_body, late_byte_then_silence]


class Reached(NamedTuple):
    """A peer, and how to reach it."""

    upstream: Peer
    url: str
    settings: MeshSettings
    arguments: dict[str, Any]


Reach = Callable[..., Reached]


def nothing(conversation: Conversation) -> None:
    """Plain HTTP has nothing to prepare."""


@pytest.fixture(name="certificates", scope="module")
def _certificates() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context, and one that trusts it."""
    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("localhost", "127.0.0.1", "api.example.com").configure_cert(server)  # pyright: ignore[reportUnknownMemberType]
    server.set_alpn_protocols(["h2", "http/1.1"])
    authority.configure_trust(client)  # pyright: ignore[reportUnknownMemberType]
    return server, client


@pytest.fixture(name="reach", params=["plain", "tls", "proxy", "tunnel"])
def _reach(
    request: pytest.FixtureRequest,
    certificates: tuple[ssl.SSLContext, ssl.SSLContext],
    peer: MakePeer,
    monkeypatch: pytest.MonkeyPatch,
) -> Reach:
    """Start a peer that answers its requests by these scripts, one after the other, and then all is well."""
    server, trusting = certificates

    def tls(conversation: Conversation) -> None:
        conversation.start_tls(server)

    def tunnel(conversation: Conversation) -> None:
        conversation.read_request()
        conversation.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        conversation.start_tls(server)

    prepare: Script = {"tls": tls, "tunnel": tunnel}.get(request.param, nothing)

    def reach(*scripts: Script) -> Reached:
        then = iter(scripts)

        def script(conversation: Conversation) -> None:
            prepare(conversation)
            while conversation.read_request():
                next(then, respond)(conversation)

        upstream = peer(script)
        if request.param == "plain":
            return Reached(upstream, INSIDE, settings_for(outbound_proxy=upstream.url), {})
        if request.param == "tls":
            url = f"https://127.0.0.1:{upstream.port}/items"
        else:
            scheme = "http" if request.param == "proxy" else "https"
            monkeypatch.setenv(f"{scheme.upper()}_PROXY", upstream.url)
            url = f"{scheme}://api.example.com/items"
        return Reached(upstream, url, settings_for(), {"verify": trusting})

    return reach


def settings_for(**more: Any) -> MeshSettings:
    """0.3 s and 0.1 s of buffer, for the whole of a call."""
    return MeshSettings(mesh="none", timeout=0.3, buffer=0.1, **more)


def respond(conversation: Conversation) -> None:
    conversation.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")


@pytest.mark.parametrize("stall", STALLS)
def test_a_call_ends_at_its_budget(stall: Script, way: str, reach: Reach, in_time: Callable[[Late], None]) -> None:
    """Directly, encrypted, and through a proxy from the environment; the client is usable afterwards."""
    upstream, url, settings, arguments = reach(stall)

    async def main() -> None:
        async with calling(way, settings, **arguments) as send:
            late = await ended(send, url)
            in_time(late)
            assert isinstance(late.error, ReadDeadlineExceeded)
            assert late.error.phase == ("body" if stall in (stall_body, dribble_body) else "wait")
            assert late.error.seconds == pytest.approx(BUDGET)
            assert str(late.error.request.url) == url
            assert upstream.sockets() == 0
            assert (await send(url)).text == "ok"
        assert upstream.sockets() == 0

    run(way, main)


@pytest.mark.parametrize("stall", STALLS)
def test_a_call_on_a_kept_connection_ends_at_its_budget(
    stall: Script, way: str, reach: Reach, in_time: Callable[[Late], None]
) -> None:
    """The connection is watched from its birth, also when a later call takes it from the pool."""
    upstream, url, settings, arguments = reach(respond, stall)

    async def main() -> None:
        async with calling(way, settings, **arguments) as send:
            assert (await send(url)).text == "ok"
            in_time(await ended(send, url))
            assert upstream.connections == 1
            assert (await send(url)).text == "ok"
            assert upstream.connections == 2
        assert upstream.sockets() == 0

    run(way, main)


class SpeaksHttp2:
    """A peer that speaks HTTP/2, and answers the first streams by scripts of their own."""

    def __init__(self, context: ssl.SSLContext, *stalls: str) -> None:
        self._context = context
        self._stalls = iter(stalls)

    def __call__(self, conversation: Conversation) -> None:
        conversation.start_tls(self._context)
        speaker = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        speaker.initiate_connection()
        conversation.send(speaker.data_to_send())
        while data := conversation.receive():
            for event in speaker.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    self._answer(conversation, speaker, event.stream_id)
            conversation.send(speaker.data_to_send())

    def _answer(self, conversation: Conversation, speaker: h2.connection.H2Connection, stream: int) -> None:
        stall = next(self._stalls, "respond")
        if stall == "silent head":
            return
        speaker.send_headers(stream, [(":status", "200")])
        if stall == "dribbling head":
            conversation.dribble(speaker.data_to_send(), every=0.1)
        if stall == "respond":
            speaker.send_data(stream, b"ok", end_stream=True)
        if stall == "dribbling body":
            while True:
                speaker.send_data(stream, b"x")
                conversation.send(speaker.data_to_send())
                conversation.stay_silent(0.02)


@pytest.mark.parametrize("stall", ["silent head", "dribbling head", "silent body", "dribbling body"])
def test_a_call_over_http2_ends_at_its_budget(
    stall: str,
    way: str,
    peer: MakePeer,
    certificates: tuple[ssl.SSLContext, ssl.SSLContext],
    in_time: Callable[[Late], None],
) -> None:
    """One connection for many calls: that one of them ends is no fault of the connection."""
    upstream = peer(SpeaksHttp2(certificates[0], "respond", stall))
    url = f"https://127.0.0.1:{upstream.port}/items"

    async def main() -> None:
        async with calling(way, settings_for(), verify=certificates[1], http2=True) as send:
            first = await send(url)
            assert (first.text, first.http_version) == ("ok", "HTTP/2")
            late = await ended(send, url)
            in_time(late)
            assert isinstance(late.error, ReadDeadlineExceeded)
            assert late.error.phase == ("body" if "body" in stall else "wait")
            if "silent" in stall:
                assert (await send(url)).text == "ok"
                assert upstream.connections == 1
        assert upstream.sockets() == 0

    run(way, main)


@pytest.fixture(name="deaf")
def _deaf() -> Iterator[int]:
    """The port of a listener whose queue is full: nobody connects to it."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port: int = listener.getsockname()[1]
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        yield port


def test_a_slow_connect_ends_at_the_budget(way: str, deaf: int, in_time: Callable[[Late], None]) -> None:
    """The error is the connect's; the budget is what a silent phase may take."""

    async def main() -> None:
        async with calling(way, settings_for()) as send:
            late = await ended(send, f"http://127.0.0.1:{deaf}/")
            in_time(late)
            assert isinstance(late.error, ConnectDeadlineExceeded)
            assert isinstance(late.error, httpx.ConnectTimeout)
            assert "no connection within 400ms (from MESHAWARE_TIMEOUT and its like)" in str(late.error)
            assert late.error.spent["connect"] == pytest.approx(late.took, abs=0.1)

    run(way, main)


def test_the_deadline_of_the_work_in_hand_ends_a_slow_connect(
    way: str, deaf: int, in_time: Callable[..., None]
) -> None:
    """It counts from the begin of the call, in every phase."""

    async def main() -> None:
        async with calling(way, settings_for()) as send:
            with limit(0.15):
                late = await ended(send, f"http://127.0.0.1:{deaf}/")
            in_time(late, 0.15)
            assert isinstance(late.error, ConnectDeadlineExceeded)
            assert late.error.seconds is None

    run(way, main)


def dribble_a_handshake(conversation: Conversation) -> None:
    # The head of a record that is as long as records may be, and then a byte now and then.
    conversation.send(b"\x16\x03\x03\x40\x00")
    conversation.dribble(b"\x00")


@pytest.mark.parametrize("stall", [stall_head, dribble_a_handshake])
def test_a_handshake_ends_at_the_budget(
    stall: Script, way: str, peer: MakePeer, in_time: Callable[[Late], None]
) -> None:
    """TLS is part of connecting."""
    upstream = peer(stall)

    async def main() -> None:
        async with calling(way, settings_for()) as send:
            late = await ended(send, f"https://127.0.0.1:{upstream.port}/")
            in_time(late)
            assert isinstance(late.error, ConnectDeadlineExceeded)
        assert upstream.sockets() == 0

    run(way, main)


@pytest.mark.parametrize("stall", [stall_head, dribble_head])
def test_a_proxy_that_makes_no_tunnel_ends_at_the_budget(
    stall: Script, way: str, peer: MakePeer, in_time: Callable[[Late], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """CONNECT is waited for as an answer is."""

    def script(conversation: Conversation) -> None:
        conversation.read_request()
        stall(conversation)

    upstream = peer(script)
    monkeypatch.setenv("HTTPS_PROXY", upstream.url)

    async def main() -> None:
        async with calling(way, settings_for()) as send:
            in_time(await ended(send, "https://api.example.com/"))
        assert upstream.sockets() == 0

    run(way, main)


def test_a_full_pool_ends_the_wait(way: str, peer: MakePeer, in_time: Callable[[Late], None]) -> None:
    """The error is the pool's, so that nobody suspects the upstream; and the pool is as it was."""

    def script(conversation: Conversation) -> None:
        conversation.read_request()
        stall_body(conversation)

    upstream = peer(script)
    settings, limits = settings_for(outbound_proxy=upstream.url), httpx.Limits(max_connections=1)
    options = call_options(detached=True)

    async def main() -> None:
        if way == "sync":
            with create_client(settings, routes=RouteTable.empty(), limits=limits) as client:

                async def send(url: str) -> httpx.Response:
                    return client.get(url)

                with client.stream("GET", INSIDE, extensions=options):
                    late = await ended(send, INSIDE)
        else:
            async with create_async_client(settings, routes=RouteTable.empty(), limits=limits) as asynchronous:
                async with asynchronous.stream("GET", INSIDE, extensions=options):
                    late = await ended(asynchronous.get, INSIDE)
        in_time(late)
        assert isinstance(late.error, PoolDeadlineExceeded)
        assert isinstance(late.error, httpx.PoolTimeout)
        assert late.error.spent.keys() == {"pool"}
        assert upstream.connections == 1
        assert upstream.sockets() == 0

    run(way, main)


# httpcore 1.0 leaves the generator of an upload that failed to the garbage collector, which trio warns of.
LEFT_OPEN = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <async_generator object ByteStream:pytest.PytestUnraisableExceptionWarning",
    "ignore:Async generator:ResourceWarning",
)


@LEFT_OPEN
def test_an_upload_ends_when_nobody_takes_it(way: str, peer: MakePeer, in_time: Callable[[Late], None]) -> None:
    """Silence is what bounds an upload."""
    upstream = peer(stall_head)

    async def main() -> None:
        async with calling(way, settings_for(outbound_proxy=upstream.url)) as send:
            late = await ended(send, INSIDE, method="POST", content=LARGE)
            in_time(late)
            assert isinstance(late.error, WriteDeadlineExceeded)
            assert isinstance(late.error, httpx.WriteTimeout)
            assert "the peer took no byte within 400ms" in str(late.error)
        assert upstream.sockets() == 0

    run(way, main)


def read_slowly(conversation: Conversation) -> None:
    """Take all of `LARGE`, in twice the budget and never with a pause as long as that."""
    left = len(LARGE)
    while left > 0:
        conversation.stay_silent(0.01)
        left -= len(conversation.receive(len(LARGE) // 80))
    respond(conversation)


def test_an_upload_that_goes_on_is_not_cut(way: str, peer: MakePeer) -> None:
    """However long it takes, and also where the body is one piece; the clock starts when it is through."""
    upstream = peer(read_slowly)

    async def main() -> None:
        async with calling(way, settings_for(outbound_proxy=upstream.url)) as send:
            begin = time.monotonic()
            assert (await send(INSIDE, method="POST", content=LARGE)).text == "ok"
            assert time.monotonic() - begin > BUDGET

    run(way, main)


@LEFT_OPEN
def test_the_deadline_of_the_work_in_hand_ends_an_upload(
    way: str, peer: MakePeer, in_time: Callable[..., None]
) -> None:
    """Also one that goes on."""
    upstream = peer(read_slowly)

    async def main() -> None:
        async with calling(way, settings_for(outbound_proxy=upstream.url)) as send:
            with limit(0.2):
                late = await ended(send, INSIDE, method="POST", content=LARGE)
            in_time(late, 0.2)
            assert isinstance(late.error, WriteDeadlineExceeded)
            assert "the deadline of the work in hand passed" in str(late.error)
            assert "after the call began" in str(late.error)

    run(way, main)


def test_a_chain_of_redirects_has_one_budget(way: str, peer: MakePeer, in_time: Callable[[Late], None]) -> None:
    """The message tells whose budget it was."""

    def hop(conversation: Conversation) -> None:
        while conversation.read_request():
            conversation.stay_silent(0.15)
            conversation.send(b"HTTP/1.1 302 Found\r\nlocation: /items\r\ncontent-length: 0\r\n\r\n")

    upstream = peer(hop)

    async def main() -> None:
        async with calling(way, settings_for(outbound_proxy=upstream.url), follow_redirects=True) as send:
            late = await ended(send, INSIDE)
            in_time(late)
            assert "no complete answer within 400ms of the first request, redirects" in str(late.error)
            assert late.error.seconds == pytest.approx(BUDGET)
        assert upstream.sockets() == 0

    run(way, main)


class Insistent(httpx.Auth):
    """Tries again with credentials as long as it is refused."""

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        response = yield request
        while response.status_code == 401:
            request.headers["authorization"] = "Bearer token"
            response = yield request


def test_tries_with_credentials_have_one_budget(way: str, peer: MakePeer, in_time: Callable[[Late], None]) -> None:
    """An auth flow is part of the call."""

    def refuse(conversation: Conversation) -> None:
        while conversation.read_request():
            conversation.stay_silent(0.15)
            conversation.send(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n")

    upstream = peer(refuse)

    async def main() -> None:
        async with calling(way, settings_for(outbound_proxy=upstream.url), auth=Insistent()) as send:
            in_time(await ended(send, INSIDE))

    run(way, main)


def speak(times: int, then: Script) -> Script:
    def script(conversation: Conversation) -> None:
        conversation.read_request()
        conversation.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        for _ in range(times):
            conversation.stay_silent(0.1)
            conversation.send(b"data: x\n\n")
        then(conversation)

    return script


def test_where_the_mesh_bounds_nothing_a_stream_runs_as_long_as_it_speaks(
    way: str, peer: MakePeer, routes: Callable[..., RouteTable]
) -> None:
    """Twice as long as what bounds its headers and its silence."""
    upstream = peer(speak(8, nothing))

    async def main() -> None:
        async with calling(way, settings_for(outbound_proxy=upstream.url), routes()) as send:
            assert (await send(INSIDE)).text == "data: x\n\n" * 8

    run(way, main)


def test_where_the_mesh_bounds_nothing_a_silent_stream_ends(
    way: str, peer: MakePeer, routes: Callable[..., RouteTable], in_time: Callable[..., None]
) -> None:
    """The silence counts from the last byte."""
    upstream = peer(speak(4, stall_head))

    async def main() -> None:
        async with calling(way, settings_for(outbound_proxy=upstream.url), routes()) as send:
            late = await ended(send, INSIDE)
            in_time(late, 0.4 + BUDGET)
            assert isinstance(late.error, ReadDeadlineExceeded)
            assert "not a byte came within 400ms" in str(late.error)
            assert (late.error.phase, late.error.route) == ("body", "items")

    run(way, main)


@pytest.mark.parametrize("http2", [False, True])
@pytest.mark.parametrize("when", [0.1, BUDGET])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_outer_cancellation_is_never_swallowed(
    backend: str, when: float, *, http2: bool, peer: MakePeer, certificates: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    """Not even one that comes at the deadline itself: then the call fails, or it is cancelled, and nothing goes on."""
    upstream = peer(SpeaksHttp2(certificates[0], "silent head") if http2 else stall_head)
    url = f"https://127.0.0.1:{upstream.port}/" if http2 else INSIDE
    settings = settings_for(**({} if http2 else {"outbound_proxy": upstream.url}))

    async def main() -> None:
        async with calling(backend, settings, verify=certificates[1], http2=http2) as send:
            reached = False
            with anyio.move_on_after(when) as scope:
                with contextlib.suppress(DeadlineExceeded):
                    await send(url)
                await anyio.sleep(30)
                reached = True
            assert scope.cancelled_caught
            assert not reached

    run(backend, main)


def test_a_task_that_is_cancelled_is_cancelled(peer: MakePeer) -> None:
    """asyncio's own way, which knows no scopes."""
    upstream = peer(stall_head)

    async def main() -> None:
        async with calling("asyncio", settings_for(outbound_proxy=upstream.url)) as send:
            task = asyncio.ensure_future(send(INSIDE))
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert upstream.sockets() == 0

    run("asyncio", main)


def test_over_http2_a_thread_s_deadline_is_not_another_s(
    peer: MakePeer, certificates: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    """The one that ends leaves the connection to the other, which goes on waiting."""
    upstream = peer(SpeaksHttp2(certificates[0], "respond", "silent head", "respond"))
    url = f"https://127.0.0.1:{upstream.port}/items"
    with create_client(settings_for(), routes=RouteTable.empty(), verify=certificates[1], http2=True) as client:
        assert client.get(url).text == "ok"
        with pytest.raises(DeadlineExceeded):
            client.get(url, extensions=call_options(timeout=0.1))
        assert client.get(url).text == "ok"
    assert upstream.connections == 1


def slow_everywhere(conversation: Conversation) -> None:
    """Headers after 0.6 s, and the body 0.6 s later: each longer than the budget."""
    while conversation.read_request():
        conversation.stay_silent(BUDGET * 1.5)
        conversation.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n")
        conversation.stay_silent(BUDGET * 1.5)
        conversation.send(b"ok")


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name == "meshaware.client"]


def test_where_deadlines_are_observed_a_call_that_hangs_is_told_of_while_it_hangs(
    way: str, peer: MakePeer, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is cut; and whoever watches does not wait for an end that may never come."""
    told_before_the_headers: list[int] = []

    def script(conversation: Conversation) -> None:
        while conversation.read_request():
            conversation.stay_silent(BUDGET * 2)
            told_before_the_headers.append(len(said(caplog)))
            respond(conversation)

    upstream = peer(script)

    async def main() -> None:
        async with calling(way, settings_for(outbound_proxy=upstream.url, deadlines="observe")) as send:
            assert (await send(INSIDE)).text == "ok"
            assert (await send(INSIDE)).text == "ok"

    run(way, main)
    assert told_before_the_headers == [1, 1]
    assert len(said(caplog)) == 1
    assert "a call took longer than 400ms and would have been cut there" in said(caplog)[0]


def test_where_deadlines_are_observed_each_call_counts_once(way: str, peer: MakePeer) -> None:
    """Late for its headers, and for its end."""
    upstream = peer(slow_everywhere)
    settings = settings_for(outbound_proxy=upstream.url, deadlines="observe")

    async def main() -> None:
        if way == "sync":
            with create_client(settings, routes=RouteTable.empty()) as client:
                texts = [client.get(INSIDE).text for _ in range(2)]
                transport = vars(client)["_transport"]
        else:
            async with create_async_client(settings, routes=RouteTable.empty()) as asynchronous:
                texts = [(await asynchronous.get(INSIDE)).text for _ in range(2)]
                transport = vars(asynchronous)["_transport"]
        assert texts == ["ok", "ok"]
        assert transport._outgoing.would_have_cut == 2

    run(way, main)


def test_where_deadlines_are_observed_a_stream_that_speaks_is_not_overdue(
    way: str, peer: MakePeer, routes: Callable[..., RouteTable], caplog: pytest.LogCaptureFixture
) -> None:
    """The mesh does not bound it, so it would not have been cut."""
    upstream = peer(speak(6, nothing))
    settings = settings_for(outbound_proxy=upstream.url, deadlines="observe")

    async def main() -> None:
        async with calling(way, settings, routes()) as send:
            assert (await send(INSIDE)).text == "data: x\n\n" * 6

    run(way, main)
    assert said(caplog) == []


def test_where_deadlines_are_observed_the_caller_s_own_timeouts_hold(way: str, peer: MakePeer) -> None:
    """They were asked for by name, and end as httpx has it."""

    def script(conversation: Conversation) -> None:
        conversation.read_request()
        conversation.stay_silent()

    upstream = peer(script)
    timeout = httpx.Timeout(5.0, read=BUDGET + 0.2)

    async def main() -> None:
        settings = settings_for(outbound_proxy=upstream.url, deadlines="observe")
        async with calling(way, settings, timeout=timeout) as send:
            begin = time.monotonic()
            with pytest.raises(httpx.ReadTimeout) as caught:
                await send(INSIDE)
            assert type(caught.value) is httpx.ReadTimeout
            assert BUDGET + 0.15 <= time.monotonic() - begin <= BUDGET + 0.2 + SLACK

    run(way, main)


@pytest.mark.parametrize("deadlines", ["observe", "off"])
def test_where_deadlines_are_not_enforced_nothing_is_cut(deadlines: str, way: str, peer: MakePeer) -> None:
    """Not by the deadline of the work in hand either, nor in a body that takes long."""
    upstream = peer(speak(6, nothing))

    async def main() -> None:
        async with calling(way, settings_for(outbound_proxy=upstream.url, deadlines=deadlines)) as send:
            with limit(0.2):
                assert (await send(INSIDE)).text == "data: x\n\n" * 6

    run(way, main)
