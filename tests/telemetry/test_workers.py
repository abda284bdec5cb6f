"""Workers of multiprocessing leave by a way of their own; what they have to send leaves before."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Python = Callable[..., subprocess.Popen[str]]

AT_THE_END = {
    "OTEL_BSP_SCHEDULE_DELAY": "600000",
    "OTEL_BLRP_SCHEDULE_DELAY": "600000",
    "OTEL_METRIC_EXPORT_INTERVAL": "600000",
    "OTEL_SERVICE_NAME": "inventory",
}

# Set up while the program is imported, before anything of multiprocessing is, as in a service; or in the worker.
PROGRAM = """
import sys
from opentelemetry import trace
from meshaware.telemetry import setup_telemetry

kind, method, where = sys.argv[1:] if __name__ == "__main__" else ("", "", sys.argv[3])
if where == "import":
    setup_telemetry()

def count(number):
    if where == "worker":
        setup_telemetry()
    with trace.get_tracer("worker").start_as_current_span(f"count {number}"):
        return number

def main():
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    context = multiprocessing.get_context(method)
    if kind == "executor":
        with ProcessPoolExecutor(2, mp_context=context) as executor:
            assert list(executor.map(count, range(4))) == [0, 1, 2, 3]
    elif kind == "pool":
        pool = context.Pool(2)
        assert pool.map(count, range(4)) == [0, 1, 2, 3]
        pool.close()
        pool.join()
    else:
        processes = [context.Process(target=count, args=(number,)) for number in range(4)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0] * 4

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("where", ["import", "worker"])
@pytest.mark.parametrize(
    "way",
    [
        ("process", "fork"),
        ("process", "spawn"),
        ("process", "forkserver"),
        ("executor", "fork"),
        ("executor", "spawn"),
        ("pool", "fork"),
    ],
)
def test_a_worker_of_multiprocessing_loses_no_span(
    python: Python, tmp_path: Path, http_collector: Any, way: tuple[str, str], where: str
) -> None:
    """Each span once, whether the worker set telemetry up or its parent did before the fork."""
    (tmp_path / "program.py").write_text(PROGRAM)
    environ = {**AT_THE_END, **http_collector.environment}
    # Python 3.12 and newer warn of any fork in a process with threads, and an exporter has some.
    process = python("-W", "ignore::DeprecationWarning", "program.py", *way, where, env=environ)
    _, err = process.communicate(timeout=60)

    assert (process.returncode, err) == (0, "")
    assert http_collector.names() == [f"count {number}" for number in range(4)]


def test_a_worker_whose_collector_is_silent_leaves_within_two_seconds_and_a_worker_that_fails_loses_none(
    python: Python, silent_endpoint: str, http_collector: Any
) -> None:
    environs = ({"OTEL_EXPORTER_OTLP_ENDPOINT": silent_endpoint}, http_collector.environment)
    processes = [
        python("-W", "ignore::DeprecationWarning", "-c", FAILS, env={**AT_THE_END, **environ}) for environ in environs
    ]
    took = [json.loads(process.communicate(timeout=60)[0]) for process in processes]

    assert took[0] < 2.0 + 3.0
    assert http_collector.names() == ["fails"]


FAILS = """
import multiprocessing, time
from opentelemetry import trace
from meshaware.telemetry import setup_telemetry

setup_telemetry()

def fail():
    with trace.get_tracer("worker").start_as_current_span("fails"):
        raise SystemExit(3)

process = multiprocessing.get_context("fork").Process(target=fail)
begin = time.monotonic()
process.start()
process.join()
assert process.exitcode == 3
print(time.monotonic() - begin)
"""

IMPORTS = """
import sys
from meshaware.telemetry import setup_telemetry

before = "multiprocessing.util" in sys.modules
setup_telemetry()
assert not before and "multiprocessing.util" not in sys.modules
"""


def test_multiprocessing_is_not_imported_where_nobody_did(python: Python) -> None:
    process = python("-c", IMPORTS, env={"OTEL_TRACES_EXPORTER": "console"})
    _, err = process.communicate(timeout=30)

    assert (process.returncode, err) == (0, "")
