"""Real OTLP receivers, ports where nobody answers, and OpenTelemetry's globals as they were."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from gzip import decompress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from threading import Condition, Thread
from typing import Any, NamedTuple

import pytest
from opentelemetry import propagate, trace
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.background import BackgroundTask

from meshaware import instrumentation
from meshaware.telemetry import setup
from meshaware.telemetry.signals import detach_handler

SOURCE = Path(__file__).parents[2] / "src"


class Span(NamedTuple):
    """One span as a collector received it."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, object]
    resource: dict[str, object]


class Point(NamedTuple):
    """One data point of a metric as a collector received it; of a histogram, how often and how much in all."""

    value: float
    attributes: dict[str, object]
    unit: str
    resource: dict[str, object]


class Record(NamedTuple):
    """One log record as a collector received it."""

    body: str
    logger: str
    severity: int
    level: str
    trace_id: str
    attributes: dict[str, object]
    resource: dict[str, object]


REQUESTS: Mapping[str, Any] = {
    "traces": ExportTraceServiceRequest,
    "metrics": ExportMetricsServiceRequest,
    "logs": ExportLogsServiceRequest,
}


class Collector:
    """What an OTLP receiver has received, by signal."""

    def __init__(self, protocol: str, port: int) -> None:
        self.protocol = protocol
        self.endpoint = f"http://127.0.0.1:{port}"
        self.environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        }
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.spans: list[Span] = []
        self.records: list[Record] = []
        self.metrics: dict[str, list[Point]] = {}
        """By name, as they were last sent."""
        self.peers: set[str] = set()
        self._arrived = Condition()

    def take(self, path: str, headers: Mapping[str, str], body: Any, peer: object) -> None:
        with self._arrived:
            self.peers.add(str(peer))
            self.requests.append((path, {name.lower(): value for name, value in headers.items()}))
            if isinstance(body, ExportTraceServiceRequest):
                self.spans += _spans(body)
            elif isinstance(body, ExportMetricsServiceRequest):
                self.metrics.update(_points(body))
            else:
                self.records += _records(body)
            self._arrived.notify_all()

    def wait(self, count: int, timeout: float = 15.0) -> list[Span]:
        """The spans, once there are so many; fewer where they did not come in time."""
        self.until(lambda: len(self.spans) >= count, timeout)
        return list(self.spans)

    def until(self, there: Callable[[], bool], timeout: float = 15.0) -> bool:
        """Wait until something is there; False where it did not come in time."""
        with self._arrived:
            return self._arrived.wait_for(there, timeout)

    def names(self) -> list[str]:
        return sorted(span.name for span in self.spans)

    def bodies(self) -> list[str]:
        return [record.body for record in self.records]

    def sum_of(self, name: str, **attributes: object) -> float:
        """The sum of a metric's points that have these attributes, written with `_` for each dot."""
        wanted = {key.replace("_", "."): value for key, value in attributes.items()}
        return sum(
            point.value
            for point in self.metrics.get(name, ())
            if all(point.attributes.get(key) == value for key, value in wanted.items())
        )


def _plain(attributes: Any) -> dict[str, object]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


def _points(body: Any) -> dict[str, list[Point]]:
    found: dict[str, list[Point]] = {}
    for group in body.resource_metrics:
        for scope in group.scope_metrics:
            for metric in scope.metrics:
                for point in getattr(metric, metric.WhichOneof("data")).data_points:
                    kind = "sum" if metric.HasField("histogram") else point.WhichOneof("value")
                    found.setdefault(metric.name, []).append(
                        Point(
                            getattr(point, kind),
                            _plain(point.attributes),
                            metric.unit,
                            _plain(group.resource.attributes),
                        )
                    )
    return found


def _records(body: Any) -> list[Record]:
    return [
        Record(
            record.body.string_value,
            scope.scope.name,
            record.severity_number,
            record.severity_text,
            record.trace_id.hex(),
            _plain(record.attributes),
            _plain(group.resource.attributes),
        )
        for group in body.resource_logs
        for scope in group.scope_logs
        for record in scope.log_records
    ]


def _spans(body: Any) -> list[Span]:
    return [
        Span(
            span.name,
            span.kind,
            span.trace_id.hex(),
            span.span_id.hex(),
            span.parent_span_id.hex(),
            _plain(span.attributes),
            _plain(group.resource.attributes),
        )
        for group in body.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]


def _http_collector() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = decompress(body)
            request = REQUESTS.get(self.path.rpartition("/")[2], ExportTraceServiceRequest)
            collector.take(self.path, dict(self.headers), request.FromString(body), self.client_address)
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    collector = Collector("http/protobuf", server.server_address[1])
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield collector
    server.shutdown()
    server.server_close()
    thread.join(5)


