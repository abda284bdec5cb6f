"""A forked process speaks on connections of its own, and leaves its parent's as they are; on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import select
import signal
import socket
import ssl
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import trio
import trustme

from meshaware import create_async_client, create_client
from meshaware.budgets import RouteTable
from meshaware.client.fork import forget_connections, forget_in_children
from meshaware.settings import MeshSettings

from .conftest import Conversation, Peer, Script

NOWHERE = MeshSettings(mesh="none")
EMPTY = RouteTable.empty()
PATIENCE = 15.0

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork"),
    # Newer Pythons warn of any fork in a process with threads; that is the very case here.
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


class Counting:
    """A server that answers each request with the number of the connection it came on, and knows how that ended."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.ended: dict[int, str] = {}
        self.news = threading.Condition()
        scheme = "http" if context is None else "https"
        self.url = f"{scheme}://localhost:{self._listener.getsockname()[1]}/"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        number = 0
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            number += 1
            threading.Thread(target=self._talk, args=(connection, number), daemon=True).start()

    def _talk(self, connection: socket.socket, number: int) -> None:
        how = "closed"
        try:
            if self._context is not None:
                # A close without a word is an error then, and a close_notify an end.
                connection = self._context.wrap_socket(connection, server_side=True, suppress_ragged_eofs=False)
            self._open.append(connection)
            body = b"%d" % number
            while connection.recv(65536):
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        except OSError as error:
            how = type(error).__name__
        with self.news:
            self.ended[number] = how
            self.news.notify_all()

    def wait_for_end(self, number: int) -> str:
        with self.news:
            assert self.news.wait_for(lambda: number in self.ended, PATIENCE), f"connection {number} never ended"
            return self.ended[number]

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            connection.close()


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """A child looks through what its test has made; through what a long run of tests has, it would for seconds."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(name="authority", scope="module")
def _authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(name="verify")
def _verify(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)  # pyright: ignore[reportUnknownMemberType]
    return context


@pytest.fixture(name="server", params=["http", "https"])
def _server(request: pytest.FixtureRequest, authority: trustme.CA) -> Iterator[Counting]:
    context = None
    if request.param == "https":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)  # pyright: ignore[reportUnknownMemberType]
    server = Counting(context)
    yield server
    server.close()


class Child:
    """A forked process that runs a function, tells its result, and ends only when it is told to."""

    def __init__(self, function: Callable[[], str]) -> None:
        told, tell = os.pipe()
        hold, self._release = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._release)
            # Whatever goes wrong, it does not stay.
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(int(PATIENCE))
            try:
                said = function()
            except BaseException as error:  # noqa: BLE001 (what goes wrong is told to the parent)
                said = repr(error)
            os.write(tell, said.encode())
            os.close(tell)
            os.read(hold, 1)
            # As an ordinary end of a process does: what is no longer referred to is collected.
            gc.collect()
            os._exit(0)
        os.close(tell)
        os.close(hold)
        try:
            assert select.select([told], [], [], PATIENCE)[0], "the child said nothing"
            self.said = os.read(told, 65536).decode()
        finally:
            os.close(told)

    def end(self) -> None:
        # A later child has a copy of this end, so that closing it alone would say nothing.
        os.write(self._release, b".")
        os.close(self._release)
        assert os.waitpid(self.pid, 0)[1] == 0


@pytest.fixture(name="fork")
def _fork() -> Iterator[Callable[[Callable[[], str]], Child]]:
    children: list[Child] = []

    def start(function: Callable[[], str]) -> Child:
        children.append(Child(function))
        return children[-1]

    yield start
    for child in children:
        child.end()


Fork = Callable[[Callable[[], str]], Child]


def test_a_child_opens_connections_of_its_own(server: Counting, verify: ssl.SSLContext, fork: Fork) -> None:
    """And the parent goes on with the one it has, also after the child has closed its client and is gone."""
    with create_client(NOWHERE, routes=EMPTY, verify=verify) as client:
        assert client.get(server.url).text == "1"

        def call_and_close() -> str:
            answered = client.get(server.url).text
            client.close()
            return answered

        child = Child(call_and_close)
        assert child.said == "2"
        child.end()
        server.wait_for_end(2)
        assert client.get(server.url).text == "1"
        assert fork(lambda: client.get(server.url).text).said == "3"
        assert client.get(server.url).text == "1"
    server.wait_for_end(1)


def test_a_child_keeps_no_copy_of_a_connection(server: Counting, verify: ssl.SSLContext, fork: Fork) -> None:
    """What the parent closes is closed, while the child lives."""
    client = create_client(NOWHERE, routes=EMPTY, verify=verify)
    client.get(server.url)
    fork(lambda: "")
    client.close()
    server.wait_for_end(1)


def test_an_asynchronous_client_too_while_its_loop_runs(server: Counting, verify: ssl.SSLContext, fork: Fork) -> None:
    """The child shares the parent's epoll, which must not lose the parent's connections."""

    async def parent() -> None:
        client = create_async_client(NOWHERE, routes=EMPTY, verify=verify)
        assert (await client.get(server.url)).text == "1"

        async def call_and_close() -> str:
            answered = (await client.get(server.url)).text
            await client.aclose()
            return answered

        child = Child(lambda: asyncio.run(call_and_close()))
        assert child.said == "2"
        child.end()
        assert (await client.get(server.url)).text == "1"
        fork(lambda: "")
        await client.aclose()
        server.wait_for_end(1)

    asyncio.run(parent())


def test_an_asynchronous_client_used_before_the_fork_in_a_loop_that_is_gone(
    server: Counting, verify: ssl.SSLContext, fork: Fork
) -> None:
    """As where an application is loaded before its workers are forked."""
    client = create_async_client(NOWHERE, routes=EMPTY, verify=verify)

    async def call() -> str:
        return (await client.get(server.url)).text

    assert trio.run(call) == "1"
    assert fork(lambda: trio.run(call)).said == "2"
    assert fork(lambda: trio.run(call)).said == "3"
    assert trio.run(call) == "1"
    trio.run(client.aclose)
    server.wait_for_end(1)


@pytest.mark.parametrize("server", ["http"], indirect=True)
def test_a_lock_that_another_thread_holds_does_not_stop_the_child(server: Counting, fork: Fork) -> None:
    """The thread has no copy in the child that could let go of it."""
    with create_client(NOWHERE, routes=EMPTY) as client:
        client.get(server.url)
        pool: Any = vars(client)["_transport"]._inner._pool
        held, done = threading.Event(), threading.Event()

        def hold() -> None:
            with pool._optional_thread_lock:
                held.set()
                done.wait(PATIENCE)

        thread = threading.Thread(target=hold)
        thread.start()
        assert held.wait(PATIENCE)
        try:
            assert fork(lambda: client.get(server.url).text).said == "2"
        finally:
            done.set()
            thread.join(PATIENCE)


class Wrapper(httpx.BaseTransport):
    """A transport of the caller's around another."""

    def __init__(self, wrapped: httpx.BaseTransport) -> None:
        self.wrapped = wrapped

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self.wrapped.handle_request(request)

    def close(self) -> None:
        self.wrapped.close()


