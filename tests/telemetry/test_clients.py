"""Client spans: one a call, outside the client's transport, whichever library the client is of."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from threading import Thread
from typing import Any

import anyio
import pytest
from opentelemetry.instrumentation.utils import suppress_http_instrumentation
from opentelemetry.trace import SpanKind

from meshaware.telemetry import clients
from meshaware.telemetry.clients import instrument_client, instrument_httpx

LIBRARIES = ["httpx", "httpx2"]


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> Any:
    """httpx and httpx2."""
    return pytest.importorskip(request.param)


class MeshTransport:
    """Stands where the mesh transport stands: inside OpenTelemetry's layer, around httpx's own transport."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.seen: list[str] = []

    def handle_request(self, request: Any) -> Any:
        self.seen.append(request.headers.get("traceparent", ""))
        with suppress_http_instrumentation():
            return self.inner.handle_request(request)

    def __enter__(self) -> None:
        self.inner.__enter__()

    def __exit__(self, *error: object) -> None:
        self.inner.__exit__(*error)


class AsyncMeshTransport:
    """The same for asynchronous clients."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.seen: list[str] = []

    async def handle_async_request(self, request: Any) -> Any:
        self.seen.append(request.headers.get("traceparent", ""))
        with suppress_http_instrumentation():
            return await self.inner.handle_async_request(request)

    async def __aenter__(self) -> None:
        await self.inner.__aenter__()

    async def __aexit__(self, *error: object) -> None:
        await self.inner.__aexit__(*error)


@pytest.fixture(name="url")
def _url() -> Iterator[str]:
    """A server that says yes."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()
    thread.join(5)


def test_a_call_makes_one_span_and_its_context_reaches_the_transport(library: Any, spans: Any, url: str) -> None:
    transport = MeshTransport(library.HTTPTransport())
    with library.Client(transport=transport) as client:
        assert instrument_client(client, spans.provider)
        client.get(url)

    (span,) = spans.finished
    assert span.kind is SpanKind.CLIENT
    assert format(span.context.span_id, "016x") in transport.seen[0]


def test_an_asynchronous_call_makes_one_span(library: Any, spans: Any, url: str) -> None:
    transport = AsyncMeshTransport(library.AsyncHTTPTransport())

    async def call() -> None:
        async with library.AsyncClient(transport=transport) as client:
            assert instrument_client(client, spans.provider)
            await client.get(url)

    anyio.run(call)

    assert len(spans.finished) == 1
    assert format(spans.finished[0].context.span_id, "016x") in transport.seen[0]


def test_a_client_is_instrumented_once(library: Any, spans: Any, url: str, caplog: pytest.LogCaptureFixture) -> None:
    with library.Client(transport=MeshTransport(library.HTTPTransport())) as client:
        assert instrument_client(client, spans.provider)
        assert not instrument_client(client, spans.provider)
        client.get(url)

    assert len(spans.finished) == 1
    assert not caplog.records


def test_a_client_of_ones_own_class_is_a_client_too(library: Any, spans: Any) -> None:
    class ShopClient(library.Client):  # type: ignore[misc]
        pass

    client: Any = ShopClient()
    with client:
        assert instrument_client(client, spans.provider)


def test_what_is_no_client_is_left_alone(spans: Any) -> None:
    assert not instrument_client(object(), spans.provider)


def test_globally_every_client_makes_spans_and_ours_still_one(library: Any, spans: Any, url: str) -> None:
    instrument_httpx(spans.provider)
    try:
        instrument_httpx(spans.provider)
        with library.Client() as theirs:
            theirs.get(url)
        assert len(spans.finished) == 1

        with library.Client(transport=MeshTransport(library.HTTPTransport())) as ours:
            instrument_client(ours, spans.provider)
            ours.get(url)
        assert len(spans.finished) == 2
    finally:
        package = import_module("opentelemetry.instrumentation.httpx")
        package.HTTPXClientInstrumentor().uninstrument()
        package.HTTPX2ClientInstrumentor().uninstrument()


def test_an_instrumentation_that_does_not_know_the_library_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, spans: Any
) -> None:
    httpx = pytest.importorskip("httpx")
    monkeypatch.setattr(clients, "_INSTRUMENTORS", {"httpx": "HTTPX9ClientInstrumentor"})
    with httpx.Client() as client:
        assert not instrument_client(client, spans.provider)
    instrument_httpx(spans.provider)

    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "calls made with httpx make no spans" in caplog.text


def test_a_library_that_is_not_installed_is_passed_by(monkeypatch: pytest.MonkeyPatch, spans: Any) -> None:
    monkeypatch.setattr(clients, "_INSTRUMENTORS", {"httpx3": "HTTPX3ClientInstrumentor"})

    instrument_httpx(spans.provider)
