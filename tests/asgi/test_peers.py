"""Who called: believed only from the proxy beside this process, and read right from what a real Envoy writes."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from time import monotonic, sleep
from typing import Any, NamedTuple, cast

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fastapi import FastAPI

from meshaware.asgi.middleware import MeshMiddleware
from meshaware.asgi.peers import peer_reader
from meshaware.asgi.types import Message, Receive, Scope, Send
from meshaware.flavours import FLAVOURS
from meshaware.identity import Peer, SpiffeId
from meshaware.mesh import Mesh
from meshaware.propagation.context import bind_headers
from meshaware.propagation.inbound import current_peer
from meshaware.settings import MeshSettings
from meshaware.settings.model import MeshName
from meshaware.sidecar.readiness import ReadinessGate
from meshaware.testing.envoy import find_envoy
from meshaware.testing.ports import LOOPBACK, HeldPort
from meshaware.testing.processes import ProcessGroup, end
from meshaware.testing.serving import AppThread

ORDERS = "spiffe://cluster.local/ns/shop/sa/orders"
XFCC = (
    b"x-forwarded-client-cert",
    b'By=spiffe://cluster.local/ns/shop/sa/me;Hash=00;Subject="";URI=' + ORDERS.encode(),
)
CLIENT_ID = (b"l5d-client-id", b"orders.shop.serviceaccount.identity.linkerd.cluster.local")
BOTH: list[tuple[bytes, bytes]] = [XFCC, CLIENT_ID]


# Which header is believed


@pytest.mark.parametrize(
    ("mesh", "name"),
    [
        ("istio", ORDERS),
        ("consul", ORDERS),
        ("kuma", ORDERS),
        ("linkerd", CLIENT_ID[1].decode()),
        ("ambient", None),  # ztunnel does not look at headers: anybody may have written them
        ("none", None),
    ],
)
def test_each_mesh_is_believed_in_its_own_header_only(mesh: MeshName, name: str | None) -> None:
    peer = peer_reader(MeshSettings(mesh=mesh))(BOTH)
    assert (None if peer is None else peer.name) == name


def test_the_pods_own_labels_are_proof_of_a_proxy() -> None:
    settings = MeshSettings(in_kubernetes=True, workload={"labels": {"security.istio.io/tlsMode": "istio"}})
    assert peer_reader(settings)(BOTH) == Peer(ORDERS, "spiffe://cluster.local/ns/shop/sa/me")


def test_a_pod_of_which_nothing_is_known_believes_nobody() -> None:
    """A sidecar is likely there, but likely is not enough."""
    assert peer_reader(MeshSettings(in_kubernetes=True))(BOTH) is None


class _Gate:
    """A gate, as far as it is asked here."""

    is_open = False
    flavour = FLAVOURS["istio"]


@pytest.mark.parametrize(
    ("answered", "flavour", "believed"), [(False, "istio", False), (True, "istio", True), (True, "none", False)]
)
def test_a_proxy_that_answered_the_gate_is_proof_from_then_on(answered: bool, flavour: str, believed: bool) -> None:
    gate = _Gate()
    read = peer_reader(MeshSettings(in_kubernetes=True), cast("ReadinessGate", gate))
    assert read(BOTH) is None
    gate.is_open, gate.flavour = answered, FLAVOURS[flavour]
    assert (read(BOTH) is not None) is believed


def test_settings_that_tell_the_mesh_need_no_gate() -> None:
    gate = _Gate()
    assert peer_reader(MeshSettings(mesh="istio"), cast("ReadinessGate", gate))(BOTH) is not None
    assert peer_reader(MeshSettings(mesh="none"), cast("ReadinessGate", gate))(BOTH) is None


@pytest.mark.anyio
async def test_a_mesh_s_middleware_asks_the_mesh_s_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    app = FastAPI()
    Mesh(MeshSettings(in_kubernetes=True)).install(app, telemetry=False)

    @app.get("/")
    async def _who() -> str:
        return str(current_peer())

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://me") as client:
        assert (await client.get("/", headers=BOTH)).json() == "None"
        monkeypatch.setattr(ReadinessGate, "is_open", True)
        assert (await client.get("/", headers=BOTH)).json() == "None"
        monkeypatch.setattr(ReadinessGate, "flavour", FLAVOURS["istio"])
        assert (await client.get("/", headers=BOTH)).json() == ORDERS


# What the application sees


async def receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: Message) -> None:
    pass


def served(headers: list[tuple[bytes, bytes]], mesh: MeshName = "istio", kind: str = "http") -> list[Peer | None]:
    """Who called, as a request sees it in itself, in a block of bind_headers, in a task and in a thread."""
    seen = list[Peer | None]()

    async def note() -> None:
        seen.append(current_peer())

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(current_peer())
        with bind_headers({"x-request-id": "2"}):
            seen.append(current_peer())
        await asyncio.create_task(note())
        seen.append(await asyncio.to_thread(current_peer))

    async def main() -> None:
        await MeshMiddleware(app, MeshSettings(mesh=mesh))({"type": kind, "headers": headers}, receive, send)
        seen.append(current_peer())

    asyncio.run(main())
    return seen


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_a_request_can_ask_who_called_and_afterwards_nobody_did(kind: str) -> None:
    peer = Peer(ORDERS, "spiffe://cluster.local/ns/shop/sa/me")
    assert served([XFCC], kind=kind) == [peer, peer, peer, peer, None]


def test_without_a_mesh_a_forged_header_shows_nobody() -> None:
    assert served(BOTH, mesh="none") == [None] * 5
    assert served(BOTH, mesh="ambient") == [None] * 5


def test_who_called_is_read_when_it_is_asked_for_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = list[object]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert reads == []
        assert current_peer() is current_peer()

    def read(headers: Any) -> Peer:
        reads.append(headers)
        return Peer(ORDERS)

    middleware = MeshMiddleware(app, MeshSettings(mesh="istio"))
    monkeypatch.setattr(middleware, "_read_peer", read)
    headers = [XFCC]
    asyncio.run(middleware({"type": "http", "headers": headers}, receive, send))
    assert len(reads) == 1
    assert reads[0] is headers


def test_a_worker_has_no_caller() -> None:
    with bind_headers({"x-request-id": "1"}):
        assert current_peer() is None


# A real Envoy

_DETAILS = {
    # As Istio's sidecars have it by default.
    "istio": ("APPEND_FORWARD", {"subject": True, "uri": True, "dns": True}),
    "consul": ("APPEND_FORWARD", {"subject": True, "cert": True, "chain": True, "dns": True, "uri": True}),
    "kuma": ("SANITIZE_SET", {"uri": True}),
}
_TRICKY = 'Orders; "and, sons\\'


# From 3.13 on Python checks certificates as RFC 5280 says, which wants this and the key identifiers.
_SIGNS = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


class Pki(NamedTuple):
    directory: Path
    key: ec.EllipticCurvePrivateKey
    name: x509.Name


def _issue(pki: Pki, file: str, uris: list[str], common_name: str = "") -> Path:
    """A certificate of the mesh with its key, both in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else [])
    names = [*map(x509.UniformResourceIdentifier, uris), x509.DNSName("a.example"), x509.DNSName("b.example")]
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(pki.name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(pki.key.public_key()), critical=False)
        .sign(pki.key, hashes.SHA256())
    )
    path = pki.directory / file
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + _pem(key))
    return path


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.fixture(name="pki", scope="module")
def _pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    directory = tmp_path_factory.mktemp("pki")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "cluster.local")])
    now = datetime.now(UTC)
    root = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_SIGNS, critical=True)
        .sign(key, hashes.SHA256())
    )
    (directory / "root.pem").write_bytes(root.public_bytes(serialization.Encoding.PEM))
    return Pki(directory, key, name)


