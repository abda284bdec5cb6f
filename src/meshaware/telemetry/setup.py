"""One call that sets telemetry up: it asks the other modules of this room, in order."""

from __future__ import annotations

import atexit
import logging
import os
from functools import partial
from threading import RLock
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from opentelemetry import _logs, trace
from opentelemetry.metrics import MeterProvider

from meshaware.instrumentation import on_call, on_client
from meshaware.telemetry.annotate import annotate_span, span_recorded
from meshaware.telemetry.clients import instrument_client, instrument_httpx
from meshaware.telemetry.handle import Telemetry
from meshaware.telemetry.propagators import install_propagators
from meshaware.telemetry.resource import mesh_name
from meshaware.telemetry.server import exports_natively, instrument_app
from meshaware.telemetry.signals import Signals, choose
from meshaware.telemetry.stop import flush_at_lifespan_end, flush_at_sigterm
from meshaware.telemetry.variables import excluded_urls, read_plan, sdk_disabled
from meshaware.telemetry.workers import WorkerExit

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
        self.without_traces: Telemetry | None = None
        self.latest: Telemetry | None = None
        self.signals = Signals()
        self.flushing: WeakKeyDictionary[object, list[Telemetry]] = WeakKeyDictionary()
        """What each application flushes when its lifespan ends."""
        self.leaving: list[Telemetry] = []
        self.workers: list[WorkerExit] = []
        self.sigterm = False

    def instrument_client(self, client: object) -> None:
        latest = self.latest
        if latest is not None and latest.tracer_provider is not None:
            instrument_client(client, latest.tracer_provider, latest.metrics.provider)


_process = _Process()


def setup_telemetry(
    settings: MeshSettings | None = None,
    *,
    app: object | None = None,
    workload: Workload | None = None,
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    logger_provider: _logs.LoggerProvider | None = None,
    metrics: bool | None = None,
    logs: bool | None = None,
    httpx_globally: bool = False,
    sigterm: bool = False,
) -> Telemetry:
    """
    Set up telemetry: a resource that names this workload, W3C and B3 headers, OTLP export, spans for FastAPI
    and httpx, and by choice metrics and logs.

    The standard `OTEL_*` variables decide. With neither an OTLP endpoint nor `OTEL_TRACES_EXPORTER` set
    no traces are set up and nothing is instrumented, so a service on a laptop stays quiet; trace headers are
    still passed on as they came. Metrics and logs are off until `OTEL_METRICS_EXPORTER` and
    `OTEL_LOGS_EXPORTER`, or the arguments, ask for them. A provider that is there already is used, never
    replaced, and gets no second exporter.

    Call it before the application starts, as often as you like: a further call instruments a further
    application and returns the same object. No network is touched.

    Args:
        settings: Default: `MeshSettings()`.
        app: A FastAPI or Starlette application: each of its requests makes a server span, its health
            endpoints none, and it flushes when its lifespan ends.
        workload: What the resource is made from. Default: `settings.workload`. A resource never changes, so
            what the sidecar says later does not reach it.
        tracer_provider: Use this one instead of the process's; it is flushed, never shut down.
        meter_provider: The same for metrics.
        logger_provider: The same for logs.
        metrics: Whether to measure. None leaves it to `OTEL_METRICS_EXPORTER`, and to whether the process has a
            meter provider; True asks for it where an endpoint is configured, unless the variable says none.
        logs: Whether to hand what reaches the root logger to OpenTelemetry, `OTEL_LOGS_EXPORTER`; in the same
            way, but that a logger provider that is there is used only if somebody asks. Configure logging
            before: `logging.basicConfig` does nothing once the root logger has a handler.
        httpx_globally: Instrument every client of httpx and httpx2 in the process. By default only those
            that meshaware makes are, also those made before.
        sigterm: Flush at SIGTERM as well, for a worker without an application; what SIGTERM did before it
            does still. A server or an event loop that sets its own handler later replaces this one.

    Raises:
        SettingsError: A variable has a value that cannot be used, two variables contradict each other, `app` is no
            such application, or `sigterm` is asked for outside the main thread.
    """
    with _process.lock:
        choices = (
            choose("metrics", os.environ, asked=metrics, given=meter_provider),
            choose("logs", os.environ, asked=logs, given=logger_provider),
        )
        telemetry = _find(settings, workload, tracer_provider)
        _leave_with(telemetry)
        for choice in choices:
            telemetry.add(_process.signals.settle(choice, partial(_resource, telemetry, settings, workload)))
        _leave_with(telemetry)
        if not telemetry.works:
            return telemetry
        if telemetry.tracer_provider is not None:
            _instrument(telemetry, settings, app, httpx_globally=httpx_globally)
        if app is not None:
            _flush_with(app, telemetry)
        if sigterm and not _process.sigterm:
            flush_at_sigterm(telemetry)
            _process.sigterm = True
        return telemetry


