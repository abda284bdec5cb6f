"""A worker without an application: what its mesh measured and traced leaves as its lifespan ends."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

Python = Callable[..., subprocess.Popen[str]]

# Nothing leaves before because its time has come, nor at the exit, because there is none.
ENVIRONMENT = {"OTEL_BSP_SCHEDULE_DELAY": "600000", "MESHAWARE_MESH": "none"}

SYNC = """
import os, sys, time
import httpx
from opentelemetry import trace
from meshaware import Mesh

mesh = Mesh()
assert mesh.install_telemetry() is mesh.telemetry
transport = httpx.MockTransport(lambda request: httpx.Response(204))
client = mesh.client(transport=transport)
begin = time.monotonic()
try:
    with mesh.sync_lifespan(), trace.get_tracer("job").start_as_current_span("count"):
        client.get("http://orders/")
        if "fail" in sys.argv:
            raise LookupError
except LookupError:
    pass
print(time.monotonic() - begin, flush=True)
os._exit(0)
"""

ASYNC = """
import os, sys, time
import anyio, httpx
from opentelemetry import trace
from meshaware import Mesh

mesh = Mesh()
mesh.install_telemetry()
client = mesh.async_client(transport=httpx.MockTransport(lambda request: httpx.Response(204)))

async def main():
    async with mesh.lifespan():
        with trace.get_tracer("job").start_as_current_span("count"):
            await client.get("http://orders/")
            if "fail" in sys.argv:
                raise LookupError

begin = time.monotonic()
try:
    anyio.run(main, backend=sys.argv[1])
except LookupError:
    pass
print(time.monotonic() - begin, flush=True)
os._exit(0)
"""

SERVICE = """
import os, time
import anyio
from fastapi import FastAPI
from meshaware import Mesh
from opentelemetry import trace

app = FastAPI()
Mesh().install(app)

async def main():
    async with app.router.lifespan_context(app):
        with trace.get_tracer("job").start_as_current_span("count"):
            pass

begin = time.monotonic()
anyio.run(main)
print(time.monotonic() - begin, flush=True)
os._exit(0)
"""


@pytest.mark.parametrize("ends", ["", "fail"])
@pytest.mark.parametrize(
    ("job", "loop"),
    [(SYNC, ""), (ASYNC, "asyncio"), (ASYNC, "trio")],
    ids=["synchronous", "asyncio", "trio"],
)
def test_a_job_in_its_meshs_lifespan_loses_no_span(
    job: str, loop: str, ends: str, python: Python, http_collector: Any
) -> None:
    """Whether it succeeds or fails, and however the process ends afterwards."""
    process = python("-c", job, loop, ends, env={**ENVIRONMENT, **http_collector.environment})
    _, err = process.communicate(timeout=30)

    assert (process.returncode, err) == (0, "")
    assert http_collector.names() == ["GET", "count"]


@pytest.mark.parametrize("job", [SYNC, ASYNC, SERVICE], ids=["synchronous", "asynchronous", "service"])
def test_a_collector_that_is_silent_holds_the_end_up_for_two_seconds_in_all(
    job: str, python: Python, silent_endpoint: str
) -> None:
    """Also where both an application and its mesh flush."""
    environ = {**ENVIRONMENT, "OTEL_EXPORTER_OTLP_ENDPOINT": silent_endpoint}
    process = python("-c", job, "asyncio", env=environ)
    out, err = process.communicate(timeout=30)

    assert process.returncode == 0, err
    assert 1.9 < float(out) < 3.9


def test_a_job_whose_spans_nobody_asked_for_is_quiet(python: Python) -> None:
    process = python("-c", SYNC, env={"MESHAWARE_MESH": "none"})
    out, err = process.communicate(timeout=30)

    assert (process.returncode, err) == (0, "")
    assert float(out) < 1.9


BESIDE_A_SIDECAR = """
import sys, time
import anyio
from opentelemetry import trace
from meshaware import Mesh

mesh = Mesh()
mesh.install_telemetry()

def work():
    with trace.get_tracer("job").start_as_current_span("count"):
        print("working", flush=True)
        if "wait" in sys.argv:
            time.sleep(60)

@mesh.async_job()
async def main():
    with trace.get_tracer("job").start_as_current_span("count"):
        print("working", flush=True)
        if "wait" in sys.argv:
            await anyio.sleep(60)

if sys.argv[1] == "sync":
    mesh.job()(work)()
else:
    anyio.run(main, backend=sys.argv[1])
"""


class Agent:
    """Istio's agent, ready; when it is told to go it notes what a collector has by then."""

    def __init__(self, collector: Any) -> None:
        self.requests: list[int] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(200 if self.path == "/healthz/ready" else 404)

            def do_POST(self) -> None:
                outer.requests.append(len(collector.requests))
                self._answer(200, b"OK")

            def _answer(self, status: int, body: bytes = b"") -> None:
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class has it so)
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        url = f"http://127.0.0.1:{self._server.server_port}"
        self.environment = {
            "MESHAWARE_MESH": "istio",
            "MESHAWARE_READY_URL": f"{url}/healthz/ready",
            "MESHAWARE_ADMIN_URL": url,
            "MESHAWARE_QUIT_URL": f"{url}/quitquitquit",
        }

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


@pytest.fixture(name="agent")
def _agent(http_collector: Any) -> Iterator[Agent]:
    agent = Agent(http_collector)
    yield agent
    agent.close()


@pytest.mark.parametrize("stop", [False, True], ids=["to-its-end", "until-sigterm"])
@pytest.mark.parametrize("loop", ["sync", "asyncio", "trio"])
def test_a_job_has_sent_everything_when_its_sidecar_goes(
    python: Python, http_collector: Any, agent: Agent, loop: str, stop: bool
) -> None:
    """Spans and metrics, and nothing is sent afterwards: it would have no way out."""
    environment = {
        **ENVIRONMENT,
        **agent.environment,
        **http_collector.environment,
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_METRIC_EXPORT_INTERVAL": "600000",
    }
    process = python("-c", BESIDE_A_SIDECAR, loop, "wait" if stop else "", env=environment)
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    if stop:
        process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)

    assert process.returncode == (143 if stop else 0)
    assert http_collector.names() == ["count"]
    assert agent.requests == [len(http_collector.requests)]
