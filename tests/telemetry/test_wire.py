"""
What leaves a service on the wire, for each way in which OpenTelemetry can be there or not.

A real service on uvicorn, which calls a real server; each way is a process of its own. docs/headers.md has the table.
"""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import NamedTuple

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
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from meshaware import Mesh
app = FastAPI()
mesh = Mesh()
mesh.install(app, telemetry={telemetry})
client = mesh.client()

@app.get("/")
def call(url: str) -> int:
    return client.get(url).status_code

@app.post("/")
async def upload(url: str, request: Request) -> int:
    assert len(await request.body()) == 3_000_000
    return await run_in_threadpool(call, url)
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
    "MESHAWARE_SAMPLING=always": (MESHAWARE.format(telemetry=True), {**OTLP, "MESHAWARE_SAMPLING": "always"}),
    "none, 127.0.0.1 is a trace host": (MESHAWARE.format(telemetry=False), {"MESHAWARE_TRACE_HOSTS": "127.0.0.1"}),
    "setup_telemetry, 127.0.0.1 is a trace host": (
        MESHAWARE.format(telemetry=True),
        {**OTLP, "MESHAWARE_TRACE_HOSTS": "127.0.0.1"},
    ),
    "instrumented without a provider": (INSTRUMENTED, {}),
    "instrumented, OTEL_SDK_DISABLED": (PROVIDER + INSTRUMENTED, {"OTEL_SDK_DISABLED": "true"}),
    "FastAPI's own": (
        PROVIDER + MESHAWARE.format(telemetry=False),
        {"OTEL_PROPAGATORS": "tracecontext,baggage,meshaware"},
    ),
    "FastAPI's own, OpenTelemetry's default formats": (PROVIDER + MESHAWARE.format(telemetry=False), {}),
    "opentelemetry-instrument": (PLAIN, {**OTLP, "OTEL_PROPAGATORS": "tracecontext,baggage,b3multi,meshaware"}),
    "opentelemetry-instrument, 127.0.0.1 is a trace host": (
        PLAIN,
        {
            **OTLP,
            "OTEL_PROPAGATORS": "tracecontext,baggage,b3multi,meshaware",
            "MESHAWARE_TRACE_HOSTS": "127.0.0.1",
        },
    ),
    "instrumented without a provider, with meshaware's formats": (
        INSTRUMENTED,
        {"OTEL_PROPAGATORS": "tracecontext,baggage,b3multi,meshaware"},
    ),
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

    def pass_on(self, came: dict[str, str] | list[tuple[str, str]], path: str = "/") -> list[dict[str, str]]:
        """Have the service call upstream while it serves a request with these headers."""
        url = f"http://{self.inside}:{self.upstream.port}{path}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.putrequest("GET", f"/?url={url}")
        for name, value in came.items() if isinstance(came, dict) else came:
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        assert (response.status, json.load(response)) == (200, 204)
        connection.close()
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
    "instrumented without a provider, with meshaware's formats",
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


def test_what_is_recorded_here_by_choice_goes_on_as_the_mesh_decided(serve: Serve) -> None:
    service = serve("MESHAWARE_SAMPLING=always")
    for came in (UNSAMPLED, MULTI_UNSAMPLED, {"b3": f"{TRACE}-{SPAN}-0"}):
        trace, span, sampled = agree(service.pass_on({**ID, **came})[0])
        assert (trace, sampled) == (TRACE, False)
        assert span != SPAN
    assert agree(service.pass_on({**ID, **SAMPLED})[0])[2]
    assert agree(service.pass_on(ID)[0])[2]


@pytest.mark.parametrize("way", [way for way in WAYS if "trace host" not in way])
def test_a_host_outside_gets_nothing(serve: Serve, way: str) -> None:
    outside = serve(way)._replace(inside="127.0.0.1")
    for came in (SAMPLED, UNSAMPLED, MULTI, SINGLE, DENIED, {}):
        assert outside.pass_on({**ID, **came, "baggage": "user=alice"}) == [{}]


@pytest.mark.parametrize("way", ["none", "setup_telemetry", "opentelemetry-instrument"])
def test_a_trace_host_gets_the_trace_alone(serve: Serve, way: str) -> None:
    came = {**ID, **SAMPLED, **MULTI, "baggage": "user=alice"}
    (sent,) = serve(f"{way}, 127.0.0.1 is a trace host")._replace(inside="127.0.0.1").pass_on(came)
    assert set(sent) == {"traceparent", "tracestate"}
    assert agree(sent)[::2] == (TRACE, True)
    (sent,) = serve(f"{way}, 127.0.0.1 is a trace host").pass_on(came)
    assert sent.items() >= {**ID, "baggage": "user=alice"}.items()


