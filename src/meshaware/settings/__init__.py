"""
What meshaware is told: arguments, variables, the pod's own files.

    variables    the table of variables, plain data
    sources/     one place that settings come from a file
    gather       their order
    canonical    what follows from other facts, by Istio's rules
    podinfo      the text of downward-API files
    addresses    URLs of the proxy, loopback only
    readers      how a field reads its value (facts: those of a workload)
    workload     Workload
    gate         the few settings that waiting for the proxy needs, without pydantic
    model        MeshSettings

The package itself loads nothing: pydantic comes with the first use of `MeshSettings` or `Workload`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshaware.settings.model import MeshSettings as MeshSettings
    from meshaware.settings.model import UnknownVariableWarning as UnknownVariableWarning
    from meshaware.settings.workload import Workload as Workload

__all__ = ["MeshSettings", "UnknownVariableWarning", "Workload"]

_HOMES = {"Workload": "meshaware.settings.workload"}

# Hidden from type checkers, as in the front door.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module 'meshaware.settings' has no attribute {name!r}")
        from importlib import import_module  # noqa: PLC0415 (as the front door does)

        value = getattr(import_module(_HOMES.get(name, "meshaware.settings.model")), name)
        globals()[name] = value
        return value
