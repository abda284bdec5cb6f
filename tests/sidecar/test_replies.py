"""Who answered in the application's place: one row a cause, and the answers of a real Envoy."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaware.sidecar.causes import CAUSES, LINKERD_CAUSES
from meshaware.sidecar.replies import classify

Headers = list[tuple[bytes, bytes]]
Json = dict[str, Any]

OWN: Headers = [(b"server", b"envoy"), (b"date", b"Mon, 23 Nov 2026 10:00:00 GMT")]
PEER: Headers = [*OWN, (b"x-envoy-upstream-service-time", b"0")]
TEXT = (b"content-type", b"text/plain")
CONNECT = b"upstream connect error or disconnect/reset before headers. "
REFUSED = b"reset reason: remote connection failure, transport failure reason: delayed connect error: 111"
TLS = b"reset reason: remote connection failure, transport failure reason: TLS_error:|268435703:SSL routines"

OVERLOADED = (b"x-envoy-overloaded", b"true")
RATELIMITED = (b"x-envoy-ratelimited", b"true")
REALM = (b"www-authenticate", b'Bearer realm="http://shop/", error="invalid_token"')


class Row(NamedTuple):
    """An answer of Envoy's, and what it is called: with the body, and by the headers alone."""

    reason: str
    status: int
    body: bytes
    extra: tuple[tuple[bytes, bytes], ...] = ()
    by_headers: str | None = "the same"


UNSURE = "connection failure or reset"
ROWS = [
    Row("upstream request timeout", 504, b"upstream request timeout"),
    Row("upstream request timeout", 408, b"upstream request timeout"),
    Row("max stream duration", 504, b"upstream max stream duration reached"),
    Row("max stream duration", 504, b"downstream duration timeout"),
    Row("stream timeout", 504, b"stream timeout"),
    Row("stream timeout", 408, b"stream timeout"),
    Row("request timeout", 408, b"request timeout"),
    Row("no healthy upstream", 503, b"no healthy upstream"),
    Row("circuit breaker", 503, CONNECT + b"reset reason: overflow", (OVERLOADED,)),
    # `proxyHeaders.envoyDebugHeaders.disabled` takes the header away.
    Row("circuit breaker", 503, CONNECT + b"reset reason: overflow", (), UNSURE),
    Row("circuit breaker", 503, b"maintenance mode", (OVERLOADED,)),
    Row("TLS failure", 503, CONNECT + TLS, (), UNSURE),
    Row("TLS failure", 503, CONNECT + b"retried and the latest " + TLS, (), UNSURE),
    Row("connection failure", 503, CONNECT + REFUSED, (), UNSURE),
    Row("connection failure", 503, CONNECT + b"reset reason: local connection failure", (), UNSURE),
    # Envoy before it told local from remote.
    Row("connection failure", 503, CONNECT + b"reset reason: connection failure", (), UNSURE),
    Row("connection failure", 503, CONNECT + b"reset reason: connection timeout", (), UNSURE),
    Row("connection reset", 503, CONNECT + b"reset reason: connection termination", (), UNSURE),
    Row("connection reset", 503, CONNECT + b"reset reason: remote reset", (), UNSURE),
    Row("connection reset", 503, CONNECT + b"reset reason: local refused stream reset", (), UNSURE),
    Row("connection reset", 503, CONNECT + b"reset reason: HTTP/1 premature upstream half close", (), UNSURE),
    Row("protocol error", 502, CONNECT + b"reset reason: protocol error", (), UNSURE),
    Row(UNSURE, 503, CONNECT + b"reset reason: overload manager reset"),
    Row("proxy overloaded", 503, b"envoy overloaded"),
    Row("rbac", 403, b"RBAC: access denied"),
    Row("jwt", 401, b"Jwt is missing", (REALM,)),
    Row("jwt", 401, b"Jwt verification fails", (), None),
    Row("jwt", 403, b"Audiences in Jwt are not allowed"),
    Row("rate limited", 429, b"local_rate_limited"),
    # As long as `fault filter abort`, and that comes with any status: a known limit of judging by headers.
    Row("rate limited", 503, b"local_rate_limited", (), "fault abort"),
    Row("rate limited", 429, b"", (RATELIMITED,)),
    Row("fault abort", 400, b"fault filter abort"),
    Row("fault abort", 555, b"fault filter abort"),
    Row("request too large to retry", 507, b"exceeded request buffer limit while retrying upstream"),
    Row("no route", 404, b""),
    Row("unknown cluster", 503, b""),
    Row("blocked host", 502, b""),
]


