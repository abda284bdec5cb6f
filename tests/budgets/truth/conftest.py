"""Calls through a real Envoy to upstreams that do exactly what a test says, and what Envoy says that they took."""

from __future__ import annotations

import asyncio
import json
import math
import os
import socket
import ssl
import struct
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, suppress
from dataclasses import replace
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict, TypeVar

import pytest
import trustme

from meshaware.budgets import Budget, RouteTable
from meshaware.testing.bootstrap import Ports, bootstrap
from meshaware.testing.clusters import outbound_clusters
from meshaware.testing.discovery import CLUSTERS, ROUTES
from meshaware.testing.envoy import find_envoy
from meshaware.testing.manifests import read_manifests
from meshaware.testing.ports import LOOPBACK, HeldPort
from meshaware.testing.processes import ProcessGroup
from meshaware.testing.routes import route_configuration
from meshaware.testing.sidecar import Sidecar, SidecarPlan
from meshaware.testing.view import Client, Endpoint, ServiceView, View

# Read now: each test has an environment without it.
_ENVOY = os.environ.get("MESHAWARE_ENVOY") or None
_PATIENCE = 20.0
_EACH_PIECE = 0.02
_EXTENSIONS = "type.googleapis.com/envoy.extensions"
_T = TypeVar("_T")


class Step(TypedDict):
    """What an upstream does with one request, `after` so many seconds."""

    does: Literal["answer", "dribble", "close", "reset", "refuse the stream", "say nothing"]
    after: NotRequired[float]
    status: NotRequired[int]
    header: NotRequired[str]
    lasts: NotRequired[float]


class Case(TypedDict):
    """
    One route and its upstream.

    Attributes:
        rule: The fields of the VirtualService's one rule; a route is added.
        steps: What becomes of the first request that reaches the upstream, the second, and so on; the last again.
        connect: The DestinationRule's `connectTimeout`, in seconds.
        connections: Its `maxConnections`.
        shakes: With TLS: after how many seconds it shakes hands on the first connection, the second, and so on.
        door: What a connection meets: the upstream, a port that nobody listens on, or a queue that is full.
    """

    rule: dict[str, Any]
    steps: NotRequired[Sequence[Step]]
    connect: NotRequired[float]
    connections: NotRequired[int]
    shakes: NotRequired[Sequence[float]]
    door: NotRequired[Literal["open", "refuses", "full"]]


class Taken(NamedTuple):
    """
    What became of one call.

    `seconds` is Envoy's own time, from its access log, from the end of the request to the end of the response. It
    leaves out what a busy machine does to the client, whose time is `client`. `arrivals` is when the upstream was
    reached.
    """

    case: Case
    budget: Budget
    seconds: float
    client: float
    attempts: int
    status: int
    whole: bool
    arrivals: tuple[float, ...]

    def total(self, policy: Literal["ceiling", "tight"]) -> float:
        """What was said that it may take, without a buffer."""
        total = self.budget.total(0.0, policy)
        assert total is not None
        return total


@cache
def _certificate() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("upstream.example").configure_cert(context)  # pyright: ignore[reportUnknownMemberType]
    return context


def _at(items: Sequence[_T], number: int) -> _T:
    return items[min(number, len(items) - 1)]


async def _pass(seconds: float) -> None:
    if seconds == math.inf:
        await asyncio.get_running_loop().create_future()
    await asyncio.sleep(seconds)


