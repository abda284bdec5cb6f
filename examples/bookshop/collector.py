"""A receiver of spans: OTLP over HTTP, from the applications and from their Envoys."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from threading import Condition, Thread
from types import TracebackType
from typing import Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan
from waterfall import Span

KINDS = {WireSpan.SPAN_KIND_SERVER: "server", WireSpan.SPAN_KIND_CLIENT: "client"}


class Collector:
    """Keeps every span that it is sent; a context manager that listens on a free port of loopback."""

    def __init__(self) -> None:
        self._spans: list[Span] = []
        self._came = Condition()
        keep = self._keep

        class Handler(BaseHTTPRequestHandler):
            timeout = 10

            def do_POST(self) -> None:
                # The applications say how long the body is, Envoy sends it in chunks.
                chunked = "transfer-encoding" in self.headers
                keep(_chunks(self.rfile) if chunked else self.rfile.read(int(self.headers["content-length"])))
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name)
                """Progress is printed by the scenes."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = Thread(target=self._server.serve_forever, name="collector", daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def wait_for(self, trace: str, enough: Callable[[list[Span]], bool], *, timeout: float = 10.0) -> list[Span]:
        """Return the spans of a trace once they are enough, or those that came within `timeout` seconds."""
        found: list[Span] = []

        def arrived() -> bool:
            found[:] = [span for span in self._spans if span.trace == trace]
            return enough(found)

        with self._came:
            self._came.wait_for(arrived, timeout)
        return found

    def where(self, wanted: Callable[[Span], bool]) -> list[Span]:
        """Return all the spans that are wanted, of whatever trace."""
        with self._came:
            return [span for span in self._spans if wanted(span)]

    def _keep(self, body: bytes) -> None:
        spans = list(_read(ExportTraceServiceRequest.FromString(body)))
        with self._came:
            self._spans += spans
            self._came.notify_all()


def _chunks(stream: BufferedIOBase) -> bytes:
    parts: list[bytes] = []
    while size := int(stream.readline().partition(b";")[0], 16):
        parts.append(stream.read(size))
        stream.readline()
    stream.readline()
    return b"".join(parts)


def _read(request: ExportTraceServiceRequest) -> Iterator[Span]:
    for resource in request.resource_spans:
        facts = _texts(resource.resource.attributes)
        by = "app" if facts.get("telemetry.sdk.language") == "python" else "envoy"
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Span(
                    trace=span.trace_id.hex(),
                    id=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    service=facts.get("service.name", "unknown").partition(".")[0],
                    by=by,
                    kind=KINDS.get(span.kind, "internal"),
                    name=span.name,
                    start=span.start_time_unix_nano,
                    end=span.end_time_unix_nano,
                    attributes=_texts(span.attributes),
                )


def _texts(attributes: Iterable[KeyValue]) -> dict[str, str]:
    return {pair.key: _text(pair.value) for pair in attributes}


def _text(value: AnyValue) -> str:
    kind = value.WhichOneof("value")
    if kind is None:
        return ""
    if kind == "array_value":
        return ",".join(_text(item) for item in value.array_value.values)
    return str(getattr(value, kind))