def with_body(base: Headers, row: Row) -> Headers:
    length = (b"content-length", str(len(row.body)).encode())
    return [*base, length, *((TEXT,) if row.body else ()), *row.extra]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_the_own_sidecar_is_known_with_and_without_the_body(row: Row) -> None:
    """The headers name the one who answered, their length mostly the cause; the body is a refinement."""
    headers = with_body(OWN, row)
    reply = classify(row.status, headers, row.body)
    assert reply is not None
    assert (reply.by, reply.reason) == ("sidecar", row.reason)
    unread = classify(row.status, headers, None)
    expected = row.reason if row.by_headers == "the same" else row.by_headers
    assert (unread and unread.reason) == expected
    assert unread is None or unread.by == "sidecar"


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_the_peers_sidecar_is_known_by_the_body(row: Row) -> None:
    """An empty answer from upstream may be the application's, so it is; without the body nothing is said."""
    headers = with_body(PEER, row)
    reply = classify(row.status, headers, row.body)
    by_header = OVERLOADED in row.extra or RATELIMITED in row.extra
    if row.body or by_header:
        assert reply is not None
        assert (reply.by, reply.reason) == ("peer-sidecar", row.reason)
    else:
        assert reply is None
    assert (classify(row.status, headers, None) is not None) is by_header


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: f"{cause.reason} {cause.text[:20]!r}")
def test_every_cause_is_in_the_table_and_says_what_to_check(cause: Any) -> None:
    """A cause without a row above is a cause that nobody has tried."""
    assert any(row.reason == cause.reason for row in ROWS)
    for hint in (cause.hint, cause.peer_hint or cause.hint):
        assert 20 < len(hint) < 160
        assert hint[-1] not in ".,"


def test_the_hints_for_the_two_sidecars_differ_where_the_cause_does() -> None:
    """A connection that fails there is the callee's application, one that fails here is the callee."""
    row = Row("connection failure", 503, CONNECT + REFUSED)
    own, peer = (classify(503, with_body(base, row), row.body) for base in (OWN, PEER))
    assert own is not None
    assert peer is not None
    assert "does the callee run" in own.hint
    assert "its application does not accept" in peer.hint


APPLICATIONS = [
    pytest.param(200, [*OWN, TEXT], b"no healthy upstream", id="a success"),
    pytest.param(302, OWN, b"", id="a redirect"),
    pytest.param(404, PEER, b"", id="an empty 404 from upstream"),
    pytest.param(503, [*PEER, TEXT], b"out of stock", id="a text of its own"),
    pytest.param(503, [*PEER, TEXT], b"no healthy upstream at all", id="a longer text"),
    pytest.param(503, [*PEER, (b"content-type", b"text/plain; charset=utf-8")], b"no healthy upstream", id="charset"),
    pytest.param(503, [*PEER, (b"content-type", b"application/json")], b"no healthy upstream", id="JSON"),
    pytest.param(401, [*PEER, TEXT, REALM], b"who are you?", id="a realm of its own"),
    pytest.param(404, [(b"server", b"uvicorn")], b"", id="no Envoy on the way"),
    pytest.param(503, [TEXT], b"no healthy upstream", id="no server header"),
    pytest.param(
        404, [*OWN, (b"content-type", b"application/json")], b'{"detail":"Not Found"}', id="debug headers off"
    ),
    pytest.param(503, [*OWN, TEXT], b"a custom local reply", id="what nobody knows"),
    pytest.param(504, [*OWN, TEXT], b"no healthy upstream", id="another status"),
]


