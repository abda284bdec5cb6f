"""SIGTERM to a job in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).parents[2] / "src"
PATIENT = 30.0

SYNC = """
import signal, sys, threading, time
from meshaware import Mesh

def wait():
    try:
        print("working", flush=True)
        time.sleep(60)
    finally:
        print("tidied up", flush=True)

def main(work):
    with Mesh().job():
        work()
    print("after", flush=True)

def own(*_):
    print("handled", flush=True)
"""
ASYNC = """
import sys
import anyio
from meshaware import Mesh

async def main(work):
    async with Mesh().async_job():
        await work()
    print("after", flush=True)

async def wait():
    try:
        print("working", flush=True)
        await anyio.sleep(60)
    finally:
        print("tidied up", flush=True)

async def nothing():
    pass
"""
WAITING = {
    "sync": f"{SYNC}\nmain(wait)",
    "asyncio": f"{ASYNC}\nanyio.run(main, wait, backend='asyncio')",
    "trio": f"{ASYNC}\nanyio.run(main, wait, backend='trio')",
}
DONE = {
    "sync": f"{SYNC}\nmain(lambda: None)",
    "asyncio": f"{ASYNC}\nanyio.run(main, nothing, backend='asyncio')",
    "trio": f"{ASYNC}\nanyio.run(main, nothing, backend='trio')",
}

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(name="start")
def _start(tmp_path: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def start(script: str, environment: Mapping[str, str]) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", script],
            env={**os.environ, "PYTHONPATH": str(SOURCE), "TMPDIR": str(tmp_path), **environment},
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def until(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == f"{line}\n"


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit code, and what else it said."""
    said, _ = process.communicate(timeout=PATIENT)
    return process.returncode, said


@pytest.mark.parametrize("script", WAITING.values(), ids=WAITING)
def test_sigterm_ends_the_work_and_the_rest_still_happens(start: Start, sidecar: Any, script: str) -> None:
    """What the work has to tidy up; the sidecar is let go, though the work was not done."""
    process = start(script, sidecar.environment)
    until(process, "working")
    process.send_signal(signal.SIGTERM)
    assert end(process) == (128 + signal.SIGTERM, "tidied up\n")
    assert sidecar.told == 1


@pytest.mark.parametrize("script", WAITING.values(), ids=WAITING)
def test_sigterm_ends_the_wait_for_the_sidecar_too(start: Start, sidecar: Any, script: str) -> None:
    """Before any work."""
    sidecar.ready = False
    asked = threading.Event()
    sidecar.at_ready = asked.set
    process = start(script, sidecar.environment)
    assert asked.wait(PATIENT)
    process.send_signal(signal.SIGTERM)
    assert end(process) == (128 + signal.SIGTERM, "")


@pytest.mark.parametrize("script", DONE.values(), ids=DONE)
def test_sigterm_while_the_job_leaves_waits_until_it_has(start: Start, sidecar: Any, script: str) -> None:
    """Then it does what it would have done."""
    pids: list[int] = []
    sidecar.at_quit = lambda: os.kill(pids[0], signal.SIGTERM)
    gate = threading.Event()
    sidecar.at_ready = lambda: gate.wait(PATIENT)
    process = start(script, sidecar.environment)
    pids.append(process.pid)
    gate.set()
    assert end(process) == (-signal.SIGTERM, "")
    assert sidecar.told == 1


def test_a_handler_that_is_there_stays(start: Start, sidecar: Any) -> None:
    """Who handles SIGTERM has a reason; the job goes on."""
    script = """
signal.signal(signal.SIGTERM, own)

def work():
    print("working", flush=True)
    time.sleep(60)

main(work)
"""
    process = start(f"{SYNC}{script}", sidecar.environment)
    until(process, "working")
    process.send_signal(signal.SIGTERM)
    until(process, "handled")


def test_outside_the_main_thread_signals_are_left_alone(start: Start, sidecar: Any) -> None:
    """Python would not let us."""
    script = """
thread = threading.Thread(target=main, args=(lambda: print(signal.getsignal(signal.SIGTERM).name, flush=True),))
thread.start()
thread.join()
"""
    assert end(start(f"{SYNC}{script}", sidecar.environment)) == (0, "SIG_DFL\nafter\n")
    assert sidecar.told == 1


def test_afterwards_sigterm_is_as_it_was(start: Start, sidecar: Any) -> None:
    """What comes behind the job dies of it as ever."""
    process = start(f"{SYNC}\nmain(lambda: None)\nwait()", sidecar.environment)
    until(process, "after")
    until(process, "working")
    process.send_signal(signal.SIGTERM)
    # Without a word from the `finally` that is there.
    assert end(process) == (-signal.SIGTERM, "")