@pytest.mark.parametrize("way", ["none", "setup_telemetry", "instrumented without a provider"])
@pytest.mark.parametrize("first", [SAMPLED, UNSAMPLED], ids=["sampled", "unsampled"])
def test_a_request_knows_nothing_of_the_one_before_on_its_connection(
    serve: Serve, way: str, first: dict[str, str]
) -> None:
    """After a large body uvicorn goes on to read in the context of the request that had it."""
    service = serve(way)
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
    url = f"/?url=http://{service.inside}:{service.upstream.port}/"
    connection.request("POST", url, b"x" * 3_000_000, {**ID, **first})
    assert connection.getresponse().read() == b"204"
    for number in (1, 2):
        came = {"x-request-id": f"r{number}", "traceparent": f"00-{number:032x}-{number:016x}-01"}
        connection.request("GET", url, headers=came)
        assert connection.getresponse().read() == b"204"
        sent = service.upstream.take()[-1]
        assert sent["x-request-id"] == f"r{number}"
        assert agree(sent)[::2] == (f"{number:032x}", True)
        assert "tracestate" not in sent
    connection.close()


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
    assert second == {}


def test_it_does_so_without_a_tracer_too(serve: Serve) -> None:
    service = serve("opentelemetry-instrument without exporter")
    (sent,) = service.pass_on({**ID, **SAMPLED})
    assert sent.items() >= ID.items()
    assert agree(sent)[0] == TRACE