@pytest.mark.parametrize(("status", "headers", "body"), APPLICATIONS)
def test_what_cannot_be_told_is_the_applications(status: int, headers: Headers, body: bytes) -> None:
    """Blaming the wrong party is worse than blaming none."""
    assert classify(status, headers, body) is None


def test_istios_inbound_sidecar_is_a_peer_where_no_own_sidecar_stands_between() -> None:
    """A caller outside the mesh sees `istio-envoy`, of a sidecar or a gateway."""
    headers = [(b"server", b"istio-envoy"), TEXT]
    assert classify(403, headers, b"RBAC: access denied") == classify(403, [*PEER, TEXT], b"RBAC: access denied")


def test_names_and_values_may_be_in_any_case() -> None:
    """HTTP/1.1 peers write as they like."""
    headers = [(b"Server", b"Envoy"), (b"Content-Type", b" TEXT/PLAIN "), (b"Content-Length", b"19")]
    reply = classify(503, headers, None)
    assert reply is not None
    assert reply.reason == "no healthy upstream"


def test_an_answer_to_head_is_judged_by_its_declared_length() -> None:
    """It has a length and no body."""
    reply = classify(503, [*OWN, TEXT, (b"content-length", b"19")], b"")
    assert reply is not None
    assert reply.reason == "no healthy upstream"


@pytest.mark.parametrize("length", [b"", b"-1", b"4097", b"1e3", b"9" * 5000, "١٩".encode()])
def test_a_length_that_is_none_tells_nothing(length: bytes) -> None:
    """Envoy's own answers always have one, and a short one."""
    assert classify(503, [*OWN, TEXT, (b"content-length", length)], None) is None


def test_a_long_body_is_never_looked_at() -> None:
    """4 KiB are more than Envoy ever writes."""
    assert classify(503, [*OWN, TEXT], CONNECT + b"x" * (4096 - len(CONNECT))) is not None
    assert classify(503, [*OWN, TEXT], CONNECT + b"x" * (4097 - len(CONNECT))) is None


def test_the_first_of_two_headers_counts() -> None:
    """A second one cannot make a peer's answer the sidecar's."""
    assert classify(404, [(b"server", b"uvicorn"), *OWN], b"") is None


LINKERD = [
    ("no healthy upstream", 504, b"HTTP Balancer service in fail-fast"),
    ("upstream request timeout", 504, b"HTTP response timeout: 2s"),
    ("identity mismatch", 502, b"required id foo.bar; found Some(baz)"),
    ("connection failure", 502, b"connection refused"),
    ("proxy overloaded", 503, b"service unavailable"),
    ("rbac", 403, b"unauthorized request on route"),
    ("rate limited", 429, b"rate limit exceeded"),
    ("no route", 404, b"no route found for request"),
    ("loop", 508, b"loop detected"),
    ("proxy error", 500, b"unexpected error"),
    ("proxy error", 418, b""),
]


@pytest.mark.parametrize(("reason", "status", "text"), LINKERD, ids=[row[2].decode() for row in LINKERD])
@pytest.mark.parametrize("body", [None, b""])
def test_linkerds_proxy_says_it_itself(reason: str, status: int, text: bytes, body: bytes | None) -> None:
    """`l5d-proxy-error` is always of the own proxy, which removes that of others; its text is not passed on."""
    reply = classify(status, [(b"L5d-Proxy-Error", text), (b"l5d-proxy-connection", b"close")], body)
    assert reply is not None
    assert (reply.by, reply.reason) == ("sidecar", reason)
    assert not text or text not in reply.hint.encode()


