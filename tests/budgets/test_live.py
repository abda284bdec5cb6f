"""A real Envoy's routes, kept fresh: what its admin port understands, and one fetch for all workers of a pod."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

import pytest

from meshaware.budgets import RouteSource, RouteTable
from meshaware.budgets.sources import SidecarRoutes
from meshaware.sidecar.admin import fetch
from meshaware.testing import LocalMesh
from tests.budgets.conftest import Counter

pytestmark = [pytest.mark.envoy, pytest.mark.usefixtures("private_files")]

_PATIENCE = 20.0
_TYPE = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
_LONG = f"{'long-' * 20}name.svc.cluster.local:9090"


def config(name: str, timeout: str) -> dict[str, Any]:
    route = {"match": {"prefix": "/"}, "route": {"cluster": "upstream", "timeout": timeout}}
    host = {"name": f"host of {name}", "domains": ["*"], "routes": [route]}
    return {"name": name, "virtual_hosts": [host], "ignore_port_in_host_matching": True}


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + _PATIENCE
    while not holds():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.01)


@pytest.fixture(name="counter")
def _counter(start_envoy: Callable[..., Any]) -> Iterator[Counter]:
    """Before the admin port of an Envoy that has three route configurations."""
    envoy = start_envoy(*(config(name, "1s") for name in ("8080", "shop.svc:7070", _LONG)))
    with Counter(envoy.admin_url).serving() as counter:
        yield counter


def change(directory: Path, name: str, timeout: str) -> None:
    """Give Envoy another version of a route configuration; it watches for files that are moved there."""
    fresh = directory / "fresh"
    resource = {"@type": _TYPE, **config(name, timeout)}
    fresh.write_text(json.dumps({"version_info": "1", "resources": [resource]}))
    fresh.rename(directory / f"{name}.json")


def timeouts(routes: RouteSource) -> dict[str, float | None]:
    return {route.host.removeprefix("host of "): route.budget.timeout for route in routes.current}


def comes_to_know(routes: SidecarRoutes, name: str, seconds: float) -> bool:
    return routes.refresh() and timeouts(routes)[name] == seconds


def test_envoy_understands_each_question(counter: Counter, tmp_path: Path) -> None:
    """Masks, names with dots and colons, names that are too long for its patterns."""
    routes = SidecarRoutes(counter.url)
    assert routes.refresh()
    assert timeouts(routes) == {"8080": 1.0, "shop.svc:7070": 1.0, _LONG: 1.0}
    moved, names, whole = (
        "route_configs&mask=last_updated",
        "route_configs&mask=last_updated,route_config.name",
        "route_configs&name_regex=",
    )
    first, *parts = counter.paths()
    assert first == names
    pattern = "".join(char if char.isalnum() else f"\\{char}" for char in _LONG[:88]) + r"\C*"
    assert sorted(parts) == sorted([f"{whole}8080", rf"{whole}shop\.svc\:7070", f"{whole}{pattern}"])
    assert routes.refresh()
    assert counter.paths() == [moved]
    before = routes.current
    for name, seconds in ((_LONG, 3.0), ("shop.svc:7070", 2.0)):
        change(tmp_path, name, f"{seconds:g}s")
        until(partial(comes_to_know, routes, name, seconds))
    assert [each.what for each in before.diff(routes.current).changed] == [
        ("timeout: 1.0 -> 3.0",),
        ("timeout: 1.0 -> 2.0",),
    ]
    paths = counter.paths()
    assert [path for path in paths if path.startswith(whole)] == [f"{whole}{pattern}", rf"{whole}shop\.svc\:7070"]
    dump = fetch(f"{counter.admin}/config_dump?resource=dynamic_route_configs", timeout=_PATIENCE).body
    assert not RouteTable.from_config_dump(dump).diff(routes.current)


_WORKER = """
import sys, time
from meshaware.budgets.sources import SidecarRoutes
routes = SidecarRoutes(sys.argv[1], interval=0.4)
told = None
with routes:
    while True:
        route = routes.current.match("GET", "http://any:8080/")
        now = None if route is None else route.budget.timeout
        if now != told:
            told = now
            print(now, flush=True)
        time.sleep(0.01)
"""


class Worker:
    """A process with routes of its own, that says each timeout it comes to know."""

    def __init__(self, url: str, directory: Path) -> None:
        self.said: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-c", _WORKER, url],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(directory), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        self._thread = threading.Thread(target=self._listen, args=(cast("IO[str]", self.process.stdout),))
        self._thread.start()

    def _listen(self, lines: IO[str]) -> None:
        with lines:
            self.said.extend(line.strip() for line in iter(lines.readline, ""))

    def end(self) -> None:
        self.process.kill()
        self.process.wait(_PATIENCE)
        self._thread.join(_PATIENCE)


def test_the_workers_of_a_pod_fetch_once(counter: Counter, tmp_path: Path) -> None:
    """Four processes, one Envoy: each part of the dump is fetched once, each change once, each look taken by one."""
    workers = [Worker(counter.url, tmp_path) for _ in range(4)]
    try:
        until(lambda: all(worker.said == ["1.0"] for worker in workers))
        paths = counter.paths()
        for part in ("8080", r"shop\.svc\:7070", "long"):
            assert sum(path.startswith(f"route_configs&name_regex={part}") for path in paths) == 1
        assert sum("route_config.name" in path for path in paths) == 1
        begin = time.monotonic()
        change(tmp_path, "8080", "5s")
        until(lambda: all(worker.said == ["1.0", "5.0"] for worker in workers))
        until(lambda: time.monotonic() > begin + 4.0)
        seconds = time.monotonic() - begin
        paths = counter.paths()
        assert [path for path in paths if "name_regex" in path] == ["route_configs&name_regex=8080"]
        looks = sum(path == "route_configs&mask=last_updated" for path in paths)
        # A fifth sooner than every 0.4 s, and one on the way; four that each asked for itself would be at thrice that.
        assert looks <= seconds / (0.4 * 0.8) + 1
        assert looks >= 2
        workers[0].end()
        change(tmp_path, "8080", "6s")
        until(lambda: all(worker.said[-1] == "6.0" for worker in workers[1:]))
    finally:
        for worker in workers:
            worker.end()


_CONNECT = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: inventory}
spec:
  hosts: [inventory]
  http:
    - retries: {attempts: 2, perTryTimeout: 1s, retryOn: 5xx}
      route: [{destination: {host: inventory}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: inventory}
spec:
  host: inventory
  trafficPolicy: {connectionPool: {tcp: {connectTimeout: CONNECT}}}
"""


def test_connect_timeouts_are_the_sidecar_s(tmp_path: Path) -> None:
    """From the DestinationRule, as Envoy has it: the budget of a route with tries of their own and no timeout."""
    with LocalMesh(_CONNECT.replace("CONNECT", "3s")) as mesh:
        mesh.add("inventory")
        caller = mesh.add("orders", app=False)
        routes = SidecarRoutes(caller.sidecar.admin_url)
        routes.refresh()

        def connect() -> float | None:
            route = routes.current.match("GET", "http://inventory:8080/")
            assert route is not None
            assert route.origin == "sidecar: VirtualService default/inventory"
            return route.budget.connect_timeout

        assert connect() == 3.0
        mesh.apply(_CONNECT.replace("CONNECT", "4s"))
        polls = 0
        while connect() != 4.0:
            polls += 1
            assert polls <= 10
            routes.refresh()
