"""One Envoy process."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from meshaware.errors import LocalMeshError, SidecarUnavailable
from meshaware.sidecar.admin import fetch
from meshaware.testing import LocalMesh, LocalService
from meshaware.testing.discovery import Resources, accepted_version

pytestmark = pytest.mark.envoy


def gone(pid: int) -> bool:
    """Whether there is no such process any more, not even a zombie."""
    return not Path(f"/proc/{pid}").exists()


def refuses(url: str) -> bool:
    """Whether nobody listens there."""
    try:
        fetch(url)
    except SidecarUnavailable as error:
        return error.cause == "refused"
    return False


@pytest.fixture(name="lone")
def _lone(envoy: str | None) -> Any:
    """A mesh with one service whose sidecar is not started."""
    with LocalMesh(envoy=envoy) as mesh:
        yield mesh.add("lone", start=False)


def test_every_port_is_known_and_refuses_before_the_sidecar_is_started(lone: LocalService) -> None:
    """An application that starts first polls a port that nobody else can take."""
    sidecar = lone.sidecar
    before = lone.environment()
    assert not sidecar.running
    assert sidecar.pid is None
    assert all(map(refuses, (sidecar.ready_url, sidecar.admin_url, sidecar.outbound_url, sidecar.inbound_url)))
    sidecar.start()
    assert fetch(sidecar.ready_url).status == 200
    assert lone.environment() == before


def test_a_sidecar_that_was_killed_comes_back_on_the_same_ports(
    lone: LocalService, wait_for: Callable[[Callable[[], Any]], Any]
) -> None:
    """So what the application was told stays true."""
    sidecar = lone.sidecar
    sidecar.start()
    first, urls = sidecar.pid, (sidecar.admin_url, sidecar.ready_url, sidecar.outbound_url)
    assert first is not None
    # A connection that the end of the process leaves half closed must not keep it from binding again.
    with socket.create_connection((urlsplit(sidecar.outbound_url).hostname, urlsplit(sidecar.outbound_url).port)):
        sidecar.kill()
    assert gone(first)
    assert refuses(sidecar.ready_url)
    sidecar.start()
    assert sidecar.pid not in {None, first}
    assert (sidecar.admin_url, sidecar.ready_url, sidecar.outbound_url) == urls
    assert fetch(sidecar.ready_url).status == 200


def test_stop_ends_the_process_and_stopping_twice_is_no_error(lone: LocalService) -> None:
    """Neither is stopping what never ran."""
    lone.sidecar.stop()
    lone.sidecar.kill()
    lone.sidecar.start()
    pid = lone.sidecar.pid
    assert pid is not None
    lone.sidecar.start()
    assert lone.sidecar.pid == pid
    lone.sidecar.stop(wait=False)
    lone.sidecar.stop()
    assert gone(pid)
    assert repr(lone.sidecar) == "<Sidecar of lone v1, not running>"


def test_an_envoy_that_does_not_stop_is_killed(lone: LocalService, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait is bounded, and nothing is left."""
    monkeypatch.setattr("meshaware.testing.sidecar._STOPPED_WITHIN", 0.1)
    lone.sidecar.start()
    pid = lone.sidecar.pid
    assert pid is not None
    # A stopped process does not hear SIGTERM.
    os.kill(pid, 19)
    lone.sidecar.stop()
    assert gone(pid)


def test_it_calls_itself_what_istio_would_call_it(lone: LocalService) -> None:
    """Node id, cluster and metadata, with Istio's odd types."""
    lone.sidecar.start()
    node = json.loads(lone.sidecar.admin("/server_info"))["node"]
    assert node["id"] == f"sidecar~127.0.0.1~{lone.pod_name}.default~default.svc.cluster.local"
    assert node["cluster"] == "lone.default"
    metadata = node["metadata"]
    assert (metadata["WORKLOAD_NAME"], metadata["SERVICE_ACCOUNT"]) == ("lone-v1", "lone")
    assert metadata["LABELS"]["service.istio.io/canonical-name"] == "lone"
    assert isinstance(metadata["INSTANCE_IPS"], str)


