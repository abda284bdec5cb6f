"""Metrics and logs are set up if somebody asks, and never over what is there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from opentelemetry import _logs, metrics, trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor

from meshaware import MeshSettings, RouteTable, create_client
from meshaware.errors import SettingsError
from meshaware.settings import Workload
from meshaware.telemetry import setup, setup_telemetry, signals
from meshaware.telemetry.records import RecordHandler
from meshaware.telemetry.signals import choose

SIGNALS = ("metrics", "logs")
ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}


@pytest.fixture(name="at_exit", autouse=True)
def _at_exit(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """What would run when the process exits."""
    hooks: list[Callable[[], None]] = []
    monkeypatch.setattr(setup, "atexit", SimpleNamespace(register=hooks.append))
    return hooks


@pytest.fixture(name="set_variables")
def _set_variables(monkeypatch: pytest.MonkeyPatch, at_exit: list[Callable[[], None]]) -> Iterator[Any]:
    """Set variables; when the test is over, what they led to ends as with the process, while a collector is there."""

    def set_variables(environ: Mapping[str, str]) -> None:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)

    yield set_variables
    for hook in at_exit:
        hook()


def handlers() -> list[RecordHandler]:
    return [handler for handler in logging.getLogger().handlers if isinstance(handler, RecordHandler)]


def call(times: int = 1) -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(204))
    with create_client(MeshSettings(mesh="none"), routes=RouteTable.empty(), transport=transport) as client:
        for _ in range(times):
            client.get("http://inventory/items")


def untouched() -> bool:
    present = (metrics.get_meter_provider(), _logs.get_logger_provider())
    return [type(each).__name__ for each in present] == ["_ProxyMeterProvider", "ProxyLoggerProvider"]


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"},
        {**ENDPOINT, "OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"},
        {"OTEL_SDK_DISABLED": "true", "OTEL_METRICS_EXPORTER": "otlp", "OTEL_LOGS_EXPORTER": "otlp"},
    ],
)
def test_nothing_is_set_up_unless_somebody_asks(environ: dict[str, str], set_variables: Any) -> None:
    set_variables(environ)

    telemetry = setup_telemetry()

    assert (telemetry.metrics.state, telemetry.logs.state) == ("off", "off")
    assert untouched()
    assert not handlers()
    assert not telemetry.works


def test_the_code_alone_asks_only_where_an_endpoint_is_configured(set_variables: Any) -> None:
    """A service on a laptop has no collector, and stays quiet."""
    telemetry = setup_telemetry(metrics=True, logs=True)

    assert (telemetry.metrics.state, telemetry.logs.state) == ("off", "off")
    assert telemetry.metrics.reason == "neither OTEL_EXPORTER_OTLP_ENDPOINT nor OTEL_METRICS_EXPORTER is set"

    set_variables({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none", "OTEL_METRIC_EXPORT_INTERVAL": "600000"})
    telemetry = setup_telemetry(metrics=True)
    assert telemetry.metrics.state == "own"
    assert telemetry.metrics.reason == "metrics=True was given and OTEL_EXPORTER_OTLP_ENDPOINT is set"
    assert telemetry.metrics.target == "http://127.0.0.1:9/v1/metrics (http/protobuf)"


@pytest.mark.parametrize("signal", SIGNALS)
def test_the_last_word_is_no(signal: str, set_variables: Any) -> None:
    """The operator's against the code's, and the code's against the operator's."""
    exporter = f"OTEL_{signal.upper()}_EXPORTER"
    set_variables({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none", exporter: "none"})
    refused = getattr(setup_telemetry(**{signal: True}), signal)  # type: ignore[arg-type]
    set_variables({exporter: "otlp"})
    declined = getattr(setup_telemetry(**{signal: False}), signal)  # type: ignore[arg-type]

    assert (refused.state, refused.reason) == ("off", f"{exporter}='none'")
    assert (declined.state, declined.reason) == ("off", f"{signal}=False was given")
    assert untouched()


def test_all_three_signals_reach_the_collector_with_one_name(collector: Any, set_variables: Any) -> None:
    set_variables({**collector.environment, "OTEL_METRICS_EXPORTER": "otlp", "OTEL_LOGS_EXPORTER": "otlp"})
    telemetry = setup_telemetry(workload=Workload(service="inventory", namespace="shop"))
    with trace.get_tracer("test").start_as_current_span("count") as span:
        logging.getLogger("shop.inventory").error("few left")
    call(3)

    assert telemetry.flush(10)

    assert "count" in collector.names()
    (record,) = collector.records
    assert (record.body, record.logger, record.level) == ("few left", "shop.inventory", "ERROR")
    assert record.trace_id == format(span.get_span_context().trace_id, "032x")
    assert collector.sum_of("meshaware.client.calls", meshaware_verdict="answered") == 3
    point = collector.metrics["meshaware.client.calls"][0]
    assert point.unit == "{call}"
    assert point.resource == record.resource == collector.spans[0].resource
    assert point.resource["service.name"] == "inventory"
    if collector.protocol == "http/protobuf":
        assert {path for path, _ in collector.requests} == {"/v1/traces", "/v1/metrics", "/v1/logs"}


def test_metrics_and_logs_need_no_traces(collector: Any, set_variables: Any) -> None:
    """And an application that was given flushes them when its lifespan ends, though nothing is instrumented."""
    set_variables({**collector.environment, "OTEL_TRACES_EXPORTER": "none"})
    set_variables({"OTEL_METRIC_EXPORT_INTERVAL": "600000", "OTEL_BLRP_SCHEDULE_DELAY": "600000"})
    app = FastAPI()
    telemetry = setup_telemetry(
        app=app, metrics=True, logs=True, workload=Workload(service="inventory", pod_name="inventory-0")
    )
    setup_telemetry(app=app)

    with TestClient(app):
        call()
        logging.getLogger("shop").error("few left")
        assert collector.requests == []

    assert telemetry.state == "off"
    assert collector.bodies() == ["few left"]
    assert collector.sum_of("meshaware.client.calls") == 1
    assert collector.records[0].resource["service.name"] == "inventory"
    assert collector.names() == []
    assert len(collector.requests) == 2


@pytest.mark.parametrize("signal", SIGNALS)
def test_the_variables_of_a_signal_win(
    signal: str, http_collector: Any, grpc_collector: Any, set_variables: Any
) -> None:
    set_variables(
        {
            **http_collector.environment,
            "OTEL_TRACES_EXPORTER": "none",
            f"OTEL_{signal.upper()}_EXPORTER": "otlp",
            f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT": grpc_collector.endpoint,
            f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL": "grpc",
        }
    )
    telemetry = setup_telemetry()
    call()
    logging.getLogger("shop").error("few left")
    assert telemetry.flush(10)

    assert http_collector.requests == []
    assert len(grpc_collector.requests) == 1
    assert bool(grpc_collector.metrics if signal == "metrics" else grpc_collector.records)


def test_an_endpoint_of_a_signal_is_taken_as_it_is(http_collector: Any, set_variables: Any) -> None:
    set_variables(
        {
            "OTEL_METRICS_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{http_collector.endpoint}/tenant/metrics",
            "OTEL_EXPORTER_OTLP_METRICS_HEADERS": "authorization=Bearer%20abc",
        }
    )
    telemetry = setup_telemetry()
    call()
    assert telemetry.flush(10)

    ((path, headers),) = http_collector.requests
    assert (path, headers["authorization"]) == ("/tenant/metrics", "Bearer abc")


def test_empty_variables_count_as_unset(collector: Any, set_variables: Any, caplog: pytest.LogCaptureFixture) -> None:
    empty = (
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
        "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
        "OTEL_METRIC_EXPORT_INTERVAL",
        "OTEL_METRICS_EXEMPLAR_FILTER",
        "OTEL_BLRP_SCHEDULE_DELAY",
    )
    set_variables({**dict.fromkeys(empty, ""), **collector.environment, "OTEL_TRACES_EXPORTER": "none"})
    set_variables({"OTEL_METRICS_EXPORTER": "otlp", "OTEL_LOGS_EXPORTER": "otlp"})
    telemetry = setup_telemetry()
    call()

    assert telemetry.flush(10)
    assert collector.sum_of("meshaware.client.calls") == 1
    assert not caplog.records


def test_a_meter_provider_that_is_there_is_used_and_gets_no_second_exporter(
    meters: Any, http_collector: Any, set_variables: Any
) -> None:
    set_variables({**http_collector.environment, "OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "otlp"})
    metrics.set_meter_provider(meters.provider)

    telemetry = setup_telemetry()
    call(2)

    assert (telemetry.metrics.state, telemetry.metrics.provider) == ("shared", meters.provider)
    assert telemetry.metrics.reason == "this process has a meter provider already"
    assert telemetry.shutdown(10)
    assert metrics.get_meter_provider() is meters.provider
    assert len(getattr(meters.provider, "_metric_readers")) == 1  # noqa: B009
    assert http_collector.requests == []
    call()
    assert [value for value, _ in meters.points("meshaware.client.calls")] == [3]


def test_a_meter_provider_that_is_there_is_used_without_being_asked_for(meters: Any) -> None:
    """Whoever set it up wants metrics; unless told not to."""
    metrics.set_meter_provider(meters.provider)
    setup_telemetry()
    call()
    setup_telemetry(metrics=False)
    call()

    assert [value for value, _ in meters.points("meshaware.client.calls")] == [1]


def test_a_provider_that_is_given_is_used_and_the_processs_stays_unset(meters: Any) -> None:
    """What was given counts until another is: a call that says nothing changes nothing."""
    telemetry = setup_telemetry(meter_provider=meters.provider)
    other = type(meters)()
    call()
    assert setup_telemetry() is telemetry
    call()
    setup_telemetry(meter_provider=other.provider)
    call()

    assert untouched()
    assert telemetry.metrics.reason == "meter_provider was given"
    assert [value for value, _ in meters.points("meshaware.client.calls")] == [2]
    assert [value for value, _ in other.points("meshaware.client.calls")] == [1]


def test_somebody_who_wants_no_metrics_gets_none(set_variables: Any) -> None:
    set_variables({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "otlp"})
    metrics.set_meter_provider(metrics.NoOpMeterProvider())

    assert setup_telemetry().metrics.reason == "the provider is a NoOpMeterProvider"


@pytest.mark.parametrize("signal", SIGNALS)
def test_somebody_who_is_faster_keeps_the_place(
    signal: str, meters: Any, set_variables: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_variables({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none", f"OTEL_{signal.upper()}_EXPORTER": "otlp"})
    theirs: Any = meters.provider if signal == "metrics" else LoggerProvider(shutdown_on_exit=False)
    name = "_meters" if signal == "metrics" else "_loggers"
    make = getattr(signals, name)

    def slow(*arguments: Any) -> Any:
        (metrics.set_meter_provider if signal == "metrics" else _logs.set_logger_provider)(theirs)
        return make(*arguments)

    monkeypatch.setattr(signals, name, slow)
    outlet = getattr(setup_telemetry(), signal)

    assert (outlet.state, outlet.provider) == ("shared", theirs)


class Theirs(logging.Handler):
    """As a handler of OpenTelemetry's own."""

    __module__ = "opentelemetry.instrumentation.logging.handler"


