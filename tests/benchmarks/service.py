"""
One FastAPI service on uvicorn, wired in one of several ways: `python -m tests.benchmarks.service WIRING HTTP UPSTREAM`.

Two endpoints: `/items/{item}` returns a dict, `/orders/{item}` makes a call first, with the client of its wiring.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI
from opentelemetry import propagate, trace

from meshaware import Mesh, MeshMiddleware, MeshSettings, create_async_client, setup_telemetry
from meshaware.budgets import RouteTable
from tests.benchmarks.children import answer_parent

MANIFEST = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: inventory}
spec:
  hosts: ["127.0.0.1"]
  http:
  - match: [{uri: {prefix: /admin}}]
    timeout: 9s
    route: [{destination: {host: inventory}}]
  - timeout: 3s
    retries: {attempts: 2, perTryTimeout: 1s}
    route: [{destination: {host: inventory}}]
"""


def in_mesh() -> tuple[MeshSettings, RouteTable]:
    """Settings under which loopback is inside the mesh, and a route that gives calls to it a budget."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / "inventory.yaml"
        path.write_text(MANIFEST)
        routes = RouteTable.from_manifests(path)
    return MeshSettings(mesh="none", mesh_hosts=("127.0.0.1",)), routes


def service(client: httpx.AsyncClient, upstream: str, **options: Any) -> FastAPI:
    app = FastAPI(**options)

    @app.get("/items/{item}")
    async def item(item: str) -> dict[str, object]:  # pyright: ignore[reportUnusedFunction]
        return {"item": item, "price": 7.5}

    @app.get("/orders/{item}")
    async def order(item: str) -> dict[str, object]:  # pyright: ignore[reportUnusedFunction]
        answer = await client.get(f"{upstream}/items/{item}")
        return {"item": item, "stock": answer.text}

    return app


def bare(upstream: str) -> FastAPI:
    return service(httpx.AsyncClient(), upstream)


def middleware(upstream: str) -> FastAPI:
    settings, routes = in_mesh()
    app = service(create_async_client(settings, routes=routes), upstream)
    app.add_middleware(MeshMiddleware, settings=settings)
    return app


def _mesh(upstream: str, *, telemetry: bool) -> FastAPI:
    settings, routes = in_mesh()
    mesh = Mesh(settings, routes=routes)
    app = service(mesh.async_client(), upstream)
    mesh.install(app, telemetry=telemetry)
    return app


def mesh_without_telemetry(upstream: str) -> FastAPI:
    return _mesh(upstream, telemetry=False)


def mesh(upstream: str) -> FastAPI:
    return _mesh(upstream, telemetry=True)


def telemetry(upstream: str) -> FastAPI:
    """`setup_telemetry` alone, with a client that knows no mesh."""
    app = service(httpx.AsyncClient(), upstream)
    done = setup_telemetry(in_mesh()[0], app=app, httpx_globally=True)
    if done.state != "own":
        raise RuntimeError(f"no provider was made: {done.reason}")
    return app


def _provider() -> Any:
    """A tracer provider as a careful team makes it, with the same packages."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.propagators.b3 import B3MultiFormat
    from opentelemetry.propagators.composite import CompositePropagator
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    propagate.set_global_textmap(CompositePropagator([B3MultiFormat(), TraceContextTextMapPropagator()]))
    return provider


def _instrumented_client(provider: Any) -> httpx.AsyncClient:
    from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor

    client = httpx.AsyncClient()
    HTTPXClientInstrumentor.instrument_client(client, tracer_provider=provider)
    return client


def contrib(upstream: str) -> FastAPI:
    """Wired by hand with opentelemetry-instrumentation-fastapi."""
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

    provider = _provider()
    app = service(_instrumented_client(provider), upstream)
    FastAPIInstrumentor.instrument_app(app, tracer_provider=provider, exclude_spans=["receive", "send"])
    return app


def native(upstream: str) -> FastAPI:
    """Wired by hand with the telemetry that FastAPI has built in."""
    client = _instrumented_client(_provider())
    return service(client, upstream, telemetry={"operation_spans": False})


WIRINGS: dict[str, Callable[[str], FastAPI]] = {
    wiring.__name__: wiring for wiring in (bare, middleware, mesh_without_telemetry, telemetry, mesh, contrib, native)
}


def used() -> float:
    """Seconds of processor time so far, the sending of all spans that have ended included."""
    flush = getattr(trace.get_tracer_provider(), "force_flush", None)
    if flush is not None:
        flush()
    return time.process_time()


def main() -> None:
    wiring, http, upstream = sys.argv[1:]
    app = WIRINGS[wiring](f"http://127.0.0.1:{upstream}")
    config = uvicorn.Config(
        app, loop="asyncio", http="h11" if http == "h11" else "httptools", log_level="warning", timeout_keep_alive=600
    )
    server = uvicorn.Server(config)
    # asyncio switches Nagle's algorithm off for sockets that say TCP themselves; left on, answers wait for 40 ms.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(256)

        def end() -> None:
            server.should_exit = True

        answer_parent(listener.getsockname()[1], {"used": used}, end)
        server.run([listener])


if __name__ == "__main__":
    main()
