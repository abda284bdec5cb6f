"""
SIGTERM to real servers: what is still served, and how they end.

The application leaves files that tell what it is doing, because what is asked next may reach another worker.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE = Path(__file__).parents[2] / "src"
PATIENT = 30.0
FOREVER = "1h"

APP = """
import os
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from fastapi import FastAPI
from meshaware import Mesh, MeshSettings

@asynccontextmanager
async def lifespan(app):
    Path(f"{os.getpid()}.worker").touch()
    yield
    Path(f"{os.getpid()}.closed").touch()

app = FastAPI(lifespan=lifespan)

@app.get("/items")
async def items() -> int:
    return 42

@app.get("/slow")
async def slow() -> int:
    Path("slow").touch()
    while not await anyio.Path("go").exists():
        await anyio.sleep(0.01)
    return 43

Mesh(MeshSettings(mesh="none")).install(app, telemetry=False)
"""

# How each is started on a socket that listens already, how many workers it has, and how it ends after SIGTERM.
UVICORN = ("-m", "uvicorn", "service:app", "--fd", "{fd}", "--log-level", "warning")
GUNICORN = ("-m", "gunicorn", "service:app", "--bind", "fd://{fd}", "--worker-class", "uvicorn_worker.UvicornWorker")
SERVERS = [
    pytest.param((*UVICORN,), 1, -signal.SIGTERM, id="uvicorn"),
    pytest.param((*UVICORN, "--workers", "2"), 2, 0, id="uvicorn-workers"),
    pytest.param((*GUNICORN, "--workers", "2"), 2, 0, id="gunicorn"),
]


class Answer(NamedTuple):
    """Status, body, and what it says of its connection."""

    status: int
    body: bytes
    connection: str | None


class Server:
    """A server process, and where to ask it."""

    def __init__(self, command: tuple[str, ...], directory: Path, environment: Mapping[str, str]) -> None:
        (directory / "service.py").write_text(APP)
        self._directory = directory
        self._listener = socket.create_server(("127.0.0.1", 0))
        fd = self._listener.fileno()
        self.process = subprocess.Popen(
            [sys.executable, *(part.format(fd=fd) for part in command)],
            # gunicorn's control socket is made at home.
            env={
                **os.environ,
                "PYTHONPATH": f"{SOURCE}{os.pathsep}{directory}",
                "HOME": str(directory),
                **environment,
            },
            cwd=directory,
            pass_fds=[fd],
        )

    def get(self, path: str) -> Answer:
        connection = HTTPConnection("127.0.0.1", self._listener.getsockname()[1], timeout=PATIENT)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return Answer(response.status, response.read(), response.getheader("connection"))
        finally:
            connection.close()

    def workers(self, there: int) -> list[int]:
        """Their process ids, once all have started."""
        self.until(lambda: len(self.files("worker")) == there)
        return [int(path.stem) for path in self.files("worker")]

    def files(self, kind: str) -> list[Path]:
        return sorted(self._directory.glob(f"*.{kind}"))

    def until(self, there: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENT
        while not there():
            assert self.process.poll() is None, f"the server ended with {self.process.returncode}"
            assert time.monotonic() < end, "it did not happen in time"
            time.sleep(0.01)

    def close(self) -> None:
        self._listener.close()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENT)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(PATIENT)


Serve = Callable[[tuple[str, ...], Mapping[str, str]], Server]


@pytest.fixture(name="serve")
def _serve(tmp_path: Path) -> Iterator[Serve]:
    servers: list[Server] = []

    def serve(command: tuple[str, ...], environment: Mapping[str, str]) -> Server:
        servers.append(Server(command, tmp_path, environment))
        return servers[-1]

    yield serve
    for pid in (int(path.stem) for path in tmp_path.glob("*.worker")):
        if not (tmp_path / f"{pid}.closed").exists():
            os.kill(pid, signal.SIGTERM)
    for server in servers:
        server.close()


@pytest.mark.parametrize(("command", "workers", "code"), SERVERS)
def test_after_sigterm_all_is_served_but_readiness(
    serve: Serve, tmp_path: Path, command: tuple[str, ...], workers: int, code: int
) -> None:
    """
    New requests and those in hand; each answer closes its connection. A second SIGTERM ends it at once, and the
    application's own shutdown runs as ever.
    """
    server = serve(command, {"MESHAWARE_DRAIN": FOREVER})
    pids = server.workers(workers)
    assert server.get("/readyz")[::2] == (200, None)
    with ThreadPoolExecutor(1) as thread:
        slow: Future[Answer] = thread.submit(server.get, "/slow")
        server.until((tmp_path / "slow").exists)

        server.process.send_signal(signal.SIGTERM)

        # Both workers are told, but not in the same moment.
        in_a_row = 0
        while in_a_row < 5 * workers:
            in_a_row = in_a_row + 1 if server.get("/readyz")[::2] == (503, "close") else 0
        assert b'"draining":true' in server.get("/readyz").body
        assert server.get("/livez")[::2] == (200, "close")
        assert server.get("/items") == Answer(200, b"42", "close")
        (tmp_path / "go").touch()
        assert slow.result(PATIENT) == Answer(200, b"43", "close")
    assert server.process.poll() is None
    assert server.files("closed") == []

    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    assert server.process.wait(PATIENT) == code
    assert len(server.files("closed")) == workers


@pytest.mark.parametrize(("command", "workers", "code"), SERVERS)
def test_after_the_pause_the_server_ends_as_it_always_does(
    serve: Serve, command: tuple[str, ...], workers: int, code: int
) -> None:
    """By itself, with its own exit code."""
    server = serve(command, {"MESHAWARE_DRAIN": "300ms"})
    server.workers(workers)
    assert server.get("/readyz").status == 200
    begin = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(PATIENT) == code
    assert time.monotonic() - begin >= 0.3
    assert len(server.files("closed")) == workers


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 0)])
def test_without_a_mesh_a_stop_is_as_it_was(serve: Serve, number: signal.Signals, code: int) -> None:
    """Nothing is held back."""
    server = serve(UVICORN, {})
    server.workers(1)
    assert server.get("/readyz").status == 200
    server.process.send_signal(number)
    assert server.process.wait(PATIENT) == code
    assert len(server.files("closed")) == 1


def test_an_interrupt_from_the_keyboard_is_not_held_back(serve: Serve) -> None:
    """On a laptop with a mesh of its own, Ctrl+C ends the service at once."""
    server = serve(UVICORN, {"MESHAWARE_DRAIN": FOREVER})
    server.workers(1)
    assert server.get("/readyz").status == 200
    server.process.send_signal(signal.SIGINT)
    server.process.wait(PATIENT)
    assert len(server.files("closed")) == 1


def test_an_interrupt_in_the_pause_ends_it(serve: Serve) -> None:
    """The server's exit code is that of an interrupt, so what was held back did not come after it."""
    server = serve(UVICORN, {"MESHAWARE_DRAIN": FOREVER})
    server.workers(1)
    assert server.get("/readyz").status == 200
    server.process.send_signal(signal.SIGTERM)
    server.until(lambda: server.get("/readyz").status == 503)
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(PATIENT) == 0
    assert len(server.files("closed")) == 1