def _instrument(telemetry: Telemetry, settings: MeshSettings | None, app: Any, *, httpx_globally: bool) -> None:
    provider: Any = telemetry.tracer_provider
    _process.latest = telemetry
    if app is not None:
        settings = _settings(settings)
        quiet = (settings.livez_path, settings.readyz_path)
        made = instrument_app(app, provider, quiet, excluded_urls(os.environ), meters=telemetry.metrics.provider)
        if made and telemetry.state == "own" and exports_natively(app):
            _log.warning(
                "telemetry: FastAPI exports as well, so each span arrives twice: unset"
                " FASTAPI_OTEL_AUTO_CONFIGURE or give FastAPI telemetry={'auto_configure': False}"
            )
    if httpx_globally:
        instrument_httpx(provider, telemetry.metrics.provider)
    on_client(_process.instrument_client)
    on_call(annotate_span, at="answer", when=span_recorded)


def _flush_with(app: Any, telemetry: Telemetry) -> None:
    flushing = _process.flushing.setdefault(app, [])
    if telemetry not in flushing:
        flushing.append(telemetry)
        flush_at_lifespan_end(app, telemetry)


def _leave_with(telemetry: Telemetry) -> None:
    if telemetry.owns and telemetry not in _process.leaving:
        _process.leaving.append(telemetry)
        atexit.register(telemetry.leave)
        _process.workers.append(WorkerExit(telemetry.leave))


def _resource(telemetry: Telemetry, settings: MeshSettings | None, workload: Workload | None) -> Any:
    """The resource of our own spans, so that all signals have one; else the workload's."""
    if telemetry.state == "own":
        return getattr(telemetry.tracer_provider, "resource")  # noqa: B009 - the SDK's, not the API's
    from meshaware.telemetry.provider import make_resource  # noqa: PLC0415

    settings = _settings(settings)
    workload = settings.workload if workload is None else workload
    return make_resource(workload, os.environ, mesh_name(settings, workload))


def _find(settings: MeshSettings | None, workload: Workload | None, given: trace.TracerProvider | None) -> Telemetry:
    """Return what is set up already for the provider in force, or set it up."""
    if sdk_disabled(os.environ):
        return _off("OTEL_SDK_DISABLED=true")
    provider = trace.get_tracer_provider() if given is None else given
    if (known := _process.telemetries.get(id(provider))) is not None:
        return known
    if isinstance(provider, trace.NoOpTracerProvider):
        return _off("the tracer provider is a NoOpTracerProvider")
    if type(provider) is trace.ProxyTracerProvider:
        return _own(settings, workload)
    source = "this process has a tracer provider already" if given is None else "tracer_provider was given"
    settings = _settings(settings)
    formats = install_propagators(os.environ, given, one=_one_format(settings))
    telemetry = Telemetry("shared", source, tracer_provider=provider)
    return _start(telemetry, formats=formats, sampling=_passed_over(settings))


def _passed_over(settings: MeshSettings) -> str:
    """Say of a sampling that somebody chose that it does not reach a provider of somebody else's."""
    origin = settings.origins["sampling"]
    if origin == "default":
        return ""
    origin = "argument sampling" if origin == "argument" else origin
    return f"spans are kept as that provider says: {settings.sampling} ({origin}) does not reach it"


def _own(settings: MeshSettings | None, workload: Workload | None) -> Telemetry:
    plan = read_plan(os.environ)
    if not plan.exporters:
        _log.debug("telemetry: off, because %s", plan.reason)
        return _off(plan.reason)
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
    return _start(telemetry, formats=formats, sampling=str(sampling))


def _off(reason: str) -> Telemetry:
    """The one telemetry of a process that makes no spans; it may have metrics and logs."""
    if _process.without_traces is None:
        _process.without_traces = Telemetry("off", reason)
    _process.without_traces.reason = reason
    return _process.without_traces


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
    return settings.detected.flavour.one_trace_format


def _settings(settings: MeshSettings | None) -> MeshSettings:
    if settings is not None:
        return settings
    from meshaware.settings import MeshSettings  # noqa: PLC0415 - pydantic, and may not be needed

    return MeshSettings()
