"""One call sets telemetry up, and knows its place."""

from __future__ import annotations

import logging
import signal
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from opentelemetry import propagate, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from meshaware.errors import SettingsError
from meshaware.instrumentation import announce_client
from meshaware.settings import MeshSettings, Workload
from meshaware.telemetry import provider, setup, setup_telemetry


def shop() -> FastAPI:
    app = FastAPI()

    @app.get("/items")
    def items() -> None:  # pyright: ignore[reportUnusedFunction]
        pass

    return app


def client() -> httpx.Client:
    return httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(204, request=request)))


def state_of(app: FastAPI) -> list[object]:
    """Everything that setting up telemetry may change for an application."""
    return [
        app.build_middleware_stack,
        app.router.lifespan_context,
        propagate.get_global_textmap(),
        signal.getsignal(signal.SIGTERM),
    ]


def exporters(provider: trace.TracerProvider | None) -> int:
    assert isinstance(provider, TracerProvider)
    return len(provider._active_span_processor._span_processors)  # pyright: ignore[reportPrivateUsage]


@pytest.fixture(autouse=True)
def _at_exit(monkeypatch: pytest.MonkeyPatch) -> Any:
    """
    What would run when the process exits runs when the test is over.

    Only what meshaware registers: run early, the hook of `weakref.finalize` would switch all finalizers off for good.
    """
    hooks: list[Any] = []
    monkeypatch.setattr(setup, "atexit", SimpleNamespace(register=hooks.append))
    yield
    for hook in hooks:
        hook()