@pytest.mark.parametrize("server", ["http"], indirect=True)
def test_transports_of_the_caller_s_are_looked_into(server: Counting, fork: Fork) -> None:
    """Also through what wraps them, and in mounts."""
    mounts = {"http://127.0.0.1": httpx.HTTPTransport()}
    with create_client(NOWHERE, routes=EMPTY, transport=Wrapper(httpx.HTTPTransport()), mounts=mounts) as client:
        here = server.url.replace("localhost", "127.0.0.1")
        assert [client.get(server.url).text, client.get(here).text] == ["1", "2"]
        assert fork(lambda: client.get(server.url).text + client.get(here).text).said == "34"
        assert [client.get(server.url).text, client.get(here).text] == ["1", "2"]


def test_what_the_parent_is_reading_is_not_read_by_the_child(peer: Callable[[Script], Peer], fork: Fork) -> None:
    """A call that was under way fails in the child and goes on in the parent."""
    forked = threading.Event()

    def in_two_parts(conversation: Conversation) -> None:
        conversation.read_request()
        conversation.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n1")
        forked.wait(PATIENCE)
        conversation.send(b"2")

    client = create_client(NOWHERE, routes=EMPTY)
    with client, client.stream("GET", peer(in_two_parts).url) as response:

        def read() -> str:
            try:
                return response.read().decode()
            except httpx.HTTPError as error:
                return type(error).__name__
            finally:
                response.close()

        assert fork(read).said in ("ReadError", "RemoteProtocolError")
        forked.set()
        assert response.read() == b"12"


def test_a_client_that_nobody_has_any_more_is_collected() -> None:
    """Forgetting in children keeps nothing alive."""
    client = create_client(NOWHERE, routes=EMPTY)
    gone = weakref.ref(client)
    client.close()
    del client
    gc.collect()
    assert gone() is None


def test_a_transport_without_a_pool_is_left_alone() -> None:
    """There is nothing to forget in a mock."""
    with create_client(NOWHERE, routes=EMPTY, transport=httpx.MockTransport(lambda _: httpx.Response(200))) as client:
        forget_connections(client)
        assert client.get("http://inventory/").status_code == 200


class Foreign(httpx.BaseTransport):
    """A transport whose `_pool` is none of httpcore's."""

    def __init__(self) -> None:
        self._pool = object()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200)


def test_a_pool_of_another_kind_is_left_alone() -> None:
    """Nothing is known of it."""
    with create_client(NOWHERE, routes=EMPTY, transport=Foreign()) as client:
        forget_connections(client)
        assert client.get("http://inventory/").status_code == 200


class Broken:
    """Stands for a client that cannot be looked into."""


@pytest.mark.parametrize("server", ["http"], indirect=True)
def test_one_client_that_fails_does_not_harm_the_others(server: Counting, fork: Fork) -> None:
    """And it is said in the log."""
    broken = Broken()
    forget_in_children(broken)
    with create_client(NOWHERE, routes=EMPTY) as client:
        client.get(server.url)
        records: list[str] = []

        def call() -> str:
            return client.get(server.url).text + "".join(records)

        handler = logging.Handler()
        handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]
        logging.getLogger("meshaware.client").addHandler(handler)
        try:
            said = fork(call).said
        finally:
            logging.getLogger("meshaware.client").removeHandler(handler)
    assert said.startswith("2a forked process may share connections of <")


@pytest.mark.parametrize("server", ["http"], indirect=True)
def test_connections_that_are_closed_or_not_open_yet_are_passed_over(server: Counting) -> None:
    """An asynchronous connection has no descriptor before it is connected, and none after it was closed."""

    async def call() -> None:
        async with create_async_client(NOWHERE, routes=EMPTY) as client:
            assert (await client.get(server.url)).text == "1"
            pool: Any = vars(client)["_transport"]._inner._pool
            await pool.connections[0].aclose()
            pool._connections.append(pool.create_connection(pool.connections[0]._origin))
            forget_connections(client)
            assert (await client.get(server.url)).text == "2"

    asyncio.run(call())
