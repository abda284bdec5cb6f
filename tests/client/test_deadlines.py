"""A call ends at its budget, however the peer stalls: asynchronous on both loops, and synchronous."""

from __future__ import annotations

import pickle
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import httpx
import pytest

from meshaware import call_options, create_async_client, create_client
from meshaware.budgets import RouteTable
from meshaware.client.httpx import PoolDeadlineExceeded, ReadDeadlineExceeded
from meshaware.deadline import limit
from meshaware.errors import DeadlineExceeded
from meshaware.settings import MeshSettings

from .conftest import Conversation, Peer, Script, answer

URL = "http://inventory/items"
BUDGET = 0.4
SLACK = 0.25
HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"


def stall_head(conversation: Conversation) -> None:
    conversation.read_request()
    conversation.stay_silent()


def dribble_head(conversation: Conversation) -> None:
    conversation.read_request()
    conversation.send(b"HTTP/1.1 200 OK\r\n")
    conversation.dribble(b"x-a: b\r\n")


def stall_body(conversation: Conversation) -> None:
    conversation.read_request()
    conversation.send(HEAD)
    conversation.stay_silent()


def dribble_body(conversation: Conversation) -> None:
    conversation.read_request()
    conversation.send(HEAD)
    conversation.dribble(b"x")


def late_byte_then_silence(conversation: Conversation) -> None:
    conversation.read_request()
    conversation.stay_silent(BUDGET * 0.8)
    conversation.send(b"H")
    conversation.stay_silent()


