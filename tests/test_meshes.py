"""What holds in every mesh, and what in one alone: the cells of docs/meshes.md that no other test is about."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import httpx
import pytest
from fastapi import FastAPI

from meshaware import Mesh, MeshMiddleware, MeshSettings, ReadinessGate, RouteTable, outbound_headers
from meshaware.flavours import FLAVOURS
from meshaware.settings.model import MeshName

ROOT = Path(__file__).parents[1]
MESHES = [name for name in get_args(MeshName) if name != "auto"]
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
CAME = {
    "x-request-id": "3f2e1c4a-0000-4000-8000-000000000000",
    "traceparent": TRACEPARENT,
    "x-b3-traceid": "0af7651916cd43dd8448eb211c80319c",
    "x-b3-spanid": "b7ad6b7169203331",
    "x-b3-sampled": "1",
}
VIRTUAL_SERVICE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: inventory, namespace: shop}
spec:
  hosts: [inventory]
  http:
    - timeout: 3s
      route: [{destination: {host: inventory}}]
"""


async def passed_on(
    settings: MeshSettings, url: str, gate: ReadinessGate | None = None, came: Mapping[str, str] = CAME
) -> dict[str, str]:
    """What a call to this URL gets, made while a request with these headers is served."""
    app = FastAPI()
    app.add_middleware(MeshMiddleware, settings=settings, gate=gate)

    @app.get("/")
    async def _call() -> dict[str, str]:
        return outbound_headers(url)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://me") as client:
        got: dict[str, str] = (await client.get("/", headers=came)).json()
        return got


@pytest.mark.anyio
@pytest.mark.parametrize("mesh", MESHES)
async def test_headers_are_carried_inside_every_mesh(mesh: MeshName) -> None:
    """And to nobody outside, whichever it is."""
    inside = await passed_on(MeshSettings(mesh=mesh), "http://inventory:8080/")
    assert inside["x-request-id"] == CAME["x-request-id"]
    assert inside["traceparent"] == TRACEPARENT
    assert await passed_on(MeshSettings(mesh=mesh), "http://www.example.com/") == {}


@pytest.mark.anyio
@pytest.mark.parametrize("mesh", MESHES)
async def test_a_deadline_goes_on_inside_every_mesh(mesh: MeshName) -> None:
    """What is left of it, and to nobody outside."""
    settings = MeshSettings(mesh=mesh)
    brought = {"x-mesh-deadline-ms": "60000"}
    inside = await passed_on(settings, "http://inventory:8080/", came=brought)
    assert 0 < int(inside["x-mesh-deadline-ms"]) <= 60000
    assert await passed_on(settings, "http://www.example.com/", came=brought) == {}


@pytest.mark.anyio
@pytest.mark.parametrize("mesh", MESHES)
async def test_one_format_of_trace_headers_goes_on_where_the_proxy_advances_one(mesh: MeshName) -> None:
    """Linkerd's would leave the other stale; Envoy's tracers know what they have written."""
    one = FLAVOURS[mesh].one_trace_format
    assert one is (mesh == "linkerd")
    inside = await passed_on(MeshSettings(mesh=mesh), "http://inventory:8080/")
    assert ("x-b3-traceid" in inside) is not one


