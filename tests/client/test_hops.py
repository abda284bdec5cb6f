"""
Each hop of a call has its headers exactly once on the wire, and the caller's requests stay as the caller made them.

Redirects, auth flows, requests sent again, event hooks: whatever makes one call into several requests. The same tests
run under httpx and httpx2, synchronous and asynchronous; names inside the mesh lead to a peer that stands for the
sidecar, an address that is not listed is outside.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import httpx
import httpx2
import pytest
import trustme

import meshaware.httpx2
from meshaware import bind_headers, create_async_client, create_client, report
from meshaware.budgets import RouteTable
from meshaware.propagation.names import SETS
from meshaware.settings import MeshSettings

from .conftest import Conversation, Peer, Script, answer

URL = "http://inventory/items"
CARRIED = {
    "x-request-id": "5a4e6c1e-2f0a-9b1c-8d2e-000000000001",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "tracestate": "congo=t61rcWkgMzE",
    "baggage": "user=alice;meta=1",
    "x-b3-traceid": "0af7651916cd43dd8448eb211c80319c",
    "x-b3-spanid": "b7ad6b7169203331",
    "x-user-type": "premium",
    "x-canary": "1",
}
WIRE = {(name.encode(), value.encode()) for name, value in CARRIED.items()}
OURS = frozenset(name for each in SETS.values() for name in each)
Start = Callable[[Script], Peer]


class Caller:
    """One of four clients; `call` is `client.request`, whichever it is."""

    def __init__(self, library: Any, *, asynchronous: bool) -> None:
        self.library = library
        self.asynchronous = asynchronous
        self.sent: list[Any] = []
        """Every request that the caller made, with the headers it had then."""

    def make(self, settings: MeshSettings, routes: RouteTable | None = None, **arguments: Any) -> Any:
        rooms: dict[Any, tuple[Any, Any]] = {
            httpx: (create_client, create_async_client),
            httpx2: (meshaware.httpx2.create_client, meshaware.httpx2.create_async_client),
        }
        make = rooms[self.library][self.asynchronous]
        return make(settings, routes=RouteTable.empty() if routes is None else routes, **arguments)

    def send(self, client: Any, *requests: Any, **options: Any) -> list[Any]:
        """Send requests one after the other, and close the client."""
        if not self.asynchronous:
            with client:
                return [client.send(request, **options) for request in requests]

        async def run() -> list[Any]:
            async with client:
                return [await client.send(request, **options) for request in requests]

        return anyio.run(run)


@pytest.fixture(
    name="caller",
    params=[(httpx, False), (httpx, True), (httpx2, False), (httpx2, True)],
    ids=["httpx", "httpx-async", "httpx2", "httpx2-async"],
)
def _caller(request: pytest.FixtureRequest) -> Caller:
    library, asynchronous = request.param
    return Caller(library, asynchronous=asynchronous)


def settings_for(peer: Peer, **more: Any) -> MeshSettings:
    return MeshSettings(mesh="none", outbound_proxy=peer.url, **more)


def by_path(replies: dict[bytes, bytes]) -> Script:
    """Answer each path with what stands for it: status line and headers; everything else with 200."""

    def script(conversation: Conversation) -> None:
        while request := conversation.read_request():
            path = request.split(b" ", 2)[1]
            head = replies.get(path, b"200 OK")
            conversation.send(b"HTTP/1.1 " + head + b"\r\ncontent-length: 2\r\n\r\nok")

    return script


def to(location: str, status: str = "302 Found") -> bytes:
    return f"{status}\r\nlocation: {location}".encode()


def carried(peer: Peer, index: int = -1) -> Counter[tuple[bytes, bytes]]:
    """What a request had of the headers that are carried, each as often as it stood there."""
    return Counter((name, value) for name, value in peer.headers(index) if name in OURS)


ONCE = Counter(WIRE)
NOTHING = Counter[tuple[bytes, bytes]]()


def names(headers: Any) -> set[bytes]:
    return {name.lower() for name, _ in headers.raw}


def assert_untouched(response: Any, request: Any, before: list[tuple[bytes, bytes]]) -> None:
    """The caller's request is as it was, and no request of the response or its history has ever had ours."""
    assert request.headers.raw == before
    for each in (*response.history, response):
        assert not names(each.request.headers) & OURS
        assert not {key for key in each.request.extensions if key.startswith("meshaware") and key != "meshaware.whole"}


