"""
What leaves a service on the wire, for each way in which OpenTelemetry can be there or not.

A real service on uvicorn, which calls a real server; each way is a process of its own. docs/headers.md has the table.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import NamedTuple
from urllib.request import Request, urlopen

import pytest

TRACE, SPAN = "463ac35c9f6413ad48485a3953bb6124", "a2fb4a1d1a96d312"
ID = {"x-request-id": "4c7b9e2a-9a1d-9f9b-8c3e-5d1f2a3b4c5d", "x-user-type": "premium"}
SAMPLED = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "congo=t61rcWkgMzE"}
UNSAMPLED = {"traceparent": f"00-{TRACE}-{SPAN}-00", "tracestate": "congo=t61rcWkgMzE"}
MULTI = {"x-b3-traceid": TRACE, "x-b3-spanid": SPAN, "x-b3-parentspanid": "0020000000000001", "x-b3-sampled": "1"}
MULTI_UNSAMPLED = {**MULTI, "x-b3-sampled": "0"}
DEFERRED = {"x-b3-traceid": TRACE, "x-b3-spanid": SPAN}
SINGLE = {"b3": f"{TRACE}-{SPAN}-1"}
BOTH = {**MULTI, "b3": f"{TRACE}-0020000000000001-1"}
DENIED = {"b3": "0"}

MESHAWARE = """
from fastapi import FastAPI
from meshaware import Mesh
app = FastAPI()
mesh = Mesh()
mesh.install(app, telemetry={telemetry})
client = mesh.client()

@app.get("/")
def call(url: str) -> int:
    return client.get(url).status_code