class Upstream:
    """A port that does what its case says, byte by byte, in the loop of the test."""

    def __init__(self, case: Case) -> None:
        self._steps: Sequence[Step] = case.get("steps") or [{"does": "say nothing"}]
        self._shakes, self._door = case.get("shakes"), case.get("door", "open")
        self._held = HeldPort()
        self.port = self._held.number
        self._tasks: set[asyncio.Task[None]] = set()
        self._sockets: list[socket.socket] = []
        self.again()

    def again(self) -> None:
        """Begin with the first step."""
        self._connections, self._requests = count(), count()
        self.arrivals: list[float] = []

    def open(self) -> None:
        if self._door == "refuses":
            return
        listening = self._held.listen()
        self._sockets.append(listening)
        if self._door == "full":
            # Linux drops the SYN of whoever comes to a full queue: nobody answers, as at a node that is dead.
            listening.listen(0)
            self._sockets.append(socket.create_connection((LOOPBACK, self.port), _PATIENCE))
            return
        listening.setblocking(False)
        self._start(self._accept(listening))

    async def close(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for each in self._sockets:
            each.close()
        self._held.release()

    def _start(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listening: socket.socket) -> None:
        while True:
            connection, _ = await asyncio.get_running_loop().sock_accept(listening)
            self._start(self._serve(connection))

    async def _serve(self, connection: socket.socket) -> None:
        loop, reader = asyncio.get_running_loop(), asyncio.StreamReader()
        protocol, tls = asyncio.StreamReaderProtocol(reader), None
        with closing(connection), suppress(OSError, EOFError):
            if self._shakes:
                await _pass(_at(self._shakes, next(self._connections)))
                tls = _certificate()
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, connection, ssl=tls)
            writer = asyncio.StreamWriter(transport, protocol, reader, loop)
            try:
                if self._steps[0]["does"] == "refuse the stream":
                    await self._refuse(reader, writer)
                while await self._answer(reader, writer):
                    pass
            finally:
                transport.abort()

    def _next(self) -> Step:
        self.arrivals.append(time.monotonic())
        return _at(self._steps, next(self._requests))

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(_length(head))
        step = self._next()
        if step["does"] == "say nothing":
            await reader.read()
            return False
        await _pass(step.get("after", 0.0))
        if step["does"] == "reset":
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if step["does"] in ("reset", "close"):
            return False
        header = f"{step['header']}\r\n" if "header" in step else ""
        start = f"HTTP/1.1 {step.get('status', 200)} Reason\r\n{header}"
        if step["does"] == "answer":
            writer.write(f"{start}content-length: 2\r\n\r\nok".encode())
            return True
        writer.write(f"{start}transfer-encoding: chunked\r\n\r\n".encode())
        until = time.monotonic() + step.get("lasts", 0.0)
        while time.monotonic() < until:
            writer.write(b"1\r\n.\r\n")
            await writer.drain()
            await _pass(_EACH_PIECE)
        writer.write(b"0\r\n\r\n")
        return True

    async def _refuse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """HTTP/2, and no more of it than refusing takes: settings, their acknowledgement, RST_STREAM."""
        settings, headers, reset, refused = 4, 1, 3, 7
        await reader.readexactly(24)
        writer.write(_frame(settings))
        while True:
            head = await reader.readexactly(9)
            kind, flags, stream = head[3], head[4], int.from_bytes(head[5:])
            await reader.readexactly(int.from_bytes(head[:3]))
            if kind == settings and not flags & 1:
                writer.write(_frame(settings, flags=1))
            elif kind == headers:
                step = self._next()
                if step["does"] == "refuse the stream":
                    await _pass(step.get("after", 0.0))
                    writer.write(_frame(reset, stream=stream, payload=struct.pack(">I", refused)))


def _frame(kind: int, *, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _length(head: bytes) -> int:
    _, found, rest = head.lower().partition(b"content-length: ")
    return int(rest.partition(b"\r\n")[0]) if found else 0


class Mesh:
    """One Envoy with a route for each case, and the upstreams behind it."""

    def __init__(self, cases: Sequence[Case], upstreams: Sequence[Upstream], sidecar: Sidecar, port: int) -> None:
        self._cases, self._upstreams, self._sidecar, self._port = cases, upstreams, sidecar, port
        self._ids = count()
        table = RouteTable.from_config_dump(sidecar.admin("/config_dump"))
        self.budgets = [budget_of(table, number) for number in range(len(cases))]

    async def measure(self, numbers: Iterable[int], *, upload: float = 0.0, within: float = 0.0) -> list[Taken]:
        """
        Call cases by their numbers, all at once.

        Args:
            numbers: Which.
            upload: For so many seconds, a body is being sent.
            within: Not quite at once: begin the calls over so many seconds.
        """
        called = list(numbers)
        calls = [self._call(number, upload, within * place / len(called)) for place, number in enumerate(called)]
        done = await asyncio.gather(*calls)
        logged = await self._logged({path for path, _ in done})
        return [
            taken._replace(
                seconds=int(logged[path]["milliseconds"]) / 1000 - taken.seconds,
                attempts=int(logged[path]["attempts"] or 0),
            )
            for path, taken in done
        ]

    async def _call(self, number: int, upload: float, wait: float) -> tuple[str, Taken]:
        """The path of the call, and what the client saw of it, with the time of the upload as `seconds`."""
        await asyncio.sleep(wait)
        upstream, path, pieces = self._upstreams[number], f"/{next(self._ids)}", round(upload / _EACH_PIECE)
        upstream.again()
        reader, writer = await asyncio.open_connection(LOOPBACK, self._port)
        with closing(writer):
            begun = time.monotonic()
            writer.write(f"POST {path} HTTP/1.1\r\nhost: case-{number}\r\ncontent-length: {pieces}\r\n\r\n".encode())
            for _ in range(pieces):
                await asyncio.sleep(_EACH_PIECE)
                writer.write(b".")
            sent = time.monotonic()
            status, whole = await asyncio.wait_for(_response(reader), _PATIENCE)
            client = time.monotonic() - sent
        uploaded, arrivals = sent - begun if pieces else 0.0, tuple(upstream.arrivals)
        return path, Taken(self._cases[number], self.budgets[number], uploaded, client, 0, status, whole, arrivals)

    async def _logged(self, paths: set[str]) -> dict[str, dict[str, Any]]:
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            found = {entry["path"]: entry for entry in self._sidecar.access_log() if entry["path"] in paths}
            if len(found) == len(paths):
                return found
            await asyncio.sleep(0.02)
        pytest.fail(f"Envoy has not logged all of {len(paths)} calls within {_PATIENCE} s")


def budget_of(table: RouteTable, number: int) -> Budget:
    route = table.match("POST", f"http://case-{number}/")
    assert route is not None
    return route.budget


async def _response(reader: asyncio.StreamReader) -> tuple[int, bool]:
    """The status, and whether the response came to its end."""
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head.split()[1])
    try:
        if b"chunked" in head.lower():
            await reader.readuntil(b"0\r\n\r\n")
        else:
            await reader.readexactly(_length(head))
    except (EOFError, OSError):
        return status, False
    return status, True