# Redirects


def test_from_one_host_of_the_mesh_to_another(caller: Caller, peer: Start) -> None:
    """Each hop has all of them, once."""
    sidecar = peer(by_path({b"/items": to("http://orders.shop.svc:8080/a"), b"/a": to("/b", "307 Temporary Redirect")}))
    client = caller.make(settings_for(sidecar), follow_redirects=True)
    request = client.build_request("GET", URL)
    before = list(request.headers.raw)
    with bind_headers(CARRIED):
        [response] = caller.send(client, request)
    assert [carried(sidecar, index) for index in range(3)] == [ONCE] * 3
    hosts = [dict(sidecar.headers(index))[b"host"] for index in range(3)]
    assert hosts == [b"inventory", b"orders.shop.svc:8080", b"orders.shop.svc:8080"]
    assert len(response.history) == 2
    assert_untouched(response, request, before)


def test_from_the_mesh_to_the_outside(caller: Caller, peer: Start) -> None:
    """Also by `send` one at a time, with `response.next_request`."""
    outside = peer(answer())
    sidecar = peer(by_path({b"/items": to(f"{outside.url}/x")}))
    client = caller.make(settings_for(sidecar), follow_redirects=True)
    request = client.build_request("GET", URL)
    before = list(request.headers.raw)
    with bind_headers(CARRIED):
        [response] = caller.send(client, request)
    assert carried(sidecar) == ONCE
    assert carried(outside) == NOTHING
    assert_untouched(response, request, before)

    client = caller.make(settings_for(sidecar))
    with bind_headers(CARRIED):
        [response] = caller.send(client, client.build_request("GET", URL))
        client = caller.make(settings_for(sidecar))
        assert not names(response.next_request.headers) & OURS
        caller.send(client, response.next_request)
    assert [carried(outside, index) for index in range(2)] == [NOTHING] * 2


def test_from_the_outside_into_the_mesh(caller: Caller, peer: Start) -> None:
    """The outside sees nothing; the host inside gets what any call to it gets."""
    sidecar = peer(answer())
    outside = peer(by_path({b"/x": to(URL)}))
    client = caller.make(settings_for(sidecar), follow_redirects=True)
    request = client.build_request("GET", f"{outside.url}/x")
    before = list(request.headers.raw)
    with bind_headers(CARRIED):
        [response] = caller.send(client, request)
    assert carried(outside) == NOTHING
    assert carried(sidecar) == ONCE
    assert_untouched(response, request, before)


def test_into_the_mesh_outside_and_in_again(caller: Caller, peer: Start) -> None:
    """Every hop is decided anew."""
    replies: dict[bytes, bytes] = {}
    outside, sidecar = peer(by_path(replies)), peer(by_path(replies))
    replies |= {b"/items": to(f"{outside.url}/x"), b"/x": to("http://orders/a"), b"/a": to(f"{outside.url}/y")}
    client = caller.make(settings_for(sidecar), follow_redirects=True)
    request = client.build_request("GET", URL)
    before = list(request.headers.raw)
    with bind_headers(CARRIED):
        [response] = caller.send(client, request)
    assert [carried(sidecar, index) for index in range(2)] == [ONCE] * 2
    assert [carried(outside, index) for index in range(2)] == [NOTHING] * 2
    assert_untouched(response, request, before)


def test_a_redirect_that_changes_method_and_body(caller: Caller, peer: Start) -> None:
    """303 makes a GET of a POST; 307 sends the body again."""
    sidecar = peer(by_path({b"/items": to("/a", "307 Temporary Redirect"), b"/a": to("/b", "303 See Other")}))
    client = caller.make(settings_for(sidecar), follow_redirects=True)
    request = client.build_request("POST", URL, content=b"body")
    before = list(request.headers.raw)
    with bind_headers(CARRIED):
        [response] = caller.send(client, request)
    assert [carried(sidecar, index) for index in range(3)] == [ONCE] * 3
    assert [each.split(b" ")[0] for each in sidecar.requests] == [b"POST", b"POST", b"GET"]
    assert [each.endswith(b"\r\n\r\nbody") for each in sidecar.requests] == [True, True, False]
    assert_untouched(response, request, before)


