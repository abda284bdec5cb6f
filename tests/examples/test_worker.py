"""The worker passes the headers of each message on, and those of no other."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType

import httpx
import pytest

from meshaware import MeshSettings, create_client

Load = Callable[[str], ModuleType]


@pytest.fixture(name="sidecar")
def _sidecar() -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """A server in a sidecar's place: its URL, and host and path with `x-user-type` of what came."""
    came: list[tuple[str, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            came.append((f"{self.headers['host']}{self.path}", self.headers["x-user-type"]))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name)
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", came
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def test_each_message_goes_on_with_its_own_headers(load: Load, capsys: pytest.CaptureFixture[str]) -> None:
    """Two messages, one of a premium customer: only its call says so."""
    worker = load("worker.py")
    came: list[tuple[str, str | None]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        came.append((request.url.path, request.headers.get("x-user-type")))
        return httpx.Response(200)

    lines = ['{"headers": {"x-user-type": "premium"}, "order": "1"}', '{"order": "2"}']
    with create_client(
        MeshSettings(mesh="none"), base_url="http://inventory:8080", transport=httpx.MockTransport(answer)
    ) as client:
        worker.work(worker.from_lines(lines), client)
    assert came == [("/reservations/1", "premium"), ("/reservations/2", None)]
    assert capsys.readouterr().out == "order 1: inventory answered 200\norder 2: inventory answered 200\n"


def test_it_runs_as_it_stands(examples: Path, sidecar: tuple[str, list[tuple[str, str | None]]]) -> None:
    """As its docstring says: a message on standard input becomes a call through the sidecar."""
    url, came = sidecar
    run = subprocess.run(
        [sys.executable, "-W", "error", str(examples / "worker.py")],
        input='{"headers": {"x-user-type": "premium"}, "order": "1"}\n',
        env={**os.environ, "MESHAWARE_MESH": "none", "MESHAWARE_OUTBOUND_PROXY": url},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (run.returncode, run.stdout) == (0, "order 1: inventory answered 200\n"), run.stderr
    assert came == [("inventory:8080/reservations/1", "premium")]
