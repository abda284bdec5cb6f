"""Spans of real Envoys, as collectors of both protocols receive them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from meshaware.testing import LocalMesh

pytestmark = pytest.mark.envoy
SPAN = "00f067aa0ba902b7"


def w3c(trace: str) -> dict[str, str]:
    return {"traceparent": f"00-{trace}-{SPAN}-01"}


def b3(trace: str) -> dict[str, str]:
    return {"x-b3-traceid": trace, "x-b3-spanid": SPAN, "x-b3-sampled": "1"}


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """An application that answers with the headers it got."""
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(headers).encode()})


@pytest.mark.parametrize(
    ("provider", "more", "came"),
    [("otlp", {}, w3c), ("zipkin", {}, b3), ("zipkin", {"trace_context": "b3-and-w3c"}, w3c)],
    ids=["opentelemetry", "zipkin", "zipkin with w3c"],
)
def test_both_sidecars_send_their_spans_of_one_trace(
    *,
    provider: str,
    more: dict[str, Any],
    came: Callable[[str], dict[str, str]],
    envoy: str | None,
    collector: Any,
    get: Any,
    wait_for: Any,
) -> None:
    """Under Istio's names `<service>.<namespace>`; the callee's below the caller's, never shared with it."""
    trace = uuid4().hex
    mesh = LocalMesh(envoy=envoy, namespace="shop", **{provider: collector.url}, **more)
    tester, service = mesh.add("tester", app=False), mesh.add("hello")
    with mesh:
        service.serve(hello, lifespan="off")
        answer = get(tester.sidecar.outbound_url, "hello:8080", "/greet", came(trace))
        (out,) = wait_for(lambda: collector.spans(trace, "tester.shop"))
        (inside,) = wait_for(lambda: collector.spans(trace, "hello.shop"))
    assert (out.parent_id, inside.parent_id) == (SPAN, out.span_id)
    assert inside.span_id not in (SPAN, out.span_id)
    assert (out.kind, inside.kind) == ("client", "server")
    assert out.path == inside.path == ("/v1/traces" if provider == "otlp" else "/api/v2/spans")
    assert inside.span_id in (answer.seen.get("traceparent", "--").split("-")[2], answer.seen.get("x-b3-spanid"))
    assert (out.tags["http.method"], out.tags["http.status_code"]) == ("GET", "200")


def test_zipkins_spans_go_where_its_address_says(envoy: str | None, collector: Any, get: Any, wait_for: Any) -> None:
    """To `/api/v2/spans`, as in Istio, unless the address has a path of its own."""
    trace = uuid4().hex
    with LocalMesh(envoy=envoy, zipkin=f"{collector.url}/spans/of/zipkin") as mesh:
        tester = mesh.add("tester", app=False)
        assert get(tester.sidecar.outbound_url, "nobody", headers=b3(trace)).status == 502
        (span,) = wait_for(lambda: collector.spans(trace, "tester.default"))
    assert (span.path, span.tags["http.status_code"]) == ("/spans/of/zipkin", "502")


@pytest.mark.parametrize(
    ("provider", "header", "says"), [("otlp", "traceparent", "-00"), ("zipkin", "x-b3-sampled", "0")]
)
def test_sampling_at_0_says_so(
    *, provider: str, header: str, says: str, envoy: str | None, collector: Any, get: Any
) -> None:
    """The application sees that its request is not sampled."""
    mesh = LocalMesh(envoy=envoy, sampling=0, **{provider: collector.url})
    tester, service = mesh.add("tester", app=False), mesh.add("hello")
    with mesh:
        service.serve(hello, lifespan="off")
        answer = get(tester.sidecar.outbound_url, "hello")
    assert answer.seen[header].endswith(says)


def test_without_a_collector_there_is_no_tracer(shop: Any) -> None:
    """As in Istio's default installation: only the request id."""
    assert not {"traceparent", "x-b3-traceid", "b3"} & set(shop.call("/plain").seen["headers"])


@pytest.mark.parametrize(("provider", "told"), [("otlp", True), ("zipkin", False)])
def test_an_application_is_told_of_a_collector_that_takes_what_it_exports(
    provider: str, told: bool, envoy: str | None
) -> None:
    """OpenTelemetry exports OTLP, which Zipkin does not take."""
    with LocalMesh(envoy=envoy, **{provider: "http://127.0.0.1:4318"}) as mesh:  # type: ignore[arg-type]
        environment = mesh.add("hello", start=False).environment()
    assert (environment.get("OTEL_EXPORTER_OTLP_ENDPOINT") == "http://127.0.0.1:4318") is told