def test_what_the_caller_set_goes_where_the_library_takes_it(caller: Caller, peer: Start) -> None:
    """The caller's own `x-user-type` wins inside, and goes outside as httpx would have it; ours never does."""
    outside = peer(answer())
    sidecar = peer(by_path({b"/items": to(f"{outside.url}/x")}))
    client = caller.make(settings_for(sidecar), follow_redirects=True)
    with bind_headers(CARRIED):
        caller.send(client, client.build_request("GET", URL, headers={"X-User-Type": "basic"}))
    assert carried(sidecar) == Counter((WIRE - {(b"x-user-type", b"premium")}) | {(b"x-user-type", b"basic")})
    assert carried(outside) == Counter([(b"x-user-type", b"basic")])


# Over TLS


class TlsPeer:
    """An HTTPS server on 127.0.0.1 that answers by path and remembers what came."""

    def __init__(self, authority: trustme.CA, replies: dict[bytes, bytes]) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)  # pyright: ignore[reportUnknownMemberType]
        self._context, self._replies = context, replies
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.requests: list[bytes] = []
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), connection:
                connection.settimeout(10)
                with self._context.wrap_socket(connection, server_side=True) as secure:
                    data = b""
                    while b"\r\n\r\n" not in data:
                        data += secure.recv(65536)
                    self.requests.append(data)
                    head = self._replies.get(data.split(b" ", 2)[1], b"200 OK")
                    secure.sendall(b"HTTP/1.1 " + head + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")

    def headers(self, index: int = -1) -> list[tuple[bytes, bytes]]:
        lines = self.requests[index].partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
        return [(name.lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)]

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)


@pytest.fixture(name="authority", scope="module")
def _authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(name="secure")
def _secure(authority: trustme.CA) -> Iterator[Callable[[dict[bytes, bytes]], TlsPeer]]:
    peers: list[TlsPeer] = []

    def start(replies: dict[bytes, bytes]) -> TlsPeer:
        peers.append(TlsPeer(authority, replies))
        return peers[-1]

    yield start
    for each in peers:
        each.close()


@pytest.fixture(name="trusting")
def _trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)  # pyright: ignore[reportUnknownMemberType]
    return context


Secure = Callable[[dict[bytes, bytes]], TlsPeer]


@pytest.mark.parametrize("inside", [True, False])
def test_https_gets_headers_by_the_same_policy_and_no_route(
    caller: Caller, secure: Secure, trusting: ssl.SSLContext, routes: Callable[..., RouteTable], *, inside: bool
) -> None:
    """The sidecar passes TLS through unread: its routes do not apply, who is inside stays the same."""
    upstream = secure({})
    settings = MeshSettings(mesh="none", mesh_hosts=("127.0.0.1",) if inside else ())
    client = caller.make(settings, routes(timeout="3s"), verify=trusting)
    request = client.build_request("GET", upstream.url)
    before = list(request.headers.raw)
    with bind_headers(CARRIED):
        [response] = caller.send(client, request)
    assert Counter(pair for pair in upstream.headers() if pair[0] in OURS) == (ONCE if inside else NOTHING)
    assert report(response).route is None
    assert_untouched(response, request, before)


def test_a_route_of_the_same_host_does_not_hold_over_https(
    caller: Caller, secure: Secure, trusting: ssl.SSLContext, tmp_path: Any
) -> None:
    """Whereas over plain HTTP it does."""
    document = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "address", "namespace": "shop"},
        "spec": {"hosts": ["127.0.0.1"], "http": [{"timeout": "3s", "route": [{"destination": {"host": "a"}}]}]},
    }
    path = tmp_path / "address.json"
    path.write_text(json.dumps(document))
    table = RouteTable.from_manifests(path, namespace="shop")
    upstream = secure({})
    client = caller.make(MeshSettings(mesh="none", mesh_hosts=("127.0.0.1",)), table, verify=trusting)
    [response] = caller.send(client, client.build_request("GET", upstream.url))
    assert report(response).route is None
    assert table.match("GET", upstream.url.replace("https", "http")) is not None


