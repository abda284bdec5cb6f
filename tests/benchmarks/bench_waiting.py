"""Waiting for a sidecar: how late a gate learns that it is ready; the command; a look at an empty machine."""

from __future__ import annotations

import http.client
import os
import random
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import anyio

from meshaware import MeshSettings, ReadinessGate
from meshaware.flavours import PORTS
from meshaware.settings import addresses
from meshaware.sidecar.knocking import Knock, knock
from meshaware.sidecar.schedule import step
from tests.benchmarks.children import Child
from tests.benchmarks.harness import Run, added, interleave, judge

Wait = Callable[[ReadinessGate], float]
"""Waits, and tells when it was over."""

INSTANTS = (0.05, 0.2, 0.5, 1.0, 2.0, 4.0)
PERIOD = 0.5
START_MS = 150
EMPTY_MS = 100
COMMAND = "import sys; from meshaware.cli import main; sys.exit(main(['wait']))"
# Nothing listens there, whatever this machine runs.
NOBODY = "127.77.77.77"


class Seen(NamedTuple):
    """One wait: its seconds, by how many the gate and the poller were late; requests, and how many are allowed."""

    waited: float
    late: float
    poller: float
    asked: int
    allowed: int

    @property
    def kept(self) -> bool:
        """A tenth of the wait and 10 ms, never over 250 ms, a request a step."""
        return self.late <= min(0.1 * self.waited + 0.01, 0.25) and self.asked <= self.allowed


def poll(port: int) -> float:
    """As Istio's `pilot-agent wait` does: a pause of half a second, then a question, until it is 200."""
    while True:
        time.sleep(PERIOD)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PERIOD)
        try:
            connection.request("GET", "/poller")
            if connection.getresponse().status == 200:
                return time.monotonic()
        except OSError:
            continue
        finally:
            connection.close()


async def _wait(gate: ReadinessGate) -> float:
    await gate.async_wait(30)
    # Not with the end of the event loop.
    return time.monotonic()


def _wait_in_thread(gate: ReadinessGate) -> float:
    gate.wait(30)
    return time.monotonic()


WAITS: dict[str, Wait] = {"gate.wait": _wait_in_thread, "gate.async_wait": lambda gate: anyio.run(_wait, gate)}


def watch(proxy: Child, wait: Wait, before: str, seconds: float) -> Seen:
    """One proxy that gets ready after so many seconds; the gate and the poller wait for it at once."""
    url = f"http://127.0.0.1:{proxy.port}/gate"
    ready = float(proxy.ask(f"{before} {seconds}"))
    ends: list[float] = []
    poller = threading.Thread(target=lambda: ends.append(poll(proxy.port)))
    gate = ReadinessGate(MeshSettings(mesh="istio", ready_url=url))
    poller.start()
    begin = time.monotonic()
    end = wait(gate)
    poller.join()
    allowed, instant = 0, 0.0
    while instant <= end - begin:
        allowed, instant = allowed + 1, instant + step(instant)
    return Seen(end - begin, end - ready, ends[0] - ready, int(proxy.ask("counts")), allowed)


def lateness(rounds: int) -> None:
    """How late, by what was answered before, for threads and for tasks."""
    print(f"  {'':<36} {'ms late':>8} {'most':>7} {'poller':>8} {'most':>7} {'requests':>9}")
    everything: list[Seen] = []
    with Child("proxy") as proxy:
        for before in ("503", "refused"):
            for name, wait in WAITS.items():
                seen = [
                    watch(proxy, wait, before, instant * random.uniform(0.8, 1.2))
                    for _ in range(rounds)
                    for instant in INSTANTS
                ]
                everything += seen
                print(f"  {f'{name}, {before} before':<36} {_late([each.late for each in seen])}", end=" ")
                print(_late([each.poller for each in seen]), f"{sum(each.asked for each in seen):9}")
    for each in everything:
        if not each.kept:
            asked = f"{each.asked} requests of {each.allowed}"
            print(f"  over: {each.late * 1e3:.1f} ms late after {each.waited * 1e3:.0f} ms, {asked}")
    kept = sum(each.kept for each in everything)
    judge(
        "late by at most 10 % of the wait + 10 ms, never over 250 ms, a request a step",
        f"{kept} of {len(everything)} waits",
        kept=kept == len(everything),
    )


def _late(values: Sequence[float]) -> str:
    return f"{statistics.median(values) * 1e3:8.1f} {max(values) * 1e3:7.1f}"


def spent(statement: str, environment: dict[str, str]) -> Run:
    """Processor time of a process that runs the statement, its start and end included."""

    def run() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        # What is installed is compiled already.
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        subprocess.run([sys.executable, "-c", statement], env=inherited | environment, check=True, timeout=60)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return run


def command(rounds: int) -> None:
    """`meshaware wait` as a process, with a proxy that is ready."""
    with Child("proxy") as proxy:
        environment = {"MESHAWARE_MESH": "istio", "MESHAWARE_READY_URL": f"http://127.0.0.1:{proxy.port}/gate"}
        proxy.ask("503 0")
        runs = {name: spent(name, environment) for name in ("pass", "import httpx", COMMAND)}
        taken = interleave(runs, rounds)
    names = {"pass": "python -c pass", "import httpx": "python -c 'import httpx'", COMMAND: "meshaware wait"}
    for name, times in taken.items():
        print(f"  {names[name]:<36} {statistics.median(times) * 1e3:8.1f} ms")
    own = added(taken[COMMAND], taken["pass"])
    print(f"  {'added':<36} {own.median / 1e3:8.1f} ms ({own.low / 1e3:.1f} to {own.high / 1e3:.1f})")
    whole = statistics.median(taken[COMMAND]) * 1e3
    judge(f"meshaware wait: under {START_MS} ms", f"{whole:.0f} ms", kept=whole < START_MS)


def empty(rounds: int) -> None:
    """Looking for every mesh where none is."""
    knocks = tuple(Knock(port, path) for port, path in PORTS.items())
    usual, addresses.LOCALHOST = addresses.LOCALHOST, (NOBODY, "::1")
    try:
        elapsed: list[float] = []
        own = time.process_time()
        for _ in range(50 * rounds):
            begin = time.perf_counter()
            knock(knocks, 1.0)
            elapsed.append(time.perf_counter() - begin)
        own = (time.process_time() - own) / (50 * rounds)
        most = max(elapsed) * 1e3
        middle = statistics.median(elapsed) * 1e3
        print(f"  {len(knocks)} ports: {middle:.2f} ms, at most {most:.1f}; {own * 1e3:.2f} ms of its own")
        for name, wait in WAITS.items():
            gate = ReadinessGate(MeshSettings(in_kubernetes=True, workload={}))
            own = time.process_time()
            wait(gate)
            own = time.process_time() - own
            state = gate.state
            print(
                f"  {name}, until it is given up: {state.waited:.1f} s, {state.attempts} looks, {own * 1e3:.0f} ms own"
            )
    finally:
        addresses.LOCALHOST = usual
    judge(f"an empty machine: well under {EMPTY_MS} ms", f"at most {most:.1f} ms", kept=most < EMPTY_MS / 2)


def main(times: float = 1.0) -> None:
    lateness(max(1, round(2 * times)))
    command(round(9 * times))
    empty(max(1, round(4 * times)))


if __name__ == "__main__":
    main()
