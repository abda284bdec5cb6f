"""What type checkers see of the public names. Not meant to be executed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, assert_type

import httpx
from fastapi import FastAPI

import meshaware
from meshaware import (
    Budget,
    HostPolicy,
    Mesh,
    MeshMiddleware,
    MeshSettings,
    ReadinessGate,
    RouteTable,
    bind_headers,
    call_options,
    create_async_client,
    create_client,
    load_workload,
    outbound_headers,
    remaining,
    report,
    setup_telemetry,
)
from meshaware.budgets import Route
from meshaware.settings import Workload


def settings() -> None:
    found = MeshSettings(mesh="istio", timeout="2s", attempts=2, mesh_hosts=[".corp.example"])
    assert_type(found.timeout, float | None)
    assert_type(found.attempts, int)
    assert_type(found.workload, Workload)
    assert_type(found.workload.namespace, str | None)
    assert_type(found.origins, Mapping[str, str])
    assert_type(load_workload(found), Workload)
    assert_type(MeshSettings(sampling=0.01, trace_hosts="partner.example").sampling, Literal["mesh", "always"] | float)
    MeshSettings(sampling="alway")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    MeshSettings(mesh="envoy")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    MeshSettings(timout="2s")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def budgets() -> None:
    budget = Budget(timeout=3.0, attempts=2, per_try_timeout=1.0)
    assert_type(budget.total(buffer=0.25), float | None)
    assert_type(budget.total(policy="tight"), float | None)
    budget.total(policy="loose")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    table = RouteTable.from_manifests("routes/", namespace="shop")
    route = table.match("GET", "http://inventory:8080/items/42", headers={"x-user-type": "premium"})
    if route is not None:
        assert_type(route.budget, Budget)
        assert_type(route.name, str)
        assert_type(route.origin, str)
    assert_type(table.explain("GET", "http://inventory:8080/items/42").route, Route | None)


async def clients(routes: RouteTable) -> None:
    client = create_client(MeshSettings(), routes=routes, base_url="http://inventory:8080", timeout=2.0)
    assert_type(client, httpx.Client)
    async_client = create_async_client(routes=routes, transport=httpx.MockTransport(lambda _: httpx.Response(200)))
    assert_type(async_client, httpx.AsyncClient)
    create_client(base_ulr="http://inventory:8080")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    response = await async_client.get("/items", extensions=call_options(timeout=2.0))
    told = report(response)
    assert_type(told.budget, Budget | None)
    assert_type(told.total, float | None)
    if told.reply is not None:
        assert_type(told.reply.reason, str)
    assert_type(remaining(), float | None)


def headers() -> None:
    with bind_headers({"x-request-id": "1"}):
        assert_type(outbound_headers("http://inventory:8080/"), dict[str, str])
    assert_type(HostPolicy([".corp.example"]).inside("inventory"), bool)


async def service() -> None:
    app = FastAPI()
    app.add_middleware(MeshMiddleware)
    app.add_middleware(MeshMiddleware, settings=MeshSettings())
    mesh = Mesh()
    mesh.install(app)
    assert_type(mesh.async_client(base_url="http://inventory:8080"), httpx.AsyncClient)
    assert_type(mesh.client(), httpx.Client)
    async with mesh.lifespan():
        pass
    gate = ReadinessGate(mesh.settings)
    assert_type(gate.wait(timeout=30), bool)
    assert_type(await gate.async_wait(timeout=30, fatal=False, upstreams=["inventory:8080"]), bool)
    with gate as opened:
        assert_type(opened, ReadinessGate)

    @gate
    def add(left: int, right: int = 1) -> int:
        return left + right

    @gate
    async def greet(name: str) -> str:
        return name

    assert_type(add(1, right=2), int)
    assert_type(await greet("you"), str)
    add("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(mesh.settings.detected.native, bool | None)
    setup_telemetry(mesh.settings, app=app)
    assert_type(meshaware.__version__, str)
    meshaware.nope  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]  # noqa: B018


async def jobs() -> None:
    mesh = Mesh()

    @mesh.job(quit="always", shared=True)
    def count(copies: int, *, title: str = "") -> int:
        return copies + len(title)

    @mesh.async_job()
    async def async_count(copies: int) -> int:
        return copies

    assert_type(count(1, title="a"), int)
    count("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(await async_count(1), int)
    with mesh.job():
        pass
    async with mesh.async_job(quit="never"):
        pass
    mesh.job(quit="sometimes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