@pytest.mark.parametrize("inside", [True, False])
def test_from_http_in_the_mesh_to_https(
    caller: Caller, peer: Start, secure: Secure, trusting: ssl.SSLContext, *, inside: bool
) -> None:
    """Inside, the second hop has them once as well; outside, not at all."""
    upstream = secure({})
    sidecar = peer(by_path({b"/items": to(f"{upstream.url}/x")}))
    settings = settings_for(sidecar, mesh_hosts=("127.0.0.1",) if inside else ())
    client = caller.make(settings, verify=trusting, follow_redirects=True)
    request = client.build_request("GET", URL)
    before = list(request.headers.raw)
    with bind_headers(CARRIED):
        [response] = caller.send(client, request)
    assert carried(sidecar) == ONCE
    assert Counter(pair for pair in upstream.headers() if pair[0] in OURS) == (ONCE if inside else NOTHING)
    assert_untouched(response, request, before)


def test_from_https_in_the_mesh_to_http_outside(
    caller: Caller, peer: Start, secure: Secure, trusting: ssl.SSLContext
) -> None:
    """A loopback name is outside whatever else is listed."""
    outside = peer(answer())
    upstream = secure({b"/x": to(outside.url.replace("127.0.0.1", "localhost") + "/y")})
    client = caller.make(MeshSettings(mesh="none", mesh_hosts=("127.0.0.1",)), verify=trusting, follow_redirects=True)
    with bind_headers(CARRIED):
        caller.send(client, client.build_request("GET", f"{upstream.url}/x"))
    assert Counter(pair for pair in upstream.headers() if pair[0] in OURS) == ONCE
    assert carried(outside) == NOTHING


# A route is no membership


def test_a_host_outside_that_has_a_route_gets_a_budget_and_no_headers(
    caller: Caller, peer: Start, tmp_path: Any
) -> None:
    """As a ServiceEntry with a VirtualService has it; through a proxy of the caller's, to a name that is real."""
    document = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "partner", "namespace": "shop"},
        "spec": {
            "hosts": ["api.partner.example"],
            "http": [{"timeout": "3s", "route": [{"destination": {"host": "api.partner.example"}}]}],
        },
    }
    path = tmp_path / "partner.json"
    path.write_text(json.dumps(document))
    table = RouteTable.from_manifests(path, namespace="shop")
    proxy = peer(answer())
    client = caller.make(MeshSettings(mesh="none"), table, proxy=proxy.url)
    with bind_headers(CARRIED):
        outer, inner = caller.send(
            client,
            client.build_request("GET", "http://api.partner.example/v1"),
            client.build_request("GET", URL),
        )
    assert (report(outer).total, report(outer).source) == (3.25, "route")
    assert report(inner).route is None
    assert dict(proxy.headers(0))[b"host"] == b"api.partner.example"
    assert carried(proxy, 0) == NOTHING
    assert carried(proxy, 1) == ONCE


# Auth


def _token_flow(library: Any, token_url: str) -> Any:
    class TokenAuth(library.Auth):  # type: ignore[misc]
        """Asks for a token first, sends the request with it, and once more when it is refused."""

        def auth_flow(self, request: Any) -> Generator[Any, Any, None]:
            token = yield library.Request("POST", token_url)
            request.headers["authorization"] = f"Bearer {token.status_code}"
            response = yield request
            if response.status_code == 401:
                request.headers["authorization"] = "Bearer again"
                yield request

    return TokenAuth()


def test_an_auth_flow_with_a_request_of_its_own(caller: Caller, peer: Start) -> None:
    """The token's host is outside and gets nothing; both tries of the request have all of them once."""
    outside = peer(answer())
    sidecar = peer(by_path({b"/items": b"401 Unauthorized"}))
    client = caller.make(settings_for(sidecar), auth=_token_flow(caller.library, f"{outside.url}/token"))
    request = client.build_request("GET", URL)
    before = list(request.headers.raw)
    with bind_headers(CARRIED):
        [response] = caller.send(client, request)
    assert carried(outside) == NOTHING
    assert [carried(sidecar, index) for index in range(2)] == [ONCE] * 2
    assert [dict(sidecar.headers(index))[b"authorization"] for index in range(2)] == [b"Bearer 200", b"Bearer again"]
    assert response.status_code == 401
    # The flow itself writes on the caller's request; nothing else does.
    assert [pair for pair in request.headers.raw if pair[0].lower() != b"authorization"] == before
    assert not names(response.request.headers) & OURS


