"""Behind a real sidecar: what it does to calls is what spans and metrics tell."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import anyio
import pytest
from fastapi import FastAPI

from meshaware import Mesh, bind_headers, call_options
from meshaware.budgets.sources import SidecarRoutes
from meshaware.errors import DeadlineExceeded
from meshaware.telemetry import setup_telemetry
from meshaware.testing import LocalMesh, LocalService

pytestmark = pytest.mark.envoy

ROUTES = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: inventory, namespace: default}
spec:
  hosts: [inventory]
  http:
    - name: impatient
      match: [{headers: {x-user-type: {exact: premium}}}]
      timeout: 300ms
      route: [{destination: {host: inventory}}]
    - name: everyone
      timeout: 5s
      route: [{destination: {host: inventory}}]
"""


def inventory() -> FastAPI:
    app = FastAPI()

    @app.get("/items")
    async def items() -> int:
        return 42

    @app.get("/slow")
    async def slow() -> None:
        await anyio.sleep(1)

    return app


@pytest.fixture(name="orders", scope="module")
def _orders(tmp_path_factory: pytest.TempPathFactory) -> Generator[LocalService]:
    path: Path = tmp_path_factory.mktemp("routes") / "inventory.yaml"
    path.write_text(ROUTES)
    with LocalMesh(path) as local:
        local.serve("inventory", inventory())
        yield local.add("orders", app=False)


@pytest.mark.anyio
async def test_spans_and_metrics_tell_what_the_sidecar_did(orders: LocalService, spans: Any, meters: Any) -> None:
    setup_telemetry(tracer_provider=spans.provider, meter_provider=meters.provider)
    mesh = Mesh(orders.settings())
    client = mesh.async_client(base_url="http://inventory:8080")
    async with mesh.lifespan(), client:
        assert isinstance(mesh.routes, SidecarRoutes)
        with anyio.fail_after(10):
            while not mesh.routes.live:
                await anyio.sleep(0.01)
        await client.get("/items")
        with bind_headers({"x-user-type": "premium"}):
            assert (await client.get("/slow")).status_code == 504
        with pytest.raises(DeadlineExceeded):
            await client.get("/slow", extensions=call_options(timeout=0.2))

    told = [
        [span.attributes.get(f"meshaware.{name}") for name in ("verdict", "route.name", "answered_by", "reason")]
        for span in spans.finished
    ]
    assert told == [
        ["answered", "everyone", "application", None],
        ["replied", "impatient", "sidecar", "upstream request timeout"],
        ["deadline", "everyone", None, "wait"],
    ]
    assert all(span.attributes["meshaware.route.origin"].startswith("sidecar") for span in spans.finished)
    counted = {
        (attributes["meshaware.verdict"], attributes["meshaware.route.name"]): value
        for value, attributes in meters.points("meshaware.client.calls")
    }
    assert counted == {("answered", "everyone"): 1, ("replied", "impatient"): 1, ("deadline", "everyone"): 1}
    ((hits, cut),) = meters.points("meshaware.client.deadline.hits")
    assert (hits, cut["meshaware.budget.source"], cut["meshaware.deadline.enforced"]) == (1, "caller", True)
    ((age, _),) = meters.points("meshaware.routes.age")
    assert 0 <= age < 20
    ((waited, gate),) = meters.points("meshaware.gate.wait")
    assert 0 <= waited < 20
    assert gate == {"meshaware.gate.result": "opened", "meshaware.mesh": "istio"}
