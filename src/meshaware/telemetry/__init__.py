"""
OpenTelemetry in a mesh, in one call: `setup_telemetry`.

    setup        one call, in order             handle       what it returns: flush and shutdown, bounded
    variables    OTEL_* -> a plan (pure)        resource     workload -> attributes (pure)
    provider     the tracer provider            exporter     plan -> span processors
    server       FastAPI and Starlette          clients      httpx and httpx2
    propagators  W3C and B3                     stop         lifespan, SIGTERM
    flush        work that may hang
"""

from __future__ import annotations

from meshaware.telemetry.handle import Telemetry
from meshaware.telemetry.setup import setup_telemetry

__all__ = ["Telemetry", "setup_telemetry"]