def _manifests(number: int, case: Case) -> Iterable[dict[str, Any]]:
    name = f"case-{number}"
    route = [{"destination": {"host": name}}]
    tcp: dict[str, Any] = {"connectTimeout": f"{case.get('connect', 0.25) * 1000:.0f}ms"}
    if "connections" in case:
        tcp["maxConnections"] = case["connections"]
    for kind, spec in (
        ("VirtualService", {"hosts": [name], "http": [{**case["rule"], "route": route}]}),
        ("DestinationRule", {"host": name, "trafficPolicy": {"connectionPool": {"tcp": tcp}}}),
    ):
        yield {"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def _transport(case: Case) -> dict[str, Any]:
    """What a cluster says of TLS and HTTP/2."""
    said: dict[str, Any] = {}
    if case.get("shakes"):
        tls = {"@type": f"{_EXTENSIONS}.transport_sockets.tls.v3.UpstreamTlsContext"}
        said["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": tls}
    if any(step["does"] == "refuse the stream" for step in case.get("steps", ())):
        said["typed_extension_protocol_options"] = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{_EXTENSIONS}.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        }
    return said


def _resources(
    file: Path, cases: Sequence[Case], upstreams: Sequence[Upstream]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Write the manifests to a file, and return what Istio would make of them."""
    documents = [each for number, case in enumerate(cases) for each in _manifests(number, case)]
    file.write_text(json.dumps({"kind": "List", "items": documents}))
    names = [f"case-{number}" for number in range(len(cases))]
    services = [
        ServiceView(name, "shop", f"{name}.shop.svc.cluster.local", 8080, [Endpoint(LOOPBACK, upstream.port, {})])
        for name, upstream in zip(names, upstreams, strict=True)
    ]
    view, manifests = View(services, Client("shop", {})), read_manifests(file, namespace="shop")
    of = dict(zip([service.host for service in services], cases, strict=True))
    clusters = outbound_clusters(manifests, view)
    for cluster in clusters:
        host = cluster["name"].rpartition("|")[2]
        if host in of:
            cluster.update(_transport(of[host]))
    return clusters, route_configuration(manifests, view)


@asynccontextmanager
async def _running(directory: Path, cases: Sequence[Case]) -> AsyncGenerator[Mesh]:
    file, home = directory / "manifests.json", directory / "sidecar"
    home.mkdir()
    upstreams = [Upstream(case) for case in cases]
    clusters, routes = _resources(file, cases, upstreams)
    held, group = [HeldPort() for _ in range(4)], ProcessGroup(home)
    ports = Ports(*(each.number for each in held))
    config = bootstrap({"id": "sidecar", "cluster": "tester"}, ports, home, 8080, None)
    sidecar = Sidecar(SidecarPlan("tester", find_envoy(_ENVOY), home, ports, config, group, _PATIENCE))
    try:
        for upstream in upstreams:
            upstream.open()
        sidecar.configure(CLUSTERS, clusters)
        sidecar.configure(ROUTES, [routes])
        await asyncio.to_thread(sidecar.start)
        mesh = Mesh(cases, upstreams, sidecar, ports.outbound)
        told = RouteTable.from_manifests(file, namespace="shop")
        for number, (case, budget) in enumerate(zip(cases, mesh.budgets, strict=True)):
            # Envoy and the manifest say the same; connect timeouts are not the VirtualService's.
            assert replace(budget_of(told, number), connect_timeout=budget.connect_timeout) == budget, case
        yield mesh
    finally:
        await asyncio.to_thread(sidecar.stop)
        group.close()
        for upstream in upstreams:
            await upstream.close()
        for each in held:
            each.release()


@pytest.fixture
def running(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """`async with running(cases) as mesh`: an Envoy with these routes and upstreams; `mesh.measure(numbers)` calls."""

    def running(cases: Sequence[Case]) -> AbstractAsyncContextManager[Mesh]:
        return _running(tmp_path_factory.mktemp("truth"), cases)

    return running


@pytest.fixture
def measure(running: Callable[..., Any]) -> Callable[..., list[Any]]:
    """Call each of the cases, once or as `times` says, all at once; what `measure` of the mesh takes may be given."""

    def measure(*cases: Case, times: int = 1, **how: Any) -> list[Any]:
        async def call() -> list[Any]:
            async with running(cases) as mesh:
                taken: list[Any] = await mesh.measure([*range(len(cases))] * times, **how)
                return taken

        return asyncio.run(call())

    return measure