def test_an_admin_error_is_raised_with_its_text(lone: LocalService) -> None:
    lone.sidecar.start()
    with pytest.raises(LocalMeshError, match=r"/config_dump\?resource=nonsense: status 404"):
        lone.sidecar.admin("/config_dump?resource=nonsense")


def test_the_access_log_tells_what_became_of_a_request(shop: Any, wait_for: Any) -> None:
    """With Envoy's flags."""
    shop.call("/wait/5", headers={"x-request-id": "logged"})

    def logged() -> list[dict[str, Any]]:
        return [entry for entry in shop.tester.sidecar.access_log() if entry["request_id"] == "logged"]

    (entry,) = wait_for(logged)
    assert (entry["direction"], entry["status"], entry["flags"], entry["route"]) == ("outbound", 504, "UT", "short")
    assert entry["cluster"] == "outbound|8080|v1|inventory.default.svc.cluster.local"


def test_the_log_can_be_read_whole_or_from_its_end(lone: LocalService) -> None:
    assert lone.sidecar.logs() == []
    assert lone.sidecar.access_log() == []
    lone.sidecar.start()
    everything = lone.sidecar.logs()
    assert everything
    assert lone.sidecar.logs(1) == everything[-1:]
    assert lone.sidecar.logs(0) == []


def test_an_envoy_that_refuses_its_configuration_is_quoted(tmp_path: Path) -> None:
    """The error ends with what it said last."""
    envoy = tmp_path / "envoy"
    envoy.write_text("#!/bin/sh\nfor i in $(seq 30); do echo line $i; done\necho 'no such field' >&2\nexit 7\n")
    envoy.chmod(0o755)
    with pytest.raises(LocalMeshError) as caught, LocalMesh(envoy=envoy) as mesh:
        mesh.add("lone")
    lines = str(caught.value).splitlines()
    assert lines[0] == "the sidecar of lone v1 ended (exit code 7) before it was ready; Envoy said last:"
    assert lines[1:] == [*(f"  line {i}" for i in range(12, 31)), "  no such field"]


def test_an_envoy_that_never_gets_ready_is_given_up(tmp_path: Path) -> None:
    """After `start_timeout`, and it is stopped."""
    envoy, pid = tmp_path / "envoy", tmp_path / "pid"
    envoy.write_text(f"#!/bin/sh\necho $$ > {pid}\nexec sleep 60\n")
    envoy.chmod(0o755)
    mesh = LocalMesh(envoy=envoy, start_timeout=0.3)
    mesh.add("lone")
    with pytest.raises(LocalMeshError, match="was not ready within 300ms; Envoy said last: nothing"):
        mesh.start()
    assert gone(int(pid.read_text()))


def test_it_is_asked_until_it_has_what_it_was_given(lone: LocalService, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers of the old version are no reason to give up."""
    versions: list[str | None] = []

    def late(resources: Resources, body: bytes) -> str | None:
        versions.append(accepted_version(resources, body) if len(versions) > 3 else None)
        return versions[-1]

    monkeypatch.setattr("meshaware.testing.sidecar.accepted_version", late)
    lone.sidecar.start()
    assert versions[:4] == [None] * 4
    assert versions[-1] is not None


def test_a_program_that_cannot_be_run_is_named(tmp_path: Path) -> None:
    envoy = tmp_path / "envoy"
    envoy.write_text("not a program")
    envoy.chmod(0o755)
    with LocalMesh(envoy=envoy) as mesh, pytest.raises(LocalMeshError, match=f"{envoy} cannot be run"):
        mesh.add("lone")


def test_waiting_for_what_was_never_started_is_an_error(lone: LocalService) -> None:
    with pytest.raises(LocalMeshError, match="exit code none, it was never started"):
        lone.sidecar.wait_ready()
    lone.sidecar.wait_configured()
