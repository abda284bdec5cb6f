"""Spans of real Envoys, as a collector receives them."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from meshaware.testing import LocalMesh

pytestmark = pytest.mark.envoy
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class Collector:
    """An OTLP receiver: `spans` by service name."""

    def __init__(self) -> None:
        self._lock, self._spans = Lock(), dict[str, list[Span]]()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.take(self.path, b"".join(self.chunks()))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def chunks(self) -> Iterator[bytes]:
                """Envoy does not say how long it is."""
                while size := int(self.rfile.readline(), 16):
                    yield self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()

            def log_message(self, *args: object) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def take(self, path: str, body: bytes) -> None:
        assert path == "/v1/traces"
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = {each.key: each.value.string_value for each in resource.resource.attributes}
            spans = [span for scope in resource.scope_spans for span in scope.spans]
            with self._lock:
                self._spans.setdefault(names["service.name"], []).extend(spans)

    def spans(self, service: str, trace: str) -> list[Span]:
        with self._lock:
            return [span for span in self._spans.get(service, []) if span.trace_id.hex() == trace]


@pytest.fixture(name="collector")
def _collector() -> Iterator[Collector]:
    collector = Collector()
    thread = Thread(target=collector.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield collector
    collector.server.shutdown()
    collector.server.server_close()
    thread.join()


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """An application that answers, and echoes its trace."""
    headers = dict(scope["headers"])
    head = [(b"x-traceparent", headers.get(b"traceparent", b""))]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": b"hello"})


def test_both_sidecars_send_their_spans_of_one_trace(
    envoy: str | None, collector: Collector, get: Any, wait_for: Any
) -> None:
    """Under Istio's names `<service>.<namespace>`; the callee's below the caller's."""
    mesh = LocalMesh(envoy=envoy, namespace="shop", otlp=collector.url)
    tester, service = mesh.add("tester", app=False), mesh.add("hello")
    with mesh:
        service.serve(hello, lifespan="off")
        headers = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
        answer = get(tester.sidecar.outbound_url, "hello:8080", "/greet", headers)
        (out,) = wait_for(lambda: collector.spans("tester.shop", TRACE))
        (inside,) = wait_for(lambda: collector.spans("hello.shop", TRACE))
    assert out.parent_span_id.hex() == "00f067aa0ba902b7"
    assert inside.parent_span_id == out.span_id
    assert (out.kind, inside.kind) == (Span.SPAN_KIND_CLIENT, Span.SPAN_KIND_SERVER)
    assert answer.headers["x-traceparent"] == f"00-{TRACE}-{inside.span_id.hex()}-01"
    tags = {each.key: each.value.string_value for each in out.attributes}
    assert (tags["http.method"], tags["http.status_code"]) == ("GET", "200")


def test_sampling_at_0_sends_nothing_and_says_so(envoy: str | None, collector: Collector, get: Any) -> None:
    """The application sees that its request is not sampled."""
    mesh = LocalMesh(envoy=envoy, otlp=collector.url, sampling=0)
    tester, service = mesh.add("tester", app=False), mesh.add("hello")
    with mesh:
        service.serve(hello, lifespan="off")
        answer = get(tester.sidecar.outbound_url, "hello")
    assert answer.headers["x-traceparent"].endswith("-00")


def test_without_a_collector_there_is_no_tracer(shop: Any) -> None:
    """As in Istio's default installation: only the request id."""
    assert "traceparent" not in shop.call("/plain").seen["headers"]


@pytest.mark.parametrize("otlp", ["127.0.0.1:4318", "ftp://collector", "http://", "https://collector:4318"])
def test_a_collector_that_is_no_http_address_is_refused(otlp: str) -> None:
    from meshaware.errors import LocalMeshError

    with pytest.raises(LocalMeshError, match="otlp"):
        LocalMesh(otlp=otlp)
