"""
From a plan to span processors. The exporters' packages are imported here and nowhere else, each only when it
is used.
"""

from __future__ import annotations

import os
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SimpleSpanProcessor

from meshaware.errors import SettingsError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.sdk.trace.export import SpanExporter

    from meshaware.telemetry.variables import Plan

__all__ = ["span_processors"]

_GROUP = "opentelemetry_traces_exporter"
# Where one is set, the exporter gets its session from the package that the variable names.
_CREDENTIALS = (
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER",
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER",
)


def span_processors(plan: Plan) -> list[SpanProcessor]:
    """
    Build what a tracer provider needs to export as planned.

    Spans for the console appear when they end; all others are sent in batches (`OTEL_BSP_*`).

    Raises:
        SettingsError: An exporter is not installed, or refuses what the `OTEL_EXPORTER_OTLP_*` variables say.
    """
    return [
        SimpleSpanProcessor(ConsoleSpanExporter())
        if name == "console"
        else BatchSpanProcessor(_otlp(plan) if name == "otlp" else _installed(name), **plan.batching._asdict())
        for name in plan.exporters
    ]


def _otlp(plan: Plan) -> SpanExporter:
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
def _http(plan: Plan) -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.http import Compression  # noqa: PLC0415
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

    return OTLPSpanExporter(
        endpoint=plan.endpoint,
        timeout=plan.timeout,
        compression=Compression(plan.compression),
        session=None if any(os.environ.get(name) for name in _CREDENTIALS) else _session(),
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


def _grpc(plan: Plan) -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

    compression = import_module("grpc").Compression
    chosen = compression.Gzip if plan.compression == "gzip" else compression.NoCompression
    return OTLPSpanExporter(endpoint=plan.endpoint, timeout=plan.timeout, compression=chosen)


def _installed(name: str) -> SpanExporter:
    found = entry_points(group=_GROUP, name=name)
    if not found:
        known = sorted({"none", *(each.name for each in entry_points(group=_GROUP))})
        raise SettingsError(
            f"OTEL_TRACES_EXPORTER={name[:80]!r} is not installed: accepted are {', '.join(known)}, with commas between"
        )
    exporter: SpanExporter = next(iter(found)).load()()
    return exporter