def test_every_cause_of_linkerds_is_in_the_table() -> None:
    """As with Envoy's."""
    assert {cause.reason for cause in LINKERD_CAUSES} == {row[0] for row in LINKERD}


REASONS = {cause.reason for cause in CAUSES} | {cause.reason for cause in LINKERD_CAUSES}
NAMES = st.sampled_from(
    [b"server", b"Content-Length", b"content-type", b"l5d-proxy-error", b"x-envoy-upstream-service-time", b"x"]
)
VALUES = st.sampled_from([b"envoy", b"istio-envoy", b"19", b"0", b"text/plain"]) | st.binary(max_size=300)


@given(
    status=st.integers(100, 999),
    headers=st.lists(st.tuples(NAMES, VALUES), max_size=8),
    body=st.none() | st.sampled_from([row.body for row in ROWS]) | st.binary(max_size=5000),
)
def test_any_answer_is_classified(status: int, headers: Headers, body: bytes | None) -> None:
    """Nothing a peer sends makes it raise, and the reasons are the fixed few."""
    reply = classify(status, headers, body)
    assert reply is None or reply.reason in REASONS


# A real Envoy


class Upstreams:
    """An application, and what else may stand at the other end."""

    def __init__(self) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                status, kind, body = {
                    "/app/empty-404": (404, None, b""),
                    "/app/empty-503": (503, None, b""),
                    "/app/text-503": (503, "text/plain; charset=utf-8", b"no healthy upstream"),
                    "/app/json-504": (504, "application/json", b"{}"),
                }.get(self.path.removeprefix("/peer"), (200, None, b""))
                self.send_response(status)
                if kind is not None:
                    self.send_header("content-type", kind)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class calls it so
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.application = self._server.server_port
        self._refusing = socket.socket()
        self._refusing.bind(("127.0.0.1", 0))
        self.refusing = port_of(self._refusing)
        self._silent = socket.create_server(("127.0.0.1", 0))
        self.silent = port_of(self._silent)
        self._closing = socket.create_server(("127.0.0.1", 0))
        self.closing = port_of(self._closing)
        self._threads = [
            threading.Thread(target=self._server.serve_forever, args=(0.01,)),
            threading.Thread(target=self._close_connections),
        ]
        for thread in self._threads:
            thread.start()

    def _close_connections(self) -> None:
        while True:
            try:
                connection, _ = self._closing.accept()
            except OSError:
                return
            with connection:
                connection.recv(4096)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._closing.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        for each in (self._closing, self._silent, self._refusing):
            each.close()


def port_of(bound: socket.socket) -> int:
    port: int = bound.getsockname()[1]
    return port


@pytest.fixture(scope="module")
def upstreams() -> Iterator[Upstreams]:
    servers = Upstreams()
    yield servers
    servers.close()


PER_ROUTE = "type.googleapis.com/envoy.extensions.filters.http."


def filters(http_filter: Callable[..., Json], prefix: str = "") -> list[Json]:
    keys = '{"keys":[{"kty":"oct","alg":"HS256","k":"c2VjcmV0"}]}'
    providers = {"any": {"issuer": "shop", "local_jwks": {"inline_string": keys}}}
    rules = [{"match": {"prefix": f"{prefix}/jwt"}, "requires": {"provider_name": "any"}}]
    return [
        http_filter("fault.v3.HTTPFault", "envoy.filters.http.fault"),
        http_filter("local_ratelimit.v3.LocalRateLimit", "envoy.filters.http.local_ratelimit", stat_prefix="l"),
        http_filter("rbac.v3.RBAC", "envoy.filters.http.rbac"),
        http_filter("jwt_authn.v3.JwtAuthentication", "envoy.filters.http.jwt_authn", providers=providers, rules=rules),
    ]


