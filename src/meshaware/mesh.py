"""All of meshaware in two lines: `mesh = Mesh()` and `mesh.install(app)`."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Unpack
from weakref import WeakSet

import anyio

from meshaware.asgi.drain import Drain, LastAnswers, drain_time
from meshaware.asgi.errors import ERROR_HANDLERS
from meshaware.asgi.health import HealthEndpoints, readiness
from meshaware.asgi.install import Application, around_lifespan, around_stack, handle_errors, within_lifespan
from meshaware.asgi.middleware import MeshMiddleware
from meshaware.asgi.types import ASGIApp
from meshaware.budgets import RouteSource, RouteTable
from meshaware.budgets.sources import INTERVAL, SidecarRoutes
from meshaware.client.build import async_close_connections, close_connections, declared_routes
from meshaware.flavours import Flavour
from meshaware.jobs.job import AsyncJob, Job
from meshaware.settings import MeshSettings, Workload
from meshaware.sidecar.parting import QuitPolicy
from meshaware.sidecar.readiness import ReadinessGate
from meshaware.sidecar.workload import async_load_workload, load_workload

if TYPE_CHECKING:
    import httpx

    from meshaware.client.httpx import AsyncClientArguments, ClientArguments
    from meshaware.telemetry import Telemetry

__all__ = ["Mesh"]


class Mesh:
    """
    What a service has in its mesh: settings, gate, routes, clients, and the layer around its application.

    Nothing here touches the network: what the sidecar says is read in the background once the gate is open.

    Args:
        settings: Read from the environment if not given.
        routes: Where budgets come from. None: the live sidecar where the mesh has one that tells, over the manifests
            that MESHAWARE_ROUTES names.

    Raises:
        SettingsError: A variable or file has a value that cannot be used.
        ManifestError: A manifest cannot be used.
    """

    def __init__(self, settings: MeshSettings | None = None, *, routes: RouteTable | RouteSource | None = None) -> None:
        self.settings = MeshSettings() if settings is None else settings
        self.gate = ReadinessGate(self.settings)
        self.workload: Workload = self.settings.workload
        self.routes: RouteTable | RouteSource = self._choose_routes() if routes is None else routes
        self.telemetry: Telemetry | None = None
        self._clients: WeakSet[httpx.Client] = WeakSet()
        self._async_clients: WeakSet[httpx.AsyncClient] = WeakSet()
        self._drain = Drain(partial(drain_time, self.settings, self.gate))

    def _choose_routes(self) -> RouteTable | RouteSource:
        declared = declared_routes(self.settings)
        live = not self.settings.routes or "sidecar" in self.settings.routes
        mesh = self.settings.detected
        admin = mesh.flavour.admin_url if self.settings.admin_url is None else self.settings.admin_url
        if not live or (mesh.settled and (admin is None or not mesh.flavour.has_routes)):
            return declared
        return SidecarRoutes(
            admin,
            fallback=declared,
            namespace=self.workload.namespace,
            cluster_domain=self.settings.cluster_domain,
        )

    def install(self, app: Application, *, telemetry: bool = True) -> None:
        """
        Put the mesh around a FastAPI or Starlette application; call it once, before the application is started.

        The application's own lifespan, middleware and error handlers stay as they are. Around them come: OpenTelemetry,
        the headers of each request, `/livez` and `/readyz`, and replies for upstream failures that nothing handled.
        The port is bound at once; the gate is waited for in the background, and `/readyz` tells. From SIGTERM on it is
        503, and the server goes on serving for a while, if it takes signals as uvicorn does.

        Args:
            app: A FastAPI or Starlette application.
            telemetry: False leaves OpenTelemetry alone.

        Raises:
            RuntimeError: The application has served a request already.
        """
        if telemetry:
            self._set_up_telemetry(app)
        around_stack(app, self._layer)
        within_lifespan(app, self._drain.watching)
        around_lifespan(app, self.lifespan)
        handle_errors(app, ERROR_HANDLERS)

    def install_telemetry(self) -> Telemetry:
        """
        Set up telemetry for a worker, which has no application; call it once, before the lifespan begins.

        `install` does it for an application. What was not sent yet is sent as `lifespan` or `sync_lifespan` ends.

        Returns:
            What was found; also in `telemetry`. `setup_telemetry` takes more than settings: `mesh.telemetry =
            setup_telemetry(mesh.settings, ...)` does the same with them.

        Raises:
            SettingsError: See `setup_telemetry`.
        """
        return self._set_up_telemetry()

    def _set_up_telemetry(self, app: Application | None = None) -> Telemetry:
        from meshaware.telemetry import setup_telemetry  # noqa: PLC0415 (heavy, and by choice)

        self.telemetry = setup_telemetry(self.settings, app=app)
        return self.telemetry

    def _layer(self, app: ASGIApp) -> ASGIApp:
        settings = self.settings
        inner = MeshMiddleware(app, settings, gate=self.gate)
        health = HealthEndpoints(inner, livez=settings.livez_path, readyz=settings.readyz_path, report=self.readiness)
        return LastAnswers(health, self._drain)

    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        """
        Hold the mesh open: the gate and the sidecar are read in the background; at the end clients are closed, and
        telemetry is flushed, for which it waits 2 seconds at most.

        `install` puts this around the application's own lifespan; a worker writes `async with mesh.lifespan():`. It
        yields at once. Code that must not run before the sidecar is up calls `await mesh.gate.async_wait()`.
        """
        failure: BaseException | None = None
        async with anyio.create_task_group() as background:
            background.start_soon(self._follow_sidecar)
            try:
                yield
            except BaseException as error:  # noqa: BLE001 (raised again below, outside the group that would wrap it)
                failure = error
            background.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            try:
                await self.aclose()
            finally:
                # What the application has waited for in vain is not waited for again.
                if self.telemetry is not None:
                    await self.telemetry.async_flush_what_moves()
        if failure is not None:
            raise failure

    async def _follow_sidecar(self) -> None:
        # The gate says itself, once, that it gave up; a sidecar that comes later is still found.
        flavour = await self.gate.async_find()
        if flavour.admin_url is None:
            return
        workload = await async_load_workload(self.settings, flavour=flavour)
        self._learn(flavour, workload)
        if isinstance(self.routes, SidecarRoutes):
            await self.routes.async_refresh(max_age=INTERVAL)
        self.workload = workload
        if isinstance(self.routes, SidecarRoutes):
            await self.routes.async_follow()

    @contextmanager
    def sync_lifespan(self) -> Generator[None]:
        """
        Hold the mesh open for a synchronous worker: as `lifespan`, with a daemon thread in the place of tasks.

        It yields at once, so code that must not run before the sidecar is up calls `mesh.gate.wait()`. A process that
        is forked inside has a thread of its own.
        """
        routes = self.routes if isinstance(self.routes, SidecarRoutes) else None
        stopping = threading.Event()
        if routes is not None:
            routes.start(after=partial(self._wait_and_load, stopping))
        try:
            yield
        finally:
            stopping.set()
            try:
                if routes is not None:
                    routes.stop()
                for client in tuple(self._clients):
                    close_connections(client)
            finally:
                if self.telemetry is not None:
                    self.telemetry.flush_what_moves()

    def _wait_and_load(self, stopping: threading.Event) -> bool:
        flavour = self.gate.find(stopping)
        if flavour.admin_url is None or stopping.is_set():
            return False
        workload = load_workload(self.settings, flavour=flavour)
        self._learn(flavour, workload)
        self.workload = workload
        return True

    def _learn(self, flavour: Flavour, workload: Workload) -> None:
        if isinstance(self.routes, SidecarRoutes):
            self.routes.admin_url = self.routes.admin_url or flavour.admin_url
            # What a short name means depends on the namespace, and the sidecar knows it for sure.
            self.routes.namespace = self.routes.namespace or workload.namespace

    def job(self, *, quit: QuitPolicy | None = None, shared: bool | None = None) -> Job:  # noqa: A002 (as its variable)
        """
        Do one piece of work: `with mesh.job():`, or `@mesh.job()` on a function; see `meshaware.jobs.job.Job`.

        Args:
            quit: When the sidecar is let go afterwards: `success`, `always`, `never`; default `settings.quit`.
            shared: Whether also where the pod has other containers of the application; default `settings.quit_shared`.
        """
        return Job(self, quit, shared)

    def async_job(self, *, quit: QuitPolicy | None = None, shared: bool | None = None) -> AsyncJob:  # noqa: A002
        """Do one piece of work on asyncio or trio, otherwise as `job`: `async with mesh.async_job():`, or `@`."""
        return AsyncJob(self, quit, shared)

    async def aclose(self) -> None:
        """Close the connections of every client made by `client` and `async_client`; the clients stay usable."""
        for asynchronous in tuple(self._async_clients):
            await async_close_connections(asynchronous)
        for synchronous in tuple(self._clients):
            close_connections(synchronous)

    def readiness(self) -> tuple[bool, Mapping[str, object]]:
        """What `/readyz` answers: whether to send traffic, and why; never asks the network."""
        return readiness(self.gate, self.routes, self._drain)

    def async_client(self, **arguments: Unpack[AsyncClientArguments]) -> httpx.AsyncClient:
        """Make an `httpx.AsyncClient` with the mesh's budgets and headers; its connections close with the mesh."""
        # Here and not above: without httpx, everything of the mesh but its clients works.
        from meshaware.client.httpx import create_async_client  # noqa: PLC0415

        client = create_async_client(self.settings, routes=self.routes, **arguments)
        self._async_clients.add(client)
        return client

    def client(self, **arguments: Unpack[ClientArguments]) -> httpx.Client:
        """Make an `httpx.Client` with the mesh's budgets and headers; its connections close with the mesh."""
        from meshaware.client.httpx import create_client  # noqa: PLC0415 (as above)

        client = create_client(self.settings, routes=self.routes, **arguments)
        self._clients.add(client)
        return client
