"""A mesh for the whole run; upstreams that count what reaches them; collectors that keep what Envoys export."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any, NamedTuple

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1 import trace_pb2

from meshaware.testing import LocalMesh, LocalService
from meshaware.testing.manifests import Manifest, read_manifests
from meshaware.testing.view import Client, Endpoint, ServiceView, View

# Read now: each test has an environment without it.
ENVOY = os.environ.get("MESHAWARE_ENVOY") or None
Scope = MutableMapping[str, Any]
Receive = Callable[[], Any]
Send = Callable[[Any], Any]


class Answer(NamedTuple):
    """What came back through the mesh, and how long it took."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float

    @property
    def seen(self) -> Any:
        """What the upstream says that it saw."""
        return json.loads(self.body)


Get = Callable[..., Answer]


class Upstream:
    """
    An application that does what the path says, and remembers who asked.

    `/wait/0.3` answers after 0.3 seconds, `/fail/2/503` with 503 twice and 200 from then on, anything else with 200.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = Lock()
        self._tries: dict[str, list[int]] = {}

    def tries(self, request_id: str) -> list[int]:
        """The attempt counts of every try of this request that arrived."""
        with self._lock:
            return self._tries.get(request_id, [])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        tries = self._note(headers)
        status = 200
        parts = scope["path"].split("/")
        if parts[1] == "wait":
            await asyncio.sleep(float(parts[2]))
        if parts[1] == "fail" and len(tries) <= int(parts[2]):
            status = int(parts[3])
        query = scope["query_string"].decode()
        body = {"by": self.name, "path": scope["path"], "query": query, "headers": headers, "tries": tries}
        head = [(b"content-type", b"application/json"), (b"x-upstream", self.name.encode())]
        await send({"type": "http.response.start", "status": status, "headers": head})
        await send({"type": "http.response.body", "body": json.dumps(body).encode()})

    def _note(self, headers: Mapping[str, str]) -> list[int]:
        with self._lock:
            tries = self._tries.setdefault(headers.get("x-request-id", ""), [])
            tries.append(int(headers.get("x-envoy-attempt-count", "0")))
            return list(tries)

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return


def get(url: str, host: str, path: str = "/", headers: Mapping[str, str] | None = None, method: str = "GET") -> Answer:
    """Send one request to a listener, with this `Host`, on a connection of its own."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
    begin = time.monotonic()
    try:
        connection.request(method, path, headers={"Host": host, **(headers or {})})
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    names = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, names, body, time.monotonic() - begin)


@pytest.fixture(name="envoy", scope="session")
def _envoy() -> str | None:
    """The Envoy that the run is about, None for the installed one."""
    return ENVOY


@pytest.fixture(name="get", scope="session")
def _get() -> Get:
    return get


