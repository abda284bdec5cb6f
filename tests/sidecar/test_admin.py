"""
The only socket to the proxy, against peers that misbehave byte by byte.

Three uses of time: `QUICK` bounds an exchange with a peer that never ends it, `PATIENT` one that does end, `SLACK`
is what a busy machine may add.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import anyio
import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaware.errors import SidecarUnavailable
from meshaware.sidecar.admin import AdminReply, async_fetch, fetch
from meshaware.sidecar.exchange import Exchange

QUICK = 0.3
PATIENT = 10.0
SLACK = 1.5

Serve = Callable[["Peer"], None]
Ask = Callable[..., AdminReply]

OK = b"HTTP/1.1 200 OK\r\n"


class Peer:
    """One connection of the server's side; what it was asked, and how to answer bit by bit."""

    def __init__(self, connection: socket.socket, over: threading.Event) -> None:
        self._connection = connection
        self.over = over
        self.request = b""

    def read_request(self) -> None:
        while b"\r\n\r\n" not in self.request and (data := self._connection.recv(4096)):
            self.request += data

    def send(self, data: bytes) -> None:
        self._connection.sendall(data)

    def dribble(self, pieces: Iterator[bytes]) -> None:
        """Send a piece every 10 ms until the test is over or the client has gone."""
        for piece in pieces:
            self.send(piece)
            if self.over.wait(0.01):
                return

    def flood(self, piece: bytes) -> None:
        """Send without end, as fast as it goes."""
        while not self.over.is_set():
            self.send(piece)

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Server:
    """A server on a free port that does with each connection what the test wants."""

    def __init__(self, serve: Serve, address: str) -> None:
        self._serve = serve
        self._listener = socket.create_server(
            (address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET
        )
        self._listener.settimeout(PATIENT)
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]
        self.peers: list[Peer] = []
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://{f'[{address}]' if ':' in address else address}:{self.port}"
        self._threads[0].start()

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            if self._over.is_set():
                connection.close()
                return
            thread = threading.Thread(target=self._handle, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _handle(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(PATIENT)
            peer = Peer(connection, self._over)
            self.peers.append(peer)
            try:
                peer.read_request()
                self._serve(peer)
            except OSError:
                return  # the client has gone, which is what some tests are about

    def close(self) -> None:
        self._over.set()
        with socket.socket(self._listener.family) as knock:
            knock.settimeout(PATIENT)
            knock.connect_ex(self._listener.getsockname()[:2])
        for thread in self._threads:
            thread.join(PATIENT)
        self._listener.close()


StartServer = Callable[..., Server]


@pytest.fixture
def start() -> Iterator[StartServer]:
    """Starts servers that end with the test."""
    with ExitStack() as stack:

        def start(serve: Serve, address: str = "127.0.0.1") -> Server:
            server = Server(serve, address)
            stack.callback(server.close)
            return server

        yield start


@pytest.fixture(params=["sync", "asyncio", "trio"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """`fetch`, and `async_fetch` on both event loops: each promise holds three times."""
    if request.param == "sync":
        return fetch
    return lambda *args, **options: anyio.run(partial(async_fetch, *args, **options), backend=request.param)


def _answer(data: bytes) -> Serve:
    return lambda peer: peer.send(data)


def _unavailable(ask: Ask, url: str, **options: Any) -> SidecarUnavailable:
    """The error; that it came in time is checked on the way."""
    begin = time.monotonic()
    with pytest.raises(SidecarUnavailable) as refused:
        ask(url, **options)
    elapsed = time.monotonic() - begin
    assert elapsed < options.get("timeout", 1.0) + SLACK
    assert str(refused.value).startswith(f"GET {url}: ")
    return refused.value


@pytest.mark.parametrize(
    ("answer", "reply"),
    [
        (OK + b"Content-Length: 5\r\n\r\nLIVE\n", AdminReply(200, b"LIVE\n")),
        (
            OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nLI\r\n3\r\nVE\n\r\n0\r\n\r\n",
            AdminReply(200, b"LIVE\n"),
        ),
        (OK + b"\r\nuntil the end", AdminReply(200, b"until the end")),
        (b"HTTP/1.0 200 OK\r\n\r\nold", AdminReply(200, b"old")),
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", AdminReply(503, b"")),
        (b"HTTP/1.1 204 No Content\r\n\r\n", AdminReply(204, b"")),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 1\r\n\r\nx", AdminReply(200, b"x")),
        (OK + b"Content-Length: 1\r\n\r\nxHTTP/1.1 500 Another\r\n\r\n", AdminReply(200, b"x")),
    ],
)
def test_a_reply_is_status_and_body(ask: Ask, start: StartServer, answer: bytes, reply: AdminReply) -> None:
    """Of any status, framed in any way that HTTP has; what follows it is not looked at."""
    assert ask(f"{start(_answer(answer)).url}/ready", timeout=PATIENT) == reply


def test_the_request_is_small_and_closes_the_connection(ask: Ask, start: StartServer) -> None:
    """Query and all."""
    server = start(_answer(OK + b"Content-Length: 0\r\n\r\n"))
    ask(f"{server.url}/config_dump?resource=dynamic_route_configs", timeout=PATIENT)
    head, host, *rest = server.peers[0].request.split(b"\r\n")
    assert head == b"GET /config_dump?resource=dynamic_route_configs HTTP/1.1"
    assert host == f"Host: 127.0.0.1:{server.port}".encode()
    assert rest == [b"User-Agent: meshaware", b"Connection: close", b"", b""]


def test_a_post_says_that_it_has_no_body(ask: Ask, start: StartServer) -> None:
    """Envoy wants POST for what changes something."""
    server = start(_answer(OK + b"Content-Length: 2\r\n\r\nOK"))
    assert ask(f"{server.url}/quitquitquit", method="POST", timeout=PATIENT) == AdminReply(200, b"OK")
    assert server.peers[0].request.startswith(b"POST /quitquitquit HTTP/1.1\r\n")
    assert b"\r\nContent-Length: 0\r\n" in server.peers[0].request


def test_a_reply_to_head_has_no_body(ask: Ask, start: StartServer) -> None:
    """Whatever its headers say."""
    server = start(_answer(OK + b"Content-Length: 5\r\n\r\n"))
    assert ask(server.url, method="HEAD", timeout=PATIENT) == AdminReply(200, b"")


def test_a_redirect_is_not_followed(ask: Ask, start: StartServer) -> None:
    """Not even to loopback."""
    elsewhere = start(_answer(OK + b"Content-Length: 0\r\n\r\n"))
    location = f"Location: {elsewhere.url}/\r\n".encode()
    server = start(_answer(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n" + location + b"\r\n"))
    assert ask(server.url, timeout=PATIENT).status == 302
    assert elsewhere.peers == []


def test_a_proxy_in_the_environment_means_nothing(
    ask: Ask, start: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`HTTP_PROXY` is for the world outside."""
    proxy = start(_answer(b"HTTP/1.1 502 Wrong\r\nContent-Length: 0\r\n\r\n"))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy.url)
    server = start(_answer(OK + b"Content-Length: 0\r\n\r\n"))
    assert ask(server.url, timeout=PATIENT).status == 200
    assert proxy.peers == []


def test_where_nothing_listens_the_cause_is_refused(ask: Ask) -> None:
    """At once."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    error = _unavailable(ask, f"http://127.0.0.1:{port}/ready", timeout=PATIENT)
    assert error.cause == "refused"
    assert str(error) == f"GET http://127.0.0.1:{port}/ready: connection refused: nothing listens there"


def test_localhost_is_both_addresses(ask: Ask, start: StartServer) -> None:
    """127.0.0.1 first, then ::1; the name is never looked up."""
    try:
        server = start(_answer(OK + b"Content-Length: 0\r\n\r\n"), "::1")
    except OSError:
        pytest.skip("no IPv6 here")
    assert ask(server.url, timeout=PATIENT).status == 200
    assert ask(f"http://localhost:{server.port}", timeout=PATIENT).status == 200
    assert b"\r\nHost: localhost:" in server.peers[1].request


def _headers_without_end() -> Iterator[bytes]:
    yield OK
    while True:
        yield b"x"


def _body_without_end() -> Iterator[bytes]:
    yield OK + b"Content-Length: 1000000\r\n\r\n"
    while True:
        yield b"x"


def _status_line_without_end() -> Iterator[bytes]:
    while True:
        yield from (b"H", b"T", b"T", b"P")


def _silent(peer: Peer) -> None:
    peer.over.wait(PATIENT)


def _dribble(pieces: Callable[[], Iterator[bytes]]) -> Serve:
    return lambda peer: peer.dribble(pieces())


@pytest.mark.parametrize(
    "serve",
    [
        pytest.param(_silent, id="silent"),
        pytest.param(_dribble(_status_line_without_end), id="status line"),
        pytest.param(_dribble(_headers_without_end), id="headers"),
        pytest.param(_dribble(_body_without_end), id="body"),
    ],
)
def test_silence_and_dribbling_end_when_the_time_is_over(ask: Ask, start: StartServer, serve: Serve) -> None:
    """Each byte would restart a socket's own timeout; the total is exact all the same."""
    begin = time.monotonic()
    error = _unavailable(ask, f"{start(serve).url}/ready", timeout=QUICK)
    assert QUICK * 0.9 < time.monotonic() - begin < QUICK + SLACK
    assert error.cause == "timeout"
    assert "no reply within 300ms: " in str(error)


@pytest.mark.parametrize(("data", "came"), [(b"", "nothing came"), (b"HTTP/1.1 200", "12 bytes of it came")])
def test_a_timeout_says_whether_anything_came(data: bytes, came: str) -> None:
    """A silent proxy and a slow one want different cures."""
    exchange = Exchange("http://127.0.0.1:1/", "GET", 1.0, 100)
    if data:
        exchange.receive(data)
    assert str(exchange.timed_out()) == f"GET http://127.0.0.1:1/: no reply within 1s: {came}"


def test_no_time_at_all_is_over_at_once(ask: Ask, start: StartServer) -> None:
    """Even where an answer would come."""
    server = start(_answer(OK + b"Content-Length: 0\r\n\r\n"))
    assert _unavailable(ask, server.url, timeout=1e-9).cause == "timeout"


def test_a_peer_that_does_not_accept_is_silent_too(ask: Ask) -> None:
    """The kernel connects, but nobody is there."""
    with socket.create_server(("127.0.0.1", 0), backlog=1) as deaf:
        error = _unavailable(ask, f"http://127.0.0.1:{deaf.getsockname()[1]}", timeout=QUICK)
    assert error.cause == "timeout"


def test_a_peer_that_does_not_even_let_connect_is_silent_too(ask: Ask) -> None:
    """Its queue is full: connecting itself takes as long as it may."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, ExitStack() as stack:
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.settimeout(0)
            waiting.connect_ex(full.getsockname())
        error = _unavailable(ask, f"http://127.0.0.1:{full.getsockname()[1]}", timeout=QUICK)
    assert error.cause == "timeout"


@pytest.mark.parametrize(
    ("first", "endless"),
    [
        pytest.param(OK + b"Content-Length: 99999999999\r\n\r\n", b"x" * 4096, id="announced body"),
        pytest.param(OK + b"\r\n", b"x" * 4096, id="body without length"),
        pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1000\r\n" + b"x" * 4096 + b"\r\n", id="chunks"),
        pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 500, id="chunks of one byte"),
        pytest.param(OK, b"x" * 4096, id="one header"),
        pytest.param(OK, b"x-header: value\r\n" * 100, id="headers"),
        pytest.param(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100, id="informational replies"),
    ],
)
def test_no_reply_is_read_without_end(ask: Ask, start: StartServer, first: bytes, endless: bytes) -> None:
    """Bodies, headers, framing: all of it counts."""

    def serve(peer: Peer) -> None:
        peer.send(first)
        peer.flood(endless)

    error = _unavailable(ask, start(serve).url, timeout=PATIENT, max_bytes=100_000)
    assert error.cause == "too_large"
    assert str(error).endswith("the reply is larger than 100000 bytes")


def test_a_body_may_be_exactly_as_long_as_the_limit(ask: Ask, start: StartServer) -> None:
    """One byte more is too many."""
    server = start(_answer(OK + b"Content-Length: 1000\r\n\r\n" + b"x" * 1000))
    assert len(ask(server.url, timeout=PATIENT, max_bytes=1000).body) == 1000
    assert _unavailable(ask, server.url, timeout=PATIENT, max_bytes=999).cause == "too_large"


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\x1b[31m\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x0a" * 5 + b"\r\n\r\n",  # a TLS alert
        b"220 mail.example ESMTP\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
    ],
)
def test_what_is_not_http_is_invalid(ask: Ask, start: StartServer, answer: bytes) -> None:
    """The message shows how it begins, escaped and bounded."""
    error = _unavailable(ask, start(_answer(answer)).url, timeout=PATIENT)
    assert error.cause == "invalid"
    assert str(error).endswith(f"the answer is not HTTP/1.1: it begins with {answer[:40]!r}")
    assert str(error).isprintable()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 20",
        OK,
        OK + b"Content-Length: 5\r\n\r\nLI",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nLI\r\n",
    ],
)
def test_a_reply_that_is_cut_off_is_invalid(ask: Ask, start: StartServer, answer: bytes) -> None:
    """Half a list of routes would be worse than none."""
    error = _unavailable(ask, start(_answer(answer)).url, timeout=PATIENT)
    assert error.cause == "invalid"
    assert str(error).endswith("the connection was closed before the reply was complete")


def test_a_connection_that_breaks_is_invalid(ask: Ask, start: StartServer) -> None:
    """As when the proxy dies."""
    error = _unavailable(ask, start(Peer.reset).url, timeout=PATIENT)
    assert error.cause == "invalid"
    assert "the connection broke: " in str(error)


@pytest.mark.parametrize("url", ["http://10.0.0.1:15000", "http://example.com", "https://127.0.0.1", "", "file:///etc"])
def test_another_host_is_refused_before_any_socket(ask: Ask, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Nor is any name looked up."""
    looked_up: list[object] = []
    connected: list[object] = []

    def look_up(*args: object, **_: object) -> None:
        looked_up.append(args)

    def connect(_: socket.socket, address: object) -> None:
        connected.append(address)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(socket.socket, "connect", connect)
    with pytest.raises(ValueError, match=r"a URL such as http://127\.0\.0\.1:15000"):
        ask(url, timeout=QUICK)
    assert looked_up == connected == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"timeout": 0}, "timeout 0 is not a number of seconds, more than 0"),
        ({"timeout": -1}, "timeout -1"),
        ({"timeout": float("nan")}, "timeout nan"),
        ({"timeout": float("inf")}, "timeout inf"),
        ({"method": "DELETE"}, "method 'DELETE' is none of GET, HEAD, POST"),
        ({"method": "GET\r\nx: y"}, "is none of GET, HEAD, POST"),
    ],
)
def test_arguments_that_cannot_be_meant_are_refused(ask: Ask, options: dict[str, Any], said: str) -> None:
    """Above all a wait without end."""
    with pytest.raises(ValueError) as refused:
        ask("http://127.0.0.1:1", **options)
    assert said in str(refused.value)


@pytest.mark.anyio
async def test_cancellation_ends_it_at_once_and_is_no_timeout(start: StartServer) -> None:
    """Whose scope it is decides what it means."""
    server = start(_silent)
    with anyio.move_on_after(QUICK) as outer:
        await async_fetch(server.url, timeout=PATIENT)
    assert outer.cancelled_caught


@pytest.mark.anyio
async def test_many_can_ask_at_once(start: StartServer) -> None:
    """Nothing is shared."""
    server = start(_answer(OK + b"Content-Length: 2\r\n\r\nok"))
    replies: list[AdminReply] = []

    async def one() -> None:
        replies.append(await async_fetch(server.url, timeout=PATIENT))

    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(one)
    assert replies == [AdminReply(200, b"ok")] * 10


@given(st.lists(st.binary(max_size=60) | st.sampled_from([OK, b"\r\n", b"\r\n\r\n", b"Content-Length: 3\r\n", b"abc"])))
def test_no_bytes_do_more_than_be_refused(pieces: list[bytes]) -> None:
    """A reply or `SidecarUnavailable`; nothing else comes out, however the bytes are divided."""
    exchange = Exchange("http://127.0.0.1:1/", "GET", 1.0, 100)
    reply: AdminReply | None = None
    cause = ""
    try:
        for piece in [*filter(None, pieces), b""]:
            reply = reply or exchange.receive(piece)
    except SidecarUnavailable as refused:
        cause = refused.cause
    assert (reply is not None) != (cause in {"invalid", "too_large"})


@given(st.binary(max_size=500), st.integers(min_value=1, max_value=50))
def test_a_body_arrives_as_it_was_sent_however_it_is_divided(body: bytes, size: int) -> None:
    """The decision knows no I/O."""
    server = h11.Connection(h11.SERVER)
    server.receive_data(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    server.next_event()
    head = server.send(h11.Response(status_code=200, headers=[("Transfer-Encoding", "chunked")])) or b""
    wire = head + (server.send(h11.Data(data=body)) or b"") + (server.send(h11.EndOfMessage()) or b"")
    exchange = Exchange("http://127.0.0.1:1/", "GET", 1.0, 500)
    replies = [exchange.receive(wire[begin : begin + size]) for begin in range(0, len(wire), size)]
    assert replies[-1] == AdminReply(200, body)
    assert set(replies[:-1]) <= {None}
