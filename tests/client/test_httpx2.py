"""The same transports under httpx2: its clients, its errors, the same budgets."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from meshaware import bind_headers, report
from meshaware.budgets import RouteTable
from meshaware.errors import DeadlineExceeded, SidecarUnavailable
from meshaware.settings import MeshSettings

from .conftest import Conversation, Peer, Script, answer

if TYPE_CHECKING:
    import httpx2
else:
    httpx2 = pytest.importorskip("httpx2")

from meshaware.httpx2 import create_async_client, create_client

URL = "http://inventory/items"


def dribble(conversation: Conversation) -> None:
    conversation.read_request()
    conversation.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
    conversation.dribble(b"x")


def settings_for(peer: Peer) -> MeshSettings:
    return MeshSettings(mesh="none", outbound_proxy=peer.url, buffer=0.1)


@pytest.mark.anyio
async def test_an_asynchronous_call_carries_headers_and_has_a_report(
    peer: Callable[[Script], Peer], routes: Callable[..., RouteTable]
) -> None:
    """As under httpx."""
    upstream = peer(answer())
    async with create_async_client(settings_for(upstream), routes=routes(timeout="2s")) as client:
        assert isinstance(client, httpx2.AsyncClient)
        with bind_headers({"x-user-type": "premium"}):
            response = await client.get(URL)
    assert response.text == "ok"
    assert (b"x-user-type", b"premium") in upstream.headers()
    assert report(response).total == pytest.approx(2.1)


@pytest.mark.anyio
async def test_an_asynchronous_call_ends_with_httpx2_s_own_timeout(
    peer: Callable[[Script], Peer], routes: Callable[..., RouteTable]
) -> None:
    """`except httpx2.ReadTimeout` catches it, and it survives a pickle."""
    async with create_async_client(settings_for(peer(dribble)), routes=routes(timeout="300ms")) as client:
        begin = time.monotonic()
        with pytest.raises(httpx2.ReadTimeout) as caught:
            await client.get(URL)
        assert time.monotonic() - begin < 0.7
    assert isinstance(caught.value, DeadlineExceeded)
    assert type(pickle.loads(pickle.dumps(caught.value))) is type(caught.value)


def test_a_synchronous_call_ends_at_its_budget(
    peer: Callable[[Script], Peer], routes: Callable[..., RouteTable]
) -> None:
    """httpcore2 announces its connections as httpcore does."""
    with create_client(settings_for(peer(dribble)), routes=routes(timeout="300ms")) as client:
        assert isinstance(client, httpx2.Client)
        begin = time.monotonic()
        with pytest.raises(httpx2.ReadTimeout):
            client.get(URL)
        assert time.monotonic() - begin < 0.7


def test_a_refused_sidecar_is_httpx2_s_connect_error(peer: Callable[[Script], Peer]) -> None:
    """And ours."""
    gone = peer(answer())
    gone.close()
    with (
        create_client(settings_for(gone), routes=RouteTable.empty()) as client,
        pytest.raises(SidecarUnavailable) as caught,
    ):
        client.get(URL)
    assert isinstance(caught.value, httpx2.ConnectError)


def test_a_transport_of_the_caller_s_is_wrapped() -> None:
    """Mounts and mocks too."""

    def echo(request: Any) -> httpx2.Response:
        return httpx2.Response(200, text=request.headers.get("x-user-type", ""))

    client = create_client(MeshSettings(mesh="none"), routes=RouteTable.empty(), transport=httpx2.MockTransport(echo))
    with client, bind_headers({"x-user-type": "premium"}):
        assert client.get(URL).text == "premium"