@pytest.fixture(name="wait_for", scope="session")
def _wait_for() -> Callable[[Callable[[], Any]], Any]:
    """Ask until the answer is true, five seconds at most."""

    def wait_for(ask: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + 5
        while not (answer := ask()):
            assert time.monotonic() < deadline, "it did not come true within five seconds"
            time.sleep(0.01)
        return answer

    return wait_for


class Span(NamedTuple):
    """What a sidecar exported of one request, in either protocol, and to which path."""

    path: str
    service: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: str
    tags: dict[str, str]


class Collector:
    """A receiver of OTLP over HTTP, at `/v1/traces`, and of Zipkin's JSON, at every other path."""

    def __init__(self) -> None:
        self._lock, self._spans = Lock(), list[Span]()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.take(self.path, b"".join(self.pieces()))
                self.send_response(202)
                self.send_header("content-length", "0")
                self.end_headers()

            def pieces(self) -> Iterator[bytes]:
                """Envoy does not always say how long it is."""
                if "content-length" in self.headers:
                    yield self.rfile.read(int(self.headers["content-length"]))
                    return
                while size := int(self.rfile.readline(), 16):
                    yield self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()

            def log_message(self, *args: object) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def take(self, path: str, body: bytes) -> None:
        spans = list(_otlp(path, body) if path == "/v1/traces" else _zipkin(path, body))
        with self._lock:
            self._spans += spans

    def spans(self, trace: str, service: str) -> list[Span]:
        with self._lock:
            return [span for span in self._spans if (span.trace_id, span.service) == (trace, service)]


def _otlp(path: str, body: bytes) -> Iterable[Span]:
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        names = {each.key: each.value.string_value for each in resource.resource.attributes}
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Span(
                    path,
                    names["service.name"],
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
                    {each.key: each.value.string_value for each in span.attributes},
                )


def _zipkin(path: str, body: bytes) -> Iterable[Span]:
    for span in json.loads(body):
        yield Span(
            path,
            span["localEndpoint"]["serviceName"],
            span["traceId"],
            span["id"],
            span.get("parentId", ""),
            span["kind"].lower(),
            span["tags"],
        )


@pytest.fixture(name="collector", scope="session")
def _collector() -> Iterator[Collector]:
    """One for the whole run: ask it for the spans of one trace."""
    collector = Collector()
    thread = Thread(target=collector.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield collector
    collector.server.shutdown()
    collector.server.server_close()
    thread.join()


class Shop(NamedTuple):
    """The mesh of the whole run: callers `tester` and `stranger`, and two versions of `inventory`."""

    mesh: LocalMesh
    tester: LocalService
    stranger: LocalService
    v1: Upstream
    v2: Upstream
    inventory: LocalService

    def call(self, path: str, *, host: str = "inventory:8080", **more: Any) -> Answer:
        """Call through the tester's sidecar."""
        return get(self.tester.sidecar.outbound_url, host, path, **more)


ROUTES = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: inventory}
spec:
  hosts: [inventory]
  http:
  - match: [{uri: {prefix: /timeout}, name: quick}, {uri: {prefix: /wait}}]
    name: short
    timeout: 300ms
    route: [{destination: {host: inventory, subset: v1}}]
  - match: [{headers: {x-case: {exact: retry-5xx}}}]
    retries: {attempts: 3, retryOn: 5xx, backoff: 1ms}
    route: [{destination: {host: inventory, subset: v1}}]
  - match: [{headers: {x-case: {exact: retry-codes}}}]
    retries: {attempts: 2, retryOn: "connect-failure,503", backoff: 1ms}
    route: [{destination: {host: inventory, subset: v1}}]
  - match: [{headers: {x-case: {exact: no-retries}}}]
    retries: {attempts: 0}
    route: [{destination: {host: inventory, subset: v1}}]
  - match: [{headers: {x-case: {exact: per-try-5xx}}}]
    retries: {attempts: 2, perTryTimeout: 100ms, retryOn: 5xx, backoff: 1ms}
    rewrite: {uri: /wait/2}
    route: [{destination: {host: inventory, subset: v1}}]
  - match: [{headers: {x-case: {exact: per-try-default}}}]
    retries: {attempts: 2, perTryTimeout: 100ms}
    rewrite: {uri: /wait/2}
    route: [{destination: {host: inventory, subset: v1}}]
  - match: [{headers: {x-user-type: {exact: premium}}}]
    route: [{destination: {host: inventory, subset: v2}}]
  - match: [{uri: {exact: /weighted}}]
    route:
    - {destination: {host: inventory, subset: v1}, weight: 50}
    - {destination: {host: inventory, subset: v2}, weight: 50, headers: {response: {set: {x-side: right}}}}
  - match: [{uri: {exact: /one-sided}}]
    route:
    - {destination: {host: inventory, subset: v1}, weight: 0}
    - {destination: {host: inventory, subset: v2}, weight: 100}
  - match: [{uri: {exact: /delay}}]
    fault: {delay: {fixedDelay: 300ms, percentage: {value: 100}}}
    timeout: 200ms
    route: [{destination: {host: inventory, subset: v1}}]
  - match: [{uri: {exact: /abort}}]
    fault: {abort: {httpStatus: 418, percentage: {value: 100}}}
    route: [{destination: {host: inventory, subset: v1}}]
  - match: [{uri: {exact: /abort/never}}]
    fault: {abort: {httpStatus: 418, percentage: {value: 0}}}
    route: [{destination: {host: inventory, subset: v1}}]
  - match: [{uri: {exact: /old}}]
    redirect: {uri: /new, authority: elsewhere, redirectCode: 308}
  - match: [{uri: {exact: /teapot}}]
    directResponse: {status: 418, body: {string: short and stout}}
  - match: [{uri: {prefix: /shelf/}}]
    rewrite: {uri: /, authority: warehouse}
    headers:
      request: {set: {x-set: "1"}, add: {x-added: "2"}, remove: [x-secret]}
      response: {set: {x-answered: "yes"}, remove: [x-upstream]}
    route: [{destination: {host: inventory, subset: v1}}]
  - match: [{uri: {regex: "/item/([0-9]+)"}}]
    rewrite: {uriRegexRewrite: {match: "^/item/([0-9]+)$", rewrite: "/number/\\\\1"}}
    route: [{destination: {host: inventory, subset: v1}}]
  - match: [{uri: {exact: /mirrored}}]
    mirror: {host: inventory, subset: v2}
    mirrorPercentage: {value: 100}
    route: [{destination: {host: inventory, subset: v1}}]
  - match: [{uri: {exact: /no-such-subset}}]
    route: [{destination: {host: inventory, subset: v9}}]
  - match: [{uri: {exact: /from-tester}, sourceLabels: {app: tester}}]
    directResponse: {status: 201}
  - match: [{uri: {exact: /from-shop}, sourceNamespace: shop}]
    directResponse: {status: 202}
  - match: [{uri: {exact: /without}, withoutHeaders: {x-skip: {}}}]
    directResponse: {status: 203}
  - match: [{uri: {exact: /without-value}, withoutHeaders: {x-skip: {exact: "yes"}}}]
    directResponse: {status: 203}
  - match: [{uri: {exact: /query}, queryParams: {page: {regex: "[0-9]+"}, deep: {}}}]
    directResponse: {status: 203}
  - match: [{uri: {prefix: /CASE}, ignoreUriCase: true, method: {exact: PUT}, authority: {prefix: inventory}}]
    directResponse: {status: 203}
  - match: [{uri: {exact: /any-value}, headers: {x-any: {regex: "*"}}}]
    directResponse: {status: 203}
  - route: [{destination: {host: inventory, subset: v1}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: one-page}
spec:
  hosts: [one-page]
  http:
  - match: [{uri: {exact: /page}}]
    directResponse: {status: 200}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: inventory}
spec:
  host: inventory
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
"""


@pytest.fixture(name="shop", scope="session")
def _shop(envoy: str | None) -> Iterator[Shop]:
    mesh = LocalMesh(ROUTES, envoy=envoy)
    tester, stranger = mesh.add("tester", app=False), mesh.add("stranger", app=False, namespace="shop")
    inventory = mesh.add("inventory", version="v1")
    newer = mesh.add("inventory", version="v2")
    mesh.add("nobody-home")
    v1, v2 = Upstream("v1"), Upstream("v2")
    with mesh:
        inventory.serve(v1)
        newer.serve(v2)
        yield Shop(mesh, tester, stranger, v1, v2, inventory)


@pytest.fixture(name="view")
def _view() -> View:
    """A mesh for the pure translations: `inventory`, v1 and v2, in the namespace `shop`, seen from there."""
    endpoints = [Endpoint("127.0.0.1", 1000 + i, {"version": f"v{i}"}) for i in (1, 2)]
    inventory = ServiceView("inventory", "shop", "inventory.shop.svc.cluster.local", 8080, endpoints)
    return View([inventory], Client("shop", {"app": "orders"}))


@pytest.fixture(name="read")
def _read() -> Callable[[str], list[Manifest]]:
    """Read a VirtualService's `spec`, given as YAML."""

    def read(spec: str, kind: str = "VirtualService") -> list[Manifest]:
        lines = "\n".join(f"  {line}" for line in spec.strip().splitlines())
        head = f"apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: it}}\nspec:\n"
        return read_manifests(head + lines, namespace="shop")

    return read