# W3C Trace Context, statement by statement: https://www.w3.org/TR/trace-context/ and https://www.w3.org/TR/trace-context-2/
PARENT = f"00-{TRACE}-{SPAN}"
CONTINUED: dict[str, list[tuple[str, str]]] = {
    "a version to come": [("traceparent", f"cc-{TRACE}-{SPAN}-01")],
    "a version to come, with more": [("traceparent", f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like")],
    "names in any case": [("TraceParent", f"{PARENT}-01")],
    "blanks around it": [("traceparent", f" \t{PARENT}-01 \t")],
    "flags that mean nothing yet": [("traceparent", f"{PARENT}-ff")],
}
BEGUN: dict[str, list[tuple[str, str]]] = {
    "two of them": [("traceparent", f"{PARENT}-01"), ("traceparent", f"00-{TRACE}-{SPAN[::-1]}-01")],
    "the same twice": [("traceparent", f"{PARENT}-01")] * 2,
    "version 00 with more": [("traceparent", f"{PARENT}-01-what-the-future-will-be-like")],
    "version 00 with a dot": [("traceparent", f"{PARENT}-01.")],
    "a version to come, with a dot": [("traceparent", f"cc-{TRACE}-{SPAN}-01.what")],
    "the forbidden version": [("traceparent", f"ff-{TRACE}-{SPAN}-01")],
    "a version of three digits": [("traceparent", f"000-{TRACE}-{SPAN}-01")],
    "a version that is no number": [("traceparent", f".0-{TRACE}-{SPAN}-01")],
    "no trace": [("traceparent", f"00-{'0' * 32}-{SPAN}-01")],
    "no span": [("traceparent", f"00-{TRACE}-{'0' * 16}-01")],
    "capitals": [("traceparent", f"00-{TRACE.upper()}-{SPAN}-01")],
    "a trace too long": [("traceparent", f"00-{TRACE}1-{SPAN}-01")],
    "a trace too short": [("traceparent", f"00-{TRACE[1:]}-{SPAN}-01")],
    "a span too long": [("traceparent", f"00-{TRACE}-{SPAN}1-01")],
    "a span too short": [("traceparent", f"00-{TRACE}-{SPAN[1:]}-01")],
    "flags too long": [("traceparent", f"{PARENT}-001")],
    "flags too short": [("traceparent", f"{PARENT}-1")],
    "flags that are no number": [("traceparent", f"{PARENT}-0.")],
    "another name": [("trace-parent", f"{PARENT}-01"), ("trace.parent", f"{PARENT}-01")],
    "nothing": [],
}
LONG_KEY, TENANT = "z" * 256, "t" * 241 + "@" + "v" * 14
STATES: dict[str, tuple[list[str], str]] = {
    "one list": (["foo=1,bar=2"], "foo=1,bar=2"),
    "several lists in order": (["foo=1,bar=2", "rojo=1,congo=2", "baz=3"], "foo=1,bar=2,rojo=1,congo=2,baz=3"),
    "empty lists": (["", "foo=1", ""], "foo=1"),
    "blanks between": (["foo=1 \t , \t bar=2, \t baz=3"], "foo=1 \t , \t bar=2, \t baz=3"),
    "the longest key": ([f"foo=1,{LONG_KEY}=1"], f"foo=1,{LONG_KEY}=1"),
    "the longest tenant and system": ([f"foo=1,{TENANT}=1"], f"foo=1,{TENANT}=1"),
    "a digit first, since level 2": (["1a=1"], "1a=1"),
    "32 members": ([",".join(f"a{n}={n}" for n in range(32))], ",".join(f"a{n}={n}" for n in range(32))),
    "33 members": ([",".join(f"a{n}={n}" for n in range(33))], ""),
    "a key twice": (["foo=1,foo=1"], ""),
    "a key twice in two lists": (["foo=1", "foo=2"], ""),
    "a key too long": ([f"foo=1,{LONG_KEY}z=1"], ""),
    "a tenant too long": ([f"foo=1,{'t' * 242}@v=1"], ""),
    "a system too long": ([f"foo=1,t@{'v' * 15}=1"], ""),
    "no system": (["foo@=1,bar=2"], ""),
    "no tenant": (["@foo=1,bar=2"], ""),
    "two at signs": (["foo@@bar=1,bar=2"], ""),
    "a blank in a key": (["foo =1"], ""),
    "capitals in a key": (["FOO=1"], ""),
    "a dot in a key": (["foo.bar=1"], ""),
    "two equals signs": (["foo=bar=baz"], ""),
    "no value": (["foo=,bar=3"], ""),
    "another name": ([], ""),
}
PARTICIPANTS = ["setup_telemetry", "opentelemetry-instrument"]


@pytest.mark.parametrize("way", PARTICIPANTS)
@pytest.mark.parametrize("came", CONTINUED.values(), ids=CONTINUED)
def test_w3c_a_valid_traceparent_is_continued(serve: Serve, way: str, came: list[tuple[str, str]]) -> None:
    (sent,) = serve(way).pass_on(came)
    trace, span, sampled = agree(sent)
    assert (trace, sampled) == (TRACE, True)
    assert span != SPAN
    assert sent["traceparent"].startswith("00-")
    assert not int(sent["traceparent"][-2:], 16) & 0xFC


@pytest.mark.parametrize("way", PARTICIPANTS)
@pytest.mark.parametrize("came", BEGUN.values(), ids=BEGUN)
def test_w3c_any_other_begins_a_new_trace_and_takes_no_tracestate(
    serve: Serve, way: str, came: list[tuple[str, str]]
) -> None:
    (sent,) = serve(way).pass_on([*came, ("tracestate", "foo=1")])
    trace, _, _ = agree(sent)
    assert trace not in came.__repr__()
    assert "tracestate" not in sent


@pytest.mark.parametrize("way", PARTICIPANTS)
@pytest.mark.parametrize("flags", ["00", "01"])
@pytest.mark.parametrize(("came", "goes"), STATES.values(), ids=STATES)
def test_w3c_a_tracestate_goes_on_whole_and_in_order_or_not_at_all(
    serve: Serve, way: str, flags: str, came: list[str], goes: str
) -> None:
    lines = [("tracestate", line) for line in came] or [("trace-state", "foo=1"), ("trace.state", "foo=1")]
    (sent,) = serve(way).pass_on([("traceparent", f"{PARENT}-{flags}"), *lines])
    assert agree(sent)[0] == TRACE
    assert sent.get("tracestate", "") == goes


@pytest.mark.parametrize("way", PARTICIPANTS)
def test_w3c_each_call_of_a_sampled_request_has_a_parent_of_its_own(serve: Serve, way: str) -> None:
    service = serve(way)
    sent = [service.pass_on({"traceparent": f"{PARENT}-01"})[0] for _ in range(3)]
    assert {agree(each)[0] for each in sent} == {TRACE}
    assert len({agree(each)[1] for each in sent}) == 3


def test_w3c_the_random_flag_of_level_2_goes_on(serve: Serve) -> None:
    service = serve("setup_telemetry")
    assert service.pass_on({"traceparent": f"{PARENT}-03"})[0]["traceparent"].endswith("-03")
    assert service.pass_on({"traceparent": f"{PARENT}-01"})[0]["traceparent"].endswith("-01")
    assert service.pass_on({"traceparent": f"{PARENT}-02"})[0]["traceparent"].endswith("-02")
    assert service.pass_on({})[0]["traceparent"].endswith("-03")
