"""What an import of meshaware and of its rooms takes, each in a fresh process, beside what they build on."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Mapping

from tests.benchmarks.harness import Run, added, interleave, judge

ROUNDS = 9
FRONT_DOOR_MS = 30
STATEMENTS = {
    "pass": "pass",
    "import meshaware": "import meshaware",
    "bind_headers, outbound_headers": "from meshaware import bind_headers, outbound_headers",
    "Budget, RouteTable": "from meshaware import Budget, RouteTable",
    "MeshSettings": "from meshaware import MeshSettings",
    "MeshMiddleware": "from meshaware import MeshMiddleware",
    "create_client": "from meshaware import create_client",
    "setup_telemetry": "from meshaware import setup_telemetry",
    "Mesh": "from meshaware import Mesh",
    "meshaware.testing": "import meshaware.testing",
    "for comparison: httpx": "import httpx",
    "for comparison: pydantic_settings": "import pydantic_settings",
    "for comparison: fastapi": "import fastapi",
}
# Processor time, and where the system tells it, the most memory that the process ever had (getrusage tells the
# parent's where a child is made by vfork).
REPORT = """
import time
print(time.process_time())
try:
    with open("/proc/self/status") as status:
        print(*(line.split()[1] for line in status if line.startswith("VmHWM:")))
except OSError:
    pass
"""


def started(statement: str, memory: list[float]) -> Run:
    """A fresh process that runs the statement; its processor time is returned, its MiB are added to the list."""

    def run() -> float:
        done = subprocess.run(
            [sys.executable, "-c", f"{statement}\n{REPORT}"], stdout=subprocess.PIPE, text=True, check=True, timeout=60
        )
        seconds, *kilobytes = done.stdout.split()
        memory.extend(int(each) / 1024 for each in kilobytes)
        return float(seconds)

    return run


def show(taken: Mapping[str, list[float]], memory: Mapping[str, list[float]]) -> None:
    """Milliseconds and MiB over an interpreter that does nothing."""
    print(f"  {'':<44} {'ms':>6} {'added':>7} {'quartiles':>15} {'MiB added':>10}")
    base = taken["pass"]
    for name, times in taken.items():
        more = added(times, base)
        row = f"  {name:<44} {statistics.median(times) * 1e3:6.1f}"
        row += f" {more.median / 1e3:+7.1f} {more.low / 1e3:+7.1f} {more.high / 1e3:+7.1f}"
        if memory[name]:
            row += f" {statistics.median(memory[name]) - statistics.median(memory['pass']):+10.1f}"
        print(row)


def main(times: float = 1.0) -> None:
    memory: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    runs = {name: started(statement, memory[name]) for name, statement in STATEMENTS.items()}
    taken = interleave(runs, round(ROUNDS * times))
    show(taken, memory)
    front_door = added(taken["import meshaware"], taken["pass"]).median / 1e3
    judge(f"import meshaware: at most {FRONT_DOOR_MS} ms", f"{front_door:+.1f} ms", kept=front_door <= FRONT_DOOR_MS)


if __name__ == "__main__":
    main()
