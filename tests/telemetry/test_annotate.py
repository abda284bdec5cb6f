"""A client span says what meshaware knows of the call."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from meshaware import MeshSettings, RouteTable, create_async_client, create_client
from meshaware.errors import DeadlineExceeded
from meshaware.instrumentation import CallOutcome, calls_observed
from meshaware.telemetry import setup_telemetry
from meshaware.telemetry.annotate import annotate_span, span_attributes

URL = "http://inventory/items"
SETTINGS = MeshSettings(mesh="none", buffer=0.1)


@pytest.fixture(name="routes")
def _routes(tmp_path: Path) -> RouteTable:
    """0.3 s in the mesh and 0.1 s of buffer: 0.4 s."""
    document = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "inventory", "namespace": "shop"},
        "spec": {
            "hosts": ["inventory"],
            "http": [
                {
                    "name": "items",
                    "timeout": "300ms",
                    "retries": {"attempts": 0},
                    "route": [{"destination": {"host": "inventory"}}],
                }
            ],
        },
    }
    path = tmp_path / "inventory.json"
    path.write_text(json.dumps(document))
    return RouteTable.from_manifests(path, namespace="shop")


def answering(status: int = 200, text: str = "", **headers: str) -> Callable[[httpx.Request], httpx.Response]:
    def answer(request: httpx.Request) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.Response(status, content=text.encode(), headers=named)

    return answer


def attributes_of(spans: Any) -> dict[str, object]:
    (span,) = spans.finished
    return {name: value for name, value in span.attributes.items() if name.startswith("meshaware.")}


@pytest.mark.parametrize("asynchronous", [True, False])
def test_an_answered_call_tells_route_budget_and_what_was_left(
    spans: Any, routes: RouteTable, *, asynchronous: bool
) -> None:
    setup_telemetry(tracer_provider=spans.provider)
    transport = httpx.MockTransport(answering())

    async def call() -> None:
        async with create_async_client(SETTINGS, routes=routes, transport=transport) as client:
            await client.get(URL)

    if asynchronous:
        anyio.run(call)
    else:
        with create_client(SETTINGS, routes=routes, transport=transport) as client:
            client.get(URL)

    found = attributes_of(spans)
    left = found.pop("meshaware.deadline.left_seconds")
    origin = found.pop("meshaware.route.origin")
    assert found == {
        "meshaware.verdict": "answered",
        "meshaware.answered_by": "application",
        "meshaware.route.name": "items",
        "meshaware.budget.seconds": 0.4,
        "meshaware.budget.source": "route",
    }
    assert isinstance(left, float)
    assert 0 < left <= 0.4
    assert "inventory.json" in str(origin)


def test_a_reply_of_the_sidecars_is_told_with_its_reason(spans: Any, routes: RouteTable) -> None:
    setup_telemetry(tracer_provider=spans.provider)
    answer = answering(503, "no healthy upstream", server="envoy", content_type="text/plain")
    with create_client(SETTINGS, routes=routes, transport=httpx.MockTransport(answer)) as client:
        client.get(URL)

    found = attributes_of(spans)
    assert found["meshaware.verdict"] == "replied"
    assert found["meshaware.answered_by"] == "sidecar"
    assert found["meshaware.reason"] == "no healthy upstream"


def test_a_call_that_ran_out_of_time_tells_in_which_phase(spans: Any, routes: RouteTable) -> None:
    setup_telemetry(tracer_provider=spans.provider)

    class Silent(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await anyio.sleep(30)
            return httpx.Response(200)

    async def call() -> None:
        async with create_async_client(SETTINGS, routes=routes, transport=Silent()) as client:
            await client.get(URL)

    with pytest.raises(DeadlineExceeded):
        anyio.run(call)

    found = attributes_of(spans)
    assert (found["meshaware.verdict"], found["meshaware.reason"]) == ("deadline", "wait")
    assert "meshaware.answered_by" not in found


def test_the_span_of_the_request_in_hand_is_left_alone(
    spans: Any, routes: RouteTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a host is excluded there is no client span, and the server's is current."""
    monkeypatch.setenv("OTEL_PYTHON_HTTPX_EXCLUDED_URLS", "inventory")
    setup_telemetry(tracer_provider=spans.provider)
    tracer = spans.provider.get_tracer("server")
    with (
        create_client(SETTINGS, routes=routes, transport=httpx.MockTransport(answering())) as client,
        tracer.start_as_current_span("GET /call", kind=trace.SpanKind.SERVER),
    ):
        client.get(URL)

    assert attributes_of(spans) == {}


def test_a_span_that_is_not_recorded_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    tracer = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False).get_tracer("test")
    with tracer.start_as_current_span("GET", kind=trace.SpanKind.CLIENT) as span:
        written: list[object] = []

        def write(_: object, attributes: object) -> None:
            written.append(attributes)

        monkeypatch.setattr(type(span), "set_attributes", write)
        annotate_span(CallOutcome("answered"))

    assert written == []


def test_what_is_not_known_is_left_out() -> None:
    assert span_attributes(CallOutcome("cancelled")) == {
        "meshaware.verdict": "cancelled",
        "meshaware.budget.source": "default",
    }


def test_the_documentation_has_every_attribute() -> None:
    page = (Path(__file__).parents[2] / "docs" / "telemetry.md").read_text()
    table = page[page.index("### What a client span says") : page.index("## Headers")]
    rows = re.findall(r"^\| (`meshaware.*?) \|", table, re.MULTILINE)
    outcome = CallOutcome("replied", "items", "a.yaml", 0.4, "route", 0.1, "sidecar", "timeout")

    assert {name for row in rows for name in re.findall(r"`(.+?)`", row)} == set(span_attributes(outcome))


def test_a_call_that_is_not_sampled_pays_for_no_outcome(spans: Any) -> None:
    setup_telemetry(tracer_provider=spans.provider)
    unsampled = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False).get_tracer("test")

    with unsampled.start_as_current_span("request"):
        observed = calls_observed()
    with spans.provider.get_tracer("test").start_as_current_span("request"):
        assert (observed, calls_observed()) == (False, True)