@pytest.mark.anyio
async def test_a_mesh_that_its_ports_told_gets_one_format_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is decided for a request is not frozen at start."""
    settings = MeshSettings(in_kubernetes=True, workload={})
    gate = ReadinessGate(settings)
    inside = await passed_on(settings, "http://inventory:8080/", gate)
    assert "x-b3-traceid" in inside
    monkeypatch.setattr(ReadinessGate, "flavour", FLAVOURS["linkerd"])
    inside = await passed_on(settings, "http://inventory:8080/", gate)
    assert "x-b3-traceid" not in inside
    assert inside["traceparent"] == TRACEPARENT


@pytest.mark.parametrize("mesh", MESHES)
def test_files_tell_routes_in_every_mesh(mesh: MeshName, tmp_path: Path) -> None:
    """Where the proxy tells its own, they hold until it has."""
    (tmp_path / "inventory.yaml").write_text(VIRTUAL_SERVICE)
    settings = MeshSettings(mesh=mesh, routes=["sidecar", tmp_path / "inventory.yaml"], workload={"namespace": "shop"})
    source = Mesh(settings).routes
    table = source if isinstance(source, RouteTable) else source.current
    route = table.match("GET", "http://inventory/")
    assert route is not None
    assert route.budget.timeout == 3.0


# The table of the documentation

DETECT = "tests/flavours/test_detect.py::test_labels_tell_the_mesh"
NONE_TOLD = "tests/flavours/test_detect.py::test_outside_kubernetes_there_is_no_mesh"
MESH = "tests/sidecar/test_meshes.py"
PEERS = "tests/asgi/test_peers.py::test_each_mesh_is_believed_in_its_own_header_only"
FILES = "tests/test_meshes.py::test_files_tell_routes_in_every_mesh"
CARRIED = "tests/test_meshes.py::test_headers_are_carried_inside_every_mesh"
DEADLINES = "tests/test_meshes.py::test_a_deadline_goes_on_inside_every_mesh"
ENVOY_TIME = "tests/asgi/test_deadlines.py::test_envoys_word_counts_by_mesh"
NOTHING = "tests/sidecar/test_readiness.py::test_without_a_sidecar_it_returns_at_once"
NATIVE = f"{MESH}::test_a_native_sidecar_is_not_waited_for"
TOLD = "tests/sidecar/test_shutdown.py::test_a_proxy_is_told_by_an_empty_post"
ENVOYS = "tests/sidecar/test_replies.py::test_a_real_envoys_own_answers_are_told"
COLUMNS = ("istio", "ambient", "linkerd", "consul", "kuma", "none")
PROOFS: dict[str, tuple[str | None, ...]] = {
    "told by labels and annotations": (DETECT, DETECT, DETECT, DETECT, DETECT, NONE_TOLD),
    "told by ports": (
        f"{MESH}::test_istio_is_found_while_only_its_agent_answers_and_opens_with_envoy",
        f"{MESH}::test_ambient_is_found_by_ztunnel_s_sockets_and_not_waited_for",
        f"{MESH}::test_linkerd_is_found_by_live_and_waited_for_by_ready",
        f"{MESH}::test_consul_is_found_by_envoy_s_admin_beside_its_dataplane",
        f"{MESH}::test_kuma_is_found_and_waited_for_at_9902",
        None,
    ),
    "waits for": (
        f"{MESH}::test_istio_is_found_while_only_its_agent_answers_and_opens_with_envoy",
        NOTHING,
        f"{MESH}::test_linkerd_is_found_by_live_and_waited_for_by_ready",
        f"{MESH}::test_consul_is_found_by_envoy_s_admin_beside_its_dataplane",
        f"{MESH}::test_an_older_kuma_is_found_by_envoy_s_admin_and_its_redirect",
        NOTHING,
    ),
    "native sidecar told": (NATIVE, None, NATIVE, NATIVE, None, None),
    "waits for named upstreams": (
        "tests/sidecar/test_upstreams.py::test_an_upstream_that_comes_later_opens_it",
        None,
        None,
        None,
        None,
        None,
    ),
    "live routes": (
        "tests/test_mesh.py::test_once_the_gate_is_open_the_sidecar_is_asked_who_and_where_we_are",
        None,
        None,
        f"{MESH}::test_consul_s_routes_are_read_and_the_longest_holds",
        None,
        None,
    ),
    "routes from VirtualService files": (FILES,) * 6,
    "facts of the pod from the proxy": (
        "tests/sidecar/test_workload.py::test_a_mesh_that_the_settings_do_not_tell_is_told_by_its_ports",
        None,
        None,
        None,
        None,
        None,
    ),
    "headers carried inside the mesh": (CARRIED,) * 6,
    "[deadlines](deadlines.md) told and held inside the mesh": (DEADLINES,) * 6,
    "a time in `x-envoy-expected-rq-timeout-ms`": (None, ENVOY_TIME, None, ENVOY_TIME, ENVOY_TIME, ENVOY_TIME),
    "one format of trace headers": (
        None,
        None,
        "tests/test_meshes.py::test_one_format_of_trace_headers_goes_on_where_the_proxy_advances_one",
        None,
        None,
        None,
    ),
    "who called": (PEERS, None, PEERS, PEERS, PEERS, None),
    "a job's sidecar is let go": (
        "tests/test_job_live.py::test_a_job_calls_through_its_sidecar_and_then_lets_it_go",
        None,
        TOLD,
        TOLD,
        None,
        None,
    ),
    "who answered": (
        ENVOYS,
        ENVOYS,
        "tests/sidecar/test_replies.py::test_linkerds_proxy_says_it_itself",
        ENVOYS,
        ENVOYS,
        None,
    ),
}


def documented() -> dict[str, list[str]]:
    page = (ROOT / "docs" / "meshes.md").read_text()
    table = page.partition("|---|---|---|---|---|---|---|\n")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {row[0]: row[1:] for row in rows}


def test_every_cell_that_says_something_has_a_test() -> None:
    """And every dash has none."""
    rows = documented()
    assert list(rows) == list(PROOFS)
    for row, cells in rows.items():
        assert len(cells) == len(COLUMNS)
        for column, cell, proof in zip(COLUMNS, cells, PROOFS[row], strict=True):
            assert (cell == "-") == (proof is None), f"{row}, {column}: {cell!r} and {proof}"


@pytest.mark.parametrize("proof", sorted({proof for row in PROOFS.values() for proof in row if proof is not None}))
def test_each_of_these_tests_is_there(proof: str) -> None:
    """A name that has changed would prove nothing."""
    file, _, name = proof.partition("::")
    assert re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(), re.MULTILINE), proof


def test_the_page_has_the_addresses_of_the_flavours() -> None:
    """Ports and paths of the table are those that are asked."""
    waits = dict(zip(COLUMNS, documented()["waits for"], strict=True))
    live = dict(zip(COLUMNS, documented()["live routes"], strict=True))
    for name in COLUMNS:
        flavour = FLAVOURS[name]
        for url in (flavour.ready_url, flavour.ready_fallback_url):
            if url is not None:
                place = url.removeprefix("http://localhost:")
                assert place in waits[name] or place.partition("/")[0] in waits[name]
        assert (waits[name] == "nothing") == (flavour.ready_url is None)
        assert (live[name] != "-") == flavour.has_routes
        if flavour.has_routes:
            assert f"{str(flavour.admin_url).removeprefix('http://localhost:')}/config_dump" in live[name]
