"""
Each mesh by its ports alone: it is recognised, waited for in its own way, and never taken for another.

Istio and Consul are real Envoys laid out as theirs. Linkerd, Kuma and ambient are servers that answer byte for byte as
the sources of linkerd2-proxy, kuma-dp and ztunnel say; their proxies have not been run.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any

import anyio
import pytest

from meshaware import MeshSettings, ReadinessGate
from meshaware.budgets.sources import SidecarRoutes
from meshaware.flavours import PORTS
from meshaware.instrumentation import GateOutcome, on_gate
from meshaware.mesh import Mesh
from meshaware.settings.model import MeshName
from meshaware.sidecar import schedule, waiting

Wait = Callable[..., bool]
Found = Callable[[ReadinessGate], Any]


def answer(status: str, body: str, *, kind: str = "text/plain") -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n"
    return f"{head}date: Wed, 25 Nov 2026 20:00:00 GMT\r\n\r\n{body}".encode()


# linkerd2-proxy, app/admin/src/server.rs: any unknown path is 404 with an empty body.
LINKERD_LIVE = answer("200 OK", "live\n")
LINKERD_READY = answer("200 OK", "ready\n")
LINKERD_NOT_READY = answer("503 Service Unavailable", "not ready\n")
# kuma-dp, pkg/dataplane/readiness/component.go.
KUMA_READY = answer("200 OK", "READY", kind="text/plain; charset=utf-8")
KUMA_NOT_READY = answer("503 Service Unavailable", "NOT_READY", kind="text/plain; charset=utf-8")
# The agent's body is empty, whatever it says.
AGENT_READY = b"HTTP/1.1 200 OK\r\nDate: Wed, 25 Nov 2026 20:00:00 GMT\r\nContent-Length: 0\r\n\r\n"
AGENT_NOT_READY = AGENT_READY.replace(b"200 OK", b"503 Service Unavailable")
ZTUNNEL = (15001, 15006, 15008, 15053, 15080)


@pytest.fixture(params=["sync", "asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    """The ways to wait: each promise holds for all of them."""
    backend: str = request.param
    return backend


@pytest.fixture
def wait(backend: str) -> Wait:
    """`gate.wait`, or `gate.async_wait` on an event loop."""

    def wait(gate: ReadinessGate, timeout: float | None = None, **options: Any) -> bool:
        if backend == "sync":
            return gate.wait(timeout, **options)
        return anyio.run(partial(gate.async_wait, timeout, **options), backend=backend)

    return wait


@pytest.fixture
def find(backend: str) -> Found:
    """`gate.find`, or `gate.async_find` on an event loop."""
    return lambda gate: gate.find() if backend == "sync" else anyio.run(gate.async_find, backend=backend)


def unknown_pod(**arguments: Any) -> ReadinessGate:
    """The gate of a pod of which nothing is known."""
    return ReadinessGate(MeshSettings(in_kubernetes=True, workload={}, **arguments))


def until(fact: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for a fact, for so long at most."""
    end, pause = monotonic() + seconds, Event()
    while not fact():
        assert monotonic() < end
        pause.wait(0.002)


# Linkerd


def test_linkerd_is_found_by_live_and_waited_for_by_ready(wait: Wait, ports: Any) -> None:
    """It lives at once, and is ready once it has its certificate."""
    ports.listen(4191, {"GET /live": LINKERD_LIVE, "GET /ready": LINKERD_NOT_READY})
    gate = unknown_pod()
    with ThreadPoolExecutor() as pool:
        waited = pool.submit(wait, gate, 20)
        until(lambda: gate.state.attempts >= 2)
        assert gate.flavour.name == "linkerd"
        assert gate.state[:2] == ("waiting", "http://localhost:4191/ready: 503")
        ports.answers[4191, b"GET /ready"] = LINKERD_READY
        assert waited.result(20)
    assert gate.state[:2] == ("open", "http://localhost:4191/ready: ready")
    assert ports.requests.count(b"4191 GET /live") == 1, "what is known is not looked for again"