@pytest.fixture(name="theirs")
def _theirs() -> LoggerProvider:
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(cast("Any", InMemoryLogRecordExporter)()))
    _logs.set_logger_provider(provider)
    return provider


def test_a_logger_provider_that_is_there_is_handed_records_only_if_somebody_asks(theirs: LoggerProvider) -> None:
    """Whoever set it up may have a handler as well, somewhere."""
    unasked = setup_telemetry()
    assert (unasked.logs.state, unasked.logs.provider, handlers()) == ("shared", theirs, [])

    setup_telemetry(logs=True)
    setup_telemetry(logs=True)
    assert [handler.provider for handler in handlers()] == [theirs]

    setup_telemetry(logs=False)
    assert handlers() == []


@pytest.mark.parametrize(("value", "asked"), [("otlp", True), ("none", False), ("", False)])
def test_the_variable_asks_as_well(value: str, theirs: LoggerProvider, set_variables: Any, *, asked: bool) -> None:
    set_variables({"OTEL_LOGS_EXPORTER": value})
    setup_telemetry()

    assert bool(handlers()) is asked


@pytest.mark.usefixtures("theirs")
def test_somebody_elses_handler_is_left_to_do_it() -> None:
    handler = Theirs()
    logging.getLogger().addHandler(handler)
    try:
        setup_telemetry(logs=True)
        assert handlers() == []
    finally:
        logging.getLogger().removeHandler(handler)