@pytest.fixture(name="console")
def _console(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")


def test_without_a_collector_nothing_is_touched(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    app, mine = shop(), client()
    announce_client(mine)
    before = state_of(app)

    telemetry = setup_telemetry(app=app, httpx_globally=True, sigterm=True)

    assert (telemetry.state, telemetry.tracer_provider) == ("off", None)
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in telemetry.reason
    assert state_of(app) == before
    assert type(trace.get_tracer_provider()) is trace.ProxyTracerProvider
    assert not hasattr(mine, "_is_instrumented_by_opentelemetry")
    assert not caplog.records


def test_spans_of_server_and_client_reach_the_collector_with_the_workloads_name(
    collector: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in collector.environment.items():
        monkeypatch.setenv(name, value)
    workload = Workload(service="inventory", namespace="shop", pod_name="inventory-0")
    app, upstream = shop(), client()

    @app.get("/call")
    def call() -> None:  # pyright: ignore[reportUnusedFunction]
        upstream.get("http://orders/")

    telemetry = setup_telemetry(app=app, workload=workload)
    announce_client(upstream)
    with TestClient(app) as browser:
        browser.get("/call")
        browser.get("/livez")

    assert (telemetry.state, telemetry.reason) == ("own", "OTEL_EXPORTER_OTLP_ENDPOINT is set")
    inner, outer = collector.wait(2)
    assert (inner.name, outer.name) == ("GET", "GET /call")
    assert (inner.trace_id, inner.parent_id) == (outer.trace_id, outer.span_id)
    assert outer.resource["service.name"] == telemetry.resource["service.name"] == "inventory"
    assert outer.resource["service.instance.id"] == "shop.inventory-0"


@pytest.mark.parametrize(("mode", "names"), [("mesh", ["GET /items"]), ("always", ["GET /items"] * 2)])
def test_what_the_mesh_does_not_sample_reaches_the_collector_only_if_asked(
    http_collector: Any, mode: Any, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in http_collector.environment.items():
        monkeypatch.setenv(name, value)
    app = shop()
    telemetry = setup_telemetry(MeshSettings(sampling=mode, mesh="istio"), app=app)
    with TestClient(app) as browser:
        browser.get("/items", headers={"traceparent": f"00-{1:032x}-{1:016x}-00"})
        browser.get("/items", headers={"traceparent": f"00-{1:032x}-{1:016x}-01"})

    assert telemetry.shutdown()
    assert http_collector.names() == names
    assert telemetry.resource["meshaware.mesh.name"] == "istio"


@pytest.mark.usefixtures("console")
def test_two_variables_that_both_decide_on_sampling_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is set up."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
    monkeypatch.setenv("MESHAWARE_SAMPLING", "always")
    with pytest.raises(SettingsError, match="MESHAWARE_SAMPLING='always' and OTEL_TRACES_SAMPLER='always_on' both"):
        setup_telemetry()
    assert type(trace.get_tracer_provider()) is trace.ProxyTracerProvider
    monkeypatch.delenv("MESHAWARE_SAMPLING")
    assert setup_telemetry().state == "own"


@pytest.mark.usefixtures("console")
def test_a_second_call_returns_the_same_and_doubles_nothing() -> None:
    app = shop()
    first = setup_telemetry(app=app)
    before = state_of(app)

    second = setup_telemetry(app=app)

    assert second is first
    assert state_of(app) == before
    assert exporters(first.tracer_provider) == 1


def test_a_further_application_is_instrumented_by_a_further_call(spans: Any) -> None:
    first, second = shop(), shop()
    setup_telemetry(app=first, tracer_provider=spans.provider)
    setup_telemetry(app=second, tracer_provider=spans.provider)

    for app in (first, second):
        with TestClient(app) as browser:
            browser.get("/items")

    assert spans.names() == ["GET /items"] * 2


@pytest.mark.usefixtures("console")
def test_a_provider_that_is_there_is_used_and_gets_no_second_exporter(spans: Any) -> None:
    trace.set_tracer_provider(spans.provider)
    app, upstream = shop(), client()

    telemetry = setup_telemetry(app=app)
    announce_client(upstream)
    upstream.get("http://orders/")
    with TestClient(app) as browser:
        browser.get("/items")

    assert (telemetry.state, telemetry.tracer_provider) == ("shared", spans.provider)
    assert trace.get_tracer_provider() is spans.provider
    assert exporters(spans.provider) == 1
    assert spans.names() == ["GET", "GET /items"]
    assert telemetry.shutdown()
    with spans.provider.get_tracer("theirs").start_as_current_span("goes on"):
        pass
    assert "goes on" in spans.names()


@pytest.mark.usefixtures("console")
def test_a_provider_that_is_given_is_used_and_the_processs_stays_unset(spans: Any) -> None:
    telemetry = setup_telemetry(tracer_provider=spans.provider)

    assert telemetry.state == "shared"
    assert setup_telemetry(tracer_provider=spans.provider) is telemetry
    assert type(trace.get_tracer_provider()) is trace.ProxyTracerProvider
    assert setup_telemetry() is not telemetry


@pytest.mark.usefixtures("console")
def test_somebody_who_is_faster_keeps_the_place(spans: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    make = provider.make_provider

    def slow(*arguments: Any) -> TracerProvider:
        trace.set_tracer_provider(spans.provider)
        return make(*arguments)

    monkeypatch.setattr(provider, "make_provider", slow)

    assert setup_telemetry().tracer_provider is spans.provider
    assert exporters(spans.provider) == 1


@pytest.mark.usefixtures("console")
def test_somebody_who_wants_no_spans_gets_none() -> None:
    trace.set_tracer_provider(trace.NoOpTracerProvider())

    assert setup_telemetry().state == "off"


def test_a_disabled_sdk_switches_off_whatever_else_is_said(spans: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    app = shop()

    telemetry = setup_telemetry(app=app, tracer_provider=spans.provider)

    assert (telemetry.state, telemetry.reason) == ("off", "OTEL_SDK_DISABLED=true")
    assert not hasattr(app, "_is_instrumented_by_opentelemetry")


def test_a_bad_value_is_refused_and_nothing_is_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "jaeger")

    with pytest.raises(SettingsError, match="OTEL_TRACES_EXPORTER='jaeger' is not installed"):
        setup_telemetry()
    assert type(trace.get_tracer_provider()) is trace.ProxyTracerProvider

    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    assert setup_telemetry().state == "own"


def test_what_was_off_can_be_set_up_later(monkeypatch: pytest.MonkeyPatch) -> None:
    assert setup_telemetry().state == "off"
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    assert setup_telemetry().state == "own"


def test_clients_made_before_and_after_are_instrumented_by_the_provider_set_up_last(spans: Any) -> None:
    early, late, other = client(), client(), type(spans)()
    announce_client(early)
    setup_telemetry(tracer_provider=spans.provider)
    setup_telemetry(tracer_provider=other.provider)
    announce_client(late)

    early.get("http://orders/")
    late.get("http://orders/")
    late.get("http://orders/")

    assert (len(spans.finished), len(other.finished)) == (1, 2)


@pytest.mark.parametrize("flags", ["00", "01"])
def test_a_meter_provider_that_is_given_reaches_opentelemetrys_own_layers(spans: Any, meters: Any, flags: str) -> None:
    """They count every request and every call, also those that the mesh does not sample."""
    app, upstream = shop(), client()
    setup_telemetry(app=app, tracer_provider=spans.provider, meter_provider=meters.provider)
    announce_client(upstream)

    @app.get("/orders")
    def orders() -> int:
        return upstream.get("http://orders/").status_code

    with TestClient(app) as browser:
        for _ in range(2):
            browser.get("/orders", headers={"traceparent": f"00-{'a1' * 16}-{'b2' * 8}-{flags}"})

    counts = {
        metric.name: sum(point.count for point in metric.data.data_points)
        for metric in meters.metrics()
        if metric.name in ("http.server.duration", "http.client.duration")
    }
    assert counts == {"http.server.duration": 2, "http.client.duration": 2}


def test_every_client_of_the_process_is_instrumented_only_if_asked(spans: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def instrument(provider: object, meters: object) -> None:
        asked.append(provider)

    monkeypatch.setattr(setup, "instrument_httpx", instrument)

    setup_telemetry(tracer_provider=spans.provider)
    assert asked == []
    setup_telemetry(tracer_provider=spans.provider, httpx_globally=True)
    assert asked == [spans.provider]


def test_a_client_that_outlives_what_was_set_up_is_left_alone(spans: Any) -> None:
    setup_telemetry(tracer_provider=spans.provider)
    getattr(setup, "_process").latest = None  # noqa: B009
    upstream = client()

    announce_client(upstream)

    assert not hasattr(upstream, "_is_instrumented_by_opentelemetry")


def test_health_endpoints_are_those_of_the_settings(spans: Any) -> None:
    app = shop()

    @app.get("/alive")
    @app.get("/livez")
    def alive() -> None:  # pyright: ignore[reportUnusedFunction]
        pass

    setup_telemetry(MeshSettings(livez_path="/alive"), app=app, tracer_provider=spans.provider)
    with TestClient(app) as browser:
        browser.get("/alive")
        browser.get("/readyz")
        browser.get("/livez")

    assert spans.names() == ["GET /livez"]


@pytest.mark.usefixtures("console")
def test_the_workload_is_that_of_the_settings_or_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POD_NAMESPACE", "shop")
    settings = MeshSettings(workload={"service": "stock"})

    assert setup_telemetry(settings).resource["service.name"] == "stock"
    assert setup_telemetry(settings).resource["k8s.namespace.name"] == "shop"


@pytest.mark.usefixtures("console")
def test_one_line_says_what_was_set_up(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "meshaware")

    setup_telemetry(workload=Workload(service="inventory"))
    setup_telemetry()

    (line,) = [record.getMessage() for record in caplog.records]
    assert line == (
        "telemetry (own): spans of inventory go to console, because OTEL_TRACES_EXPORTER='console';"
        " kept where the mesh samples, and where a trace begins here (default); headers in W3C and B3 format"
    )


def test_the_line_says_whose_the_provider_is(spans: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "meshaware")
    trace.set_tracer_provider(spans.provider)
    propagate.set_global_textmap(TraceContextTextMapPropagator())

    setup_telemetry()

    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("telemetry (shared): spans of unknown_service")
    assert line.endswith("go where the provider sends them, because this process has a tracer provider already")


@pytest.mark.parametrize("given", [True, False])
def test_a_sampling_that_does_not_reach_a_provider_of_somebody_elses_is_pointed_out(
    given: bool, spans: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it was set."""
    if not given:
        monkeypatch.setenv("MESHAWARE_SAMPLING", "always")
    caplog.set_level(logging.INFO, "meshaware.telemetry")

    setup_telemetry(MeshSettings(mesh="none", sampling="always") if given else None, tracer_provider=spans.provider)

    origin = "argument sampling" if given else "env MESHAWARE_SAMPLING"
    (line,) = [record.getMessage() for record in caplog.records]
    assert f"; spans are kept as that provider says: always ({origin}) does not reach it" in line


def test_the_signal_is_handled_once_and_only_if_asked(spans: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(setup, "flush_at_sigterm", asked.append)

    telemetry = setup_telemetry(tracer_provider=spans.provider)
    assert asked == []
    setup_telemetry(tracer_provider=spans.provider, sigterm=True)
    setup_telemetry(tracer_provider=spans.provider, sigterm=True)

    assert asked == [telemetry]


def test_an_application_that_is_none_is_refused(spans: Any) -> None:
    with pytest.raises(SettingsError, match="FastAPI application itself"):
        setup_telemetry(app=object(), tracer_provider=spans.provider)


@pytest.mark.usefixtures("console")
@pytest.mark.parametrize("twice", [True, False])
def test_a_second_exporter_of_fastapis_own_is_pointed_out(
    twice: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    setup_telemetry(app=FastAPI(telemetry={"auto_configure": twice}))

    assert ("each span arrives twice" in caplog.text) is twice


def test_a_provider_of_somebody_else_may_have_as_many_exporters_as_he_likes(
    spans: Any, caplog: pytest.LogCaptureFixture
) -> None:
    setup_telemetry(app=FastAPI(telemetry={"auto_configure": True}), tracer_provider=spans.provider)

    assert not caplog.records
