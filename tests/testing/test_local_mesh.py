"""The mesh as a whole: started, changed, stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import pytest

from meshaware.errors import LocalMeshError
from meshaware.sidecar.admin import fetch
from meshaware.testing import LocalMesh

HELLO = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: hello}\nspec:\n  hosts: [hello]\n"
TIMEOUT = HELLO + "  http: [{timeout: %s, route: [{destination: {host: hello}}]}]\n"
ANSWER = HELLO + "  http: [{directResponse: {status: %d}}]\n"
SLOW = HELLO + "  http: [{match: [{uri: {regex: '%s'}}], directResponse: {status: 200}}]\n"


def alive(pids: list[int]) -> list[int]:
    """Those that are still there, zombies included."""
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def children() -> set[int]:
    """Every process that this one has started and not waited for."""
    me = os.getpid()
    return {int(pid) for pid in Path(f"/proc/{me}/task/{me}/children").read_text().split()}


@pytest.mark.envoy
def test_four_workloads_are_ready_within_seconds_and_leave_nothing(envoy: str | None) -> None:
    """Declared first, they start at the same time; after the block no process and no file is left."""
    before = children()
    begin = time.monotonic()
    mesh = LocalMesh(envoy=envoy)
    services = [mesh.add(name) for name in ("one", "two", "three", "four")]
    directory = Path(services[0].environment()["MESHAWARE_PODINFO"])
    with mesh:
        ready = time.monotonic() - begin
        pids = [pid for service in services if (pid := service.sidecar.pid) is not None]
        assert len(pids) == 4
        assert all(fetch(service.sidecar.ready_url).status == 200 for service in services)
        assert mesh.services == tuple(services)
    assert ready < 5
    assert not alive(pids)
    assert children() == before
    assert not directory.exists()


@pytest.mark.envoy
def test_a_workload_that_is_added_later_is_known_to_all(envoy: str | None, get: Any) -> None:
    """When add returns."""
    with LocalMesh(envoy=envoy) as mesh:
        tester = mesh.add("tester", app=False)
        outbound = tester.sidecar.outbound_url
        assert get(outbound, "late").status == 502

        async def hello(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"hello"})

        mesh.serve("late", hello, lifespan="off")
        assert get(outbound, "late").body == b"hello"


@pytest.mark.envoy
def test_apply_changes_routes_without_a_restart_and_for_every_sidecar(envoy: str | None, get: Any) -> None:
    """As kubectl apply: by kind, namespace and name."""
    mesh = LocalMesh(ANSWER % 201, envoy=envoy)
    tester, other = mesh.add("tester", app=False), mesh.add("hello")
    with mesh:
        pids = [tester.sidecar.pid, other.sidecar.pid]
        for status in (202, 203):
            mesh.apply(ANSWER % status)
            assert get(tester.sidecar.outbound_url, "hello").status == status
            assert get(other.sidecar.outbound_url, "hello").status == status
        mesh.apply((ANSWER % 204).replace("name: hello", "name: another"))
        assert get(tester.sidecar.outbound_url, "hello").status == 203
        assert [tester.sidecar.pid, other.sidecar.pid] == pids


@pytest.mark.envoy
def test_apply_changes_a_timeout(envoy: str | None, get: Any) -> None:
    """From a file, too."""
    with LocalMesh(TIMEOUT % "5s", envoy=envoy) as mesh:
        tester, hello = mesh.add("tester", app=False), mesh.add("hello")
        assert hello.socket.fileno() > 0  # listens, and never answers
        mesh.apply(TIMEOUT % "100ms")
        answer = get(tester.sidecar.outbound_url, "hello")
        assert (answer.status, answer.seconds < 2) == (504, True)


@pytest.mark.envoy
def test_a_workload_that_is_withdrawn_gets_no_more_requests(envoy: str | None, get: Any) -> None:
    """As a pod that is deleted; the service stays, with nobody behind it in the end."""
    with LocalMesh(envoy=envoy) as mesh:
        outbound = mesh.add("tester", app=False).sidecar.outbound_url

        def answering(body: bytes) -> Any:
            async def app(scope: Any, receive: Any, send: Any) -> None:
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": body})

            return app

        one, two = (mesh.serve("hello", answering(body), lifespan="off") for body in (b"one", b"two"))
        mesh.withdraw(one)
        assert [get(outbound, "hello").body for _ in range(4)] == [b"two"] * 4
        mesh.withdraw(two)
        assert get(outbound, "hello").body == b"no healthy upstream"
        mesh.restore(one)
        assert [get(outbound, "hello").body for _ in range(4)] == [b"one"] * 4


@pytest.mark.envoy
def test_what_no_route_names_any_more_goes_last(envoy: str | None, get: Any) -> None:
    """A subset that is taken away; Envoy has it until the routes are changed."""
    rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: hello}\nspec:\n  host: hello\n"
    with LocalMesh(rule + "  subsets: [{name: blue}]\n", envoy=envoy) as mesh:
        tester = mesh.add("tester", app=False)
        mesh.add("hello")
        mesh.apply(rule + "  subsets: [{name: green}]\n")
        clusters = tester.sidecar.admin("/clusters").decode()
        assert "|green|hello" in clusters
        assert "|blue|hello" not in clusters


@pytest.mark.envoy
def test_routes_that_envoy_refuses_change_nothing(envoy: str | None, get: Any) -> None:
    """The error quotes Envoy, and what was there before goes on."""
    with LocalMesh(SLOW % "/.*", envoy=envoy) as mesh:
        tester = mesh.add("tester", app=False)
        mesh.add("hello")
        begin = time.monotonic()
        with pytest.raises(
            LocalMeshError, match=r"(?s)tester v1 refused what it was given.*no argument for repetition"
        ):
            mesh.apply(SLOW % "*wrong")
        assert time.monotonic() - begin < 3
        assert get(tester.sidecar.outbound_url, "hello").status == 200
        mesh.apply(ANSWER % 202)
        assert get(tester.sidecar.outbound_url, "hello").status == 202


def test_an_unsupported_field_is_refused_by_name_before_anything_starts(tmp_path: Path) -> None:
    """File, document and field."""
    file = tmp_path / "cors.yaml"
    file.write_text(
        (ANSWER % 200) + "---\n" + HELLO + "  http:\n  - route: [{destination: {host: a}}]\n    corsPolicy: {}\n"
    )
    with pytest.raises(LocalMeshError) as caught:
        LocalMesh(tmp_path)
    assert str(caught.value) == (
        f"{file}, document 2 (VirtualService default/hello): spec.http[0].corsPolicy:"
        " LocalMesh does not support this field"
    )


def test_apply_refuses_before_it_changes_anything() -> None:
    with LocalMesh() as mesh:
        with pytest.raises(LocalMeshError, match=r"spec\.tls: LocalMesh does not support this field"):
            mesh.apply(HELLO + "  tls: []\n")
        mesh.add("fine", start=False)


def test_names_ports_and_order_are_checked() -> None:
    """Before a process is started."""
    with LocalMesh() as mesh:
        mesh.add("hello", start=False)
        with pytest.raises(LocalMeshError, match=r"hello\.default has the port 8080 already, not 9090"):
            mesh.add("hello", version="v2", port=9090, start=False)
        mesh.add("hello", namespace="other", port=9090, start=False)
        with pytest.raises(LocalMeshError, match=r"service '\.\./up' cannot be used: it takes lower-case"):
            mesh.add("../up", start=False)
        with pytest.raises(LocalMeshError, match="version 'v 1' cannot be used"):
            mesh.add("hello", version="v 1", start=False)
    for use in (mesh.start, lambda: mesh.add("late")):
        with pytest.raises(LocalMeshError, match="this LocalMesh is stopped: make a new one"):
            use()
    mesh.stop()


@pytest.mark.envoy
def test_when_one_does_not_start_the_others_are_stopped(envoy: str | None, tmp_path: Path) -> None:
    """And the error is that one's."""
    mesh = LocalMesh(envoy=envoy)
    good, bad = mesh.add("good"), mesh.add("bad")
    config = Path(bad.environment()["MESHAWARE_PODINFO"]).parent / "envoy.json"
    config.mkdir()
    before = children()
    with pytest.raises(IsADirectoryError):
        mesh.start()
    assert good.sidecar.pid is None
    assert children() == before


