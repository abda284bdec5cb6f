"""Real processes and real collectors: what arrives when a process ends, and how long the end takes."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

import pytest

Python = Callable[..., subprocess.Popen[str]]

# Nothing leaves before the end because its time has come.
AT_THE_END = {
    "OTEL_BSP_SCHEDULE_DELAY": "600000",
    "OTEL_BLRP_SCHEDULE_DELAY": "600000",
    "OTEL_METRIC_EXPORT_INTERVAL": "600000",
    "OTEL_SERVICE_NAME": "inventory",
}
ALL = {"OTEL_METRICS_EXPORTER": "otlp", "OTEL_LOGS_EXPORTER": "otlp"}
BOUND = 2.0
# What a stop takes without telemetry, on a machine that is busy.
SLACK = 3.0

SERVICE = """
from contextlib import asynccontextmanager
from fastapi import FastAPI
from opentelemetry import trace
from meshaware.telemetry import setup_telemetry

@asynccontextmanager
async def lifespan(app):
    yield
    with trace.get_tracer("shop").start_as_current_span("goodbye"):
        pass

app = FastAPI(lifespan=lifespan)

@app.get("/items/{item}")
def read(item: int) -> int:
    return item

setup_telemetry(app=app)
"""

WORKER = """
import sys
from opentelemetry import trace
from meshaware.telemetry import setup_telemetry

telemetry = setup_telemetry(sigterm="sigterm" in sys.argv)
with trace.get_tracer("worker").start_as_current_span("count"):
    pass
if "sigterm" in sys.argv:
    print("counting", flush=True)
    while True:
        sys.stdin.read(1)
"""


class Service(NamedTuple):
    """A FastAPI service on uvicorn."""

    process: subprocess.Popen[str]
    url: str

    def call(self, times: int) -> None:
        for number in range(times):
            with urlopen(f"{self.url}/items/{number}", timeout=30) as response:
                assert response.status == 200

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, float, str]:
        """Its exit code, the seconds it took to end, and what it said."""
        begin = time.monotonic()
        self.process.send_signal(number)
        _, err = self.process.communicate(timeout=30)
        return self.process.returncode, time.monotonic() - begin, err


Serve = Callable[[Mapping[str, str]], Service]


@pytest.fixture(name="serve")
def _serve(python: Python, tmp_path: Path) -> Iterator[Serve]:
    """Start services; each gets a socket that listens already, so requests may come before it is up."""
    (tmp_path / "service.py").write_text(SERVICE)
    sockets: list[socket.socket] = []

    def serve(environ: Mapping[str, str]) -> Service:
        listener = socket.create_server(("127.0.0.1", 0))
        sockets.append(listener)
        process = python(
            *("-m", "uvicorn", "service:app", "--fd", str(listener.fileno())),
            env={**AT_THE_END, **environ},
            pass_fds=[listener.fileno()],
        )
        return Service(process, f"http://127.0.0.1:{listener.getsockname()[1]}")

    yield serve
    for listener in sockets:
        listener.close()


@pytest.fixture(name="worker")
def _worker(python: Python, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)

    def worker(environ: Mapping[str, str], *arguments: str) -> subprocess.Popen[str]:
        return python(str(script), *arguments, env={**AT_THE_END, **environ}, stdin=subprocess.PIPE)

    return worker


def otlp(endpoint: str, protocol: str) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}


def test_a_service_that_is_terminated_loses_no_span(serve: Serve, http_collector: Any, grpc_collector: Any) -> None:
    """uvicorn kills itself by the signal it was stopped with, so nothing that runs at exit runs."""
    collectors = (http_collector, grpc_collector)
    services = [serve(collector.environment) for collector in collectors]

    for service, collector in zip(services, collectors, strict=True):
        service.call(20)
        assert collector.spans == []
        code, _, err = service.stop()

        assert code == -signal.SIGTERM, err
        assert collector.names() == sorted(["GET /items/{item}"] * 20 + ["goodbye"])
        assert {span.resource["service.name"] for span in collector.spans} == {"inventory"}


DRAINED = """
import anyio
from fastapi import FastAPI
from pathlib import Path
from meshaware import Mesh

