"""
FastAPI on uvicorn, wired in several ways, under load: what telemetry and the mesh layer cost a real service.

Each wiring is a process of its own, with a real OTLP receiver and an upstream beside it. Requests come with a
`traceparent` as a sidecar writes it, sampled or not. Two measures: requests a second, as clients see them that keep
the service busy, and the processor time that the service uses for one; both with the export of all spans. The second
is the quieter one on a machine that others use too.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import time
from collections.abc import Generator, Mapping, Sequence
from importlib.util import find_spec
from typing import NamedTuple

from tests.benchmarks.children import Child
from tests.benchmarks.harness import Run, Spread, added, interleave, judge, ratio
from tests.benchmarks.load import Load

SECONDS = 75.0
MOST = 1000
CONNECTIONS = 8
REQUESTS = {"items": 96, "orders": 32}
TITLES = {"items": "a request that returns a dict", "orders": "a request that makes a call first"}
SPANS = {"items": 1, "orders": 2}
HEADERS = """\
host: orders:8080
user-agent: python-httpx/0.28.1
accept: */*
accept-encoding: gzip, deflate
x-forwarded-proto: http
x-request-id: 4c7b9e2a-9a1d-9f9b-8c3e-5d1f2a3b4c5d
x-envoy-attempt-count: 1
x-forwarded-client-cert: By=spiffe://cluster.local/ns/shop/sa/orders;Hash={hash};Subject="";URI=spiffe://cluster.local/ns/shop/sa/web
traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}
x-user-type: premium
"""
TRACED = ("telemetry", "mesh", "contrib", "native")
NAMES = {
    "bare": "FastAPI",
    "middleware": "MeshMiddleware, create_async_client",
    "mesh_without_telemetry": "Mesh.install(telemetry=False)",
    "telemetry": "setup_telemetry",
    "mesh": "Mesh.install",
    "contrib": "by hand, contrib",
    "native": "by hand, FastAPI's native",
}


EVEN = 0.98
LEAST = 0.9


class Slot(NamedTuple):
    """What one variant took in one round."""

    seconds: float
    used: float


class Variant(NamedTuple):
    """A service and what it is asked."""

    wiring: str
    endpoint: str
    sampled: bool | None

    @property
    def name(self) -> str:
        return NAMES[self.wiring] + {None: "", True: ", sampled", False: ", unsampled"}[self.sampled]

    @property
    def request(self) -> bytes:
        fields = HEADERS.format(hash="4a" * 32, flags="01" if self.sampled else "00").replace("\n", "\r\n")
        return f"GET /{self.endpoint}/42 HTTP/1.1\r\n{fields}\r\n".encode()


Taken = Mapping[Variant, Sequence[Slot]]


def variants(wirings: Sequence[str]) -> list[Variant]:
    return [
        Variant(wiring, endpoint, sampled)
        for endpoint in REQUESTS
        for wiring in wirings
        for sampled in ((False, True) if wiring in TRACED else (None,))
    ]


@contextlib.contextmanager
def services(wirings: Sequence[str], http: str) -> Generator[tuple[dict[str, Child], Child]]:
    """Every wiring in a process of its own, and the receiver of their spans."""
    with contextlib.ExitStack() as stack:
        collector, upstream = (stack.enter_context(Child(module)) for module in ("collector", "upstream"))
        endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}"}
        yield (
            {
                wiring: stack.enter_context(
                    Child(
                        "service",
                        wiring,
                        http,
                        str(upstream.port),
                        environment=endpoint | {"OTEL_SERVICE_NAME": wiring} if wiring in TRACED else None,
                    )
                )
                for wiring in wirings
            },
            collector,
        )


def measure(children: Mapping[str, Child], seconds: float) -> Taken:
    """Every variant once a round, in turn, until the time is over."""
    slots: dict[Variant, list[Slot]] = {variant: [] for variant in variants(list(children))}
    loads = {variant: Load(children[variant.wiring].port, variant.request, CONNECTIONS) for variant in slots}

    def run_of(runner: asyncio.Runner, variant: Variant) -> Run:
        child, count = children[variant.wiring], REQUESTS[variant.endpoint]

        def run() -> float:
            before = float(child.ask("used"))
            begin = time.perf_counter()
            runner.run(loads[variant].run(count))
            used = float(child.ask("used")) - before
            slot = Slot((time.perf_counter() - begin) / count, used / count)
            slots[variant].append(slot)
            return slot.seconds

        return run

    with asyncio.Runner() as runner:
        try:
            for load in loads.values():
                runner.run(load.connect())
            interleave({str(variant): run_of(runner, variant) for variant in slots}, MOST, seconds)
        finally:
            for load in loads.values():
                load.close()
    return {variant: taken[1:] for variant, taken in slots.items()}


def show(endpoint: str, taken: Taken) -> None:
    """One row a variant; ratios are to FastAPI alone, round by round."""
    base = taken[Variant("bare", endpoint, None)]
    print(TITLES[endpoint].capitalize())
    print(
        f"  {'':<37} {'req/s':>6} {'ratio':>6} {'quartiles':>11}"
        f" {'cpu us':>7} {'added':>6} {'quartiles':>13} {'ratio':>6} {'quartiles':>11}"
    )
    for variant, slots in taken.items():
        if variant.endpoint != endpoint:
            continue
        row = f"  {variant.name:<37} {1 / statistics.median(slot.seconds for slot in slots):6.0f}"
        rate = faster(slots, base)
        more = added([slot.used for slot in slots], [slot.used for slot in base])
        less = cheaper(slots, base)
        row += f" {rate.median:6.2f} {rate.low:5.2f} {rate.high:5.2f}"
        row += f" {statistics.median(slot.used for slot in slots) * 1e6:7.0f}"
        row += f" {more.median:+6.0f} {more.low:+6.0f} {more.high:+6.0f}"
        row += f" {less.median:6.2f} {less.low:5.2f} {less.high:5.2f}"
        print(row)


def faster(own: Sequence[Slot], other: Sequence[Slot]) -> Spread:
    """How many times as many requests a second as the other, round by round."""
    return ratio([slot.seconds for slot in other], [slot.seconds for slot in own])


def cheaper(own: Sequence[Slot], other: Sequence[Slot]) -> Spread:
    """How many times as many requests for the same processor time."""
    return ratio([slot.used for slot in other], [slot.used for slot in own])


def judge_all(taken: Taken) -> None:
    """Say which promises the numbers keep."""

    def promise(words: str, own: Variant, other: Variant, least: float) -> None:
        if own in taken and other in taken:
            seen, computed = faster(taken[own], taken[other]), cheaper(taken[own], taken[other])
            judge(words, f"{seen.median:.2f}; by processor time {computed.median:.2f}", kept=computed.median >= least)

    bare, mesh = Variant("bare", "items", None), Variant("mesh_without_telemetry", "items", None)
    unsampled, sampled = (Variant("telemetry", "items", decision) for decision in (False, True))
    promise(f"setup_telemetry, unsampled: {LEAST} of FastAPI's requests a second", unsampled, bare, LEAST)
    for hand in ("contrib", "native"):
        by_hand = Variant(hand, "items", sampled=True)
        promise(f"setup_telemetry, sampled: not slower than {NAMES[hand]}", sampled, by_hand, EVEN)
    promise(
        f"Mesh.install, unsampled: {LEAST} of Mesh.install(telemetry=False)",
        unsampled._replace(wiring="mesh"),
        mesh,
        LEAST,
    )


def check_spans(collector: Child, wirings: Sequence[str], rounds: int) -> None:
    """What the sampled requests promise has come, no more and no less; otherwise the numbers mean nothing."""
    # One request more of each variant: the one by which the load learns how long an answer is.
    expected = sum(SPANS[endpoint] * (count * (rounds + 1) + 1) for endpoint, count in REQUESTS.items())
    counts = json.loads(collector.ask("spans"))
    if counts != {wiring: expected for wiring in wirings if wiring in TRACED}:
        raise RuntimeError(f"each traced service made {expected} spans, but the receiver has {counts}")
    print(f"  {expected} spans of each traced service came to the receiver: one a sampled request, one a call")


def main(times: float = 1.0, http: str | None = None, wirings: Sequence[str] = tuple(NAMES)) -> None:
    if http is None:
        http = "httptools" if find_spec("httptools") else "h11"
    wirings = tuple(dict.fromkeys(("bare", *wirings)))
    with services(wirings, http) as (children, collector):
        taken = measure(children, SECONDS * times)
        rounds = len(taken[Variant("bare", "items", None)])
        print(f"uvicorn on asyncio and {http}, {CONNECTIONS} connections, {rounds} rounds")
        for endpoint in REQUESTS:
            show(endpoint, taken)
        judge_all(taken)
        check_spans(collector, wirings, rounds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=float, default=1.0, help=f"so many times {SECONDS:.0f} seconds of load")
    parser.add_argument("--http", choices=("h11", "httptools"), help="default: httptools where it is installed")
    parser.add_argument("--wirings", nargs="+", choices=tuple(NAMES), default=tuple(NAMES))
    main(**vars(parser.parse_args()))