@pytest.mark.anyio
@pytest.mark.envoy
async def test_it_starts_and_stops_asynchronously_too(envoy: str | None) -> None:
    """On asyncio and trio, and the event loop goes on meanwhile."""
    mesh = LocalMesh(envoy=envoy)
    service = mesh.add("one")
    async with mesh as entered:
        assert entered is mesh
        pid = service.sidecar.pid
        assert pid is not None
    assert not alive([pid])


@pytest.mark.anyio
async def test_a_failed_asynchronous_start_leaves_nothing_either(tmp_path: Path) -> None:
    program = tmp_path / "envoy"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    mesh, before = LocalMesh(envoy=program), children()
    mesh.add("one")
    with pytest.raises(LocalMeshError, match="one v1 ended"):
        await mesh.__aenter__()
    assert children() == before


@pytest.mark.anyio
@pytest.mark.envoy
async def test_cancelling_the_start_leaves_nothing(envoy: str | None) -> None:
    """The block is never entered, so nobody would stop it."""
    mesh = LocalMesh(envoy=envoy)
    service = mesh.add("one")
    before = children()
    with anyio.move_on_after(0.01) as scope:
        async with mesh:
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert service.sidecar.pid is None
    assert children() == before


SCRIPT = """
import sys, time
from meshaware.testing import LocalMesh

mesh = LocalMesh(envoy=sys.argv[1] or None)
services = [mesh.add("one"), mesh.add("two")]
mesh.start()
print(*(service.sidecar.pid for service in services), flush=True)
time.sleep(60)
"""


@pytest.mark.envoy
@pytest.mark.parametrize("deadly", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_envoys_do_not_outlive_the_process_that_started_them(envoy: str | None, deadly: int, wait_for: Any) -> None:
    """However it went: nobody had the chance to stop them."""
    source = str(Path(__file__).parents[2] / "src")
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, envoy or ""],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": source},
    ) as process:
        assert process.stdout is not None
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(alive(pids)) == 2
        process.send_signal(deadly)
    # Their new parent has to fetch them first.
    wait_for(lambda: not running(pids))


def running(pids: list[int]) -> list[int]:
    """Those that are there and no zombies: who inherits them may take its time, or not care."""
    states: list[int] = []
    for pid in alive(pids):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            continue
        if state != "Z":
            states.append(pid)
    return states
