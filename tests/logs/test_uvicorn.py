"""uvicorn with the logging configuration that the documentation shows: which lines name their request."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

PAGE = Path(__file__).parent.parent.parent / "docs" / "logs.md"
XFCC = "By=spiffe://cluster.local/ns/shop/sa/orders;URI=spiffe://cluster.local/ns/shop/sa/web"
TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"

SERVICE = """
import logging
import os
import socket
import sys

import uvicorn
from fastapi import FastAPI, WebSocket
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from meshaware import Mesh, MeshMiddleware, MeshSettings

os.environ.update(OTEL_SERVICE_NAME="orders", POD_NAMESPACE="shop")
settings = MeshSettings(mesh="istio", in_kubernetes=False, ready_timeout=0)
app = FastAPI()
log = logging.getLogger("shop")


@app.get("/ok")
async def ok():
    log.info("async")


@app.get("/sync")
def sync():
    log.info("sync")


@app.get("/fails")
async def fails():
    raise LookupError("no such item")


@app.websocket("/ws")
async def ws(socket: WebSocket):
    await socket.accept()
    await socket.close()


if sys.argv[1] == "traced":
    trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))
if sys.argv[1] != "add_middleware":
    Mesh(settings).install(app, telemetry=sys.argv[1] == "traced")
else:
    app.add_middleware(MeshMiddleware, settings=settings)
LOGGING
config = uvicorn.Config(app, log_config=LOGGING, ws="websockets-sansio")
uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(sys.argv[2]))])
"""


def documented() -> str:
    """The block of the page that defines the configuration, up to where it is applied."""
    block = re.search(
        r"^```python\n((?:(?!```).*\n)*?LOGGING = (?:.*\n)*?)\nlogging\.config", PAGE.read_text(), re.MULTILINE
    )
    assert block is not None
    return block[1]


class Service:
    """A uvicorn of its own process; `stop` returns its log lines."""

    def __init__(self, how: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.host, self.port = listening.getsockname()
            number = listening.fileno()
            self._process = subprocess.Popen(
                [sys.executable, "-c", SERVICE.replace("LOGGING\n", documented(), 1), how, str(number)],
                pass_fds=[number],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )

    def get(self, path: str, request_id: str) -> int:
        connection = HTTPConnection(self.host, self.port, timeout=30)
        headers = {
            "x-request-id": request_id,
            "x-forwarded-client-cert": XFCC,
            "traceparent": f"00-{TRACE}-{SPAN}-01",
            "connection": "close",
        }
        try:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            response.read()
            return response.status
        finally:
            connection.close()

    def stop(self) -> list[dict[str, Any]]:
        self._process.terminate()
        try:
            out, err = self._process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        assert err == ""
        return [json.loads(line) for line in out.splitlines()]


@pytest.fixture(name="lines", scope="module", params=["install", "add_middleware"])
def _lines(request: pytest.FixtureRequest) -> tuple[str, list[dict[str, Any]]]:
    """How the middleware came in, and all that was logged."""
    service = Service(request.param)
    try:
        assert service.get("/ok", "of-ok") == 200
        assert service.get("/sync", "of-sync") == 200
        assert service.get("/none", "of-none") == 404
        assert service.get("/fails", "of-fails") == 500
        with connect(
            f"ws://{service.host}:{service.port}/ws", additional_headers={"x-request-id": "of-ws"}, proxy=None
        ) as websocket:
            with pytest.raises(ConnectionClosed):
                websocket.recv(10)
        with socket.create_connection((service.host, service.port), timeout=30) as connection:
            connection.sendall(b"nonsense\r\n\r\n")
            assert connection.recv(64).startswith(b"HTTP/1.1 400")
    finally:
        lines = service.stop()
    return request.param, lines


def of(lines: list[dict[str, Any]], logger: str, text: str) -> dict[str, Any]:
    """The one line of this logger with this text."""
    [line] = [line for line in lines if line["logger"] == logger and text in line["message"]]
    return line


def test_every_line_is_json_and_names_the_workload(lines: tuple[str, list[dict[str, Any]]]) -> None:
    for line in lines[1]:
        assert (line["workload"], line["namespace"]) == ("orders", "shop")


@pytest.mark.parametrize("path", ["ok", "sync", "none"])
def test_an_access_line_names_its_request(lines: tuple[str, list[dict[str, Any]]], path: str) -> None:
    """uvicorn writes it when the response begins: that is in the request's own task."""
    line = of(lines[1], "uvicorn.access", f"GET /{path} ")
    assert (line["request_id"], line["trace_id"]) == (f"of-{path}", TRACE)
    assert line["peer"] == "spiffe://cluster.local/ns/shop/sa/web"


@pytest.mark.parametrize(("message", "path"), [("async", "ok"), ("sync", "sync")])
def test_the_application_s_own_lines_name_it(lines: tuple[str, list[dict[str, Any]]], message: str, path: str) -> None:
    assert [line["request_id"] for line in lines[1] if line["message"] == message] == [f"of-{path}"]


def test_the_line_of_an_error_that_nothing_handled_names_it(lines: tuple[str, list[dict[str, Any]]]) -> None:
    """uvicorn writes it after the request; the error is marked."""
    line = of(lines[1], "uvicorn.error", "Exception in ASGI application")
    assert line["request_id"] == "of-fails"
    assert line["exception"].rstrip().endswith("LookupError: no such item")


def test_the_access_line_of_such_an_error_names_it_only_from_inside(lines: tuple[str, list[dict[str, Any]]]) -> None:
    """Starlette answers 500 outside the middleware that an application adds, and inside of what a mesh installs."""
    how, written = lines
    line = of(written, "uvicorn.access", "GET /fails ")
    assert line.get("request_id") == ("of-fails" if how == "install" else None)


def test_the_line_of_a_websocket_that_is_accepted_names_it(
    lines: tuple[str, list[dict[str, Any]]],
) -> None:
    accepted = [line for line in lines[1] if "[accepted]" in line["message"]]
    assert [line.get("request_id") for line in accepted] == ["of-ws"]


def test_other_lines_belong_to_no_request(lines: tuple[str, list[dict[str, Any]]]) -> None:
    for text in ("Application startup complete", "Invalid HTTP request received", "Finished server process"):
        assert "request_id" not in of(lines[1], "uvicorn.error", text)


def test_with_a_tracer_the_lines_tell_of_the_servers_own_span() -> None:
    """In the caller's trace; after the request, of the error's line, only the caller's span is left."""
    service = Service("traced")
    try:
        service.get("/ok", "of-ok")
        service.get("/fails", "of-fails")
    finally:
        lines = service.stop()
    access, own = of(lines, "uvicorn.access", "GET /ok "), of(lines, "shop", "async")
    assert {access["trace_id"], own["trace_id"]} == {TRACE}
    assert access["span_id"] == own["span_id"] != SPAN
    error = of(lines, "uvicorn.error", "Exception in ASGI application")
    assert (error["trace_id"], error["span_id"], error["request_id"]) == (TRACE, SPAN, "of-fails")
