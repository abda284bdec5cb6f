"""
An OTLP receiver over http/protobuf: `python -m tests.benchmarks.collector`.

It reads the spans only when it is asked for their number: while others are measured, it takes as little as it can.
"""

from __future__ import annotations

import json
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.benchmarks.children import answer_parent

received: list[bytes] = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        received.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response_only(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()


def spans() -> str:
    """How many spans came from each service, as JSON."""
    counts: Counter[str] = Counter()
    for body in received:
        request: Any = ExportTraceServiceRequest.FromString(body)
        for group in request.resource_spans:
            service = next(each.value.string_value for each in group.resource.attributes if each.key == "service.name")
            counts[service] += sum(len(scope.spans) for scope in group.scope_spans)
    return json.dumps(counts)


def main() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        answer_parent(
            server.server_address[1], {"spans": spans}, lambda: Thread(target=server.shutdown, daemon=True).start()
        )
        server.serve_forever(poll_interval=0.05)


if __name__ == "__main__":
    main()
