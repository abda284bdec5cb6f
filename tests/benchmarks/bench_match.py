"""
`RouteTable.match`: which route a call takes, with 10 virtual hosts and with 10,000.

Each host is asked for in its turn, shuffled, so that nothing stays in the processor's caches that would not stay there
in a service that calls them all. Rounds are interleaved; the ratio is the median of theirs.
"""

from __future__ import annotations

import json
import random
import statistics
import time
from typing import Any

from meshaware.budgets import RouteTable

ROUNDS = 60
CALLS = 2000
FEW = 10
MANY = 10_000


def _route(name: str, match: dict[str, Any], timeout: str) -> dict[str, Any]:
    return {"name": name, "match": match, "route": {"cluster": name, "timeout": timeout}}


def _host(number: int) -> dict[str, Any]:
    """As istiod makes them: all names of a service and its address; four of five hosts have a rule of their own."""
    name, namespace = f"service-{number}", f"team-{number % 50}"
    full = f"{name}.{namespace}.svc.cluster.local"
    routes = [_route("default", {"prefix": "/"}, "0s")]
    if number % 5:
        condition = {"name": "x-user-type", "string_match": {"exact": "premium"}}
        routes.insert(0, _route(f"premium-{number}", {"prefix": "/", "headers": [condition]}, "3s"))
    address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
    domains = [full, f"{full}.", f"{name}.{namespace}.svc", f"{name}.{namespace}", address]
    return {"name": f"{full}:8080", "domains": domains, "routes": routes}


def table(hosts: int) -> RouteTable:
    """The routes of a sidecar that knows so many services."""
    wildcards = [
        {"name": suffix, "domains": [f"*.{suffix}"], "routes": [_route(suffix, {"prefix": "/"}, "1s")]}
        for suffix in ("example.com", "a.example.com", "example.org")
    ]
    rest = {"name": "allow_any", "domains": ["*"], "routes": [_route("allow_any", {"prefix": "/"}, "0s")]}
    config = {
        "name": "8080",
        "ignore_port_in_host_matching": True,
        "virtual_hosts": [*map(_host, range(hosts)), *wildcards, rest],
    }
    return RouteTable.from_config_dump(json.dumps({"configs": [{"route_config": config}]}))


def urls(hosts: int) -> list[str]:
    """What is called: every service by its name, shuffled."""
    called = [f"http://service-{number}.team-{number % 50}:8080/items/42" for number in range(hosts)]
    random.Random(hosts).shuffle(called)
    return called


def _round(routes: RouteTable, called: list[str]) -> float:
    """Microseconds for each call."""
    match = routes.match
    began = time.perf_counter()
    for url in called:
        match("GET", url)
    return (time.perf_counter() - began) / len(called) * 1e6


def measure(rounds: int = ROUNDS) -> tuple[float, float, float]:
    """Microseconds with few hosts and with many, the least of all rounds, and the ratio of the two."""
    few, many = table(FEW), table(MANY)
    few_urls, many_urls = urls(FEW) * (CALLS // FEW), urls(MANY)
    _round(many, many_urls)
    with_few: list[float] = []
    with_many: list[float] = []
    for number in range(rounds):
        begin = number * CALLS % MANY
        with_few.append(_round(few, few_urls))
        with_many.append(_round(many, many_urls[begin : begin + CALLS]))
    ratio = statistics.median(many / few for few, many in zip(with_few, with_many, strict=True))
    return min(with_few), min(with_many), ratio


def main(times: float = 1.0) -> None:
    few, many, ratio = measure(max(1, round(ROUNDS * times)))
    print("RouteTable.match, microseconds a call (the bound: 3 with 10 hosts, and a ratio of 1.5)")
    print(f"  {FEW:>6} hosts   {few:6.2f}")
    print(f"  {MANY:>6} hosts   {many:6.2f}   {len(table(MANY))} routes")
    print(f"  ratio          {ratio:6.2f}")


if __name__ == "__main__":
    main()
