"""Spans reach real collectors, by either protocol."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import pytest
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

from meshaware.errors import SettingsError
from meshaware.settings import Workload
from meshaware.telemetry import exporter
from meshaware.telemetry.exporter import log_processors, metric_readers, span_processors
from meshaware.telemetry.provider import make_provider
from meshaware.telemetry.variables import Plan, read_plan


@pytest.fixture(name="export")
def _export(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], None]:
    """Export one span as variables say."""

    def export(environ: dict[str, str]) -> None:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        provider = make_provider(read_plan(environ), Workload(), environ)
        with provider.get_tracer("test").start_as_current_span("reserve"):
            pass
        provider.shutdown()

    return export


def test_spans_arrive_as_the_protocol_says(collector: Any, export: Callable[[dict[str, str]], None]) -> None:
    export({**collector.environment, "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20abc"})

    assert [span.name for span in collector.wait(1)] == ["reserve"]
    path, headers = collector.requests[0]
    assert path == ("" if collector.protocol == "grpc" else "/v1/traces")
    assert headers["authorization"] == "Bearer abc"


def test_spans_are_compressed_if_asked(collector: Any, export: Callable[[dict[str, str]], None]) -> None:
    export({**collector.environment, "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"})

    assert len(collector.wait(1)) == 1
    assert collector.protocol == "grpc" or collector.requests[0][1]["content-encoding"] == "gzip"


def test_empty_variables_count_as_unset(
    collector: Any, export: Callable[[dict[str, str]], None], caplog: pytest.LogCaptureFixture
) -> None:
    """The downward API and templates leave such behind; the SDK stumbles over some of them."""
    empty = (
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        "OTEL_EXPORTER_OTLP_COMPRESSION",
        "OTEL_EXPORTER_OTLP_TIMEOUT",
        "OTEL_EXPORTER_OTLP_HEADERS",
        "OTEL_TRACES_EXPORTER",
        "OTEL_TRACES_SAMPLER",
        "OTEL_BSP_SCHEDULE_DELAY",
        "OTEL_BSP_MAX_QUEUE_SIZE",
    )
    export({**dict.fromkeys(empty, ""), **collector.environment})

    assert len(collector.wait(1)) == 1
    assert not caplog.records


def test_the_endpoint_for_traces_is_taken_as_it_is(
    http_collector: Any, export: Callable[[dict[str, str]], None]
) -> None:
    export({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{http_collector.endpoint}/otlp/here"})

    assert len(http_collector.wait(1)) == 1
    assert http_collector.requests[0][0] == "/otlp/here"


def test_grpc_takes_an_address_without_a_scheme(grpc_collector: Any, export: Callable[[dict[str, str]], None]) -> None:
    address = grpc_collector.endpoint.removeprefix("http://")
    export(
        {
            **grpc_collector.environment,
            "OTEL_EXPORTER_OTLP_ENDPOINT": address,
            "OTEL_EXPORTER_OTLP_INSECURE": "true",
        }
    )

    assert len(grpc_collector.wait(1)) == 1


def test_each_exporter_gets_its_processor() -> None:
    plan = Plan(("console", "otlp"), "because", endpoint="http://127.0.0.1:9/v1/traces")
    processors: list[Any] = list(span_processors(plan))
    console, otlp = processors

    otlp.shutdown()
    assert isinstance(console, SimpleSpanProcessor)
    assert isinstance(otlp, BatchSpanProcessor)


def test_an_exporter_of_another_package_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    group = "opentelemetry_traces_exporter"
    vendor = EntryPoint("vendor", "opentelemetry.sdk.trace.export:ConsoleSpanExporter", group)
    monkeypatch.setattr(exporter, "entry_points", EntryPoints([vendor]).select)
    processors: list[Any] = list(span_processors(Plan(("vendor",), "because")))
    (processor,) = processors
    processor.shutdown()

    assert isinstance(processor, BatchSpanProcessor)


def test_a_reader_of_another_package_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prometheus asks for metrics; they are not sent."""
    group = "opentelemetry_metrics_exporter"
    pull = EntryPoint("pull", "opentelemetry.sdk.metrics.export:InMemoryMetricReader", group)
    push = EntryPoint("push", "opentelemetry.sdk.metrics.export:ConsoleMetricExporter", group)
    monkeypatch.setattr(exporter, "entry_points", EntryPoints([pull, push]).select)
    readers: list[Any] = list(metric_readers(Plan(("pull", "push", "console"), "because", signal="metrics")))
    pulled, pushed, console = readers

    for reader in (pushed, console):
        reader.shutdown(timeout_millis=1000)
    assert [type(reader) for reader in (pushed, console)] == [PeriodicExportingMetricReader] * 2
    assert isinstance(pulled, InMemoryMetricReader)


def test_log_records_are_sent_in_batches_and_shown_at_once() -> None:
    plan = Plan(("console", "otlp"), "because", endpoint="http://127.0.0.1:9/v1/logs", signal="logs")
    processors: list[Any] = list(log_processors(plan))
    console, otlp = processors

    otlp.shutdown()
    assert isinstance(console, SimpleLogRecordProcessor)
    assert isinstance(otlp, BatchLogRecordProcessor)


def test_an_exporter_that_is_not_installed_is_refused_with_those_that_are() -> None:
    with pytest.raises(SettingsError) as caught:
        span_processors(Plan(("jaeger",), "because"))

    assert "OTEL_TRACES_EXPORTER='jaeger' is not installed: accepted are console, none, otlp" in str(caught.value)


@pytest.mark.parametrize(("protocol", "package"), [("http/protobuf", "http"), ("grpc", "grpc")])
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, protocol: Any, package: str) -> None:
    def missing(plan: Plan) -> Any:
        raise ImportError("No module named 'grpc'")

    monkeypatch.setattr(exporter, f"_{package}", missing)
    plan = Plan(("otlp",), "OTEL_TRACES_EXPORTER='otlp'", protocol=protocol)

    with pytest.raises(SettingsError, match=f"install opentelemetry-exporter-otlp-proto-{package} "):
        span_processors(plan)


def test_what_the_exporter_refuses_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """The grpc exporter reads this one itself, whatever timeout it is given."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "soon")

    with pytest.raises(
        SettingsError, match=r"the exporter refuses what the OTEL_EXPORTER_OTLP_\* variables say: could"
    ):
        span_processors(Plan(("otlp",), "because", protocol="grpc", endpoint="http://127.0.0.1:9"))


def test_a_forked_child_opens_connections_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    hooks: list[Callable[[], None]] = []

    def register(*, after_in_child: Callable[[], None]) -> None:
        hooks.append(after_in_child)

    monkeypatch.setattr(os, "register_at_fork", register)
    session: Any = getattr(exporter, "_session")()  # noqa: B009
    before = dict(session.adapters)

    hooks[0]()

    assert list(session.adapters) == list(before)
    assert not set(map(id, session.adapters.values())) & set(map(id, before.values()))
