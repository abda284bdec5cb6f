"""
FastAPI wired in several ways and called without a server: processor time of a request, export of its span included.

What `bench_telemetry` measures on a real server, without the server's share and its noise; the wirings are the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Literal

import httpx
from fastapi import FastAPI
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from meshaware import Mesh, MeshMiddleware, setup_telemetry
from tests.benchmarks.bench_middleware import receive, send, to_its_end
from tests.benchmarks.children import Child
from tests.benchmarks.harness import Rounds, Run, added, interleave, judge, ratio, show
from tests.benchmarks.service import in_mesh, service

ROUNDS = 40
REQUESTS = 200
EVEN = 1.02
HEADERS = [
    (b"host", b"orders:8080"),
    (b"user-agent", b"python-httpx/0.28.1"),
    (b"accept", b"*/*"),
    (b"accept-encoding", b"gzip, deflate"),
    (b"x-forwarded-proto", b"http"),
    (b"x-request-id", b"4c7b9e2a-9a1d-9f9b-8c3e-5d1f2a3b4c5d"),
    (b"x-envoy-attempt-count", b"1"),
    (b"x-forwarded-client-cert", b"By=spiffe://cluster.local/ns/shop/sa/orders;Hash=" + b"4a" * 32 + b';Subject=""'),
    (b"x-user-type", b"premium"),
]
TRACEPARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-%02x"


def wirings(provider: TracerProvider) -> Iterator[tuple[str, bool, FastAPI]]:
    """Each application, its name, and whether it makes spans."""
    settings, routes = in_mesh()

    def app(wire: Callable[[FastAPI], object], **options: Any) -> FastAPI:
        made = service(httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200))), "", **options)
        wire(made)
        return made

    yield "FastAPI", False, app(lambda _: None)
    yield "MeshMiddleware", False, app(lambda app: app.add_middleware(MeshMiddleware, settings=settings))
    mesh = Mesh(settings, routes=routes)
    yield "Mesh.install(telemetry=False)", False, app(lambda app: mesh.install(app, telemetry=False))
    yield "setup_telemetry", True, app(lambda app: setup_telemetry(settings, app=app, tracer_provider=provider))
    quiet: list[Literal["receive", "send"]] = ["receive", "send"]
    yield (
        "by hand, contrib",
        True,
        app(lambda app: FastAPIInstrumentor.instrument_app(app, tracer_provider=provider, exclude_spans=quiet)),
    )
    native = {"tracer_provider": provider, "operation_spans": False}
    yield "by hand, FastAPI's native", True, app(lambda _: None, telemetry=native)


def requests_to(app: FastAPI, provider: TracerProvider, *, sampled: bool) -> Run:
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "server": ("127.0.0.1", 8080),
        "client": ("127.0.0.1", 50000),
        "root_path": "",
        "path": "/items/42",
        "raw_path": b"/items/42",
        "query_string": b"",
        "headers": [*HEADERS, (b"traceparent", TRACEPARENT % sampled)],
    }

    def run() -> float:
        begin = time.process_time()
        for _ in range(REQUESTS):
            to_its_end(app({**scope, "state": {}}, receive, send))
        provider.force_flush()
        return (time.process_time() - begin) / REQUESTS

    return run


def judge_all(taken: Rounds) -> None:
    for hand in ("by hand, contrib", "by hand, FastAPI's native"):
        own, other = taken["setup_telemetry, sampled"], taken[f"{hand}, sampled"]
        more, times = added(own, other), ratio(own, other)
        seen = f"{more.median:+.1f} us ({more.low:+.1f} to {more.high:+.1f}), {times.median:.2f} x"
        judge(f"setup_telemetry, sampled: not slower than {hand}", seen, kept=times.median <= EVEN)


def main(times: float = 1.0) -> None:
    with Child("collector") as collector:
        provider = TracerProvider(shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=f"http://127.0.0.1:{collector.port}/v1/traces")
        provider.add_span_processor(BatchSpanProcessor(exporter))
        runs = {
            name + {None: "", False: ", unsampled", True: ", sampled"}[sampled]: requests_to(
                app, provider, sampled=sampled is True
            )
            for name, traced, app in wirings(provider)
            for sampled in ((False, True) if traced else (None,))
        }
        taken = interleave(runs, round(ROUNDS * times))
        provider.shutdown()
    show("A request that returns a dict, without a server", taken)
    judge_all(taken)


if __name__ == "__main__":
    main()
