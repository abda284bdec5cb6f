"""Requests that the mesh does not sample: nothing is made of them, and nothing about them is lost."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Callable
from importlib import import_module
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from opentelemetry import trace
from opentelemetry.context import get_current
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, DEFAULT_ON, ParentBased, Sampler, TraceIdRatioBased

from meshaware import MeshSettings, RouteTable, create_async_client, create_client, outbound_headers, setup_telemetry
from meshaware.propagation.spans import arrival
from meshaware.telemetry import bypass as module
from meshaware.telemetry.bypass import ServerBypass, heeds_the_mesh
from meshaware.telemetry.sampling import Sampling, make_sampler

bypass: Any = module
TRACE, SPAN = "463ac35c9f6413ad48485a3953bb6124", "a2fb4a1d1a96d312"
NO = {"traceparent": f"00-{TRACE}-{SPAN}-00", "tracestate": "congo=1"}
YES = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
MULTI = {"x-b3-traceid": TRACE, "x-b3-spanid": SPAN}
SETTINGS = MeshSettings(mesh="none")


class Traces:
    """A provider of somebody else's, with a sampler, and what it exported."""

    def __init__(self, sampler: Sampler = DEFAULT_ON) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler, shutdown_on_exit=False, span_limits=SpanLimits())
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def take(self) -> list[str]:
        names = [span.name for span in self.exporter.get_finished_spans()]
        self.exporter.clear()
        return names


@pytest.fixture(name="traces")
def _traces() -> Traces:
    return Traces()


Sent = list[httpx.Request]


@pytest.fixture(name="sent")
def _sent() -> Sent:
    return []


