"""Together with the mesh layer and the mesh transport, as `Mesh.install` puts them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from opentelemetry import trace

from meshaware.budgets import RouteTable
from meshaware.client.httpx import create_client
from meshaware.mesh import Mesh
from meshaware.settings import MeshSettings
from meshaware.telemetry import setup_telemetry

TRACE = "0af7651916cd43dd8448eb211c80319c"
SETTINGS = MeshSettings(mesh="none")

Sent = list[httpx.Request]


@pytest.fixture(name="sent")
def _sent() -> Sent:
    """What left, as the sidecar would get it."""
    return []


@pytest.fixture(name="service")
def _service(sent: Sent) -> Callable[[], FastAPI]:
    def upstream(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(204)

    def service() -> FastAPI:
        client = create_client(SETTINGS, routes=RouteTable.empty(), transport=httpx.MockTransport(upstream))
        app = FastAPI()

        @app.get("/call")
        def call(url: str) -> None:  # pyright: ignore[reportUnusedFunction]
            client.get(url)

        return app

    return service


def test_one_request_makes_one_trace_and_every_header_agrees(
    service: Callable[[], FastAPI], sent: Sent, spans: Any
) -> None:
    trace.set_tracer_provider(spans.provider)
    app, mesh = service(), Mesh(SETTINGS)
    mesh.install(app)

    with TestClient(app) as browser:
        browser.get("/livez")
        browser.get("/readyz")
        browser.get(
            "/call?url=http://inventory:8080/items/42",
            headers={
                "x-request-id": "a-request",
                "x-b3-traceid": TRACE,
                "x-b3-spanid": "b7ad6b7169203331",
                "x-b3-parentspanid": "00f067aa0ba902b7",
                "x-b3-sampled": "1",
            },
        )

    client, server = spans.finished
    assert (server.name, client.parent.span_id) == ("GET /call", server.context.span_id)
    assert {format(span.context.trace_id, "032x") for span in (client, server)} == {TRACE}
    span_id = format(client.context.span_id, "016x")
    headers = sent[0].headers
    assert headers.get_list("traceparent") == [f"00-{TRACE}-{span_id}-01"]
    assert (headers["x-b3-traceid"], headers["x-b3-spanid"], headers["x-b3-sampled"]) == (TRACE, span_id, "1")
    assert "x-b3-parentspanid" not in headers
    assert headers["x-request-id"] == "a-request"


def test_no_trace_header_leaves_the_mesh(service: Callable[[], FastAPI], sent: Sent, spans: Any) -> None:
    """OpenTelemetry writes them outside the mesh transport, which has the last word."""
    trace.set_tracer_provider(spans.provider)
    app = service()
    Mesh(SETTINGS).install(app)

    with TestClient(app) as browser:
        browser.get("/call?url=http://api.example.com/", headers={"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"})

    names = set(sent[0].headers)
    assert len(spans.finished) == 2
    assert not {name for name in names if name.startswith(("trace", "x-b3", "b3", "baggage", "x-request-id"))}


@pytest.mark.parametrize("first", ["mesh", "telemetry"])
def test_it_does_not_matter_who_comes_first(service: Callable[[], FastAPI], sent: Sent, spans: Any, first: str) -> None:
    app, mesh = service(), Mesh(SETTINGS)
    if first == "telemetry":
        setup_telemetry(SETTINGS, app=app, tracer_provider=spans.provider)
    mesh.install(app, telemetry=False)
    if first == "mesh":
        setup_telemetry(SETTINGS, app=app, tracer_provider=spans.provider)

    with TestClient(app) as browser:
        browser.get("/livez")
        browser.get("/call?url=http://inventory:8080/", headers={"x-request-id": "a-request"})

    assert spans.names() == ["GET", "GET /call"]
    assert sent[0].headers["x-request-id"] == "a-request"


def test_without_a_provider_headers_go_on_as_they_came(service: Callable[[], FastAPI], sent: Sent) -> None:
    app, mesh = service(), Mesh(SETTINGS)
    mesh.install(app)
    came = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "tracestate": "a=1", "x-request-id": "a-request"}

    with TestClient(app) as browser:
        browser.get("/call?url=http://inventory:8080/", headers=came)

    assert mesh.telemetry is not None
    assert mesh.telemetry.state == "off"
    assert {name: sent[0].headers[name] for name in came} == came
