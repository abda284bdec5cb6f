"""
OpenTelemetry in a mesh, in one call: `setup_telemetry`.

    setup        one call, in order             handle       what it returns: flush and shutdown, bounded
    variables    OTEL_* -> a plan (pure)        resource     workload -> attributes (pure)
    provider     the tracer provider            signals      the meter provider and the logger provider
    exporter     plan -> what a provider needs to export
    server       FastAPI and Starlette          clients      httpx and httpx2
    annotate     outcomes on client spans       measures     what is counted
    records      logging -> log records         propagators  W3C and B3
    outlet       one signal, and its stop       stop         lifespan, SIGTERM
    flush        work that may hang
"""

from __future__ import annotations

from meshaware.telemetry.handle import Telemetry
from meshaware.telemetry.outlet import Outlet
from meshaware.telemetry.setup import setup_telemetry

__all__ = ["Outlet", "Telemetry", "setup_telemetry"]
