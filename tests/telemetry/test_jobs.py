"""A worker without an application: what its mesh measured and traced leaves as its lifespan ends."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import pytest

Python = Callable[..., subprocess.Popen[str]]

# Nothing leaves before because its time has come, nor at the exit, because there is none.
ENVIRONMENT = {"OTEL_BSP_SCHEDULE_DELAY": "600000", "MESHAWARE_MESH": "none"}

SYNC = """
import os, sys, time
import httpx
from opentelemetry import trace
from meshaware import Mesh

mesh = Mesh()
assert mesh.install_telemetry() is mesh.telemetry
transport = httpx.MockTransport(lambda request: httpx.Response(204))
client = mesh.client(transport=transport)
begin = time.monotonic()
try:
    with mesh.sync_lifespan(), trace.get_tracer("job").start_as_current_span("count"):
        client.get("http://orders/")
        if "fail" in sys.argv:
            raise LookupError
except LookupError:
    pass
print(time.monotonic() - begin, flush=True)
os._exit(0)
"""

ASYNC = """
import os, sys, time
import anyio, httpx
from opentelemetry import trace
from meshaware import Mesh

mesh = Mesh()
mesh.install_telemetry()
client = mesh.async_client(transport=httpx.MockTransport(lambda request: httpx.Response(204)))

async def main():
    async with mesh.lifespan():
        with trace.get_tracer("job").start_as_current_span("count"):
            await client.get("http://orders/")
            if "fail" in sys.argv:
                raise LookupError

begin = time.monotonic()
try:
    anyio.run(main, backend=sys.argv[1])
except LookupError:
    pass
print(time.monotonic() - begin, flush=True)
os._exit(0)
"""

SERVICE = """
import os, time
import anyio
from fastapi import FastAPI
from meshaware import Mesh
from opentelemetry import trace

app = FastAPI()
Mesh().install(app)

async def main():
    async with app.router.lifespan_context(app):
        with trace.get_tracer("job").start_as_current_span("count"):
            pass

begin = time.monotonic()
anyio.run(main)
print(time.monotonic() - begin, flush=True)
os._exit(0)
"""


@pytest.mark.parametrize("ends", ["", "fail"])
@pytest.mark.parametrize(
    ("job", "loop"),
    [(SYNC, ""), (ASYNC, "asyncio"), (ASYNC, "trio")],
    ids=["synchronous", "asyncio", "trio"],
)
def test_a_job_in_its_meshs_lifespan_loses_no_span(
    job: str, loop: str, ends: str, python: Python, http_collector: Any
) -> None:
    """Whether it succeeds or fails, and however the process ends afterwards."""
    process = python("-c", job, loop, ends, env={**ENVIRONMENT, **http_collector.environment})
    _, err = process.communicate(timeout=30)

    assert (process.returncode, err) == (0, "")
    assert http_collector.names() == ["GET", "count"]


@pytest.mark.parametrize("job", [SYNC, ASYNC, SERVICE], ids=["synchronous", "asynchronous", "service"])
def test_a_collector_that_is_silent_holds_the_end_up_for_two_seconds_in_all(
    job: str, python: Python, silent_endpoint: str
) -> None:
    """Also where both an application and its mesh flush."""
    environ = {**ENVIRONMENT, "OTEL_EXPORTER_OTLP_ENDPOINT": silent_endpoint}
    process = python("-c", job, "asyncio", env=environ)
    out, err = process.communicate(timeout=30)

    assert process.returncode == 0, err
    assert 1.9 < float(out) < 3.9


def test_a_job_whose_spans_nobody_asked_for_is_quiet(python: Python) -> None:
    process = python("-c", SYNC, env={"MESHAWARE_MESH": "none"})
    out, err = process.communicate(timeout=30)

    assert (process.returncode, err) == (0, "")
    assert float(out) < 1.9
