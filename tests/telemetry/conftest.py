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
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from meshaware import instrumentation
from meshaware.telemetry import setup

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


class Collector:
    """What an OTLP receiver has received."""

    def __init__(self, protocol: str, port: int) -> None:
        self.protocol = protocol
        self.endpoint = f"http://127.0.0.1:{port}"
        self.environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        }
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.spans: list[Span] = []
        self.peers: set[str] = set()
        self._arrived = Condition()

    def take(self, path: str, headers: Mapping[str, str], body: ExportTraceServiceRequest, peer: object) -> None:
        with self._arrived:
            self.peers.add(str(peer))
            self.requests.append((path, {name.lower(): value for name, value in headers.items()}))
            self.spans += _spans(body)
            self._arrived.notify_all()

    def wait(self, count: int, timeout: float = 15.0) -> list[Span]:
        """The spans, once there are so many; fewer where they did not come in time."""
        with self._arrived:
            self._arrived.wait_for(lambda: len(self.spans) >= count, timeout)
            return list(self.spans)

    def names(self) -> list[str]:
        return sorted(span.name for span in self.spans)


def _spans(body: Any) -> list[Span]:
    def plain(attributes: Any) -> dict[str, object]:
        return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}

    return [
        Span(
            span.name,
            span.kind,
            span.trace_id.hex(),
            span.span_id.hex(),
            span.parent_span_id.hex(),
            plain(span.attributes),
            plain(group.resource.attributes),
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
            collector.take(
                self.path, dict(self.headers), ExportTraceServiceRequest.FromString(body), self.client_address
            )
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


def _grpc_collector() -> Iterator[Collector]:
    grpc = import_module("grpc")
    services = import_module("opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc")

    class Servicer(services.TraceServiceServicer):  # type: ignore[misc,name-defined]
        def Export(self, request: Any, context: Any) -> ExportTraceServiceResponse:  # noqa: N802
            collector.take("", dict(context.invocation_metadata()), request, context.peer())
            return ExportTraceServiceResponse()

    with ThreadPoolExecutor(4) as threads:
        server = grpc.server(threads)
        services.add_TraceServiceServicer_to_server(Servicer(), server)
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


@pytest.fixture(autouse=True)
def _fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenTelemetry's globals are set once in a process; each test gets them as an import leaves them."""
    once = import_module("opentelemetry.util._once").Once
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", once())
    monkeypatch.setattr(propagate, "_HTTP_TEXT_FORMAT", propagate.get_global_textmap())
    monkeypatch.setattr(setup, "_process", type(getattr(setup, "_process"))())  # noqa: B009
    monkeypatch.setattr(instrumentation, "_callbacks", [])


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