def _serve(server: Any, package: str, service: str, take: Callable[..., None]) -> None:
    """Have a gRPC server take one signal."""
    module = f"opentelemetry.proto.collector.{package}.v1.{package}_service_pb2"
    generated = import_module(f"{module}_grpc")
    answer = getattr(import_module(module), f"Export{service}ServiceResponse")

    class Servicer(getattr(generated, f"{service}ServiceServicer")):  # type: ignore[misc]
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
            take(dict(context.invocation_metadata()), request, context.peer())
            return answer()

    getattr(generated, f"add_{service}ServiceServicer_to_server")(Servicer(), server)


def _grpc_collector() -> Iterator[Collector]:
    grpc = import_module("grpc")
    with ThreadPoolExecutor(4) as threads:
        server = grpc.server(threads)
        for package, service in (("trace", "Trace"), ("metrics", "Metrics"), ("logs", "Logs")):
            _serve(server, package, service, lambda *arrived: collector.take("", *arrived))
        collector = Collector("grpc", server.add_insecure_port("127.0.0.1:0"))
        server.start()
        yield collector
        server.stop(0).wait(5)


@pytest.fixture(name="http_collector")
def _http_collector_fixture() -> Iterator[Collector]:
    yield from _http_collector()


@pytest.fixture(name="grpc_collector")
def _grpc_collector_fixture() -> Iterator[Collector]:
    yield from _grpc_collector()


@pytest.fixture(name="collector", params=["http/protobuf", "grpc"])
def _collector_fixture(request: pytest.FixtureRequest) -> Iterator[Collector]:
    """A live collector, once for each protocol."""
    yield from _grpc_collector() if request.param == "grpc" else _http_collector()


@pytest.fixture
def silent_endpoint() -> Iterator[str]:
    """Accepts connections and never says anything."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def refusing_endpoint() -> Iterator[str]:
    """Refuses connections, for certain: the port is taken and nobody listens."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{holder.getsockname()[1]}"


class Spans:
    """A tracer provider of somebody else's that keeps the spans that ended."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    @property
    def finished(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def names(self) -> list[str]:
        return sorted(span.name for span in self.finished)


@pytest.fixture
def spans() -> Spans:
    return Spans()


class Meters:
    """A meter provider of somebody else's that tells what was measured."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader], shutdown_on_exit=False)

    def points(self, name: str) -> list[tuple[float, dict[str, object]]]:
        """The value of each point of a metric, of a histogram its sum, and its attributes."""
        return [
            (float(getattr(point, "value", getattr(point, "sum", 0))), dict(point.attributes or {}))
            for metric in self.metrics()
            if metric.name == name
            for point in metric.data.data_points
        ]

    def metrics(self) -> list[Any]:
        """Everything that was measured."""
        data = self._reader.get_metrics_data()
        return [
            metric
            for group in (data.resource_metrics if data is not None else ())
            for scope in group.scope_metrics
            for metric in scope.metrics
        ]


@pytest.fixture
def meters() -> Meters:
    return Meters()


@pytest.fixture(autouse=True)
def _fresh_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """OpenTelemetry's globals are set once in a process; each test gets them as an import leaves them."""
    once = import_module("opentelemetry.util._once").Once
    meters = import_module("opentelemetry.metrics._internal")
    loggers = import_module("opentelemetry._logs._internal")
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", once())
    monkeypatch.setattr(meters, "_METER_PROVIDER", None)
    monkeypatch.setattr(meters, "_METER_PROVIDER_SET_ONCE", once())
    monkeypatch.setattr(meters, "_PROXY_METER_PROVIDER", type(meters._PROXY_METER_PROVIDER)())
    monkeypatch.setattr(loggers, "_LOGGER_PROVIDER", None)
    monkeypatch.setattr(loggers, "_LOGGER_PROVIDER_SET_ONCE", once())
    monkeypatch.setattr(propagate, "_HTTP_TEXT_FORMAT", propagate.get_global_textmap())
    monkeypatch.setattr(setup, "_process", type(getattr(setup, "_process"))())  # noqa: B009
    monkeypatch.setattr(instrumentation, "_registry", type(getattr(instrumentation, "_registry"))())  # noqa: B009
    yield
    detach_handler()
    # The instrumentation has every background task of the process make a span, for good.
    task: Any = BackgroundTask
    if hasattr(task, "_otel_original_call"):
        task.__call__ = task._otel_original_call
        del task._otel_original_call


Run = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def python(tmp_path: Path) -> Iterator[Run]:
    """Start Python processes that have meshaware, and end those that are left."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str, env: Mapping[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", *arguments],
            env={**os.environ, "PYTHONPATH": f"{SOURCE}{os.pathsep}{tmp_path}", **(env or {})},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