def routes(prefix: str = "") -> list[Json]:
    """What can go wrong, by path."""

    def to(path: str, cluster: str, **fields: Any) -> Json:
        config = fields.pop("typed_per_filter_config", {})
        route = {"cluster": cluster, **fields}
        return {"match": {"prefix": prefix + path}, "route": route, "typed_per_filter_config": config}

    hundred = {"numerator": 100, "denominator": "HUNDRED"}
    fault = {"@type": f"{PER_ROUTE}fault.v3.HTTPFault", "abort": {"http_status": 418, "percentage": hundred}}
    always = {"default_value": hundred}
    limit = {
        "@type": f"{PER_ROUTE}local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": "l",
        "token_bucket": {"max_tokens": 1, "tokens_per_fill": 1, "fill_interval": "3600s"},
        "filter_enabled": always,
        "filter_enforced": always,
    }
    rbac = {"@type": f"{PER_ROUTE}rbac.v3.RBACPerRoute", "rbac": {"rules": {"action": "ALLOW"}}}
    return [
        to("/app", "application"),
        to("/timeout", "silent", timeout="0.05s"),
        to("/per-try", "silent", timeout="5s", retry_policy={"per_try_timeout": "0.05s"}),
        to("/idle", "silent", timeout="0s", idle_timeout="0.05s"),
        to("/duration", "silent", timeout="0s", max_stream_duration={"max_stream_duration": "0.05s"}),
        to("/upstream-duration", "brief", timeout="0s"),
        to("/nobody", "nobody"),
        to("/unknown", "not-there"),
        to("/refused", "refusing"),
        to("/retried", "refusing", retry_policy={"retry_on": "connect-failure", "num_retries": 1}),
        to("/reset", "closing"),
        to("/overflow", "full"),
        to("/tls", "tls"),
        to("/http2", "http2"),
        to("/jwt", "application"),
        to("/fault", "application", typed_per_filter_config={"envoy.filters.http.fault": fault}),
        to("/limited", "application", typed_per_filter_config={"envoy.filters.http.local_ratelimit": limit}),
        to("/rbac", "application", typed_per_filter_config={"envoy.filters.http.rbac": rbac}),
        {"match": {"prefix": f"{prefix}/blocked"}, "direct_response": {"status": 502}},
    ]


class Mesh(NamedTuple):
    """The ports of an own sidecar and of a peer's, in one Envoy."""

    own: int
    peer: int


@pytest.fixture(scope="module")
def mesh(
    upstreams: Upstreams,
    start_envoy: Callable[..., Mapping[str, int]],
    http_listener: Callable[..., Json],
    cluster: Callable[..., Json],
    http_filter: Callable[..., Json],
) -> Mesh:
    """The own sidecar calls the upstreams, and under `/peer` the peer's sidecar, which calls them in turn."""
    tls = {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"},
    }
    http2: Json = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
    clusters = [
        cluster("application", upstreams.application),
        cluster("silent", upstreams.silent),
        cluster("refusing", upstreams.refusing),
        cluster("closing", upstreams.closing),
        cluster("nobody", None),
        cluster("brief", upstreams.silent, common_http_protocol_options={"max_stream_duration": "0.05s"}),
        cluster("tls", upstreams.application, transport_socket=tls),
        cluster("http2", upstreams.application, typed_extension_protocol_options=http2),
        cluster(
            "full",
            upstreams.application,
            circuit_breakers={"thresholds": [{"max_connections": 0, "max_pending_requests": 0}]},
        ),
    ]
    inbound = filters(http_filter, "/peer")
    peer = http_listener("peer", routes("/peer"), filters=inbound, server_name="istio-envoy")
    port = start_envoy([peer], clusters)["peer"]
    to_peer = {"match": {"prefix": "/peer"}, "route": {"cluster": "peer", "timeout": "0s"}}
    own = http_listener("own", [to_peer, *routes()], filters=filters(http_filter))
    return Mesh(start_envoy([own], [*clusters, cluster("peer", port)])["own"], port)


def ask(port: int, path: str, method: str = "GET") -> tuple[int, Headers, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.getheaders()]
        return response.status, headers, response.read()
    finally:
        connection.close()


