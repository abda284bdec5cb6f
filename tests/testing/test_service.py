"""One workload: its address, its environment, its application."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meshaware import MeshSettings
from meshaware.errors import LocalMeshError
from meshaware.testing import LocalMesh, LocalService


@pytest.fixture(name="mesh")
def _mesh(envoy: str | None) -> Iterator[LocalMesh]:
    with LocalMesh(envoy=envoy, namespace="shop", otlp="http://127.0.0.1:4318") as mesh:
        yield mesh


@pytest.fixture(name="orders")
def _orders(mesh: LocalMesh) -> LocalService:
    return mesh.add("orders", version="v2", labels={"team": 'say "hi"'}, service_account="clerk", start=False)


def test_the_environment_is_a_good_deployments(orders: LocalService, monkeypatch: pytest.MonkeyPatch) -> None:
    """meshaware's settings find everything in it, and nothing of Istio's fixed ports."""
    for name, value in orders.environment().items():
        monkeypatch.setenv(name, value)
    settings = MeshSettings()
    workload = settings.workload
    assert settings.mesh == "istio"
    assert (workload.pod_name, workload.namespace) == (orders.pod_name, "shop")
    assert (workload.service, workload.version, workload.service_account) == ("orders", "v2", "clerk")
    assert (workload.node_name, workload.pod_ip) == ("local-node", "127.0.0.1")
    assert workload.labels == orders.labels
    assert workload.labels["team"] == 'say "hi"'
    assert json.loads(workload.annotations["sidecar.istio.io/status"])["containers"] == ["istio-proxy"]
    assert settings.outbound_proxy == orders.sidecar.outbound_url
    assert settings.admin_url == orders.sidecar.admin_url
    assert settings.ready_url == orders.sidecar.ready_url
    assert orders.environment()["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://127.0.0.1:4318"


def test_settings_are_the_same_without_the_environment(orders: LocalService, monkeypatch: pytest.MonkeyPatch) -> None:
    """For an application in the test's own process; arguments win."""
    here = orders.settings(timeout="2s")
    for name, value in orders.environment().items():
        monkeypatch.setenv(name, value)
    there = MeshSettings(timeout="2s")
    values = [settings.model_dump(exclude={"workload": {"origins"}}) for settings in (here, there)]
    assert values[0] == values[1]
    assert here.timeout == 2.0


def test_pods_have_names_of_their_own_that_stay(mesh: LocalMesh) -> None:
    """The same in every run."""
    first, second = mesh.add("items", start=False), mesh.add("items", start=False)
    assert first.pod_name.startswith("items-v1-")
    assert first.pod_name.rpartition("-")[0] == second.pod_name.rpartition("-")[0]
    assert first.pod_name != second.pod_name
    assert repr(first) == "<LocalService items.shop, version v1>"


def test_a_client_has_no_address_of_an_application(mesh: LocalMesh) -> None:
    """It only calls."""
    me = mesh.add("me", app=False, start=False)
    with pytest.raises(LocalMeshError, match="was added with app=False"):
        _ = me.app_address


def test_the_port_refuses_until_the_application_listens(orders: LocalService) -> None:
    """Held for it all the same."""
    address = ("127.0.0.1", orders.app_port)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
    with socket.socket() as own:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        own.bind(address)
        own.listen()
        socket.create_connection(address).close()


def test_the_socket_listens_and_is_replaced_when_closed(orders: LocalService) -> None:
    """At the same address, so that an application can be started again."""
    first = orders.socket
    assert first is orders.socket
    assert first.get_inheritable()
    socket.create_connection(("127.0.0.1", orders.app_port)).close()
    first.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", orders.app_port))
    assert orders.socket is not first
    assert orders.socket.getsockname() == ("127.0.0.1", orders.app_port)


SERVER = """
import asyncio, sys
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"from a process"})
import uvicorn
uvicorn.run(app, lifespan="off", log_level="error", **{sys.argv[1]: int(sys.argv[2])})
"""


@pytest.mark.envoy
@pytest.mark.parametrize("way", ["fd", "port"])
def test_an_application_in_a_process_of_its_own(
    mesh: LocalMesh, orders: LocalService, get: Any, wait_for: Any, way: str
) -> None:
    """By the inherited socket, or by the number of its port."""
    me = mesh.add("me", app=False)
    orders.sidecar.start()
    number = orders.socket.fileno() if way == "fd" else orders.app_port
    passed = [number] if way == "fd" else []
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, way, str(number)],
        pass_fds=passed,
        env={**os.environ, **orders.environment()},
    ) as process:
        try:
            assert wait_for(lambda: get(me.sidecar.outbound_url, "orders").body == b"from a process")
        finally:
            process.terminate()


@pytest.mark.envoy
def test_serve_runs_an_application_in_this_process(mesh: LocalMesh, get: Any) -> None:
    """Its lifespan too; and again after it was stopped, at the same address."""
    said: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                said.append(message["type"])
                await send({"type": message["type"] + ".complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    me, hello = mesh.add("me", app=False), mesh.serve("hello", app)
    assert get(me.sidecar.outbound_url, "hello").status == 204
    with pytest.raises(LocalMeshError, match="serves an application already"):
        hello.serve(app)
    hello.stop_serving()
    hello.stop_serving()
    assert said == ["lifespan.startup", "lifespan.shutdown"]
    assert get(me.sidecar.outbound_url, "hello").status == 503
    hello.serve(app)
    assert get(me.sidecar.outbound_url, "hello").status == 204


def test_podinfo_is_written_into_the_meshs_own_directory(orders: LocalService) -> None:
    directory = Path(orders.environment()["MESHAWARE_PODINFO"])
    assert 'team="say \\"hi\\""' in (directory / "labels").read_text()
    assert (directory / "annotations").exists()


def test_popen_starts_a_program_as_the_application(
    orders: LocalService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its environment, what is given on top, this process's, and no proxy of this machine's."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("OF_THE_TEST", "1")
    script = "import json, os; print(json.dumps([dict(os.environ), os.getcwd()]))"
    process = orders.popen(
        [sys.executable, "-c", script], env={"POD_IP": "10.0.0.1"}, cwd=str(tmp_path), stdout=subprocess.PIPE, text=True
    )
    variables, directory = json.loads(process.communicate(timeout=30)[0])
    assert orders.environment() | {"POD_IP": "10.0.0.1", "OF_THE_TEST": "1"} == {
        name: variables[name] for name in [*orders.environment(), "OF_THE_TEST"]
    }
    assert "HTTPS_PROXY" not in variables
    assert directory == str(tmp_path)
    with pytest.raises(FileNotFoundError):
        orders.popen(["no-such-program"])


def test_what_popen_started_ends_with_the_mesh(envoy: str | None) -> None:
    """It is asked to first."""
    with LocalMesh(envoy=envoy) as mesh:
        process = mesh.add("orders", start=False).popen(["sleep", "60"])
        assert process.poll() is None
    assert process.returncode == -15