def test_a_program_at_linkerd_s_port_is_not_linkerd(wait: Wait, ports: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An application may listen on 4191 itself."""
    monkeypatch.setattr(waiting, "GRACE", 0.1)
    ports.listen(4191, {"GET /live": answer("404 Not Found", "")})
    gate = unknown_pod()
    assert wait(gate, 20)
    assert gate.flavour.name == "unknown"
    assert "no mesh's proxy on localhost: 4191 answered 404" in gate.state.reason


# Kuma


def test_kuma_is_found_and_waited_for_at_9902(wait: Wait, ports: Any) -> None:
    """As of 2.14, where kuma-dp itself says how it stands."""
    ports.listen(9902, {"GET /ready": KUMA_NOT_READY})
    gate = unknown_pod()
    with ThreadPoolExecutor() as pool:
        waited = pool.submit(wait, gate, 20)
        until(lambda: gate.state.attempts >= 2)
        assert gate.state[:2] == ("waiting", "http://localhost:9902/ready: 503")
        ports.answers[9902, b"GET /ready"] = KUMA_READY
        assert waited.result(20)
    assert gate.flavour.name == "kuma"


def test_an_older_kuma_is_found_by_envoy_s_admin_and_its_redirect(wait: Wait, ports: Any) -> None:
    """Before 2.14 readiness is Envoy's own."""
    ports.listen(9901, {"GET /ready": answer("200 OK", "LIVE\n")})
    ports.listen(15001)
    ports.listen(15006)
    gate = unknown_pod()
    assert wait(gate, 20)
    assert gate.flavour.name == "kuma"
    assert gate.state.reason == "http://localhost:9901/ready: ready"


# Ambient


def test_ambient_is_found_by_ztunnel_s_sockets_and_not_waited_for(wait: Wait, ports: Any) -> None:
    """They are in the pod's network; readiness and admin are not."""
    for port in ZTUNNEL:
        ports.listen(port)
    gate = unknown_pod()
    assert wait(gate, 20)
    assert gate.flavour.name == "ambient"
    assert gate.state[:2] == ("open", "localhost:15008 is listening, as with Istio ambient")
    assert ports.requests == []


# Istio


@pytest.fixture
def istio(
    ports: Any, start_envoy: Callable[..., object], http_listener: Callable[..., object], cluster: Callable[..., object]
) -> Any:
    """An Envoy laid out as Istio's: 15021 passes the question on to an agent on 15020, admin on 15000."""
    ports.listen(15020, {"GET /healthz/ready": AGENT_NOT_READY})

    def start() -> None:
        routes = [{"match": {"prefix": "/healthz/ready"}, "route": {"cluster": "agent"}}]
        listeners = [
            http_listener("readiness", routes, at=(ports.host, 15021)),
            http_listener("virtualInbound", routes, at=(ports.host, 15006)),
            http_listener("hbone", routes, at=(ports.host, 15008)),
        ]
        start_envoy(listeners, [cluster("agent", 15020, ports.host)], admin=(ports.host, 15000))

    ports.start_envoy = start
    return ports


@pytest.mark.envoy
def test_istio_is_found_while_only_its_agent_answers_and_opens_with_envoy(wait: Wait, istio: Any) -> None:
    """The classic race: 15021 refuses, 15020 says 503; then Envoy is there, and ready once the agent says so."""
    gate = unknown_pod()
    with ThreadPoolExecutor() as pool:
        waited = pool.submit(wait, gate, 50)
        until(lambda: gate.state.attempts >= 2)
        assert gate.flavour.name == "istio"
        assert gate.state.reason == "http://localhost:15020/healthz/ready: 503"
        istio.start_envoy()
        until(lambda: gate.state.reason == "http://localhost:15021/healthz/ready: 503")
        istio.answers[15020, b"GET /healthz/ready"] = AGENT_READY
        assert waited.result(20)
    assert gate.state[:2] == ("open", "http://localhost:15021/healthz/ready: ready")


@pytest.mark.envoy
def test_a_sidecar_that_takes_hbone_is_not_taken_for_ambient(wait: Wait, istio: Any) -> None:
    """15006 and 15008 are ztunnel's sockets too."""
    istio.start_envoy()
    istio.answers[15020, b"GET /healthz/ready"] = AGENT_READY
    gate = unknown_pod()
    assert wait(gate, 20)
    assert gate.flavour.name == "istio"


# Consul


@pytest.fixture
def consul(
    ports: Any, start_envoy: Callable[..., object], http_listener: Callable[..., object], cluster: Callable[..., object]
) -> Any:
    """An Envoy laid out as Consul's: admin on 19000, inbound on 20000, consul-dataplane's own port 20600."""

    def start(*further: object) -> None:
        routes = [{"match": {"prefix": "/"}, "route": {"cluster": "local_app"}}]
        listeners = [http_listener("public_listener", routes, at=(ports.host, 20000)), *further]
        start_envoy(listeners, [cluster("local_app", 8080, ports.host)], admin=(ports.host, 19000))

    ports.start_envoy = start
    return ports


@pytest.mark.envoy
def test_consul_is_found_by_envoy_s_admin_beside_its_dataplane(wait: Wait, consul: Any) -> None:
    """`/ready` on 19000 opens it; of 20600 nothing is asked, for it does what it is asked for."""
    consul.listen(20600)
    consul.start_envoy()
    gate = unknown_pod()
    assert wait(gate, 20)
    assert gate.flavour.name == "consul"
    assert gate.state.reason == "http://localhost:19000/ready: ready"
    assert consul.requests == []


@pytest.mark.envoy
def test_an_envoy_of_somebody_s_own_is_no_mesh(wait: Wait, consul: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its admin may be on 19000 as well; without consul-dataplane it proves nothing."""
    monkeypatch.setattr(waiting, "GRACE", 0.1)
    consul.start_envoy()
    gate = unknown_pod()
    assert wait(gate, 20)
    assert gate.flavour.name == "unknown"


def rds(listener: Any, name: str, path: Path) -> Any:
    """The listener, with the routes of a file in the place of its own, as Consul's resolved chains have them."""
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    del manager["route_config"]
    manager["rds"] = {
        "route_config_name": name,
        "config_source": {"path_config_source": {"path": str(path)}, "resource_api_version": "V3"},
    }
    return listener


@pytest.mark.envoy
@pytest.mark.anyio
async def test_consul_s_routes_are_read_and_the_longest_holds(
    consul: Any, tmp_path: Path, http_listener: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each upstream has a configuration for any host, so a name does not tell which one a call takes."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    kind = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
    listeners: list[object] = []
    for number, (name, timeout) in enumerate((("inventory", "3s"), ("orders", "7s"))):
        routes = [{"match": {"prefix": "/"}, "route": {"cluster": "local_app", "timeout": timeout}}]
        hosts = [{"name": name, "domains": ["*"], "routes": routes}]
        document = {"resources": [{"@type": kind, "name": name, "virtual_hosts": hosts}]}
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
        listener = http_listener(name, [], at=(consul.host, 15001 + number))
        listeners.append(rds(listener, name, tmp_path / f"{name}.json"))
    consul.listen(20600)
    consul.start_envoy(*listeners)
    mesh = Mesh(MeshSettings(in_kubernetes=True, workload={}))
    assert isinstance(mesh.routes, SidecarRoutes)
    async with mesh.lifespan():
        with anyio.fail_after(20):
            while not mesh.routes.live:
                await anyio.sleep(0.01)
    assert mesh.gate.flavour.name == "consul"
    assert mesh.routes.admin_url == "http://localhost:19000"
    for host in ("inventory", "orders"):
        route = mesh.routes.current.match("GET", f"http://{host}:8080/")
        assert route is not None
        assert route.budget.timeout == 7.0


# None, and late


def test_an_empty_machine_is_unknown_after_the_grace(
    wait: Wait, ports: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing hangs: the gate opens, one line says why; but it is not said that there is no mesh."""
    caplog.set_level(logging.DEBUG, "meshaware")
    monkeypatch.setattr(waiting, "GRACE", 0.2)
    gate, begin = unknown_pod(), monotonic()
    assert gate.flavour.name == "unknown"
    assert wait(gate)
    assert 0.2 <= monotonic() - begin < 5
    assert (gate.state.status, gate.state.flavour) == ("open", "unknown")
    assert all(str(port) in gate.state.reason for port in PORTS)
    (line,) = caplog.records
    assert line.levelno == logging.INFO
    assert "going on without a mesh" in line.getMessage()


def test_a_sidecar_that_comes_after_the_grace_is_still_found(
    wait: Wait,
    find: Found,
    ports: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whoever looks on learns of it once it is ready; the gate stayed open, and the log says which mesh it is."""
    caplog.set_level(logging.DEBUG, "meshaware")
    monkeypatch.setattr(waiting, "GRACE", 0.1)
    monkeypatch.setattr(schedule, "_FIRST_PAUSE", 0.01)
    heard: list[GateOutcome] = []
    stop = on_gate(heard.append)
    heard.clear()
    gate = unknown_pod()
    assert wait(gate, 20)
    with ThreadPoolExecutor() as pool:
        found = pool.submit(find, gate)
        ports.listen(4191, {"GET /live": LINKERD_LIVE, "GET /ready": LINKERD_NOT_READY})
        until(lambda: gate.flavour.name == "linkerd")
        assert gate.is_open
        until(lambda: b"4191 GET /ready" in ports.requests)
        assert not found.done()
        ports.answers[4191, b"GET /ready"] = LINKERD_READY
        assert found.result(20).name == "linkerd"
    stop()
    assert gate.state[:2] == ("open", "localhost:4191/live answers 200, as with Linkerd")
    assert find(gate).name == "linkerd", "and at once where it is known"
    assert [outcome.result for outcome in heard] == ["absent", "opened"]
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    assert lines[1:3] == [
        "the mesh is Linkerd: localhost:4191/live answers 200, as with Linkerd",
        "waiting for the sidecar (Linkerd): http://localhost:4191/ready: 503",
    ]
    assert lines[3].startswith("the sidecar is ready after ")


def test_a_late_mesh_without_a_proxy_is_found_too(
    wait: Wait, find: Found, ports: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node may capture a pod after it has started."""
    monkeypatch.setattr(waiting, "GRACE", 0.1)
    monkeypatch.setattr(schedule, "_FIRST_PAUSE", 0.01)
    gate = unknown_pod()
    assert wait(gate, 20)
    ports.listen(15008)
    assert find(gate).name == "ambient"


@pytest.mark.parametrize("mesh", ["none", "linkerd"])
def test_where_the_mesh_is_known_nothing_is_looked_for(mesh: MeshName, find: Found, ports: Any) -> None:
    """A setting is believed, and the proxy waited for."""
    ports.listen(4191, {"GET /live": LINKERD_LIVE, "GET /ready": LINKERD_READY})
    assert find(ReadinessGate(MeshSettings(mesh=mesh))).name == mesh
    assert ports.requests == ([] if mesh == "none" else [b"4191 GET /ready"])


def test_a_gate_that_has_failed_is_waited_for_on(find: Found, ports: Any, caplog: pytest.LogCaptureFixture) -> None:
    """One line says that the time was up; a proxy that is late is still waited for."""
    gate = ReadinessGate(MeshSettings(mesh="linkerd", ready_timeout=0.05))
    with ThreadPoolExecutor() as pool:
        found = pool.submit(find, gate)
        until(lambda: any("is not ready after" in record.getMessage() for record in caplog.records))
        ports.listen(4191, {"GET /ready": LINKERD_READY})
        assert found.result(20).name == "linkerd"
    assert gate.is_open


@pytest.mark.parametrize("settings", [{"mesh": "linkerd"}, {"in_kubernetes": True, "workload": {}}], ids=str)
@pytest.mark.usefixtures("own_host")
def test_a_thread_that_looks_on_can_be_stopped(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """While it waits for a proxy that is known, and while it looks for one that is not."""
    monkeypatch.setattr(waiting, "GRACE", 0.05)
    gate, stopping = ReadinessGate(MeshSettings(**settings)), Event()
    with ThreadPoolExecutor() as pool:
        found = pool.submit(gate.find, stopping)
        until(lambda: gate.state.attempts > 2)
        stopping.set()
        assert found.result(10) is gate.flavour
    assert gate.flavour.name in ("linkerd", "unknown")


@pytest.mark.anyio
async def test_a_look_at_a_silent_port_can_be_cancelled(ports: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, and others of the event loop run meanwhile."""
    monkeypatch.setattr(waiting, "ATTEMPT", 20.0)
    ports.listen(9901)
    gate, begin, ticks = unknown_pod(), monotonic(), 0
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(gate.async_wait, 30)
        with anyio.move_on_after(0.2):
            while True:
                await anyio.sleep(0.005)
                ticks += 1
        tasks.cancel_scope.cancel()
    assert monotonic() - begin < 10
    assert ticks > 5
    assert gate.state.status == "waiting"


# Native sidecars


NATIVES: list[tuple[str, Mapping[str, str]]] = [
    ("istio", {"sidecar.istio.io/status": '{"initContainers":["istio-init","istio-proxy"],"containers":null}'}),
    ("linkerd", {"linkerd.io/proxy-version": "2.20", "config.linkerd.io/proxy-enable-native-sidecar": "true"}),
    (
        "consul",
        {
            "consul.hashicorp.com/connect-inject-status": "injected",
            "consul.hashicorp.com/enable-consul-dataplane-as-sidecar": "true",
        },
    ),
]


@pytest.mark.parametrize(("mesh", "annotations"), NATIVES, ids=[row[0] for row in NATIVES])
def test_a_native_sidecar_is_not_waited_for(
    mesh: str, annotations: Mapping[str, str], wait: Wait, caplog: pytest.LogCaptureFixture
) -> None:
    """The kubelet has done it: no request, no line; but the mesh is known."""
    caplog.set_level(logging.DEBUG, "meshaware")
    gate = ReadinessGate(MeshSettings(in_kubernetes=True, workload={"annotations": annotations}))
    assert gate.is_open
    assert wait(gate)
    assert gate.flavour.name == mesh
    assert gate.state.attempts == 0
    assert gate.state.reason.startswith("a native sidecar is ready before the application starts: the pod has the ")
    assert caplog.records == []


def test_a_classic_sidecar_is_waited_for() -> None:
    """It starts beside the application."""
    status = '{"initContainers":["istio-init"],"containers":["istio-proxy"]}'
    settings = MeshSettings(in_kubernetes=True, workload={"annotations": {"sidecar.istio.io/status": status}})
    assert settings.detected.native is False
    assert not ReadinessGate(settings).is_open


# Disabled


@pytest.mark.parametrize("variable", ["LINKERD_AWAIT_DISABLED", "LINKERD_DISABLED", "MESHAWARE_WAIT_DISABLED"])
def test_waiting_can_be_disabled_with_a_reason(
    variable: str, wait: Wait, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The gate is open from the start, and the first who waits has the reason logged, once."""
    caplog.set_level(logging.DEBUG, "meshaware")
    monkeypatch.setenv(variable, "no proxy in CI")
    gate = ReadinessGate(MeshSettings(mesh="linkerd", wait_for=["inventory:8080"]))
    assert gate.is_open
    assert caplog.records == []
    assert wait(gate)
    assert wait(gate, upstreams=["orders:8080"])
    assert gate.state.attempts == 0
    reason = "no proxy in CI" if variable.startswith("MESH") else f"{variable}=no proxy in CI"
    assert [record.getMessage() for record in caplog.records] == [
        f"not waiting for the sidecar: waiting is disabled: {reason}"
    ]