# path, status, cause, cause by the headers alone (None: the same)
SAID = [
    ("/timeout", 504, "upstream request timeout", None),
    ("/per-try", 504, "upstream request timeout", None),
    ("/idle", 504, "stream timeout", None),
    ("/duration", 504, "max stream duration", None),
    ("/upstream-duration", 504, "max stream duration", None),
    ("/nobody", 503, "no healthy upstream", None),
    ("/unknown", 503, "unknown cluster", None),
    ("/refused", 503, "connection failure", UNSURE),
    ("/retried", 503, "connection failure", UNSURE),
    ("/reset", 503, "connection reset", UNSURE),
    ("/overflow", 503, "circuit breaker", None),
    # Envoy 1.36 says why the transport failed; 1.38 and later do not.
    ("/tls", 503, "TLS failure|connection failure", UNSURE),
    ("/http2", 502, "protocol error", UNSURE),
    ("/jwt", 401, "jwt", None),
    ("/fault", 418, "fault abort", None),
    ("/limited", 429, "rate limited", None),
    ("/rbac", 403, "rbac", None),
    ("/blocked", 502, "blocked host", None),
    ("/no/such/route", 404, "no route", None),
]


@pytest.mark.envoy
@pytest.mark.parametrize(("path", "status", "reason", "by_headers"), SAID, ids=[row[0] for row in SAID])
def test_a_real_envoys_own_answers_are_told(
    mesh: Mesh, path: str, status: int, reason: str, by_headers: str | None
) -> None:
    """What this Envoy really writes, with its body, by its headers, and to a HEAD."""
    if path == "/limited":
        ask(mesh.own, path)
    got, headers, body = ask(mesh.own, path)
    assert got == status, body
    reply = classify(got, headers, body)
    assert reply is not None, (headers, body)
    assert reply.by == "sidecar"
    assert reply.reason in reason.split("|"), body
    unread = classify(got, headers, None)
    assert unread is not None
    assert (unread.by, unread.reason) == ("sidecar", by_headers or reason)
    assert classify(*ask(mesh.own, path, "HEAD")) == unread


@pytest.mark.envoy
@pytest.mark.parametrize(
    ("path", "status", "reason"), [row[:3] for row in SAID], ids=[f"/peer{row[0]}" for row in SAID]
)
def test_a_real_peers_answers_are_told_through_the_own_sidecar(mesh: Mesh, path: str, status: int, reason: str) -> None:
    """The same answers, one Envoy further away; what is empty there might be the application's."""
    if path == "/limited":
        ask(mesh.own, f"/peer{path}")
    got, headers, body = ask(mesh.own, f"/peer{path}")
    assert got == status, body
    reply = classify(got, headers, body)
    if body:
        assert reply is not None, (headers, body)
        assert reply.by == "peer-sidecar"
        assert reply.reason in reason.split("|"), body
    else:
        assert reply is None


@pytest.mark.envoy
def test_a_caller_without_a_sidecar_knows_the_peers(mesh: Mesh) -> None:
    """Straight to the inbound listener, as from outside the mesh."""
    got = ask(mesh.peer, "/peer/rbac")
    assert classify(*got) == classify(*ask(mesh.own, "/peer/rbac"))
    assert got[0] == 403


@pytest.mark.envoy
@pytest.mark.parametrize("path", ["/app/empty-404", "/app/empty-503", "/app/text-503", "/app/json-504", "/app/ok"])
@pytest.mark.parametrize("hops", ["", "/peer"], ids=["one Envoy", "two Envoys"])
def test_an_applications_answers_are_its_own(mesh: Mesh, hops: str, path: str) -> None:
    """Its errors pass through real Envoys and stay the application's, with and without the body."""
    status, headers, body = ask(mesh.own, hops + path)
    assert classify(status, headers, body) is None
    assert classify(status, headers, None) is None