app = FastAPI()

@app.get("/slow")
async def slow() -> int:
    Path("slow").touch()
    while not await anyio.Path("go").exists():
        await anyio.sleep(0.01)
    return 43

Mesh().install(app)
"""


def test_a_service_of_a_mesh_sends_the_spans_of_what_was_in_hand_at_sigterm(
    python: Python, tmp_path: Path, http_collector: Any
) -> None:
    """The pause, then what is in hand, then telemetry."""
    (tmp_path / "drained.py").write_text(DRAINED)
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as thread:
        process = python(
            *("-m", "uvicorn", "drained:app", "--fd", str(listener.fileno())),
            env={**AT_THE_END, **http_collector.environment, "MESHAWARE_DRAIN": "100ms"},
            pass_fds=[listener.fileno()],
        )
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        slow = thread.submit(lambda: urlopen(f"{url}/slow", timeout=30).read())
        end = time.monotonic() + 30
        while not (tmp_path / "slow").exists():
            assert time.monotonic() < end
            time.sleep(0.01)

        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        (tmp_path / "go").touch()

        assert slow.result(30) == b"43"
        _, err = process.communicate(timeout=30)
        assert process.returncode == -signal.SIGTERM, err
        assert "GET /slow" in http_collector.names()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_collector_that_does_not_answer_delays_a_stop_by_two_seconds_at_most(
    serve: Serve, number: signal.Signals, silent_endpoint: str, refusing_endpoint: str
) -> None:
    endpoints = (silent_endpoint, refusing_endpoint) if number == signal.SIGTERM else (silent_endpoint,)
    services = [serve(otlp(endpoint, protocol)) for endpoint in endpoints for protocol in ("http/protobuf", "grpc")]

    for service in services:
        service.call(3)
    with ThreadPoolExecutor(len(services)) as threads:
        stops = [each.result() for each in [threads.submit(service.stop, number) for service in services]]

    for _, took, err in stops:
        assert BOUND - 0.1 <= took <= BOUND + SLACK, err
        assert "spans could not be sent within 2s" in err


def test_a_worker_that_ends_loses_no_span(
    worker: Callable[..., subprocess.Popen[str]], http_collector: Any, grpc_collector: Any
) -> None:
    collectors = (http_collector, grpc_collector)
    workers = [worker(collector.environment) for collector in collectors]

    for process, collector in zip(workers, collectors, strict=True):
        _, err = process.communicate(timeout=30)
        assert (process.returncode, err) == (0, "")
        assert collector.names() == ["count"]


def test_a_worker_that_is_terminated_loses_no_span_if_it_asked(
    worker: Callable[..., subprocess.Popen[str]], collector: Any
) -> None:
    process = worker(collector.environment, "sigterm")
    assert process.stdout is not None
    assert process.stdout.readline() == "counting\n"

    process.terminate()
    process.communicate(timeout=30)

    assert process.returncode == -signal.SIGTERM
    assert collector.names() == ["count"]


def test_a_worker_that_ends_is_delayed_by_two_seconds_at_most(
    worker: Callable[..., subprocess.Popen[str]], silent_endpoint: str
) -> None:
    processes = [worker(otlp(silent_endpoint, protocol)) for protocol in ("http/protobuf", "grpc")]
    idle = worker({})
    begin = time.monotonic()
    idle.communicate(timeout=30)
    start = time.monotonic() - begin

    for process in processes:
        process.communicate(timeout=30)
    took = time.monotonic() - begin

    assert [process.returncode for process in (idle, *processes)] == [0, 0, 0]
    assert took <= start + BOUND + SLACK


EVERYTHING = """
import logging, sys
import httpx
from contextlib import asynccontextmanager
from fastapi import FastAPI
from meshaware import MeshSettings, RouteTable, create_client
from meshaware.telemetry import setup_telemetry

