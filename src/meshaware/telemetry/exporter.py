"""
From a plan to what a provider needs to export: span processors, metric readers, log record processors.

The exporters' packages are imported here and nowhere else, each only when it is used.
"""

from __future__ import annotations

import os
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from meshaware.errors import SettingsError

if TYPE_CHECKING:
    from opentelemetry.sdk._logs import LogRecordProcessor
    from opentelemetry.sdk.metrics.export import MetricReader
    from opentelemetry.sdk.trace import SpanProcessor

    from meshaware.telemetry.variables import Plan

__all__ = ["log_processors", "metric_readers", "span_processors"]

# The module of the OTLP exporter, the same for both protocols, and its class.
_OTLP = {
    "traces": ("trace_exporter", "OTLPSpanExporter"),
    "metrics": ("metric_exporter", "OTLPMetricExporter"),
    "logs": ("_log_exporter", "OTLPLogExporter"),
}


def span_processors(plan: Plan) -> list[SpanProcessor]:
    """
    Build what a tracer provider needs to export as planned.

    Spans for the console appear when they end; all others are sent in batches (`OTEL_BSP_*`).

    Raises:
        SettingsError: An exporter is not installed, or refuses what the `OTEL_EXPORTER_OTLP_*` variables say.
    """
    from opentelemetry.sdk.trace.export import (  # noqa: PLC0415
        BatchSpanProcessor,
        ConsoleSpanExporter,
        SimpleSpanProcessor,
    )

    return [
        SimpleSpanProcessor(ConsoleSpanExporter())
        if name == "console"
        else BatchSpanProcessor(_exporter(plan, name), **plan.batching._asdict())
        for name in plan.exporters
    ]


def metric_readers(plan: Plan) -> list[MetricReader]:
    """
    Build what a meter provider needs to export as planned, every `OTEL_METRIC_EXPORT_INTERVAL`.

    Of other packages both kinds are taken: what is sent and what is asked.

    Raises:
        SettingsError: See `span_processors`.
    """
    from opentelemetry.sdk.metrics.export import (  # noqa: PLC0415
        ConsoleMetricExporter,
        MetricReader,
        PeriodicExportingMetricReader,
    )

    readers: list[MetricReader] = []
    for name in plan.exporters:
        found: Any = ConsoleMetricExporter() if name == "console" else _exporter(plan, name)
        if not isinstance(found, MetricReader):
            found = PeriodicExportingMetricReader(found, **plan.periods._asdict())
        readers.append(found)
    return readers


def log_processors(plan: Plan) -> list[LogRecordProcessor]:
    """
    Build what a logger provider needs to export as planned, in batches (`OTEL_BLRP_*`).

    Raises:
        SettingsError: See `span_processors`.
    """
    from opentelemetry.sdk._logs.export import (  # noqa: PLC0415
        BatchLogRecordProcessor,
        ConsoleLogRecordExporter,
        SimpleLogRecordProcessor,
    )

    return [
        SimpleLogRecordProcessor(ConsoleLogRecordExporter())
        if name == "console"
        else BatchLogRecordProcessor(_exporter(plan, name), **plan.batching._asdict())
        for name in plan.exporters
    ]


def _exporter(plan: Plan, name: str) -> Any:
    return _otlp(plan) if name == "otlp" else _installed(plan, name)


def _otlp(plan: Plan) -> Any:
    try:
        return _grpc(plan) if plan.protocol == "grpc" else _http(plan)
    except ImportError as error:
        wanted = f"opentelemetry-exporter-otlp-proto-{plan.protocol.partition('/')[0]}"
        raise SettingsError(f"{plan.reason} asks for OTLP over {plan.protocol}: install {wanted} ({error})") from error
    except (OSError, RuntimeError, ValueError) as error:
        raise SettingsError(
            f"{plan.reason} asks for OTLP over {plan.protocol}, and the exporter refuses what the"
            f" OTEL_EXPORTER_OTLP_* variables say: {error}"
        ) from error


# The packages take 150 ms (http/protobuf) and 30 MiB (grpc): each process imports the one it uses.
def _http(plan: Plan) -> Any:
    package = "opentelemetry.exporter.otlp.proto.http"
    module, exporter = _OTLP[plan.signal]
    compression = import_module(package).Compression(plan.compression)
    # Where one is set, the exporter gets its session from the package that the variable names.
    credentials = (
        "OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER",
        f"OTEL_PYTHON_EXPORTER_OTLP_HTTP_{plan.signal.upper()}_CREDENTIAL_PROVIDER",
    )
    return getattr(import_module(f"{package}.{module}"), exporter)(
        endpoint=plan.endpoint,
        timeout=plan.timeout,
        compression=compression,
        session=None if any(os.environ.get(name) for name in credentials) else _session(),
    )


def _session() -> Any:
    """
    Return a session of requests that a forked child does not share with its parent.

    Child and parent would write to one connection: batches get mixed up, are lost or arrive twice. The old
    connections are put aside rather than closed, which could wait for a lock that the parent held.
    """
    requests = import_module("requests")
    session = requests.Session()
    put_aside: list[Any] = []

    def after_fork() -> None:
        put_aside.extend(session.adapters.values())
        for prefix in tuple(session.adapters):
            session.mount(prefix, requests.adapters.HTTPAdapter())

    os.register_at_fork(after_in_child=after_fork)
    return session


def _grpc(plan: Plan) -> Any:
    module, exporter = _OTLP[plan.signal]
    loaded = import_module(f"opentelemetry.exporter.otlp.proto.grpc.{module}")
    compression = import_module("grpc").Compression
    chosen = compression.Gzip if plan.compression == "gzip" else compression.NoCompression
    return getattr(loaded, exporter)(endpoint=plan.endpoint, timeout=plan.timeout, compression=chosen)


def _installed(plan: Plan, name: str) -> Any:
    group = f"opentelemetry_{plan.signal}_exporter"
    found = entry_points(group=group, name=name)
    if not found:
        known = sorted({"console", "none", *(each.name for each in entry_points(group=group))})
        raise SettingsError(
            f"OTEL_{plan.signal.upper()}_EXPORTER={name[:80]!r} is not installed: accepted are {', '.join(known)},"
            " with commas between"
        )
    return next(iter(found)).load()()
