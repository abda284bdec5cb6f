"""A job beside a real Envoy, and an agent beside it as Istio's is: the job's call goes through, then both go."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import anyio
import pytest

from meshaware import Mesh, MeshSettings, RouteTable
from meshaware.testing import LocalMesh, LocalService
from meshaware.testing.sidecar import Sidecar

pytestmark = pytest.mark.envoy

PATIENT = 10.0


class Agent:
    """
    What listens on Istio's 15020: it takes POST only, answers `OK`, and ends its Envoy without draining.

    Source: Istio's `pilot/cmd/pilot-agent/status/server.go`.
    """

    def __init__(self, sidecar: Sidecar) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(405, b"Method Not Allowed\n")

            def do_POST(self) -> None:
                self._answer(200 if self.path == "/quitquitquit" else 404, b"OK")
                if self.path == "/quitquitquit":
                    sidecar.kill()

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class has it so)
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.quit_url = f"http://127.0.0.1:{self._server.server_port}/quitquitquit"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(PATIENT)


@pytest.fixture(name="local", scope="module")
def _local() -> Generator[LocalMesh]:
    async def inventory(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"42"})

    with LocalMesh() as local:
        local.serve("inventory", inventory, lifespan="off")
        local.add("job", app=False)
        yield local


@pytest.fixture(name="pod")
def _pod(local: LocalMesh) -> Generator[tuple[LocalService, MeshSettings]]:
    """The pod of a job, whose containers start at the same time."""
    service = local.services[1]
    agent = Agent(service.sidecar)
    service.sidecar.start(wait=False)
    yield service, service.settings(quit_url=agent.quit_url)
    agent.close()


def run_sync(settings: MeshSettings) -> bytes:
    mesh = Mesh(settings, routes=RouteTable.empty())
    client = mesh.client(base_url="http://inventory:8080")
    with client, mesh.job():
        return client.get("/items").content


async def run_async(settings: MeshSettings) -> bytes:
    mesh = Mesh(settings, routes=RouteTable.empty())
    client = mesh.async_client(base_url="http://inventory:8080")
    async with client, mesh.async_job():
        return (await client.get("/items")).content


def on(backend: str, run: Callable[..., Coroutine[Any, Any, bytes]]) -> Callable[[MeshSettings], bytes]:
    return lambda settings: anyio.run(functools.partial(run, settings), backend=backend)


@pytest.mark.parametrize(
    "run",
    [run_sync, on("asyncio", run_async), on("trio", run_async)],
    ids=["sync", "asyncio", "trio"],
)
def test_a_job_calls_through_its_sidecar_and_then_lets_it_go(
    pod: tuple[LocalService, MeshSettings], run: Callable[[MeshSettings], bytes]
) -> None:
    """It waits for it first: both were started in the same moment."""
    service, settings = pod
    assert run(settings) == b"42"
    end = time.monotonic() + PATIENT
    while service.sidecar.running:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_job_whose_pod_has_other_containers_leaves_it_running(pod: tuple[LocalService, MeshSettings]) -> None:
    """Whatever the sidecar's metadata say, what is declared counts."""
    service, settings = pod
    workload = settings.workload.model_copy(update={"app_containers": ("job", "logger")})
    assert run_sync(settings.with_workload(workload)) == b"42"
    assert service.sidecar.running