transport = httpx.MockTransport(lambda request: httpx.Response(204))
client = create_client(MeshSettings(mesh="none"), routes=RouteTable.empty(), transport=transport)
logger = logging.getLogger("shop")

@asynccontextmanager
async def lifespan(app):
    yield
    client.get("http://orders/")
    logger.error("goodbye")

app = FastAPI(lifespan=lifespan)

@app.get("/items/{item}")
def read(item: int) -> int:
    client.get("http://orders/")
    logger.error("item %d", item)
    return item

setup_telemetry(app=app, sigterm="sigterm" in sys.argv)

if __name__ == "__main__":
    read(7)
    if "sigterm" in sys.argv:
        print("counting", flush=True)
        while True:
            sys.stdin.read(1)
"""


def test_a_service_that_is_terminated_loses_no_span_no_metric_and_no_log_record(
    serve: Serve, tmp_path: Path, http_collector: Any, grpc_collector: Any
) -> None:
    (tmp_path / "service.py").write_text(EVERYTHING)
    collectors = (http_collector, grpc_collector)
    services = [serve({**collector.environment, **ALL}) for collector in collectors]

    for service, collector in zip(services, collectors, strict=True):
        service.call(10)
        assert collector.requests == []
        code, _, err = service.stop()

        assert code == -signal.SIGTERM, err
        assert collector.names() == sorted(["GET /items/{item}"] * 10 + ["GET"] * 11)
        assert collector.sum_of("meshaware.client.calls", meshaware_verdict="answered") == 11
        assert collector.bodies() == [*(f"item {number}" for number in range(10)), "goodbye"]
        # Each record belongs to the trace of the request it was logged in.
        traces = {span.trace_id for span in collector.spans}
        assert {record.trace_id for record in collector.records[:-1]} <= traces


@pytest.mark.parametrize("arguments", [(), ("sigterm",)])
def test_a_worker_that_ends_or_is_terminated_loses_none_either(
    python: Python, tmp_path: Path, collector: Any, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "everything.py").write_text(EVERYTHING)
    environ = {**AT_THE_END, **ALL, **collector.environment}
    process = python("everything.py", *arguments, env=environ, stdin=subprocess.PIPE)
    if arguments:
        assert process.stdout is not None
        assert process.stdout.readline() == "counting\n"
        process.terminate()
    _, err = process.communicate(timeout=30)

    assert process.returncode == (-signal.SIGTERM if arguments else 0)
    # No other handler was there, so stderr says what it said without telemetry.
    assert err == "item 7\n"
    assert collector.names() == ["GET"]
    assert collector.sum_of("meshaware.client.calls") == 1
    assert collector.bodies() == ["item 7"]


def test_with_all_signals_a_stop_is_delayed_by_two_seconds_in_all(
    serve: Serve, tmp_path: Path, silent_endpoint: str, refusing_endpoint: str
) -> None:
    (tmp_path / "service.py").write_text(EVERYTHING)
    endpoints = [(silent_endpoint, "http/protobuf"), (silent_endpoint, "grpc"), (refusing_endpoint, "http/protobuf")]
    services = [serve({**ALL, **otlp(endpoint, protocol)}) for endpoint, protocol in endpoints]

    for service in services:
        service.call(3)
    with ThreadPoolExecutor(len(services)) as threads:
        stops = [each.result() for each in [threads.submit(service.stop) for service in services]]

    for _, took, err in stops:
        assert took <= BOUND + SLACK, err
        assert "spans, metrics and log records could not be sent within 2s" in err


def test_a_collector_that_takes_one_signal_only_gets_it_all_at_a_stop(
    serve: Serve, tmp_path: Path, silent_endpoint: str, http_collector: Any
) -> None:
    """What hangs does not hold up the rest."""
    (tmp_path / "service.py").write_text(EVERYTHING)
    hanging = {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": silent_endpoint,
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": silent_endpoint,
    }
    service = serve({**ALL, **http_collector.environment, **hanging})
    service.call(3)
    _, took, err = service.stop()

    assert took <= BOUND + SLACK, err
    assert len(http_collector.bodies()) == 4


FORKS = """
import os
from opentelemetry import trace
from meshaware.telemetry import setup_telemetry