def test_a_new_provider_takes_the_place_of_the_old_one(theirs: LoggerProvider) -> None:
    setup_telemetry(logs=True)
    other = LoggerProvider(shutdown_on_exit=False)

    setup_telemetry(logger_provider=other, logs=True)

    assert [handler.provider for handler in handlers()] == [other]


def test_a_second_call_sets_nothing_up_again(
    http_collector: Any, set_variables: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "meshaware.telemetry")
    set_variables({**http_collector.environment, "OTEL_TRACES_EXPORTER": "none"})
    first = setup_telemetry(metrics=True, logs=True)
    outlets = (first.metrics, first.logs)
    second = setup_telemetry(metrics=True, logs=True)

    assert second is first
    assert (second.metrics, second.logs) == outlets
    assert second.metrics.state == "own"
    assert len(handlers()) == 1
    assert [line.partition(" go ")[0] for line in caplog.messages] == [
        "telemetry (own): metrics",
        "telemetry (own): logs",
    ]
    call()
    assert second.flush(10)
    assert http_collector.sum_of("meshaware.client.calls") == 1


def test_what_was_off_can_be_asked_for_later(http_collector: Any, set_variables: Any) -> None:
    """As where `Mesh.install` comes first."""
    set_variables(http_collector.environment)
    first = setup_telemetry()
    before = first.metrics

    assert setup_telemetry(metrics=True) is first
    assert (before.state, first.metrics.state) == ("off", "own")
    call()
    assert first.flush(10)
    assert http_collector.sum_of("meshaware.client.calls") == 1


