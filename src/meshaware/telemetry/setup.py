"""One call that sets telemetry up: it asks the other modules of this room, in order."""

from __future__ import annotations

import atexit
import logging
import os
from threading import RLock
from typing import TYPE_CHECKING

from opentelemetry import trace

from meshaware.flavours import detect
from meshaware.instrumentation import on_client
from meshaware.telemetry.clients import instrument_client, instrument_httpx
from meshaware.telemetry.handle import Telemetry
from meshaware.telemetry.propagators import install_propagators
from meshaware.telemetry.resource import mesh_name
from meshaware.telemetry.server import exports_natively, instrument_app
from meshaware.telemetry.stop import flush_at_lifespan_end, flush_at_sigterm
from meshaware.telemetry.variables import excluded_urls, read_plan, sdk_disabled

if TYPE_CHECKING:
    from meshaware.settings import MeshSettings, Workload

__all__ = ["setup_telemetry"]

_log = logging.getLogger("meshaware.telemetry")


class _Process:
    """
    What this process has set up so far. A module has to remember it: OpenTelemetry's provider is set once
    for all.
    """

    def __init__(self) -> None:
        self.lock = RLock()
        self.telemetries: dict[int, Telemetry] = {}
        """By the identity of their providers, which they keep alive."""
        self.latest: Telemetry | None = None
        self.sigterm = False

    def instrument_client(self, client: object) -> None:
        provider = None if self.latest is None else self.latest.tracer_provider
        if provider is not None:
            instrument_client(client, provider)


_process = _Process()


def setup_telemetry(
    settings: MeshSettings | None = None,
    *,
    app: object | None = None,
    workload: Workload | None = None,
    tracer_provider: trace.TracerProvider | None = None,
    httpx_globally: bool = False,
    sigterm: bool = False,
) -> Telemetry:
    """
    Set up traces: a resource that names this workload, W3C and B3 headers, OTLP export, spans for FastAPI
    and httpx.

    The standard `OTEL_*` variables decide. With neither an OTLP endpoint nor `OTEL_TRACES_EXPORTER` set
    nothing is set up and nothing is instrumented, so a service on a laptop stays quiet; trace headers are
    still passed on as they came. A tracer provider that is there already is used, never replaced, and gets
    no second exporter.

    Call it before the application starts, as often as you like: a further call instruments a further
    application and returns the same object. No network is touched.

    Args:
        settings: Default: `MeshSettings()`.
        app: A FastAPI or Starlette application: each of its requests makes a server span, its health
            endpoints none, and it flushes when its lifespan ends.
        workload: What the resource is made from. Default: `settings.workload`. A resource never changes, so
            what the sidecar says later does not reach it.
        tracer_provider: Use this one instead of the process's; it is flushed, never shut down.
        httpx_globally: Instrument every client of httpx and httpx2 in the process. By default only those
            that meshaware makes are, also those made before.
        sigterm: Flush at SIGTERM as well, for a worker without an application; what SIGTERM did before it
            does still. A server or an event loop that sets its own handler later replaces this one.

    Raises:
        SettingsError: A variable has a value that cannot be used, two variables contradict each other, `app` is no
            such application, or `sigterm` is asked for outside the main thread.
    """
    with _process.lock:
        telemetry = _find(settings, workload, tracer_provider)
        provider = telemetry.tracer_provider
        if provider is None:
            return telemetry
        _process.latest = telemetry
        if app is not None:
            settings = _settings(settings)
            quiet = (settings.livez_path, settings.readyz_path)
            if instrument_app(app, provider, quiet, excluded_urls(os.environ)):
                flush_at_lifespan_end(app, telemetry)
                if telemetry.state == "own" and exports_natively(app):
                    _log.warning(
                        "telemetry: FastAPI exports as well, so each span arrives twice: unset"
                        " FASTAPI_OTEL_AUTO_CONFIGURE or give FastAPI telemetry={'auto_configure': False}"
                    )
        if httpx_globally:
            instrument_httpx(provider)
        if sigterm and not _process.sigterm:
            flush_at_sigterm(telemetry)
            _process.sigterm = True
        on_client(_process.instrument_client)
        return telemetry


def _find(settings: MeshSettings | None, workload: Workload | None, given: trace.TracerProvider | None) -> Telemetry:
    """Return what is set up already for the provider in force, or set it up."""
    if sdk_disabled(os.environ):
        return Telemetry("off", "OTEL_SDK_DISABLED=true")
    provider = trace.get_tracer_provider() if given is None else given
    if (known := _process.telemetries.get(id(provider))) is not None:
        return known
    if isinstance(provider, trace.NoOpTracerProvider):
        return Telemetry("off", "the tracer provider is a NoOpTracerProvider")
    if type(provider) is trace.ProxyTracerProvider:
        return _own(settings, workload)
    source = "this process has a tracer provider already" if given is None else "tracer_provider was given"
    formats = install_propagators(os.environ, given, one=_one_format(_settings(settings)))
    return _start(Telemetry("shared", source, tracer_provider=provider), formats=formats)


def _own(settings: MeshSettings | None, workload: Workload | None) -> Telemetry:
    plan = read_plan(os.environ)
    if not plan.exporters:
        _log.debug("telemetry: off, because %s", plan.reason)
        return Telemetry("off", plan.reason)
    # Imports the SDK, 100 ms that a process without traces does not pay.
    from meshaware.telemetry.provider import install_provider, make_provider  # noqa: PLC0415
    from meshaware.telemetry.sampling import choose_sampling  # noqa: PLC0415

    settings = _settings(settings)
    workload = settings.workload if workload is None else workload
    sampling = choose_sampling(settings, os.environ)
    formats = install_propagators(os.environ, one=_one_format(settings), local=sampling.mode == "always")
    provider = make_provider(plan, workload, os.environ, sampling, mesh_name(settings, workload))
    if not install_provider(provider):
        return _find(settings, workload, None)
    telemetry = Telemetry("own", plan.reason, target=plan.target, tracer_provider=provider)
    atexit.register(telemetry.leave)
    return _start(telemetry, formats=formats, sampling=str(sampling))


def _start(telemetry: Telemetry, *, formats: bool, sampling: str = "") -> Telemetry:
    _process.telemetries[id(telemetry.tracer_provider)] = telemetry
    _log.info(
        "telemetry (%s): spans of %s go %s, because %s%s%s",
        telemetry.state,
        telemetry.resource.get("service.name", "this process"),
        f"to {telemetry.target}" if telemetry.target else "where the provider sends them",
        telemetry.reason,
        f"; {sampling}" if sampling else "",
        "; headers in W3C and B3 format" if formats else "",
    )
    return telemetry


def _one_format(settings: MeshSettings) -> bool:
    workload = settings.workload
    mesh = detect(settings.mesh, workload.labels, workload.annotations, settings.in_kubernetes)
    return mesh.flavour.one_trace_format


def _settings(settings: MeshSettings | None) -> MeshSettings:
    if settings is not None:
        return settings
    from meshaware.settings import MeshSettings  # noqa: PLC0415 - pydantic, and may not be needed

    return MeshSettings()
