"""
A rolling restart under load, as Kubernetes does it: SIGTERM first, and the callers' sidecars hear of it later.

The mesh retries nothing here, so whatever is lost is seen.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import httpx
import pytest

from meshaware import create_async_client
from meshaware.testing import LocalMesh, LocalService

pytestmark = pytest.mark.envoy

SOURCE = Path(__file__).parents[1] / "src"
PATIENT = 30.0
CALLERS = 8
# How long after SIGTERM the callers' sidecars have heard that the pod goes.
HEARD_AFTER = 1.0

ROUTES = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: inventory}
spec:
  hosts: [inventory]
  http: [{retries: {attempts: 0}, route: [{destination: {host: inventory}}]}]
"""

APP = """
import random
import anyio
from fastapi import FastAPI
from meshaware import Mesh

app = FastAPI()

@app.post("/items")
async def items() -> int:
    await anyio.sleep(random.uniform(0, 0.1))
    return 42

Mesh().install(app, telemetry=False)
"""


class Pod:
    """One replica: its process, which is started and told to stop as the kubelet would."""

    def __init__(self, mesh: LocalMesh, service: LocalService, directory: Path) -> None:
        self.service = service
        self._mesh, self._directory = mesh, directory
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, environment: Mapping[str, str]) -> None:
        """Return once it is ready, as its readiness probe finds, and callers may come."""
        self.service.sidecar.start()
        port = str(self.service.app_port)
        self._process = process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "service:app", "--port", port, "--log-level", "warning"],
            env={
                **os.environ,
                **self.service.environment(),
                "PYTHONPATH": f"{SOURCE}{os.pathsep}{self._directory}",
                **environment,
            },
        )
        end = time.monotonic() + PATIENT
        while not self._is_ready():
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.02)
        self._mesh.restore(self.service)

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"http://{self.service.app_address}/readyz", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def restart(self, environment: Mapping[str, str]) -> None:
        """Tell the application and its sidecar to go; the others hear of it later; then another takes its place."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        # What Istio's agent does with SIGTERM.
        self.service.sidecar.admin("/drain_listeners?inboundonly&graceful", method="POST")
        time.sleep(HEARD_AFTER)
        self._mesh.withdraw(self.service)
        assert self._process.wait(PATIENT) == -signal.SIGTERM
        self.service.sidecar.stop()
        self.start(environment)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(PATIENT)


@pytest.fixture(name="mesh")
def _mesh() -> Iterator[LocalMesh]:
    mesh = LocalMesh(ROUTES)
    for _ in range(2):
        mesh.add("inventory")
    mesh.add("orders", app=False)
    with mesh:
        yield mesh


@pytest.fixture(name="pods")
def _pods(mesh: LocalMesh, tmp_path: Path) -> Iterator[list[Pod]]:
    (tmp_path / "service.py").write_text(APP)
    pods = [Pod(mesh, service, tmp_path) for service in mesh.services[:2]]
    yield pods
    for pod in pods:
        pod.close()


@asynccontextmanager
async def load(orders: LocalService) -> AsyncGenerator[Counter[object]]:
    """Callers, each of which calls without a break until the end; what came of their calls."""
    came, over = Counter[object](), anyio.Event()

    async def call(client: httpx.AsyncClient) -> None:
        while not over.is_set():
            try:
                came[(await client.post("/items")).status_code] += 1
            except httpx.TransportError as error:
                came[type(error)] += 1

    async with (
        create_async_client(orders.settings(), base_url="http://inventory:8080") as client,
        anyio.create_task_group() as callers,
    ):
        for _ in range(CALLERS):
            callers.start_soon(call, client)
        yield came
        over.set()


async def roll(mesh: LocalMesh, pods: list[Pod], environment: Mapping[str, str]) -> Counter[object]:
    for pod in pods:
        await anyio.to_thread.run_sync(pod.start, environment)
    async with load(mesh.services[2]) as came:
        for pod in pods:
            before = came[200]
            await anyio.to_thread.run_sync(pod.restart, environment)
            assert came[200] > before
    return came


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_rolling_restart_loses_no_request(mesh: LocalMesh, pods: list[Pod]) -> None:
    """By default, in a mesh: nothing is set but what the injector's facts are."""
    came = await roll(mesh, pods, {})
    assert set(came) == {200}


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
# Callers without a break look as if they made a failed call again.
@pytest.mark.filterwarnings("ignore::meshaware.client.retries.DoubleRetryWarning")
async def test_without_the_drain_it_would(mesh: LocalMesh, pods: list[Pod]) -> None:
    """The control: a server that stops at once refuses what is sent to it until the callers have heard."""
    came = await roll(mesh, pods, {"MESHAWARE_DRAIN": "0"})
    assert came[503] > 0
