"""`Mesh` behind a real sidecar: its routes and its facts are the sidecar's own."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import anyio.to_thread
import pytest
from fastapi import FastAPI, Request

from meshaware import Mesh, RouteTable, bind_headers, report
from meshaware.budgets.sources import SidecarRoutes
from meshaware.testing import LocalMesh, LocalService

pytestmark = pytest.mark.envoy

ROUTES = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: inventory, namespace: default}
spec:
  hosts: [inventory]
  http:
    - name: premium
      match: [{headers: {x-user-type: {exact: premium}}}]
      timeout: 1s
      route: [{destination: {host: inventory, subset: v2}}]
    - name: everyone
      timeout: 2s
      retries: {attempts: 2, perTryTimeout: 500ms, retryOn: 5xx}
      route: [{destination: {host: inventory, subset: v1}}]
"""


def inventory(version: str) -> FastAPI:
    app = FastAPI()

    @app.get("/items")
    async def items(request: Request) -> dict[str, str | None]:
        return {"version": version, "request-id": request.headers.get("x-request-id")}

    @app.get("/slow")
    async def slow() -> None:
        await anyio.sleep(1.6)

    return app


@pytest.fixture(name="orders", scope="module")
def _orders(tmp_path_factory: pytest.TempPathFactory) -> Generator[LocalService]:
    """A member of a mesh that has inventory in two versions."""
    path: Path = tmp_path_factory.mktemp("routes") / "inventory.yaml"
    path.write_text(ROUTES)
    with LocalMesh(path) as local:
        for version in ("v1", "v2"):
            local.serve("inventory", inventory(version), version=version)
        yield local.add("orders", app=False)


@asynccontextmanager
async def opened(mesh: Mesh) -> AsyncGenerator[SidecarRoutes]:
    """The mesh, once it has read its sidecar."""
    assert isinstance(mesh.routes, SidecarRoutes)
    async with mesh.lifespan():
        with anyio.fail_after(10):
            while not mesh.routes.live or mesh.workload.mesh_id is None:
                await anyio.sleep(0.01)
        yield mesh.routes


@pytest.mark.anyio
async def test_budgets_are_those_that_the_sidecar_has(orders: LocalService) -> None:
    """Without a file on the caller's side: route, budget and origin come from the live configuration."""
    mesh = Mesh(orders.settings())
    client = mesh.async_client(base_url="http://inventory:8080")
    async with opened(mesh), client:
        everyone = await client.get("/items")
        with bind_headers({"x-user-type": "premium", "x-request-id": "5a4e6c1e-2f0a-4b1c-8d2e-000000000001"}):
            premium = await client.get("/items")
    assert everyone.json()["version"] == "v1"
    told = report(everyone)
    assert told.route is not None
    assert told.route.name == "everyone"
    assert told.total == pytest.approx(3.25)
    assert told.route.origin.startswith("sidecar")
    assert premium.json()["version"] == "v2"
    assert premium.json()["request-id"].startswith("5a4e6c1e")
    assert report(premium).total == pytest.approx(1.25)


@pytest.mark.anyio
async def test_live_routes_and_the_manifests_they_come_from_say_the_same(orders: LocalService, tmp_path: Path) -> None:
    """Two ways to the same budgets."""
    path = tmp_path / "inventory.yaml"
    path.write_text(ROUTES)
    declared = RouteTable.from_manifests(path)
    async with opened(Mesh(orders.settings())) as routes:
        for headers in ({}, {"x-user-type": "premium"}):
            live = routes.current.match("GET", "http://inventory:8080/items", headers)
            written = declared.match("GET", "http://inventory:8080/items", headers)
            assert live is not None
            assert written is not None
            assert live.name == written.name
            assert live.budget.total() == written.budget.total()


@pytest.mark.anyio
async def test_the_sidecar_says_who_we_are(orders: LocalService) -> None:
    """Facts that the settings do not have."""
    mesh = Mesh(orders.settings())
    async with opened(mesh):
        assert mesh.workload.namespace == "default"
        assert mesh.workload.origins["mesh_id"].startswith("sidecar")


@pytest.mark.anyio
async def test_the_mesh_s_own_timeout_arrives_before_ours(orders: LocalService) -> None:
    """The buffer leaves the sidecar the time to answer, even under the tight policy: its 504, and not our error."""
    mesh = Mesh(orders.settings(budget_policy="tight"))
    client = mesh.async_client(base_url="http://inventory:8080")
    async with opened(mesh), client:
        with bind_headers({"x-user-type": "premium"}):
            response = await client.get("/slow")
    told = report(response)
    assert told.total == pytest.approx(1.25)
    assert response.status_code == 504
    assert told.reply is not None
    assert (told.reply.by, told.reply.reason) == ("sidecar", "upstream request timeout")


CHANGING = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: inventory}
spec:
  hosts: [inventory]
  http: [{name: all, timeout: TIMEOUT, route: [{destination: {host: inventory}}]}]
"""


class Changing(NamedTuple):
    """A mesh whose timeout is changed while a member runs."""

    local: LocalMesh
    orders: LocalService

    def mesh(self) -> tuple[Mesh, SidecarRoutes]:
        """A member's mesh, which looks at its sidecar every 100 ms."""
        routes = SidecarRoutes(self.orders.sidecar.admin_url, interval=0.1)
        return Mesh(self.orders.settings(), routes=routes), routes

    def change(self) -> None:
        self.local.apply(CHANGING.replace("TIMEOUT", "3s"))


@pytest.fixture(name="changing")
def _changing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Changing]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with LocalMesh(CHANGING.replace("TIMEOUT", "500ms")) as local:
        local.serve("inventory", inventory("v1"))
        yield Changing(local, local.add("orders", app=False))


@pytest.mark.anyio
async def test_a_changed_timeout_reaches_the_next_call(changing: Changing) -> None:
    """Without a restart: the mesh's lifespan looks at the sidecar again and again."""
    mesh, routes = changing.mesh()
    client = mesh.async_client(base_url="http://inventory:8080")
    async with mesh.lifespan(), client:
        with anyio.fail_after(10):
            while not routes.live:
                await anyio.sleep(0.01)
        before = routes.current
        response = await client.get("/slow")
        assert (response.status_code, report(response).total) == (504, 0.75)
        await anyio.to_thread.run_sync(changing.change)
        with anyio.fail_after(10):
            while routes.current is before:
                await anyio.sleep(0.01)
        response = await client.get("/slow")
        assert (response.status_code, report(response).total) == (200, 3.25)
    assert [each.what for each in before.diff(routes.current).changed] == [("timeout: 0.5 -> 3.0",)]
    told: Any = mesh.readiness()[1]["routes"]
    assert 0 <= told["age_s"] < 10


def test_a_changed_timeout_reaches_the_next_call_of_a_worker(changing: Changing) -> None:
    """A synchronous one, by a daemon thread that its block starts and ends."""
    mesh, routes = changing.mesh()
    threads = threading.active_count()
    with mesh.client(base_url="http://inventory:8080") as client, mesh.sync_lifespan():
        mesh.gate.wait()
        wait_until(lambda: routes.live)
        before = routes.current
        response = client.get("/slow")
        assert (response.status_code, report(response).total) == (504, 0.75)
        changing.change()
        wait_until(lambda: routes.current is not before)
        response = client.get("/slow")
        assert (response.status_code, report(response).total) == (200, 3.25)
        assert mesh.workload.origins["mesh_id"].startswith("sidecar")
    assert threading.active_count() == threads


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.01)