def test_an_auth_flow_whose_token_comes_from_the_mesh(caller: Caller, peer: Start) -> None:
    """A request that the flow made gets headers where its host is inside."""
    outside = peer(answer())
    sidecar = peer(answer())
    client = caller.make(settings_for(sidecar), auth=_token_flow(caller.library, "http://tokens/token"))
    with bind_headers(CARRIED):
        [response] = caller.send(client, client.build_request("GET", f"{outside.url}/x"))
    assert carried(sidecar) == ONCE
    assert carried(outside) == NOTHING
    assert not names(response.request.headers) & OURS


def test_digest(caller: Caller, peer: Start) -> None:
    """The second try has them once as well."""
    challenge = b'401 Unauthorized\r\nwww-authenticate: Digest realm="a", nonce="b", qop="auth", algorithm=MD5'
    sidecar = peer(by_path({b"/items": challenge}))
    client = caller.make(settings_for(sidecar), auth=caller.library.DigestAuth("user", "secret"))
    request = client.build_request("GET", URL)
    with bind_headers(CARRIED):
        [response] = caller.send(client, request)
    assert [carried(sidecar, index) for index in range(2)] == [ONCE] * 2
    assert b"authorization" in dict(sidecar.headers(1))
    assert not names(request.headers) & OURS
    assert not names(response.request.headers) & OURS
    assert [names(each.request.headers) & OURS for each in response.history] == [set()] * len(response.history)


def test_an_auth_flow_across_a_redirect_to_the_outside(caller: Caller, peer: Start) -> None:
    """Neither ours nor the caller's credentials leave the mesh."""
    outside = peer(answer())
    sidecar = peer(by_path({b"/items": to(f"{outside.url}/x")}))
    client = caller.make(settings_for(sidecar), auth=("user", "secret"), follow_redirects=True)
    with bind_headers(CARRIED):
        caller.send(client, client.build_request("GET", URL))
    assert carried(sidecar) == ONCE
    assert b"authorization" in dict(sidecar.headers())
    assert carried(outside) == NOTHING
    assert b"authorization" not in dict(outside.headers())


# The caller's own ways


def test_a_request_that_is_sent_again_carries_what_is_carried_then(caller: Caller, peer: Start) -> None:
    """Nothing of the first time stays on it, nor where nothing is carried any more."""
    sidecar = peer(answer())
    client = caller.make(settings_for(sidecar))
    request = client.build_request("GET", URL)
    before = list(request.headers.raw)

    def send(times: int) -> list[Any]:
        return caller.send(caller.make(settings_for(sidecar)), *[request] * times)

    with bind_headers(CARRIED):
        responses = send(2)
    with bind_headers({"x-request-id": "2"}):
        responses += send(1)
    responses += send(1)
    assert [carried(sidecar, index) for index in range(4)] == [ONCE, ONCE, Counter([(b"x-request-id", b"2")]), NOTHING]
    for response in responses:
        assert_untouched(response, request, before)
    caller.send(client)


def test_event_hooks_see_requests_as_the_caller_made_them(caller: Caller, peer: Start) -> None:
    """Both kinds, on each hop; what a hook adds goes out and wins."""
    sidecar = peer(by_path({b"/items": to("http://orders/a")}))
    seen: list[set[bytes]] = []

    def on_request(request: Any) -> None:
        seen.append(names(request.headers) & OURS)
        request.headers["x-canary"] = "hook"

    def on_response(response: Any) -> None:
        seen.append(names(response.request.headers) & OURS)

    async def async_on_request(request: Any) -> None:
        on_request(request)

    async def async_on_response(response: Any) -> None:
        on_response(response)

    hooks = {"request": [on_request], "response": [on_response]}
    if caller.asynchronous:
        hooks = {"request": [async_on_request], "response": [async_on_response]}
    client = caller.make(settings_for(sidecar), event_hooks=hooks, follow_redirects=True)
    with bind_headers(CARRIED):
        caller.send(client, client.build_request("GET", URL))
    mine = {b"x-canary"}
    # httpx copies what the hook wrote to the redirect's target; what we added is not among it.
    assert seen == [set(), mine, mine, mine]
    expected = Counter((WIRE - {(b"x-canary", b"1")}) | {(b"x-canary", b"hook")})
    assert [carried(sidecar, index) for index in range(2)] == [expected] * 2


