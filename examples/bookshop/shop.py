"""
The bookshop, running: each service a process with an Envoy of its own, and a visitor in the mesh.

The visitor is this process. Its calls go through its own sidecar, as a pod's do; so an ordinary httpx client
and one made by meshaware can be shown side by side on the same road.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any, NamedTuple, TypeVar

import httpx
from collector import Collector
from processes import Processes, Service
from publisher import Publisher

from meshaware import MeshSettings, create_client
from meshaware.testing import LocalMesh, LocalService

HERE = Path(__file__).parent
ROUTES = HERE / "routes"
NAMESPACE = "shop"
PORT = 8080
PATIENCE = 25.0
POLL = 0.05


class Role(NamedTuple):
    """One process: which service it is, and what it runs."""

    service: str
    version: str
    application: str


CAST = {
    "inventory-v1": Role("inventory", "v1", "troubles:app"),
    "inventory-v2": Role("inventory", "v2", "services.inventory:app"),
    "orders": Role("orders", "v1", "services.orders:app"),
    "storefront": Role("storefront", "v1", "services.storefront:app"),
}
LATE = "storefront"

T = TypeVar("T")


class NotYet(Exception):
    """What is waited for is not there, or did not come in time; the message says what was seen."""


class Shop(NamedTuple):
    """What the scenes work with; services and sidecars by the names of `CAST`."""

    members: dict[str, LocalService]
    services: dict[str, Service]
    collector: Collector
    publisher: Publisher
    road: str
    """The visitor's sidecar, as an HTTP proxy."""
    client: httpx.Client
    """The visitor's client, made by meshaware."""

    def bare(self, timeout: float) -> httpx.Client:
        """An ordinary httpx client on the same road."""
        return httpx.Client(proxy=self.road, timeout=timeout, trust_env=False)

    def ask_process(self, name: str, path: str, *, timeout: float = 1.0) -> httpx.Response:
        """Ask a service on its own port, past every sidecar, as a kubelet does."""
        with httpx.Client(trust_env=False, timeout=timeout) as client:
            return client.get(f"http://{self.members[name].app_address}{path}")

    def wait_ready(self, name: str, status: int) -> dict[str, Any]:
        """Wait until a service's `/readyz` answers with this status, and return what it says."""

        def answer() -> dict[str, Any]:
            reply = self.ask_process(name, "/readyz")
            if reply.status_code != status:
                raise NotYet(f"{reply.status_code} {reply.text[:200]}")
            body: dict[str, Any] = reply.json()
            return body

        return self.wait_for(f"/readyz of {name} to be {status}", answer)

    def wait_for(self, what: str, ask: Callable[[], T], *, timeout: float = PATIENCE) -> T:
        """Ask until there is an answer; `NotYet` and the errors of httpx mean that there is none so far."""
        until = monotonic() + timeout
        while True:
            try:
                return ask()
            except (NotYet, httpx.TransportError) as error:
                dead = [name for name, service in self.services.items() if not service.runs]
                if dead or monotonic() > until:
                    ended = f"; ended: {', '.join(dead)}" if dead else ""
                    last = f"{type(error).__name__}: {error}"
                    raise NotYet(f"waited in vain for {what}{ended}; last: {last}") from error
                sleep(POLL)


@contextmanager
def open_shop() -> Generator[Shop]:
    """Start everything but the sidecar of `LATE`, all at once, and end everything."""
    with ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bookshop-")))
        collector = stack.enter_context(Collector())
        publisher = stack.enter_context(Publisher())
        mesh = stack.enter_context(LocalMesh(ROUTES, namespace=NAMESPACE, otlp=collector.url))
        members = {
            name: mesh.add(role.service, version=role.version, port=PORT, start=False) for name, role in CAST.items()
        }
        visitor = mesh.add("visitor", app=False, start=False)
        processes = stack.enter_context(Processes(logs))
        services = {
            name: processes.start(
                name,
                ["serve.py", role.application, str(members[name].socket.fileno())],
                cwd=HERE,
                env=environment(members[name], collector, publisher),
                descriptor=members[name].socket.fileno(),
            )
            for name, role in CAST.items()
        }
        early = [visitor, *(member for name, member in members.items() if name != LATE)]
        for member in early:
            member.sidecar.start(wait=False)
        for member in early:
            member.sidecar.wait_ready()
        road = visitor.sidecar.outbound_url
        settings = MeshSettings(mesh="istio", routes=[ROUTES], outbound_proxy=road, workload={"namespace": NAMESPACE})
        client = stack.enter_context(create_client(settings))
        yield Shop(members, services, collector, publisher, road, client)


def environment(member: LocalService, collector: Collector, publisher: Publisher) -> dict[str, str]:
    """The variables of one service: what its Deployment would say, and no mesh or proxy of this machine's."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MESHAWARE_", "OTEL_")) and not name.lower().endswith("_proxy")
    }
    return {
        **kept,
        **member.environment(),
        "MESHAWARE_ROUTES": str(ROUTES),
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST": "x-request-id",
        "PUBLISHER_URL": publisher.url,
    }
