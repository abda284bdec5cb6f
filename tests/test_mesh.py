"""`Mesh`: all of it in two lines, around an application that stays as it is."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import monotonic
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse

from meshaware import Mesh, MeshSettings, outbound_headers
from meshaware.budgets.sources import SidecarRoutes
from meshaware.errors import DeadlineExceeded, SidecarUnavailable
from meshaware.sidecar import schedule, waiting

ALONE = MeshSettings(mesh="none")


def browser(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://test")


class Sidecar:
    """A readiness port and an admin port that say what they are told to say."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.ready = False
        self.routes: dict[str, Any] = {"configs": []}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/healthz/ready":
                    status, body = (200 if outer.ready else 503), b""
                elif self.path.startswith("/config_dump"):
                    status, body = 200, json.dumps(outer.routes).encode()
                elif self.path == "/server_info":
                    status, body = 200, json.dumps({"node": {"metadata": {"MESH_ID": "mesh-one"}}}).encode()
                else:
                    status, body = 404, b""
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class has it so)
                pass

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def settings(self, **more: Any) -> MeshSettings:
        return MeshSettings(mesh="istio", ready_url=f"{self.url}/healthz/ready", admin_url=self.url, **more)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


@pytest.fixture(name="sidecar")
def _sidecar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    sidecar = Sidecar()
    yield sidecar
    sidecar.close()


async def until_ready(client: httpx.AsyncClient) -> httpx.Response:
    with anyio.fail_after(10):
        while True:
            response = await client.get("/readyz")
            if response.status_code == 200:
                return response
            await anyio.sleep(0.01)


@pytest.mark.anyio
async def test_two_lines_make_a_service_a_member_of_its_mesh() -> None:
    """Headers are carried, /livez and /readyz answer, the application's own routes stay."""
    app = FastAPI()
    mesh = Mesh(ALONE)
    mesh.install(app, telemetry=False)

    @app.get("/items")
    async def items() -> dict[str, str]:
        return outbound_headers("http://inventory/")

    async with app.router.lifespan_context(app), browser(app) as client:
        assert (await client.get("/livez")).status_code == 200
        assert (await client.get("/readyz")).json()["ready"] is True
        carried = (await client.get("/items", headers={"x-user-type": "premium"})).json()
    assert carried["x-user-type"] == "premium"
    assert len(carried["x-request-id"]) == 36


@pytest.mark.anyio
async def test_the_application_s_own_lifespan_goes_on_working() -> None:
    """Start, state and stop."""
    told: list[str] = []

    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncGenerator[dict[str, str]]:
        told.append("start")
        yield {"shelf": "a"}
        told.append("stop")

    app = FastAPI(lifespan=own)
    Mesh(ALONE).install(app, telemetry=False)
    async with app.router.lifespan_context(app) as state:
        assert state == {"shelf": "a"}
        assert told == ["start"]
    assert told == ["start", "stop"]


@pytest.mark.anyio
async def test_an_error_of_the_application_s_lifespan_is_raised_as_it_is() -> None:
    """Not wrapped in a group: the background work is ours, not its."""

    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncGenerator[None]:
        yield
        raise KeyError("shelf")

    app = FastAPI(lifespan=own)
    Mesh(ALONE).install(app, telemetry=False)
    with pytest.raises(KeyError, match="shelf"):
        async with app.router.lifespan_context(app):
            pass


@pytest.mark.anyio
async def test_readiness_follows_the_sidecar_and_liveness_does_not(sidecar: Sidecar) -> None:
    """The application serves at once; /readyz is 503, with a reason, until the gate opens."""
    app = FastAPI()
    Mesh(sidecar.settings()).install(app, telemetry=False)
    async with app.router.lifespan_context(app), browser(app) as client:
        waiting = await client.get("/readyz")
        assert waiting.status_code == 503
        assert waiting.json()["gate"]["status"] == "waiting"
        assert (await client.get("/livez")).status_code == 200
        sidecar.ready = True
        opened = (await until_ready(client)).json()
    assert opened["gate"]["status"] == "open"
    assert opened["mesh"] == "istio"