@pytest.fixture(name="service")
def _service(sent: Sent) -> Callable[..., FastAPI]:
    """A service that calls another with both kinds of client, and makes a span of its own where asked."""

    def upstream(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(204)

    def service(traces: Traces) -> FastAPI:
        app = FastAPI()
        setup_telemetry(SETTINGS, app=app, tracer_provider=traces.provider)
        transport = httpx.MockTransport(upstream)
        client = create_client(SETTINGS, routes=RouteTable.empty(), transport=transport)
        async_client = create_async_client(SETTINGS, routes=RouteTable.empty(), transport=transport)

        @app.get("/call")
        def call() -> dict[str, str]:  # pyright: ignore[reportUnusedFunction]
            client.get("http://inventory:8080/")
            return outbound_headers("http://inventory:8080/")

        @app.get("/async")
        async def async_call() -> None:  # pyright: ignore[reportUnusedFunction]
            await async_client.get("http://inventory:8080/")

        @app.get("/own")
        def own() -> bool:  # pyright: ignore[reportUnusedFunction]
            with traces.provider.get_tracer("test").start_as_current_span("own") as span:
                client.get("http://inventory:8080/")
                return span.is_recording()

        @app.get("/fail")
        def fail() -> None:  # pyright: ignore[reportUnusedFunction]
            raise LookupError

        return app

    return service


@pytest.fixture(name="made", autouse=True)
def _made(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Which contexts were read; none where a request went through OpenTelemetry's layer."""
    passed: list[object] = []
    judge = bypass._unsampled

    def watched(scope: Any, here: Any) -> Any:
        context = judge(scope, here)
        if context is not None:
            passed.append(context)
        return context

    monkeypatch.setattr(bypass, "_unsampled", watched)
    return passed


def get(app: Any, path: str, *headers: dict[str, str]) -> list[Any]:
    with TestClient(app, raise_server_exceptions=False) as client:
        return [client.get(path, headers=each) for each in headers]


@pytest.mark.parametrize(
    "came",
    [
        NO,
        {"traceparent": f"00-{TRACE}-{SPAN}-02"},
        {"traceparent": f"cc-{TRACE}-{SPAN}-00-later"},
        {**MULTI, "x-b3-sampled": "0"},
        {**MULTI, "x-b3-sampled": "false", "x-b3-parentspanid": SPAN[::-1]},
        {"b3": f"{TRACE}-{SPAN}-0"},
        {"b3": "0"},
        {"x-b3-sampled": "0"},
        {**NO, "baggage": "a=1"},
        {**NO, **MULTI, "x-b3-sampled": "0"},
    ],
)
def test_an_unsampled_request_passes_by_and_its_call_carries_what_came(
    service: Callable[..., FastAPI], traces: Traces, sent: Sent, made: list[object], came: dict[str, str]
) -> None:
    app = service(traces)
    for path in ("/call", "/async"):
        (response,) = get(app, path, came)
        assert response.status_code == 200
        told = {name: value for name, value in sent.pop().headers.items() if name in came}
        assert told == came
    assert len(made) == 2
    assert traces.take() == []


@pytest.mark.parametrize(
    "came",
    [
        {},
        YES,
        {**MULTI, "x-b3-sampled": "1"},
        MULTI,
        {**MULTI, "x-b3-sampled": "0", "x-b3-flags": "1"},
        {"traceparent": f"00-{TRACE}-{SPAN}-0"},
        {"traceparent": f"00-{TRACE.upper()}-{SPAN}-00"},
        {"traceparent": f"00-{'0' * 32}-{SPAN}-00"},
        {"traceparent": f"00-{TRACE}-{SPAN}-00-no"},
        {"x-b3-traceid": TRACE, "b3": "1"},
    ],
)
def test_every_other_request_makes_its_span(
    service: Callable[..., FastAPI], traces: Traces, made: list[object], came: dict[str, str]
) -> None:
    get(service(traces), "/call", came)
    assert traces.take() == ["GET", "GET /call"]
    assert made == []


def test_spans_of_the_application_follow_the_decision(
    service: Callable[..., FastAPI], traces: Traces, sent: Sent
) -> None:
    (response,) = get(service(traces), "/own", NO)
    assert response.json() is False
    _, trace_id, span_id, flags = sent[0].headers["traceparent"].split("-")
    assert (trace_id, flags) == (TRACE, "00")
    assert span_id != SPAN
    assert sent[0].headers["tracestate"] == "congo=1"
    assert traces.take() == []


def test_an_error_of_the_application_is_handled_as_ever(service: Callable[..., FastAPI], traces: Traces) -> None:
    (response,) = get(service(traces), "/fail", NO)
    assert response.status_code == 500
    assert not trace.get_current_span().get_span_context().is_valid


@pytest.mark.parametrize("sampler", [ALWAYS_ON, ParentBased(ALWAYS_ON, remote_parent_not_sampled=ALWAYS_ON)])
def test_a_sampler_that_records_below_an_unsampled_parent_sees_every_request(
    service: Callable[..., FastAPI], sampler: Sampler
) -> None:
    traces = Traces(sampler)
    get(service(traces), "/call", NO)
    assert "GET /call" in traces.take()


def test_which_samplers_heed_the_mesh() -> None:
    heed = [DEFAULT_ON, ParentBased(ALWAYS_OFF), ParentBased(TraceIdRatioBased(0.1)), make_sampler(Sampling("mesh"))]
    not_heed = [ALWAYS_ON, ALWAYS_OFF, TraceIdRatioBased(0.1), make_sampler(Sampling("always"))]
    for samplers, expected in ((heed, True), (not_heed, False)):
        for sampler in samplers:
            assert heeds_the_mesh(TracerProvider(sampler=sampler, shutdown_on_exit=False)) is expected
    assert not heeds_the_mesh(trace.NoOpTracerProvider())


@pytest.fixture(name="meters")
def _meters(monkeypatch: pytest.MonkeyPatch) -> Callable[[object], None]:
    """Set the process's meter provider, which can be set once."""
    internal: Any = import_module("opentelemetry.metrics._internal")
    return lambda provider: monkeypatch.setattr(internal, "_METER_PROVIDER", provider)


def test_where_requests_are_counted_every_one_is(
    service: Callable[..., FastAPI], traces: Traces, made: list[object], meters: Callable[[object], None]
) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    meters(provider)
    get(service(traces), "/call", NO)
    data: Any = reader.get_metrics_data()
    names = {
        metric.name
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    assert {"http.server.duration", "http.client.duration"} <= names
    assert made == []
    provider.shutdown()


def test_a_meter_provider_that_counts_nothing_counts_as_none(
    service: Callable[..., FastAPI], traces: Traces, made: list[object], meters: Callable[[object], None]
) -> None:
    meters(NoOpMeterProvider())
    get(service(traces), "/call", NO)
    assert len(made) == 1


def test_a_mounted_application_makes_no_span_either(service: Callable[..., FastAPI], traces: Traces) -> None:
    """FastAPI's own telemetry is told that the request is looked after."""
    trace.set_tracer_provider(traces.provider)
    app, inner = service(traces), FastAPI()
    inner.get("/items")(lambda: 1)
    app.mount("/inner", inner)
    get(app, "/inner/items", NO)
    assert traces.take() == []


def test_a_call_from_inside_the_process_belongs_to_its_callers_span(
    service: Callable[..., FastAPI], traces: Traces, made: list[object]
) -> None:
    """As with OpenTelemetry's layer, which reads no headers below a live span."""
    app = service(traces)
    scope = {"type": "http", "path": "/", "headers": [(b"traceparent", NO["traceparent"].encode())]}
    assert bypass._unsampled(scope, get_current()) is not None
    with traces.provider.get_tracer("test").start_as_current_span("caller"):
        assert bypass._unsampled(scope, get_current()) is None
    FastAPIInstrumentor.uninstrument_app(app)


def test_a_header_that_came_twice_keeps_no_request_from_passing_by(service: Callable[..., FastAPI]) -> None:
    """But for those of the trace: two of `traceparent` are none."""
    service(Traces())
    line = (b"traceparent", NO["traceparent"].encode())
    cookies = [(b"cookie", b"a=1"), (b"cookie", b"b=2")]
    assert bypass._unsampled({"headers": [line, *cookies]}, get_current()) is not None
    assert bypass._unsampled({"headers": [line, line]}, get_current()) is None


def test_a_request_that_passed_by_tells_of_its_caller_when_it_is_asked(service: Callable[..., FastAPI]) -> None:
    """And no other header than those of the trace is taken for what arrived."""
    service(Traces())
    raw = [(name.encode(), value.encode()) for name, value in NO.items()]
    context = bypass._unsampled({"headers": [(b"host", b"orders"), *raw]}, get_current())
    arrived, span = arrival(context), trace.get_current_span(context)
    assert arrived is not None
    assert arrived.span is span
    assert arrived.came == dict(raw)
    assert format(span.get_span_context().trace_id, "032x") == TRACE
    assert span.get_span_context().is_remote
    assert not span.is_recording()
    assert TRACE in repr(span)


def test_a_request_that_passed_by_leaves_nothing_to_the_garbage_collector(
    service: Callable[..., FastAPI], made: list[object]
) -> None:
    service(Traces())
    scope = {"headers": [(name.encode(), value.encode()) for name, value in NO.items()]}
    gc.disable()
    try:
        context = bypass._unsampled(scope, get_current())
        kept = weakref.ref(trace.get_current_span(context))
        assert trace.get_current_span(context).get_span_context().is_valid
        made.clear()
        del context
        assert kept() is None
    finally:
        gc.enable()


def test_formats_that_somebody_chose_are_asked(
    service: Callable[..., FastAPI], traces: Traces, made: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where they read no B3, a denial in B3 is none."""
    monkeypatch.setenv("OTEL_PROPAGATORS", "tracecontext")
    app = service(traces)
    get(app, "/call", NO)
    assert (len(made), traces.take()) == (1, [])
    get(app, "/call", {**MULTI, "x-b3-sampled": "0"})
    assert traces.take() == ["GET", "GET /call"]


def test_each_request_that_passed_by_is_counted() -> None:
    seen: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        pass

    layer = ServerBypass(app, app, saw=seen.append)
    scope = {"type": "http", "path": "/", "headers": [(b"traceparent", NO["traceparent"].encode())]}
    scopes: list[Any] = [scope, {"type": "http", "path": "/", "headers": []}, {"type": "lifespan"}]
    for each in scopes:
        with pytest.raises(StopIteration):
            layer(each, None, None).send(None)
    assert seen == [False]


def test_a_request_left_unfinished_is_closed_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    """By the garbage collector, in a context that never had the request's."""
    import asyncio
    import contextvars

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Future[None]()

    layer = ServerBypass(app, app)
    scope = {"type": "http", "path": "/", "headers": [(b"traceparent", NO["traceparent"].encode())]}

    async def main() -> None:
        serving = layer(scope, None, None)
        contextvars.copy_context().run(serving.send, None)
        serving.close()

    with caplog.at_level(logging.DEBUG):
        asyncio.run(main())
        gc.collect()
    assert "detach" not in caplog.text


def test_the_callers_request_stays_as_it_was_made(traces: Traces, sent: Sent) -> None:
    """OpenTelemetry writes its headers on the request; here on a copy."""
    setup_telemetry(SETTINGS, tracer_provider=traces.provider)

    def upstream(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(204)

    with create_client(SETTINGS, routes=RouteTable.empty(), transport=httpx.MockTransport(upstream)) as client:
        request = client.build_request("GET", "http://inventory:8080/", headers={"x-mine": "1"})
        before = request.headers.raw
        response = client.send(request)
    assert request.headers.raw == before
    assert response.request is request
    assert "traceparent" in sent[0].headers
    assert traces.take() == ["GET"]
