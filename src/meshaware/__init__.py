"""
meshaware makes a Python service agree with the service mesh it runs in.

The rooms, each name from the file it lives in; nothing is loaded before it is used:

    settings/      what this workload is, and what was asked of meshaware
    propagation/   which headers go on, and to whom
    budgets/       how long a call may take
    sidecar/       the proxy beside this process
    client/        httpx clients that keep budgets and carry headers
    asgi/          the middleware
    jobs/          work that comes to an end, beside a sidecar that does not
    telemetry/     OpenTelemetry
    logs/          what log lines say of the request
    mesh           all of it in two lines
    cli/           the command `meshaware`
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshaware.asgi.middleware import MeshMiddleware as MeshMiddleware
    from meshaware.budgets import Budget as Budget
    from meshaware.budgets import RouteTable as RouteTable
    from meshaware.client.httpx import create_async_client as create_async_client
    from meshaware.client.httpx import create_client as create_client
    from meshaware.client.options import call_options as call_options
    from meshaware.client.report import report as report
    from meshaware.deadline import remaining as remaining
    from meshaware.mesh import Mesh as Mesh
    from meshaware.propagation.context import bind_headers as bind_headers
    from meshaware.propagation.context import outbound_headers as outbound_headers
    from meshaware.propagation.hosts import HostPolicy as HostPolicy
    from meshaware.settings import MeshSettings as MeshSettings
    from meshaware.sidecar.readiness import ReadinessGate as ReadinessGate
    from meshaware.sidecar.workload import load_workload as load_workload
    from meshaware.telemetry import setup_telemetry as setup_telemetry

    __version__: str

_HOMES = {
    # settings/
    "MeshSettings": "meshaware.settings",
    # propagation/
    "HostPolicy": "meshaware.propagation.hosts",
    "bind_headers": "meshaware.propagation.context",
    "outbound_headers": "meshaware.propagation.context",
    "remaining": "meshaware.deadline",
    # budgets/
    "Budget": "meshaware.budgets",
    "RouteTable": "meshaware.budgets",
    # sidecar/
    "ReadinessGate": "meshaware.sidecar.readiness",
    "load_workload": "meshaware.sidecar.workload",
    # client/
    "call_options": "meshaware.client.options",
    "create_async_client": "meshaware.client.httpx",
    "create_client": "meshaware.client.httpx",
    "report": "meshaware.client.report",
    # asgi/
    "MeshMiddleware": "meshaware.asgi.middleware",
    # telemetry/
    "setup_telemetry": "meshaware.telemetry",
    # mesh
    "Mesh": "meshaware.mesh",
}

__all__ = [
    "Budget",
    "HostPolicy",
    "Mesh",
    "MeshMiddleware",
    "MeshSettings",
    "ReadinessGate",
    "RouteTable",
    "bind_headers",
    "call_options",
    "create_async_client",
    "create_client",
    "load_workload",
    "outbound_headers",
    "remaining",
    "report",
    "setup_telemetry",
]

# Hidden from type checkers: a visible module `__getattr__` makes every misspelt name pass.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name == "__version__":
            from importlib.metadata import version

            value = version("meshaware")
        elif name in _HOMES:
            from importlib import import_module

            value = getattr(import_module(_HOMES[name]), name)
        else:
            raise AttributeError(f"module 'meshaware' has no attribute {name!r}")
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, "__version__"})
