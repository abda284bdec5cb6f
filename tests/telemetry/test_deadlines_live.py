"""Three hops deep behind real sidecars, with a retry in the middle: nobody works for a caller that has gone."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import httpx
import pytest
from fastapi import FastAPI, Request
from opentelemetry.trace import SpanKind

from meshaware import MeshMiddleware, RouteTable, create_async_client, remaining
from meshaware.deadline import limit
from meshaware.errors import DeadlineExceeded
from meshaware.telemetry import setup_telemetry
from meshaware.testing import LocalMesh, LocalService

pytestmark = pytest.mark.envoy

PER_TRY = 0.6
ROUTES = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: orders, namespace: default}
spec:
  hosts: [orders]
  http: [{name: orders, timeout: 5s, retries: {attempts: 0}, route: [{destination: {host: orders}}]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: inventory, namespace: default}
spec:
  hosts: [inventory]
  http:
    - name: inventory
      timeout: 4s
      retries: {attempts: 2, perTryTimeout: 600ms, retryOn: "reset,5xx"}
      route: [{destination: {host: inventory}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: warehouse, namespace: default}
spec:
  hosts: [warehouse]
  http: [{name: warehouse, timeout: 3s, retries: {attempts: 0}, route: [{destination: {host: warehouse}}]}]
"""


class Spell(NamedTuple):
    """One piece of work: who did it, for which try, from when until when, and what it had at its begin."""

    who: str
    attempt: int
    begin: float
    end: float
    had: float | None


class Log:
    """Who worked when, and what headers he got; spells that have not ended yet are counted."""

    def __init__(self) -> None:
        self.spells: list[Spell] = []
        self.headers: dict[str, list[str]] = {}
        self.under_way = 0

    @contextmanager
    def work(self, who: str, request: Request) -> Generator[None]:
        begin, had = time.monotonic(), remaining()
        self.headers[who] = [name for name, _ in request.headers.items()]
        self.under_way += 1
        try:
            yield
        finally:
            self.under_way -= 1
            attempt = int(request.headers["x-envoy-attempt-count"])
            self.spells.append(Spell(who, attempt, begin, time.monotonic(), had))

    def of(self, who: str) -> list[Spell]:
        return sorted((spell for spell in self.spells if spell.who == who), key=lambda spell: spell.begin)


async def until(there: Callable[[], bool]) -> None:
    with anyio.fail_after(10):
        while not there():
            await anyio.sleep(0.01)


class Chain(NamedTuple):
    """The three services, the caller before them, and what they did."""

    caller: LocalService
    log: Log
    table: RouteTable


def service(
    name: str,
    upstream: str | None,
    local: LocalMesh,
    log: Log,
    table: RouteTable,
    *,
    cancel: bool,
    finish: Callable[[FastAPI], None],
) -> None:
    """A service that asks the next one, or works for three seconds where there is none."""
    member = local.add(name)
    settings = member.settings(deadline_cancel=cancel)
    clients: list[httpx.AsyncClient] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        async with create_async_client(settings, routes=table) as client:
            clients.append(client)
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/")
    async def index(request: Request) -> str:  # pyright: ignore[reportUnusedFunction]
        with log.work(name, request):
            if upstream is None:
                await anyio.sleep(3)
                return "done"
            return (await clients[0].get(f"http://{upstream}:8080/")).text

    app.add_middleware(MeshMiddleware, settings=settings)
    finish(app)
    member.serve(app)


@pytest.fixture(name="mesh", params=[True])
def _mesh(request: pytest.FixtureRequest, tmp_path: Path, spans: Any, meters: Any) -> Generator[Chain]:
    """orders, inventory and warehouse, in this order; by default they cancel what is too late."""
    path = tmp_path / "routes.yaml"
    path.write_text(ROUTES)
    log, table = Log(), RouteTable.from_manifests(path)

    def finish(app: FastAPI) -> None:
        setup_telemetry(app=app, tracer_provider=spans.provider, meter_provider=meters.provider)

    with LocalMesh(path) as local:
        for name, upstream in (("warehouse", None), ("inventory", "warehouse"), ("orders", "inventory")):
            service(name, upstream, local, log, table, cancel=request.param, finish=finish)
        yield Chain(local.add("caller", app=False), log, table)


