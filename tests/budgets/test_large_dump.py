"""A dump of a large mesh: 22 MB, 10,000 hosts, 18,000 routes. The figures are a benchmark's; here are their bounds."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from meshaware.budgets import RouteTable

_ROUNDS = 3


@pytest.fixture(name="collector_rests")
def _collector_rests() -> Iterator[None]:
    """A full run of the garbage collector costs what the whole process has, this test's libraries included."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_all_of_it_is_read(large_dump: bytes) -> None:
    """Each route, and of each host its own."""
    table = RouteTable.from_config_dump(large_dump)
    assert len(table) == 18_000
    assert repr(table) == "<RouteTable: 18000 routes, 10000 hosts>"
    for path, headers, name, timeout in (
        ("/v1", {"x-user-type": "premium"}, "service-8003-0005-1", 2.0),
        ("/v1", {}, "service-8003-0005-4", 5.0),
        ("/v2/x", {}, "service-8003-0005-2", 3.0),
    ):
        route = table.match("GET", f"http://service-8003-0005.team-05:8003{path}", headers)
        assert route is not None
        assert (route.name, route.budget.timeout) == (name, timeout)
        assert route.origin == "sidecar: VirtualService team-05/service-8003-0005"
    other = table.match("GET", "http://service-8009-0999.team-29.svc:8009/")
    assert other is not None
    assert (other.name, other.budget.timeout, other.budget.attempts) == ("default", None, 2)


def test_nothing_is_left_to_the_garbage_collector(large_dump: bytes) -> None:
    """A full pass over all that a process has holds up every thread: 10,000 hosts must bring none nearer."""
    gc.collect()
    before = len(gc.get_objects())
    table = RouteTable.from_config_dump(large_dump)
    gc.collect()
    assert len(gc.get_objects()) - before < 1000
    assert len(table) == 18_000
    assert len(gc.get_objects()) - before < 1000
    assert table.match("GET", "http://service-8003-0005.team-05:8003/") is not None


@pytest.mark.usefixtures("collector_rests")
def test_an_event_loop_is_not_held_up(large_dump: bytes) -> None:
    """50 ms at most beside a thread that reads it, on top of what any busy thread costs on this machine."""

    def count(_: bytes) -> None:
        end = time.perf_counter() + 0.5
        while time.perf_counter() < end:
            pass

    async def stall(read: Callable[[bytes], object]) -> float:
        longest, last = 0.0, time.perf_counter()
        reading = asyncio.create_task(asyncio.to_thread(read, large_dump))
        while not reading.done():
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now
        await reading
        return longest

    stalls = [
        asyncio.run(stall(RouteTable.from_config_dump)) - max(0.0, asyncio.run(stall(count)) - 0.005)
        for _ in range(_ROUNDS)
    ]
    assert min(stalls) < 0.05


_MEMORY = """
import re, sys
from pathlib import Path
from meshaware.budgets import RouteTable
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
before = peak()
table = RouteTable.from_config_dump(Path(sys.argv[1]).read_bytes())
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells how much memory was needed")
def test_it_needs_less_than_three_times_its_size_in_memory(large_dump: bytes, tmp_path: Path) -> None:
    """The dump itself included."""
    path = tmp_path / "dump.json"
    path.write_bytes(large_dump)
    command = [sys.executable, "-c", _MEMORY, str(path)]
    needed = int(subprocess.run(command, check=True, capture_output=True, text=True, timeout=50).stdout)
    assert len(large_dump) < needed < 3 * len(large_dump)
