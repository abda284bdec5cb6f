"""Connections over time: which outlive a lifespan or an event loop, and how long an idle one is kept."""

from __future__ import annotations

import asyncio
import gc
import socket
import warnings
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from meshaware import Mesh, create_async_client, create_client
from meshaware.budgets import RouteTable
from meshaware.client.build import KEEPALIVE_EXPIRY, async_close_connections
from meshaware.settings import MeshSettings
from meshaware.testing.serving import AppThread

from .conftest import Peer, Script, answer

NOWHERE = MeshSettings(mesh="none")
EMPTY = RouteTable.empty()


def pool_of(client: httpx.Client | httpx.AsyncClient) -> Any:
    return vars(client)["_transport"]._inner._pool


def calling(mesh: Mesh, url: str) -> FastAPI:
    """A service with one client for all its lives, made where the module is loaded."""
    client = mesh.async_client()
    app = FastAPI()
    mesh.install(app, telemetry=False)

    @app.get("/")
    async def call() -> str:
        return (await client.get(url)).text

    return app


def test_an_application_is_opened_twice_by_test_clients(peer: Callable[[Script], Peer]) -> None:
    """Each `with` is a life and a loop of its own; each ends with its connections closed."""
    upstream = peer(answer())
    mesh = Mesh(NOWHERE)
    app = calling(mesh, upstream.url)
    for life in (1, 2):
        with TestClient(app) as browser:
            assert [browser.get("/").json() for _ in range(3)] == ["ok", "ok", "ok"]
        assert upstream.connections == life
        upstream.wait_until_closed()


def test_an_application_is_served_twice_by_uvicorn(peer: Callable[[Script], Peer]) -> None:
    """As above, over real sockets on both sides."""
    upstream = peer(answer())
    app = calling(Mesh(NOWHERE), upstream.url)
    for life in (1, 2):
        listening = socket.create_server(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        served = AppThread(app, listening, "twice", {"lifespan": "on"})
        served.start()
        try:
            with httpx.Client() as browser:
                assert [browser.get(f"http://127.0.0.1:{port}/").json() for _ in range(3)] == ["ok", "ok", "ok"]
        finally:
            served.stop()
        assert upstream.connections == life
        upstream.wait_until_closed()


def test_a_life_that_ends_in_an_error_closes_its_connections(peer: Callable[[Script], Peer]) -> None:
    """The application's own lifespan may fail after it has called somebody."""
    upstream = peer(answer())
    mesh = Mesh(NOWHERE)
    client = mesh.async_client()

    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncGenerator[None]:
        await client.get(upstream.url)
        yield
        raise LookupError("its own")

    app = FastAPI(lifespan=own)
    mesh.install(app, telemetry=False)
    with pytest.raises(LookupError, match="its own"), TestClient(app):
        pass
    assert upstream.connections == 1
    upstream.wait_until_closed()


@pytest.fixture(name="leftover")
def _leftover() -> Iterator[None]:
    """What asyncio says of transports that a closed loop has left; they are left on purpose here."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.mark.usefixtures("leftover")
def test_a_client_outlives_the_event_loop_it_was_used_in(peer: Callable[[Script], Peer]) -> None:
    """A test client outside a `with` gives each request a loop of its own; httpx says "Event loop is closed" then."""
    upstream = peer(answer())
    client = create_async_client(NOWHERE, routes=EMPTY)

    async def call() -> str:
        return (await client.get(upstream.url)).text

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        assert [asyncio.run(call()) for _ in range(3)] == ["ok", "ok", "ok"]
        assert upstream.connections == 3
        asyncio.run(async_close_connections(client))
        upstream.wait_until_closed()


def test_a_loop_that_is_open_keeps_its_connections(peer: Callable[[Script], Peer]) -> None:
    """To be called from another one changes nothing."""
    upstream = peer(answer())
    client = create_async_client(NOWHERE, routes=EMPTY)

    async def call() -> str:
        return (await client.get(upstream.url)).text

    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    first.run_until_complete(call())
    before = pool_of(client)
    second.run_until_complete(asyncio.sleep(0))
    client.settle()  # type: ignore[attr-defined]
    first.run_until_complete(call())
    assert pool_of(client) is before
    assert upstream.connections == 1
    first.run_until_complete(client.aclose())
    first.close()
    second.close()


def test_clients_that_the_application_drops_are_not_kept() -> None:
    """One made for each request, however unwise, does not stay in the mesh's memory."""
    mesh = Mesh(NOWHERE)
    for _ in range(10):
        mesh.client().close()
        mesh.async_client()
    gc.collect()
    assert [len(vars(mesh)[kept]) for kept in ("_clients", "_async_clients")] == [0, 0]


def test_an_idle_connection_is_given_up_before_common_servers_close_it() -> None:
    """uvicorn's own number is read from uvicorn; a second is left for what is on its way."""
    assert uvicorn.Config(FastAPI()).timeout_keep_alive - KEEPALIVE_EXPIRY >= 1
    for client in (create_client(NOWHERE, routes=EMPTY), create_async_client(NOWHERE, routes=EMPTY)):
        pool = pool_of(client)
        assert pool._keepalive_expiry == KEEPALIVE_EXPIRY
        assert (pool._max_connections, pool._max_keepalive_connections) == (100, 20)


def test_limits_of_the_caller_s_hold() -> None:
    """All of them, also the ones that it leaves to httpx."""
    with create_client(NOWHERE, routes=EMPTY, limits=httpx.Limits(max_connections=7)) as client:
        assert (pool_of(client)._max_connections, pool_of(client)._keepalive_expiry) == (7, 5.0)


@pytest.mark.anyio
async def test_a_connection_is_not_used_again_once_it_was_idle_too_long() -> None:
    """A real uvicorn would have kept it: it is the client that lets go first."""
    import anyio

    peers: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        peers.append(scope["client"][1])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    listening = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
    served = AppThread(app, listening, "idle", {"lifespan": "off"})
    served.start()
    try:
        limits = httpx.Limits(keepalive_expiry=0.2)
        async with create_async_client(NOWHERE, routes=EMPTY, limits=limits) as client:
            await client.get(url)
            await client.get(url)
            await anyio.sleep(0.3)  # the time that passes is what is tested
            await client.get(url)
    finally:
        served.stop()
    assert peers[0] == peers[1] != peers[2]
