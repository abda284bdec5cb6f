"""A watched connection, at its edges: what it is not to end, and what holds where it is not watched."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import httpcore
import httpx
import pytest

from meshaware import create_async_client, create_client
from meshaware.budgets import RouteTable
from meshaware.client.httpx import ReadDeadlineExceeded
from meshaware.errors import DeadlineExceeded
from meshaware.settings import MeshSettings

from .conftest import Conversation, Peer, Script, answer

URL = "http://inventory/items"
BUDGET = 0.3
SLACK = 0.3
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n"
UPGRADE = {"connection": "upgrade", "upgrade": "echo"}


def settings_for(peer: Peer | None = None, **more: Any) -> MeshSettings:
    return MeshSettings(
        mesh="none", timeout=BUDGET, buffer=0.0, outbound_proxy=None if peer is None else peer.url, **more
    )


def echo_late(conversation: Conversation) -> None:
    """Switch protocols; then say again what is said, after more than the budget."""
    conversation.read_request()
    conversation.send(SWITCH)
    said = conversation.receive()
    conversation.stay_silent(BUDGET * 1.5)
    conversation.send(said)
    conversation.stay_silent()


@pytest.mark.anyio
async def test_an_upgraded_connection_is_its_user_s(peer: Callable[[Script], Peer]) -> None:
    """A WebSocket may last; it has the timeouts that its user gives it, and their errors are httpcore's."""
    async with create_async_client(settings_for(peer(echo_late)), routes=RouteTable.empty()) as client:
        async with client.stream("GET", URL, headers=UPGRADE) as response:
            stream = response.extensions["network_stream"]
            await stream.write(b"hello", timeout=5)
            assert await stream.read(100, timeout=5) == b"hello"
            with pytest.raises(httpcore.ReadTimeout) as caught:
                await stream.read(100, timeout=0.05)
    assert not isinstance(caught.value, DeadlineExceeded)


def test_an_upgraded_connection_of_a_thread_too(peer: Callable[[Script], Peer]) -> None:
    """As the asynchronous one."""
    with create_client(settings_for(peer(echo_late)), routes=RouteTable.empty()) as client:
        with client.stream("GET", URL, headers=UPGRADE) as response:
            stream = response.extensions["network_stream"]
            stream.write(b"hello", timeout=5)
            assert stream.read(100, timeout=5) == b"hello"
            with pytest.raises(httpcore.ReadTimeout) as caught:
                stream.read(100, timeout=0.05)
    assert not isinstance(caught.value, DeadlineExceeded)


@pytest.mark.parametrize("http2", [False, True])
@pytest.mark.anyio
async def test_a_trace_callback_of_the_caller_s_hears_everything(
    peer: Callable[[Script], Peer], *, http2: bool
) -> None:
    """On a new connection and on a kept one."""
    heard: list[list[str]] = []

    async def trace(name: str, info: Any) -> None:
        heard[-1].append(name)

    upstream = peer(answer())
    async with create_async_client(settings_for(upstream), routes=RouteTable.empty(), http2=http2) as client:
        for _ in range(2):
            heard.append([])
            await client.get(URL, extensions={"trace": trace})
    assert upstream.connections == 1
    assert heard[0][0] == "connection.connect_tcp.started"
    assert heard[1][0] == "http11.send_request_headers.started"
    assert {each[-1] for each in heard} == {"http11.response_closed.complete"}


def test_a_trace_callback_in_a_thread_hears_everything(peer: Callable[[Script], Peer]) -> None:
    """As the asynchronous one."""
    heard: list[str] = []

    def trace(name: str, info: Any) -> None:
        heard.append(name)

    with create_client(settings_for(peer(answer())), routes=RouteTable.empty()) as client:
        client.get(URL, extensions={"trace": trace})
    assert heard[0] == "connection.connect_tcp.started"
    assert heard[-1] == "http11.response_closed.complete"


def test_a_peer_that_hangs_up_is_no_timeout(peer: Callable[[Script], Peer]) -> None:
    """The library's own error, in the body and before."""

    def hang_up(conversation: Conversation) -> None:
        conversation.read_request()
        conversation.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nsome")

    with create_client(settings_for(peer(hang_up)), routes=RouteTable.empty()) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            client.get(URL)


@pytest.mark.parametrize("deadlines", ["observe", "enforce"])
def test_a_peer_that_resets_is_no_timeout(peer: Callable[[Script], Peer], deadlines: Any) -> None:
    """Nor is it told as one that would have been cut."""
    upstream = peer(lambda conversation: conversation.reset())
    with create_client(settings_for(upstream, deadlines=deadlines), routes=RouteTable.empty()) as client:
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError, httpx.WriteError)):
            client.get(URL)
        assert vars(client)["_transport"]._outgoing.would_have_cut == 0


class Dribbling(httpx.AsyncByteStream, httpx.SyncByteStream):
    """A body that never ends, of a transport that has no connection."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            await anyio.sleep(0.02)
            yield b"x"

    def __iter__(self) -> Iterator[bytes]:
        while True:
            time.sleep(0.02)  # as a peer that dribbles
            yield b"x"


def unwatched(client: httpx.Client | httpx.AsyncClient) -> None:
    """Have its connections taken for watched ones, though none of them is: as if httpcore told nothing of them."""
    transport = vars(client)["_transport"]
    assert not transport._alone
    transport._alone = True


@pytest.mark.anyio
async def test_without_a_word_of_its_connection_a_call_is_ended_all_the_same() -> None:
    """Should httpcore ever change its order of events, calls must not become endless."""
    transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=Dribbling()))
    async with create_async_client(settings_for(), routes=RouteTable.empty(), transport=transport) as client:
        unwatched(client)
        begin = time.monotonic()
        with pytest.raises(ReadDeadlineExceeded):
            await client.get(URL)
        assert BUDGET - 0.05 <= time.monotonic() - begin <= BUDGET + SLACK


def test_without_a_word_of_its_connection_a_thread_s_call_is_ended_all_the_same() -> None:
    """As the asynchronous one."""
    transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=Dribbling()))
    with create_client(settings_for(), routes=RouteTable.empty(), transport=transport) as client:
        unwatched(client)
        begin = time.monotonic()
        with pytest.raises(ReadDeadlineExceeded):
            client.get(URL)
        assert BUDGET - 0.05 <= time.monotonic() - begin <= BUDGET + SLACK


def test_a_body_that_is_here_in_time_is_not_lost_to_a_slow_reader(peer: Callable[[Script], Peer]) -> None:
    """What took too long is the application; the peer was in time."""
    body = b"x" * 20000
    with create_client(settings_for(peer(answer(body))), routes=RouteTable.empty()) as client:
        with client.stream("GET", URL) as response:
            chunks = response.iter_raw(1000)
            first = next(chunks)
            time.sleep(BUDGET * 1.5)  # the application is what is slow
            assert first + b"".join(chunks) == body
