"""Servers with several workers, as they are deployed: one fetch from a real Envoy for all, no restart for a change."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

import pytest

from tests.budgets.conftest import Counter

pytestmark = pytest.mark.envoy

_PATIENCE = 25.0
_WORKERS = 3
_APPS = """
import json, os
from fastapi import FastAPI
from meshaware import Mesh
from meshaware.budgets.sources import SidecarRoutes

mesh = Mesh(routes=SidecarRoutes(os.environ["MESHAWARE_ADMIN_URL"], interval=0.4))

def known():
    route = mesh.routes.current.match("GET", "http://any:8080/")
    return {"pid": os.getpid(), "timeout": None if route is None else route.budget.timeout}

app = FastAPI()
mesh.install(app, telemetry=False)

@app.get("/")
async def asynchronous():
    return known()

def wsgi(environ, start_response):
    start_response("200 OK", [("content-type", "application/json")])
    return [json.dumps(known()).encode()]

if "BEFORE_THE_FORK" in os.environ:
    lifespan = mesh.sync_lifespan()
    lifespan.__enter__()
"""
_GUNICORN = ("gunicorn", "--bind", "127.0.0.1:0", "--workers", str(_WORKERS), "--graceful-timeout", "1")
_ASGI = ("--worker-class", "uvicorn_worker.UvicornWorker", "apps:app")
_SERVERS = {
    "uvicorn": ("uvicorn", "--port", "0", "--workers", str(_WORKERS), "apps:app"),
    "gunicorn": (*_GUNICORN, *_ASGI),
    "gunicorn --preload": (*_GUNICORN, "--preload", *_ASGI),
    "gunicorn --preload, synchronous": (*_GUNICORN, "--preload", "apps:wsgi"),
}


def _until(holds: Callable[[], bool], told: Callable[[], object]) -> None:
    end = time.monotonic() + _PATIENCE
    while not holds():
        assert time.monotonic() < end, told()
        time.sleep(0.01)


class Server:
    """A server with workers, each of which says what it knows when it is asked."""

    def __init__(self, command: tuple[str, ...], directory: Path, admin: str) -> None:
        (directory / "apps.py").write_text(_APPS)
        more = {"BEFORE_THE_FORK": "yes"} if command[-1] == "apps:wsgi" else {}
        environment = {
            **os.environ,
            "MESHAWARE_MESH": "istio",
            "MESHAWARE_ADMIN_URL": admin,
            "MESHAWARE_READY_URL": f"{admin}/ready",
            "TMPDIR": str(directory),
            "PYTHONPATH": os.pathsep.join([str(directory), *filter(None, sys.path)]),
            **more,
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", *command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=directory,
            start_new_session=True,
        )
        self._said: list[str] = []
        self._thread = threading.Thread(target=self._listen, args=(cast("IO[str]", self._process.stderr),))
        self._thread.start()
        self._knows: dict[int, float | None] = {}

    def _listen(self, lines: IO[str]) -> None:
        with lines:
            self._said.extend(iter(lines.readline, ""))

    def _port(self) -> int:
        found = next(filter(None, (re.search(r"http://127\.0\.0\.1:(\d+)", line) for line in list(self._said))), None)
        return 0 if found is None else int(found[1])

    def _ask(self) -> None:
        """Ask whichever worker takes the connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port(), timeout=_PATIENCE)
        try:
            connection.request("GET", "/", headers={"connection": "close"})
            said: dict[str, Any] = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        self._knows[said["pid"]] = said["timeout"]

    def _all_know(self, seconds: float) -> bool:
        # uvicorn says its address before a worker listens there.
        with suppress(ConnectionRefusedError):
            self._ask()
        return len(self._knows) == _WORKERS and set(self._knows.values()) == {seconds}

    def until_all_know(self, seconds: float) -> frozenset[int]:
        """Wait until every worker knows a timeout; return which workers there are."""
        _until(lambda: self._port() != 0, lambda: self._said)
        _until(lambda: self._all_know(seconds), lambda: (self._knows, self._said))
        return frozenset(self._knows)

    def end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(_PATIENCE)
        self._thread.join(_PATIENCE)


@contextmanager
def _running(command: tuple[str, ...], directory: Path, admin: str) -> Generator[Server]:
    server = Server(command, directory, admin)
    try:
        yield server
    finally:
        server.end()


def _config(timeout: str) -> dict[str, Any]:
    route = {"match": {"prefix": "/"}, "route": {"cluster": "upstream", "timeout": timeout}}
    host = {"name": "any", "domains": ["*"], "routes": [route]}
    return {"name": "8080", "virtual_hosts": [host], "ignore_port_in_host_matching": True}


@pytest.mark.parametrize("command", _SERVERS.values(), ids=_SERVERS)
def test_the_workers_of_a_server_share_one_fetch(
    start_envoy: Callable[..., Any], tmp_path: Path, command: tuple[str, ...]
) -> None:
    """Three workers: the routes are fetched once, and once more when a timeout changes, which all of them learn."""
    envoy = start_envoy(_config("1s"))
    with Counter(envoy.admin_url).serving() as counter, _running(command, tmp_path, counter.url) as server:
        workers = server.until_all_know(1.0)
        fetched = "route_configs&name_regex=8080"
        listed = "route_configs&mask=last_updated,route_config.name"
        paths = counter.paths()
        assert (paths.count(fetched), paths.count(listed)) == (1, 1)
        envoy.reroute(_config("5s"))
        assert server.until_all_know(5.0) == workers
        paths = counter.paths()
        assert (paths.count(fetched), paths.count(listed)) == (1, 1)
