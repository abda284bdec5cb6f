"""
A config dump of 22 MB, 10,000 hosts and 18,000 routes: time and memory against `json.loads` of the same bytes.

What an event loop notices is measured too: the longest time between two ticks of a task, while a thread reads the dump,
beside what a thread costs that only counts; and what the garbage collector does meanwhile.
Each figure of memory is of a process of its own, above what that needs without the dump.
"""

from __future__ import annotations

import asyncio
import gc
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from meshaware.budgets import RouteTable
from tests.budgets.conftest import large_dump

ROUNDS = 15
STALLS = 9
READERS: dict[str, Callable[[bytes], object]] = {
    "json.loads": json.loads,
    "RouteTable.from_config_dump": RouteTable.from_config_dump,
}


def seconds(read: Callable[[bytes], object], dump: bytes) -> float:
    """Processor time, the end of what was read included."""
    begin = time.process_time()
    read(dump)
    return time.process_time() - begin


def count(_: object) -> None:
    end = time.perf_counter() + 0.25
    while time.perf_counter() < end:
        pass


def passes(read: Callable[[bytes], object], dump: bytes) -> list[int]:
    """How often the garbage collector ran, by generation."""
    gc.collect()
    before = [each["collections"] for each in gc.get_stats()]
    read(dump)
    return [each["collections"] - earlier for each, earlier in zip(gc.get_stats(), before, strict=True)]


def stall(read: Callable[[bytes], object], dump: bytes) -> float:
    """The longest time between two ticks of an event loop, while the dump is read in a thread."""

    async def main() -> float:
        longest, last = 0.0, time.perf_counter()
        reading = asyncio.create_task(asyncio.to_thread(read, dump))
        while not reading.done():
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now
        await reading
        return longest

    return asyncio.run(main())


def memory(name: str, path: str) -> int:
    """Bytes that a process needs at most for the dump and what is read from it."""
    before = peak()
    kept = READERS[name](Path(path).read_bytes())
    after = peak()
    del kept
    return after - before


def peak() -> int:
    """The most that this process has needed so far; Linux tells."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return 0 if found is None else int(found[1]) * 1024


def memory_in_a_process(name: str, path: Path) -> int:
    code = f"from tests.benchmarks.bench_dump import memory; print(memory({name!r}, {str(path)!r}))"
    return int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def main(times: float = 1.0) -> None:
    dump = large_dump()
    busy = sorted(stall(count, dump) * 1000 for _ in range(STALLS))
    print(
        f"a config dump of {len(dump) / 1e6:.1f} MB; a thread that counts stalls an event loop for"
        f" {statistics.median(busy):.0f} ms, {busy[-1]:.0f} at most"
    )
    taken: dict[str, list[float]] = {name: [] for name in READERS}
    for _ in range(max(1, round(ROUNDS * times))):
        for name, read in READERS.items():
            taken[name].append(seconds(read, dump))
    base = taken["json.loads"]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "dump.json"
        path.write_bytes(dump)
        for name, read in READERS.items():
            ratio = statistics.median(own / other for own, other in zip(taken[name], base, strict=True))
            stalls = sorted(stall(read, dump) * 1000 for _ in range(STALLS))
            print(
                f"  {name:<30} {statistics.median(taken[name]) * 1000:5.0f} ms   {ratio:4.2f} x"
                f"   {memory_in_a_process(name, path) / len(dump):4.2f} x its size in memory"
                f"   stalls an event loop for {statistics.median(stalls):.0f} ms, {stalls[-1]:.0f} at most"
                f"   passes of the collector, young to full: {passes(read, dump)}"
            )


if __name__ == "__main__":
    main()