setup_telemetry()
tracer = trace.get_tracer("forks")
with tracer.start_as_current_span("master"):
    pass
setup_telemetry().flush(10)
children = []
for number in range(3):
    child = os.fork()
    if child == 0:
        for _ in range(50):
            with tracer.start_as_current_span("child"):
                pass
        raise SystemExit
    children.append(child)
for child in children:
    os.waitpid(child, 0)
"""


def test_forked_workers_keep_their_spans_and_share_no_connection(python: Python, collector: Any) -> None:
    """What two processes write to one connection gets mixed up, now and then."""
    environ = {**AT_THE_END, **collector.environment}
    # Python 3.12 and newer warn of any fork in a process with threads, and an exporter has some.
    process = python("-W", "ignore::DeprecationWarning", "-c", FORKS, env=environ)
    _, err = process.communicate(timeout=40)

    assert process.returncode == 0, err
    assert collector.names() == ["child"] * 150 + ["master"]
    assert len({span.resource["service.instance.id"] for span in collector.spans}) == 4
    assert len(collector.peers) == 4


IMPORTS = """
import json, sys
import meshaware.telemetry

watched = ("fastapi", "starlette", "httpx", "httpx2", "pydantic", "grpc", "requests",
    "opentelemetry.sdk.trace", "opentelemetry.sdk.metrics", "opentelemetry.sdk._logs", "opentelemetry.propagate",
    "opentelemetry.exporter.otlp.proto")
def loaded():
    return [name for name in watched if name in sys.modules]
before = loaded()
meshaware.telemetry.setup_telemetry()
print(json.dumps([before, loaded()]))
"""


@pytest.mark.parametrize(
    ("environ", "absent", "present"),
    [
        (
            {},
            {"opentelemetry.sdk.trace", "opentelemetry.sdk.metrics", "opentelemetry.sdk._logs"}
            | {"pydantic", "grpc", "requests"},
            set[str](),
        ),
        ({"OTEL_TRACES_EXPORTER": "console"}, {"grpc", "requests", "fastapi"}, {"opentelemetry.sdk.trace"}),
        ({"OTEL_METRICS_EXPORTER": "otlp"}, {"grpc", "fastapi"}, {"opentelemetry.sdk.metrics", "requests"}),
        ({"OTEL_LOGS_EXPORTER": "otlp"}, {"grpc", "fastapi"}, {"opentelemetry.sdk._logs", "requests"}),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, {"grpc", "fastapi", "httpx"}, {"requests"}),
        ({"OTEL_TRACES_EXPORTER": "otlp_proto_grpc"}, {"requests", "fastapi", "httpx"}, {"grpc"}),
    ],
)
def test_a_process_imports_what_it_uses(
    python: Python, environ: dict[str, str], absent: set[str], present: set[str]
) -> None:
    out, err = python("-c", IMPORTS, env=environ).communicate(timeout=30)
    assert not err
    before, after = json.loads(out)

    assert before == []
    assert not absent & set(after)
    assert present <= set(after)


ETIQUETTE = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from meshaware.telemetry import setup_telemetry

provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
telemetry = setup_telemetry()
assert telemetry.tracer_provider is provider
with trace.get_tracer("theirs").start_as_current_span("once"):
    pass
"""


def test_a_service_that_exports_already_exports_no_span_twice(python: Python, http_collector: Any) -> None:
    _, err = python("-c", ETIQUETTE, env=http_collector.environment).communicate(timeout=30)

    assert not err
    assert http_collector.names() == ["once"]