@pytest.mark.anyio
async def test_a_sidecar_that_comes_late_is_still_found(sidecar: Sidecar, caplog: pytest.LogCaptureFixture) -> None:
    """The gate gives up and says so, once; the mesh goes on looking."""

    def given_up() -> list[str]:
        return [record.message for record in caplog.records if "is not ready after" in record.message]

    app = FastAPI()
    Mesh(sidecar.settings(ready_timeout=0.05)).install(app, telemetry=False)
    async with app.router.lifespan_context(app), browser(app) as client:
        with anyio.fail_after(10):
            while not given_up():
                await anyio.sleep(0.01)
        assert (await client.get("/readyz")).status_code == 503
        sidecar.ready = True
        await until_ready(client)
    assert len(given_up()) == 1


@pytest.mark.anyio
async def test_a_mesh_that_gives_up_at_once_looks_on_all_the_same(sidecar: Sidecar) -> None:
    """No time to wait means no error, not a busy loop."""
    app = FastAPI()
    Mesh(sidecar.settings(ready_timeout=0)).install(app, telemetry=False)
    async with app.router.lifespan_context(app), browser(app) as client:
        assert (await client.get("/readyz")).status_code == 503
        sidecar.ready = True
        await until_ready(client)


@pytest.mark.anyio
async def test_once_the_gate_is_open_the_sidecar_is_asked_who_and_where_we_are(sidecar: Sidecar) -> None:
    """The workload and the routes are the sidecar's own, without a restart or a file."""
    sidecar.ready = True
    sidecar.routes = {
        "configs": [
            {
                "@type": "type.googleapis.com/envoy.admin.v3.RoutesConfigDump.DynamicRouteConfig",
                "route_config": {
                    "name": "80",
                    "virtual_hosts": [
                        {
                            "name": "inventory.shop.svc.cluster.local:80",
                            "domains": ["inventory.shop.svc.cluster.local", "inventory"],
                            "routes": [
                                {
                                    "match": {"prefix": "/"},
                                    "route": {"cluster": "outbound|80||inventory", "timeout": "3s"},
                                }
                            ],
                        }
                    ],
                },
            }
        ]
    }
    mesh = Mesh(sidecar.settings())
    assert isinstance(mesh.routes, SidecarRoutes)
    async with mesh.lifespan():
        with anyio.fail_after(10):
            while mesh.workload.mesh_id is None:
                await anyio.sleep(0.01)
    assert mesh.workload.mesh_id == "mesh-one"
    route = mesh.routes.current.match("GET", "http://inventory/items")
    assert route is not None
    assert route.budget.timeout == 3.0
    told: Any = mesh.readiness()[1]["routes"]
    assert 0 <= told.pop("age_s") < 10
    assert told == {"count": 1, "live": True}