def long_stream(conversation: Conversation) -> None:
    """Longer than the budget, and never silent for long."""
    conversation.read_request()
    conversation.send(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n")
    for _ in range(8):
        conversation.stay_silent(0.1)
        conversation.send(b"x")


STALLS: list[Script] = [stall_head, dribble_head, stall_body, dribble_body, late_byte_then_silence]


@pytest.fixture(name="table")
def _table(routes: Callable[..., RouteTable]) -> RouteTable:
    """0.3 s in the mesh and 0.1 s of buffer: 0.4 s."""
    return routes(timeout="300ms", retries={"attempts": 0})


def settings_for(peer: Peer, **more: Any) -> MeshSettings:
    return MeshSettings(mesh="none", outbound_proxy=peer.url, buffer=0.1, **more)


@pytest.mark.anyio
@pytest.mark.parametrize("stall", STALLS)
async def test_an_asynchronous_call_ends_at_its_budget(
    stall: Script, peer: Callable[[Script], Peer], table: RouteTable
) -> None:
    """Whatever the peer does with its bytes; the client is usable afterwards."""
    first = iter([stall])
    upstream = peer(lambda conversation: next(first, answer())(conversation))
    async with create_async_client(settings_for(upstream), routes=table) as client:
        begin = time.monotonic()
        with pytest.raises(DeadlineExceeded) as caught:
            await client.get(URL)
        assert BUDGET - 0.05 <= time.monotonic() - begin <= BUDGET + SLACK
        assert isinstance(caught.value, httpx.ReadTimeout)
        assert (await client.get(URL)).text == "ok"


@pytest.mark.parametrize("stall", STALLS)
def test_a_synchronous_call_ends_at_its_budget(
    stall: Script, peer: Callable[[Script], Peer], table: RouteTable
) -> None:
    """Exactly as the asynchronous one."""
    first = iter([stall])
    upstream = peer(lambda conversation: next(first, answer())(conversation))
    with create_client(settings_for(upstream), routes=table) as client:
        begin = time.monotonic()
        with pytest.raises(DeadlineExceeded) as caught:
            client.get(URL)
        assert BUDGET - 0.05 <= time.monotonic() - begin <= BUDGET + SLACK
        assert isinstance(caught.value, httpx.ReadTimeout)
        assert client.get(URL).text == "ok"


@pytest.mark.parametrize("stall", STALLS)
def test_a_synchronous_call_on_a_kept_connection_ends_too(
    stall: Script, peer: Callable[[Script], Peer], table: RouteTable
) -> None:
    """The connection is watched from its birth, also when a later call takes it from the pool."""

    def script(conversation: Conversation) -> None:
        conversation.read_request()
        conversation.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        stall(conversation)

    upstream = peer(script)
    with create_client(settings_for(upstream), routes=table) as client:
        assert client.get(URL).text == "ok"
        begin = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            client.get(URL)
        assert time.monotonic() - begin <= BUDGET + SLACK
        assert upstream.connections == 1


@pytest.mark.anyio
async def test_a_streamed_body_ends_at_the_budget(peer: Callable[[Script], Peer], table: RouteTable) -> None:
    """Iterating by hand changes nothing."""
    async with create_async_client(settings_for(peer(dribble_body)), routes=table) as client:
        begin, read = time.monotonic(), 0
        with pytest.raises(ReadDeadlineExceeded):
            async with client.stream("GET", URL) as response:
                async for chunk in response.aiter_raw():
                    read += len(chunk)
        assert read > 3
        assert BUDGET - 0.05 <= time.monotonic() - begin <= BUDGET + SLACK


def test_a_synchronously_streamed_body_ends_at_the_budget(peer: Callable[[Script], Peer], table: RouteTable) -> None:
    """Iterating by hand changes nothing."""
    with create_client(settings_for(peer(dribble_body)), routes=table) as client:
        begin, read = time.monotonic(), 0
        with pytest.raises(ReadDeadlineExceeded), client.stream("GET", URL) as response:
            for chunk in response.iter_raw():
                read += len(chunk)
        assert read > 3
        assert BUDGET - 0.05 <= time.monotonic() - begin <= BUDGET + SLACK


@pytest.mark.anyio
async def test_a_slow_upload_does_not_use_the_budget_up(peer: Callable[[Script], Peer], table: RouteTable) -> None:
    """Envoy's clock starts at the end of the request, and so does ours."""

    async def body() -> AsyncIterator[bytes]:
        for _ in range(6):
            await anyio.sleep(0.1)
            yield b"x" * 1000

    async with create_async_client(settings_for(peer(answer())), routes=table) as client:
        response = await client.post(URL, content=body(), headers={"content-length": "6000"})
        assert response.text == "ok"


def test_a_slow_synchronous_upload_does_not_use_the_budget_up(
    peer: Callable[[Script], Peer], table: RouteTable
) -> None:
    """Envoy's clock starts at the end of the request, and so does ours."""

    def body() -> Iterator[bytes]:
        for _ in range(6):
            time.sleep(0.1)  # the generator is what is slow
            yield b"x" * 1000

    with create_client(settings_for(peer(answer())), routes=table) as client:
        assert client.post(URL, content=body(), headers={"content-length": "6000"}).text == "ok"


@pytest.mark.anyio
async def test_a_full_pool_ends_the_wait_too(peer: Callable[[Script], Peer], table: RouteTable) -> None:
    """The error is the pool's, so that nobody suspects the upstream."""
    limits = httpx.Limits(max_connections=1)
    async with create_async_client(settings_for(peer(stall_body)), routes=table, limits=limits) as client:
        async with client.stream("GET", URL):
            begin = time.monotonic()
            with pytest.raises(PoolDeadlineExceeded, match="pool") as caught:
                await client.get(URL, extensions=call_options(timeout=0.2))
            assert isinstance(caught.value, httpx.PoolTimeout)
            assert time.monotonic() - begin <= 0.2 + SLACK


@pytest.mark.anyio
async def test_an_outer_cancellation_stays_a_cancellation(peer: Callable[[Script], Peer], table: RouteTable) -> None:
    """Ours is told apart from everybody else's."""
    async with create_async_client(settings_for(peer(stall_head)), routes=table) as client:
        with anyio.move_on_after(0.1) as scope:
            await client.get(URL)
        assert scope.cancelled_caught


@pytest.mark.anyio
async def test_the_deadline_of_the_work_in_hand_holds_its_calls(
    peer: Callable[[Script], Peer], table: RouteTable
) -> None:
    """What is left of the caller's own time is the most a call may take."""
    async with create_async_client(settings_for(peer(stall_head)), routes=table) as client:
        begin = time.monotonic()
        with limit(0.15), pytest.raises(DeadlineExceeded, match="deadline of the work in hand"):
            await client.get(URL)
        assert time.monotonic() - begin <= 0.15 + SLACK


def test_a_call_whose_time_is_up_is_not_sent(peer: Callable[[Script], Peer], table: RouteTable) -> None:
    """Nobody works for a caller that has gone."""
    upstream = peer(answer())
    with create_client(settings_for(upstream), routes=table) as client, limit(0), pytest.raises(DeadlineExceeded):
        client.get(URL)
    assert upstream.connections == 0


def test_a_deadline_can_be_given_to_one_call(peer: Callable[[Script], Peer], table: RouteTable) -> None:
    """An instant; the budget does not lengthen it."""
    with create_client(settings_for(peer(stall_head)), routes=table) as client:
        begin = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            client.get(URL, extensions=call_options(deadline=begin + 0.15))
        assert time.monotonic() - begin <= 0.15 + SLACK


@pytest.mark.anyio
async def test_redirects_share_one_budget(peer: Callable[[Script], Peer], table: RouteTable) -> None:
    """A chain of slow redirects ends when the first hop's budget does."""

    def hop(conversation: Conversation) -> None:
        while conversation.read_request():
            conversation.stay_silent(0.15)
            conversation.send(b"HTTP/1.1 302 Found\r\nlocation: /items\r\ncontent-length: 0\r\n\r\n")

    async with create_async_client(settings_for(peer(hop)), routes=table, follow_redirects=True) as client:
        begin = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await client.get(URL)
        assert BUDGET - 0.05 <= time.monotonic() - begin <= BUDGET + SLACK


@pytest.mark.anyio
async def test_the_same_request_sent_again_has_its_whole_budget(
    peer: Callable[[Script], Peer], table: RouteTable
) -> None:
    """One logical call is one `send`."""
    async with create_async_client(settings_for(peer(answer())), routes=table) as client:
        request = client.build_request("GET", URL)
        await client.send(request)
        await anyio.sleep(BUDGET + 0.1)
        assert (await client.send(request)).text == "ok"


@pytest.mark.anyio
async def test_where_the_mesh_bounds_nothing_a_stream_may_run(
    peer: Callable[[Script], Peer], routes: Callable[..., RouteTable]
) -> None:
    """What the settings declare bounds the headers and each silence, not a stream's length."""
    settings = settings_for(peer(long_stream), timeout=0.3)
    async with create_async_client(settings, routes=routes()) as client:
        assert (await client.get(URL)).text == "x" * 8


@pytest.mark.parametrize("mode", ["observe", "off"])
def test_without_enforcement_nothing_is_cut(
    mode: str, peer: Callable[[Script], Peer], table: RouteTable, caplog: pytest.LogCaptureFixture
) -> None:
    """`observe` says, once a route, what it would have cut; `off` says nothing."""

    def slow(conversation: Conversation) -> None:
        while conversation.read_request():
            conversation.stay_silent(0.25)
            conversation.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n")
            conversation.stay_silent(0.25)
            conversation.send(b"ok")

    with create_client(settings_for(peer(slow), deadlines=mode), routes=table) as client:
        assert client.get(URL).text == "ok"
        assert client.get(URL).text == "ok"
    said = [record.message for record in caplog.records if record.name == "meshaware.client"]
    assert len(said) == (1 if mode == "observe" else 0)
    assert all("400ms" in message and "'items'" in message for message in said)


def test_the_error_tells_what_was_allowed_and_where_the_time_went(
    peer: Callable[[Script], Peer], table: RouteTable
) -> None:
    """Its message is meant for the person who is woken up; its attributes for the code."""
    with (
        create_client(settings_for(peer(stall_head)), routes=table) as client,
        pytest.raises(DeadlineExceeded) as caught,
    ):
        client.get(URL)
    error = caught.value
    assert f"GET {URL}: no complete answer within 400ms (the budget of route 'items'" in str(error)
    assert "inventory.json" in str(error)
    assert "Spent: " in str(error)
    assert "Next: " in str(error)
    assert (error.phase, error.seconds, error.route) == ("wait", 0.4, "items")
    assert 0.3 < error.spent["wait"] < 0.7
    assert isinstance(error, httpx.ReadTimeout)
    assert str(error.request.url) == URL


def test_the_error_survives_a_pickle(peer: Callable[[Script], Peer], table: RouteTable) -> None:
    """With its details and its request, as a task queue would carry it."""
    with (
        create_client(settings_for(peer(stall_head)), routes=table) as client,
        pytest.raises(DeadlineExceeded) as caught,
    ):
        client.get(URL)
    back = pickle.loads(pickle.dumps(caught.value))
    assert type(back) is ReadDeadlineExceeded
    assert str(back) == str(caught.value)
    assert (back.phase, back.route, back.spent) == ("wait", "items", caught.value.spent)
    assert str(back.request.url) == URL


def test_a_timeout_under_the_mesh_s_is_the_caller_s_choice_and_said_once(
    peer: Callable[[Script], Peer], table: RouteTable, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller's number replaces the budget; one warning tells what it may cost."""
    with create_client(settings_for(peer(stall_head)), routes=table, timeout=0.15) as client:
        for _ in range(2):
            begin = time.monotonic()
            with pytest.raises(httpx.ReadTimeout):
                client.get(URL)
            assert time.monotonic() - begin <= 0.15 + SLACK
    said = [record.message for record in caplog.records if record.name == "meshaware.client"]
    assert len(said) == 1
    assert "timeout 150ms is under the 400ms" in said[0]


@pytest.mark.anyio
async def test_timeout_none_still_has_the_budget(peer: Callable[[Script], Peer], table: RouteTable) -> None:
    """It switches the phases off, not the total."""
    async with create_async_client(settings_for(peer(stall_head)), routes=table, timeout=None) as client:
        begin = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await client.get(URL)
        assert time.monotonic() - begin <= BUDGET + SLACK


@pytest.mark.anyio
async def test_a_detached_call_outlives_budget_and_deadline(peer: Callable[[Script], Peer], table: RouteTable) -> None:
    """For streams that are meant to last."""
    async with create_async_client(settings_for(peer(long_stream)), routes=table) as client:
        with limit(0.1):
            response = await client.get(URL, extensions=call_options(detached=True))
        assert response.text == "x" * 8


def test_a_detached_synchronous_call_too(peer: Callable[[Script], Peer], table: RouteTable) -> None:
    """As the asynchronous one."""
    with create_client(settings_for(peer(long_stream)), routes=table) as client, limit(0.1):
        assert client.get(URL, extensions=call_options(detached=True)).text == "x" * 8


@pytest.mark.anyio
@pytest.mark.parametrize("stall", STALLS)
async def test_an_asynchronous_call_through_a_transport_of_the_caller_s_ends_too(
    stall: Script, peer: Callable[[Script], Peer], table: RouteTable
) -> None:
    """Nothing is known of its connections, so a cancel scope holds the call; an outer cancellation is not ours."""
    first = iter([stall])
    upstream = peer(lambda conversation: next(first, answer())(conversation))
    transport = httpx.AsyncHTTPTransport()
    async with create_async_client(settings_for(upstream), routes=table, transport=transport) as client:
        begin = time.monotonic()
        with pytest.raises(DeadlineExceeded) as caught:
            await client.get(URL)
        assert BUDGET - 0.05 <= time.monotonic() - begin <= BUDGET + SLACK
        assert isinstance(caught.value, httpx.ReadTimeout)
        assert (await client.get(URL)).text == "ok"


@pytest.mark.anyio
async def test_a_transport_that_reports_nothing_is_ended_in_time(table: RouteTable) -> None:
    """No events, no sockets: the clock starts at the begin, and what was waited for is the answer."""

    class Silent(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await anyio.sleep(30)
            return httpx.Response(200)

    settings = MeshSettings(mesh="none", buffer=0.1)
    async with create_async_client(settings, routes=table, transport=Silent()) as client:
        begin = time.monotonic()
        with pytest.raises(ReadDeadlineExceeded, match="Spent: wait") as caught:
            await client.get(URL)
        assert time.monotonic() - begin <= BUDGET + SLACK
    assert caught.value.phase == "wait"


@pytest.mark.anyio
@pytest.mark.parametrize("own", [False, True], ids=["ours", "the caller's"])
async def test_a_phase_of_the_caller_s_is_plain_httpx(
    *, own: bool, peer: Callable[[Script], Peer], table: RouteTable
) -> None:
    """Silence longer than the caller's read timeout, within the budget: httpx's own error, in the body too."""
    transport = httpx.AsyncHTTPTransport() if own else None
    timeout = httpx.Timeout(None, read=0.1)
    async with create_async_client(
        settings_for(peer(stall_body)), routes=table, transport=transport, timeout=timeout
    ) as client:
        with pytest.raises(httpx.ReadTimeout) as caught:
            await client.get(URL)
    assert type(caught.value) is httpx.ReadTimeout


def test_a_phase_of_the_caller_s_is_plain_httpx_in_a_thread_too(
    peer: Callable[[Script], Peer], table: RouteTable
) -> None:
    """As the asynchronous one."""
    timeout = httpx.Timeout(None, read=0.1)
    with (
        create_client(settings_for(peer(stall_body)), routes=table, timeout=timeout) as client,
        pytest.raises(httpx.ReadTimeout) as caught,
    ):
        client.get(URL)
    assert type(caught.value) is httpx.ReadTimeout
