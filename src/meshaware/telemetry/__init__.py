"""
OpenTelemetry in a mesh, in one call: `setup_telemetry`.

    setup        one call, in order             handle       what it returns: flush and shutdown, bounded
    variables    OTEL_* -> a plan (pure)        resource     workload -> attributes (pure)
    provider     the tracer provider            signals      the meter provider and the logger provider
    exporter     plan -> what a provider needs to export
    sampling     which spans are kept           watch        the mesh samples nothing: one line
    server       FastAPI and Starlette          clients      httpx and httpx2
    bypass       what the mesh does not sample passes those two by
    formats      W3C and B3 to the letter       propagators  makes them the process's
    propagator   all of the mesh's headers, for plain OpenTelemetry; detector: the resource for it
    annotate     outcomes on client spans       measures     what is counted
    records      logging -> log records         outlet       one signal, and its stop
    stop         lifespan, SIGTERM              flush        work that may hang

OpenTelemetry finds some of these by their entry points while it is itself still being imported, so nothing is
loaded here before it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshaware.telemetry.handle import Telemetry as Telemetry
    from meshaware.telemetry.outlet import Outlet as Outlet
    from meshaware.telemetry.setup import setup_telemetry as setup_telemetry

_HOMES = {
    "Outlet": "meshaware.telemetry.outlet",
    "Telemetry": "meshaware.telemetry.handle",
    "setup_telemetry": "meshaware.telemetry.setup",
}

__all__ = ["Outlet", "Telemetry", "setup_telemetry"]

# Hidden from type checkers: a visible module `__getattr__` makes every misspelt name pass.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module 'meshaware.telemetry' has no attribute {name!r}")
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