def test_a_streamed_response_and_one_whose_call_failed_leave_the_request_alone(caller: Caller, peer: Start) -> None:
    """Headers come off whatever becomes of the call."""

    def hang_up(conversation: Conversation) -> None:
        conversation.read_request()

    for script in (answer(), hang_up):
        sidecar = peer(script)
        client = caller.make(settings_for(sidecar))
        request = client.build_request("GET", URL)
        before = list(request.headers.raw)
        with bind_headers(CARRIED), contextlib.suppress(caller.library.RemoteProtocolError):
            caller.send(client, request, stream=True)
        assert carried(sidecar) == ONCE
        assert request.headers.raw == before


def test_a_body_that_streams_is_sent_once_with_headers_once(caller: Caller, peer: Start) -> None:
    """The copy that leaves shares the caller's stream."""

    def chunked(conversation: Conversation) -> None:
        data = b""
        while not data.endswith(b"0\r\n\r\n"):
            data += conversation.read_request() or b"0\r\n\r\n"
        conversation.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    def parts() -> Iterator[bytes]:
        yield b"one"
        yield b"two"

    async def async_parts() -> AsyncGenerator[bytes]:
        yield b"one"
        yield b"two"

    sidecar = peer(chunked)
    client = caller.make(settings_for(sidecar))
    request = client.build_request("POST", URL, content=async_parts() if caller.asynchronous else parts())
    before = list(request.headers.raw)
    with bind_headers(CARRIED):
        [response] = caller.send(client, request)
    assert response.status_code == 200
    assert carried(sidecar, 0) == ONCE
    assert request.headers.raw == before


def test_headers_of_the_client_win_over_what_is_carried(caller: Caller, peer: Start) -> None:
    """Once, and on each hop inside."""
    sidecar = peer(by_path({b"/items": to("http://orders/a")}))
    client = caller.make(settings_for(sidecar), headers={"x-user-type": "service"}, follow_redirects=True)
    with bind_headers(CARRIED):
        caller.send(client, client.build_request("GET", URL))
    expected = Counter((WIRE - {(b"x-user-type", b"premium")}) | {(b"x-user-type", b"service")})
    assert [carried(sidecar, index) for index in range(2)] == [expected] * 2


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_one_request_object_sent_by_many_threads_at_once(library: Any, peer: Start) -> None:
    """Each carries its own; none sees another's."""
    sidecar = peer(answer())
    with Caller(library, asynchronous=False).make(settings_for(sidecar)) as client:
        request = client.build_request("GET", URL)
        before = list(request.headers.raw)

        def work(number: int) -> None:
            with bind_headers({"x-request-id": str(number)}):
                client.send(request)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(200)))
    ids = Counter(value for index in range(200) for _, value in carried(sidecar, index))
    assert ids == Counter(str(number).encode() for number in range(200))
    assert request.headers.raw == before


@pytest.mark.anyio
@pytest.mark.parametrize("library", [httpx, httpx2])
async def test_one_client_used_by_many_tasks_at_once(library: Any, peer: Start) -> None:
    """On connections that go from one call to the next."""
    sidecar = peer(answer())
    async with Caller(library, asynchronous=True).make(settings_for(sidecar)) as client:

        async def work(number: int) -> None:
            for turn in range(10):
                with bind_headers({"x-request-id": f"{number}-{turn}", "x-user-type": f"{number}"}):
                    await client.get(f"http://inventory/{number}-{turn}")

        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(work, number)
    assert len(sidecar.requests) == 200
    for index, request in enumerate(sidecar.requests):
        name = request.split(b" ", 2)[1][1:]
        assert carried(sidecar, index) == Counter([(b"x-request-id", name), (b"x-user-type", name.split(b"-")[0])])