def _listener(name: str, port: int, details: tuple[str, Mapping[str, bool]], pki: Pki | None, own: Path) -> Any:
    typed = "type.googleapis.com/envoy.extensions"
    manager = {
        "@type": f"{typed}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "forward_client_cert_details": details[0],
        "set_current_client_cert_details": details[1],
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{typed}.filters.http.router.v3.Router"}},
        ],
        "route_config": {
            "virtual_hosts": [
                {"name": "app", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "app"}}]}
            ]
        },
    }
    chain: dict[str, Any] = {"filters": [{"name": "http", "typed_config": manager}]}
    if pki is not None:
        chain["transport_socket"] = {
            "name": "tls",
            "typed_config": {
                "@type": f"{typed}.transport_sockets.tls.v3.DownstreamTlsContext",
                "require_client_certificate": True,
                "common_tls_context": {
                    "tls_certificates": [
                        {"certificate_chain": {"filename": str(own)}, "private_key": {"filename": str(own)}}
                    ],
                    "validation_context": {"trusted_ca": {"filename": str(pki.directory / "root.pem")}},
                },
            },
        }
    address = {"socket_address": {"address": LOOPBACK, "port_value": port}}
    return {"name": name, "address": address, "filter_chains": [chain]}


@pytest.fixture(name="ports", scope="module")
def _ports(pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, int]]:
    """One Envoy, with a listener for each mesh and one without mTLS; behind it an application that tells who called."""
    directory = tmp_path_factory.mktemp("envoy")
    names = ("app", "plain", *_DETAILS)
    held = {name: HeldPort() for name in names}
    ports = {name: port.number for name, port in held.items()}
    own = _issue(pki, "own.pem", ["spiffe://cluster.local/ns/shop/sa/me"])
    listeners = [_listener(mesh, ports[mesh], details, pki, own) for mesh, details in _DETAILS.items()]
    listeners.append(_listener("plain", ports["plain"], _DETAILS["istio"], None, own))
    endpoint = {"endpoint": {"address": {"socket_address": {"address": LOOPBACK, "port_value": ports["app"]}}}}
    cluster = {
        "name": "app",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": "app", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    config = directory / "envoy.json"
    config.write_text(json.dumps({"static_resources": {"listeners": listeners, "clusters": [cluster]}}))
    app = AppThread(MeshMiddleware(_tell, MeshSettings(mesh="istio")), held["app"].listen(), "app", {"lifespan": "off"})
    group = ProcessGroup(directory)
    command = [str(find_envoy()), "--config-path", str(config), "--disable-hot-restart", "--concurrency", "1"]
    app.start()
    envoy = group.spawn([*command, "--log-level", "warning"], log=tmp_path_factory.getbasetemp() / "xfcc-envoy.log")
    try:
        _await_listener(ports["plain"])
        yield ports
    finally:
        end(envoy, 10)
        group.close()
        app.stop()
        for port in held.values():
            port.release()


def _await_listener(port: int) -> None:
    until = monotonic() + 30
    while True:
        connection = HTTPConnection(LOOPBACK, port, timeout=5)
        try:
            connection.connect()
        except ConnectionRefusedError:
            assert monotonic() < until, "Envoy does not listen"
            sleep(0.05)
        else:
            return
        finally:
            connection.close()


async def _tell(scope: Scope, receive: Receive, send: Send) -> None:
    peer = current_peer()
    lines = [value.decode() for name, value in scope["headers"] if name == b"x-forwarded-client-cert"]
    body = json.dumps({"peer": peer, "lines": lines}).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def ask(
    ports: Mapping[str, int], listener: str, pki: Pki, client: Path | None, *forged: str
) -> tuple[Peer | None, list[str]]:
    """Call through a listener, with headers of one's own; returns who called and the lines that arrived."""
    if client is None:
        connection = HTTPConnection(LOOPBACK, ports[listener], timeout=20)
    else:
        context = ssl.create_default_context(cafile=str(pki.directory / "root.pem"))
        context.check_hostname = False
        context.load_cert_chain(client)
        connection = HTTPSConnection(LOOPBACK, ports[listener], timeout=20, context=context)
    try:
        connection.putrequest("GET", "/")
        for value in forged:
            connection.putheader("x-forwarded-client-cert", value)
        connection.endheaders()
        answer = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    return None if answer["peer"] is None else Peer(*answer["peer"]), answer["lines"]


ME = "spiffe://cluster.local/ns/shop/sa/me"
FORGERIES = [
    (),
    ("URI=spiffe://cluster.local/ns/admin/sa/root",),  # a whole element
    ("URI=spiffe://cluster.local/ns/admin/sa/root", "By=spiffe://x;URI=spiffe://y"),  # on two lines
    ('Subject="',),  # a quote that what is appended is to close
    ('"\\', "\\"),
    ('URI=spiffe://cluster.local/ns/admin/sa/root;Subject="a,',),
    (",",),
    (';;=,="""',),
]


@pytest.mark.envoy
@pytest.mark.parametrize("forged", FORGERIES, ids=repr)
@pytest.mark.parametrize("mesh", _DETAILS)
def test_of_what_envoy_hands_on_the_peer_of_the_connection_is_read_whatever_the_caller_sent(
    ports: Mapping[str, int], pki: Pki, mesh: str, forged: tuple[str, ...]
) -> None:
    client = _issue(pki, "orders.pem", [ORDERS])
    peer, lines = ask(ports, mesh, pki, client, *forged)
    assert peer == Peer(ORDERS, ME)
    assert peer is not None
    assert peer.spiffe_id == SpiffeId("cluster.local", "shop", "orders")
    # Envoy joins lines and appends with a comma: two lines never come from it.
    assert len(lines) == 1
    if mesh != "kuma":
        assert lines[0].startswith(",".join(forged))


@pytest.mark.envoy
@pytest.mark.parametrize("mesh", ["istio", "consul"])
def test_a_subject_with_quotes_commas_and_backslashes_does_not_confuse(
    ports: Mapping[str, int], pki: Pki, mesh: str
) -> None:
    client = _issue(pki, "tricky.pem", [ORDERS], _TRICKY)
    peer, lines = ask(ports, mesh, pki, client)
    assert '\\"' in lines[0]
    assert peer == Peer(ORDERS, ME)


@pytest.mark.envoy
def test_the_many_uris_of_an_older_kuma_hold_one_identity(ports: Mapping[str, int], pki: Pki) -> None:
    uris = ["spiffe://default/orders", "kuma://kuma.io/zone/east", "kuma://version/v1"]
    peer, lines = ask(ports, "kuma", pki, _issue(pki, "kuma.pem", uris))
    assert lines[0].count(";URI=") == 3
    assert peer == Peer("spiffe://default/orders", ME)


@pytest.mark.envoy
def test_without_mutual_tls_envoy_takes_the_header_away(ports: Mapping[str, int], pki: Pki) -> None:
    for forged in FORGERIES:
        assert ask(ports, "plain", pki, None, *forged) == (None, [])


@pytest.mark.envoy
def test_a_certificate_without_a_uri_names_nobody(ports: Mapping[str, int], pki: Pki) -> None:
    peer, lines = ask(ports, "istio", pki, _issue(pki, "nobody.pem", []), "URI=spiffe://cluster.local/ns/admin/sa/root")
    assert lines[0].endswith("URI=;DNS=a.example;DNS=b.example")
    assert peer is None