def test_no_more_is_logged_to_what_was_shut_down(http_collector: Any, set_variables: Any) -> None:
    set_variables({**http_collector.environment, "OTEL_TRACES_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "otlp"})
    telemetry = setup_telemetry()
    logging.getLogger("shop").error("before")
    assert telemetry.shutdown(10)
    logging.getLogger("shop").error("after")

    assert http_collector.bodies() == ["before"]
    assert handlers() == []


def test_the_export_of_logs_makes_no_logs(
    collector: Any, set_variables: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At level DEBUG every library on the way has something to say about each export."""
    caplog.set_level(logging.DEBUG)
    set_variables({**collector.environment, "OTEL_TRACES_EXPORTER": "none", "OTEL_BLRP_SCHEDULE_DELAY": "20"})
    telemetry = setup_telemetry(logs=True)
    logging.getLogger("shop").debug("first")
    assert collector.until(lambda: "first" in collector.bodies())
    logging.getLogger("shop").debug("second")
    assert collector.until(lambda: "second" in collector.bodies())
    assert telemetry.flush(10)

    shop = [record.body for record in collector.records if record.logger == "shop"]
    exporters = {"opentelemetry", "urllib3", "grpc", "requests"}
    assert shop == ["first", "second"]
    assert not [record for record in collector.records if record.logger.partition(".")[0] in exporters]
    if collector.protocol == "http/protobuf":
        assert any(record.name.startswith("urllib3") for record in caplog.records)


def test_a_collector_that_refuses_makes_no_logs_of_its_own(
    refusing_endpoint: str, set_variables: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Each failed export would be the cause of the next one."""
    handed: list[str] = []
    set_variables({"OTEL_EXPORTER_OTLP_ENDPOINT": refusing_endpoint, "OTEL_TRACES_EXPORTER": "none"})
    set_variables({"OTEL_BLRP_SCHEDULE_DELAY": "20", "OTEL_EXPORTER_OTLP_TIMEOUT": "0.2"})
    telemetry = setup_telemetry(logs=True)
    (handler,) = handlers()
    emit = handler.emit

    def watched(record: logging.LogRecord) -> None:
        handed.append(record.name)
        emit(record)

    handler.emit = watched  # type: ignore[method-assign]
    logging.getLogger("shop").error("few left")
    telemetry.flush(10)
    telemetry.flush(10)

    assert handed == ["shop"]
    assert any(record.name.startswith("opentelemetry") for record in caplog.records)


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"OTEL_METRICS_EXPORTER": "statsd"}, "OTEL_METRICS_EXPORTER='statsd' is not installed: accepted are console"),
        ({"OTEL_LOGS_EXPORTER": "syslog"}, "OTEL_LOGS_EXPORTER='syslog' is not installed"),
        ({"OTEL_LOGS_EXPORTER": "otlp", "OTEL_BLRP_SCHEDULE_DELAY": "soon"}, "OTEL_BLRP_SCHEDULE_DELAY='soon'"),
        ({"OTEL_METRICS_EXPORTER": "otlp", "OTEL_METRIC_EXPORT_INTERVAL": "0"}, "OTEL_METRIC_EXPORT_INTERVAL='0'"),
    ],
)
def test_a_bad_value_is_refused_and_can_be_mended(
    environ: dict[str, str], message: str, set_variables: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_variables(environ)
    with pytest.raises(SettingsError, match=message.replace("(", r"\(")):
        setup_telemetry()
    for name in environ:
        monkeypatch.delenv(name)

    assert untouched()
    assert setup_telemetry().metrics.state == "off"


def test_what_is_not_used_is_not_checked(meters: Any) -> None:
    metrics.set_meter_provider(meters.provider)

    assert choose("metrics", {"OTEL_METRICS_EXPORTER": "otlp", "OTEL_METRIC_EXPORT_INTERVAL": "soon"}).state == "shared"