@pytest.fixture(name="late")
def _late(own_host: str, sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Starts a sidecar on the fixed ports of Istio's; a gate of which nothing is known is given up soon."""
    monkeypatch.setattr(waiting, "GRACE", 0.1)
    monkeypatch.setattr(schedule, "_FIRST_PAUSE", 0.01)
    started: list[Sidecar] = []

    def start() -> None:
        for port in (15000, 15021):
            started.append(Sidecar(own_host, port))
            started[-1].ready = True

    yield start
    for each in started:
        each.close()


@pytest.mark.anyio
async def test_in_a_pod_of_which_nothing_is_known_a_sidecar_may_come_after_the_start(late: Callable[[], None]) -> None:
    """Nothing is frozen at start: mesh, workload and routes are the sidecar's from then on."""
    app = FastAPI()
    mesh = Mesh(MeshSettings(in_kubernetes=True, workload={}))
    mesh.install(app, telemetry=False)
    async with app.router.lifespan_context(app), browser(app) as client:
        opened = (await until_ready(client)).json()
        assert (opened["mesh"], opened["routes"]["live"], opened["routes"]["age_s"]) == ("unknown", False, None)
        late()
        with anyio.fail_after(10):
            while not (await client.get("/readyz")).json()["routes"]["live"] or mesh.workload.mesh_id is None:
                await anyio.sleep(0.01)
        found = (await client.get("/readyz")).json()
    assert found["mesh"] == "istio"
    assert found["gate"]["status"] == "open"


def test_a_synchronous_worker_learns_of_it_too(late: Callable[[], None]) -> None:
    """In the thread that keeps its routes."""
    mesh = Mesh(MeshSettings(in_kubernetes=True, workload={}))
    routes = mesh.routes
    assert isinstance(routes, SidecarRoutes)
    assert (routes.admin_url, routes.refresh()) == (None, False)
    assert repr(routes) == "<SidecarRoutes not found yet: not read yet, 0 routes>"
    with mesh.sync_lifespan():
        assert mesh.gate.wait(10)
        assert mesh.gate.flavour.name == "unknown"
        late()
        end, pause = monotonic() + 10, threading.Event()
        while not routes.live:
            assert monotonic() < end
            pause.wait(0.01)
    assert mesh.workload.mesh_id == "mesh-one"
    assert routes.admin_url == "http://localhost:15000"


@pytest.mark.parametrize("known", [True, False])
def test_a_worker_ends_at_once_where_no_sidecar_has_come(known: bool, own_host: str) -> None:
    """Nobody waits for a thread that waits: neither for a sidecar that is late nor for one that may never come."""
    waited = MeshSettings(mesh="istio") if known else MeshSettings(in_kubernetes=True, workload={})
    mesh = Mesh(waited)
    begin = monotonic()
    with mesh.sync_lifespan():
        assert mesh.gate.wait(0.05, fatal=False) is not known
    assert monotonic() - begin < 3


@pytest.mark.anyio
async def test_upstream_failures_that_nothing_handled_get_a_fitting_status() -> None:
    """504 and 503, without a word about hosts or routes; a handler of the application's own goes first."""
    app = FastAPI()
    Mesh(ALONE).install(app, telemetry=False)

    class Late(httpx.ReadTimeout, DeadlineExceeded):
        pass

    @app.get("/late")
    async def late() -> None:
        raise Late("GET http://inventory/secret: no answer")

    @app.get("/down")
    async def down() -> None:
        raise SidecarUnavailable("the sidecar at 127.0.0.1:15001 is down")

    async with browser(app) as client:
        response = await client.get("/late")
        assert (response.status_code, response.json()) == (504, {"detail": "An upstream did not answer in time."})
        response = await client.get("/down")
        assert response.status_code == 503
        assert "127.0.0.1" not in response.text


@pytest.mark.anyio
async def test_a_handler_of_the_application_s_for_httpx_s_errors_stays_the_nearer() -> None:
    """Existing code keeps its behaviour."""
    app = FastAPI()

    @app.exception_handler(httpx.TimeoutException)
    async def own(request: Request, error: Exception) -> PlainTextResponse:
        return PlainTextResponse("own", status_code=599)

    Mesh(ALONE).install(app, telemetry=False)

    class Late(httpx.ReadTimeout, DeadlineExceeded):
        pass

    @app.get("/late")
    async def late() -> None:
        raise Late("late")

    async with browser(app) as client:
        assert (await client.get("/late")).status_code == 599


@pytest.mark.anyio
async def test_installing_after_the_first_request_is_an_error() -> None:
    """The stack is built then; the message says what to do."""
    app = FastAPI()
    async with browser(app) as client:
        await client.get("/")
    with pytest.raises(RuntimeError, match="before it is started"):
        Mesh(ALONE).install(app, telemetry=False)


@pytest.mark.anyio
async def test_an_application_can_be_opened_twice() -> None:
    """As tests do; clients of the mesh serve the second time too."""
    app = FastAPI()
    mesh = Mesh(ALONE)
    mesh.install(app, telemetry=False)
    client = mesh.async_client(transport=httpx.MockTransport(lambda request: httpx.Response(200, text="ok")))
    for _ in range(2):
        async with app.router.lifespan_context(app):
            assert (await client.get("http://inventory/")).text == "ok"
    await client.aclose()


def test_a_synchronous_client_has_the_mesh_s_routes() -> None:
    """For sync endpoints and scripts."""
    mesh = Mesh(ALONE)
    with mesh.client(transport=httpx.MockTransport(lambda request: httpx.Response(200))) as client:
        assert client.get("http://inventory/").status_code == 200


def test_making_a_mesh_touches_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does anything at import or in a constructor."""
    import socket

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    mesh = Mesh(MeshSettings(mesh="istio"))
    mesh.async_client()
    mesh.readiness()