SLACK = 0.3


async def call_for(seconds: float, mesh: Chain) -> float:
    """Wait so long at most, and return when it was over; orders, who has as long, may have said first that it is up."""
    async with create_async_client(mesh.caller.settings(), routes=mesh.table) as client:
        begin = time.monotonic()
        with limit(seconds), suppress(DeadlineExceeded):
            assert (await client.get("http://orders:8080/")).is_server_error
        gone = time.monotonic()
    assert seconds - SLACK <= gone - begin <= seconds + SLACK
    return gone


@pytest.mark.anyio
async def test_nobody_works_for_a_try_that_is_over_or_a_caller_that_has_gone(
    mesh: Chain, spans: Any, meters: Any
) -> None:
    """
    The caller waits 1.4 s; orders asks inventory, which the sidecar tries every 600 ms: at 0, 0.6 and 1.2 s.

    The first two tries and all that is done for them end with the try, by the deadline; the third, whose deadline is an
    upper bound, ends with the caller, since the sidecars reset it.
    """
    gone = await call_for(1.4, mesh)
    await until(lambda: not mesh.log.under_way)

    log = mesh.log
    assert [spell.attempt for spell in log.of("orders")] == [1]
    assert [spell.attempt for spell in log.of("inventory")] == [1, 2, 3]
    assert len(log.of("warehouse")) == 3
    for who in ("orders", "inventory", "warehouse"):
        for spell in log.of(who):
            assert spell.end <= gone + SLACK, f"{who} worked on for a caller that had gone"
    for who in ("inventory", "warehouse"):
        for spell in log.of(who):
            assert spell.had is not None
            assert spell.had <= PER_TRY
            assert spell.end - spell.begin <= PER_TRY + SLACK, f"{who} worked on for a try that was over"
        # Once, as it was written; Envoy's own word is taken away by the second of two sidecars.
        assert log.headers[who].count("x-mesh-deadline-ms") == 1
        assert "x-envoy-expected-rq-timeout-ms" not in log.headers[who]
    for upper, lower in zip(log.of("inventory"), log.of("warehouse"), strict=True):
        assert (lower.had or 0) <= (upper.had or 0)

    await until(lambda: sum(value for value, _ in meters.points("meshaware.server.deadlines")) == 7)
    server = [span for span in spans.finished if span.kind is SpanKind.SERVER]
    assert len(server) == 7
    assert max(span.end_time - span.start_time for span in server) / 1e9 <= 1.4 + SLACK
    counted = [(attributes, value) for value, attributes in meters.points("meshaware.server.deadlines")]
    # A handler whose call ends with the deadline may fail by itself before it is cancelled.
    assert {attributes["meshaware.verdict"] for attributes, _ in counted} <= {"cut", "gone", "late"}
    assert {attributes["meshaware.deadline.source"] for attributes, _ in counted} == {"header"}
    assert sum(value for attributes, value in counted if attributes["meshaware.deadline.retried"]) == 2


@pytest.mark.anyio
@pytest.mark.parametrize("mesh", [False], indirect=True)
async def test_without_cancelling_calls_end_and_a_retried_one_outlasts_its_caller_by_its_bound_at_most(
    mesh: Chain, meters: Any
) -> None:
    """What a handler does itself is not ended, and what a retried try is told is all that it can know."""
    gone = await call_for(1.4, mesh)
    await until(lambda: not mesh.log.under_way)

    log = mesh.log
    tries = log.of("inventory")
    assert [spell.attempt for spell in tries] == [1, 2, 3]
    assert all(spell.end - spell.begin <= PER_TRY + SLACK for spell in tries)
    assert log.of("orders")[0].end <= gone + SLACK
    assert tries[2].end <= gone + PER_TRY + SLACK
    assert all(spell.end - spell.begin >= 3 for spell in log.of("warehouse"))
    await until(lambda: sum(value for value, _ in meters.points("meshaware.client.deadline.hits")) >= 5)
    hits = {
        (attributes["meshaware.route.name"], attributes["meshaware.budget.source"]): value
        for value, attributes in meters.points("meshaware.client.deadline.hits")
    }
    assert hits[("warehouse", "work")] == 3