"""
INSTRUMENTED = (
    MESHAWARE.format(telemetry=False)
    + """
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
FastAPIInstrumentor.instrument_app(app)
HTTPXClientInstrumentor.instrument_client(client)
"""
)
PROVIDER = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))
"""
PLAIN = """
from fastapi import FastAPI
import httpx
import sys
app = FastAPI()

@app.get("/")
def call(url: str) -> int:
    assert not any(name == "meshaware.client" for name in sys.modules)
    with httpx.Client(follow_redirects=True) as client:
        return client.get(url).status_code
"""
OTLP = {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
WAYS: dict[str, tuple[str, dict[str, str]]] = {
    "none": (MESHAWARE.format(telemetry=False), {}),
    "setup_telemetry": (MESHAWARE.format(telemetry=True), OTLP),
    "setup_telemetry, nothing to export to": (MESHAWARE.format(telemetry=True), {}),
    "OTEL_SDK_DISABLED": (MESHAWARE.format(telemetry=True), {**OTLP, "OTEL_SDK_DISABLED": "true"}),
    "always_off": (MESHAWARE.format(telemetry=True), {**OTLP, "OTEL_TRACES_SAMPLER": "always_off"}),
    "instrumented without a provider": (INSTRUMENTED, {}),
    "instrumented, OTEL_SDK_DISABLED": (PROVIDER + INSTRUMENTED, {"OTEL_SDK_DISABLED": "true"}),
    "FastAPI's own": (
        PROVIDER + MESHAWARE.format(telemetry=False),
        {"OTEL_PROPAGATORS": "tracecontext,baggage,meshaware"},
    ),
    "FastAPI's own, OpenTelemetry's default formats": (PROVIDER + MESHAWARE.format(telemetry=False), {}),
    "opentelemetry-instrument": (PLAIN, {**OTLP, "OTEL_PROPAGATORS": "tracecontext,baggage,b3multi,meshaware"}),
    "opentelemetry-instrument without exporter": (
        PLAIN,
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_PROPAGATORS": "tracecontext,baggage,b3multi,meshaware"},
    ),
}


class Upstream:
    """Keeps the headers of each request as they came; `/away` sends on to what `?to=` names."""

    def __init__(self) -> None:
        self.seen: list[list[tuple[str, str]]] = []
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                upstream.seen.append([(name.lower(), value) for name, value in self.headers.items()])
                away = self.path.partition("?to=")[2]
                self.send_response(302 if away else 204)
                if away:
                    self.send_header("location", away)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port

    def take(self) -> list[dict[str, str]]:
        """The headers that matter here of each request since; none came twice."""
        taken, self.seen = self.seen, []
        kept = [[(n, v) for n, v in each if n.startswith(("x-", "trace", "b3", "baggage"))] for each in taken]
        for each in kept:
            assert len(dict(each)) == len(each), each
        return [dict(each) for each in kept]


@pytest.fixture(name="upstream", scope="module")
def _upstream() -> Iterator[Upstream]:
    upstream = Upstream()
    thread = Thread(target=upstream.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield upstream
    upstream.server.shutdown()
    upstream.server.server_close()
    thread.join(5)


class Service(NamedTuple):
    """A service, and what it calls."""

    port: int
    upstream: Upstream
    inside: str

    def pass_on(self, came: dict[str, str], path: str = "/") -> list[dict[str, str]]:
        """Have the service call upstream while it serves a request with these headers."""
        url = f"http://{self.inside}:{self.upstream.port}{path}"
        request = Request(f"http://127.0.0.1:{self.port}/?url={url}", headers=came)
        with urlopen(request, timeout=30) as response:
            assert json.load(response) == 204
        return self.upstream.take()


Serve = Callable[[str], Service]


@pytest.fixture(name="serve", scope="module")
def _serve(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Start each way once. `localhost` is inside the mesh here, 127.0.0.1 is not."""
    started: dict[str, tuple[subprocess.Popen[bytes], Service]] = {}

    def serve(way: str) -> Service:
        if way not in started:
            script, environ = WAYS[way]
            folder = tmp_path_factory.mktemp("service")
            (folder / "service.py").write_text(script)
            listener = socket.create_server(("127.0.0.1", 0))
            command = [sys.executable, "-m", "uvicorn", "service:app", "--fd", str(listener.fileno())]
            if way.startswith("opentelemetry-instrument"):
                tool = Path(sys.executable).with_name("opentelemetry-instrument")
                command = [str(tool), *command]
            process = subprocess.Popen(
                command,
                cwd=folder,
                env={
                    "PATH": str(Path(sys.executable).parent),
                    "PYTHONPATH": str(Path(__file__).parents[2] / "src"),
                    "MESHAWARE_MESH": "none",
                    "MESHAWARE_MESH_HOSTS": "localhost",
                    "OTEL_BSP_SCHEDULE_DELAY": "600000",
                    **environ,
                },
                pass_fds=[listener.fileno()],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            started[way] = process, Service(listener.getsockname()[1], upstream, "localhost")
            listener.close()
        return started[way][1]

    yield serve
    for process, _ in started.values():
        process.kill()
        process.wait(10)


def agree(sent: dict[str, str]) -> tuple[str, str, bool]:
    """Trace, span and decision that every header of a request tells alike."""
    told = set[tuple[str, str, bool]]()
    if "traceparent" in sent:
        _, trace, span, flags = sent["traceparent"].split("-")
        told.add((trace, span, bool(int(flags, 16) & 1)))
    if "x-b3-traceid" in sent:
        told.add((sent["x-b3-traceid"], sent["x-b3-spanid"], sent["x-b3-sampled"] == "1"))
    if "b3" in sent:
        trace, span, decision = sent["b3"].split("-")
        told.add((trace, span, decision == "1"))
    assert len(told) == 1, sent
    return told.pop()


WITHOUT_SPANS = [
    "none",
    "setup_telemetry, nothing to export to",
    "OTEL_SDK_DISABLED",
    "instrumented without a provider",
    "instrumented, OTEL_SDK_DISABLED",
]


@pytest.mark.parametrize("way", WITHOUT_SPANS)
def test_without_spans_what_came_goes_out_verbatim(serve: Serve, way: str) -> None:
    service = serve(way)
    for came in (SAMPLED, UNSAMPLED, MULTI, DEFERRED, SINGLE, DENIED, {}):
        assert service.pass_on({**ID, **came}) == [{**ID, **came}]
    assert service.pass_on({**ID, **BOTH}) == [{**ID, **MULTI}]


@pytest.mark.parametrize("way", ["setup_telemetry", "FastAPI's own"])
def test_a_sampled_request_goes_on_as_one_span_in_the_formats_that_came(serve: Serve, way: str) -> None:
    service = serve(way)
    for came in (SAMPLED, MULTI, SINGLE, BOTH, DEFERRED, {**SAMPLED, **MULTI}):
        (sent,) = service.pass_on({**ID, **came})
        trace, span, sampled = agree(sent)
        assert trace == TRACE
        assert span != SPAN
        assert sampled
        assert sent.items() >= ID.items()
        assert not {"x-b3-parentspanid", "x-b3-flags"} & set(sent)
        assert ("b3" in sent) == (came is SINGLE)
        assert ("x-b3-traceid" in sent) == ("x-b3-traceid" in came)
        assert sent.get("tracestate") == came.get("tracestate")


def test_formats_that_cannot_read_b3_begin_a_trace_of_their_own_and_tell_of_that_one_only(serve: Serve) -> None:
    service = serve("FastAPI's own, OpenTelemetry's default formats")
    assert agree(service.pass_on({**ID, **SAMPLED})[0])[0] == TRACE
    (sent,) = service.pass_on({**ID, **MULTI})
    assert agree(sent)[0] != TRACE
    assert sent.items() >= ID.items()


def test_an_unsampled_request_goes_on_with_the_parent_that_came(serve: Serve) -> None:
    service = serve("setup_telemetry")
    for came in (UNSAMPLED, MULTI_UNSAMPLED, {"b3": f"{TRACE}-{SPAN}-0"}, DENIED):
        assert service.pass_on({**ID, **came}) == [{**ID, **came}]


def test_where_nothing_is_ever_sampled_spans_go_on_unsampled(serve: Serve) -> None:
    service = serve("always_off")
    for came in (SAMPLED, MULTI, SINGLE):
        (sent,) = service.pass_on({**ID, **came})
        trace, span, sampled = agree(sent)
        assert (trace, sampled) == (TRACE, False)
        assert span != SPAN
        assert sent.items() >= ID.items()


@pytest.mark.parametrize("way", ["setup_telemetry", "always_off", "FastAPI's own"])
def test_a_trace_that_begins_here_goes_out_in_agreement(serve: Serve, way: str) -> None:
    (sent,) = serve(way).pass_on(ID)
    assert agree(sent)[2] == (way != "always_off")
    assert sent.items() >= ID.items()


def test_a_service_that_never_imports_meshaware_carries_all_of_it(serve: Serve) -> None:
    """Nothing but the variable: `OTEL_PROPAGATORS=tracecontext,baggage,b3multi,meshaware`."""
    service = serve("opentelemetry-instrument")
    for came in (SAMPLED, MULTI, DEFERRED):
        (sent,) = service.pass_on({**ID, **came})
        trace, span, sampled = agree(sent)
        assert (trace, sampled) == (TRACE, True)
        assert span != SPAN
        assert sent.items() >= ID.items()
    (sent,) = service.pass_on({**ID, **UNSAMPLED})
    assert agree(sent)[::2] == (TRACE, False)
    first, second = service.pass_on({**ID, **SAMPLED}, f"/?to=http://127.0.0.1:{service.upstream.port}/")
    assert first.items() >= ID.items()
    assert not set(ID) & set(second)


def test_it_does_so_without_a_tracer_too(serve: Serve) -> None:
    service = serve("opentelemetry-instrument without exporter")
    (sent,) = service.pass_on({**ID, **SAMPLED})
    assert sent.items() >= ID.items()
    assert agree(sent)[0] == TRACE
