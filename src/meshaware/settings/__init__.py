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
    model        MeshSettings

pydantic is loaded with the first of the public names, so that the other rooms can be had without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshaware.settings.model import MeshSettings as MeshSettings
    from meshaware.settings.model import UnknownVariableWarning as UnknownVariableWarning
    from meshaware.settings.workload import Workload as Workload

__all__ = ["MeshSettings", "UnknownVariableWarning", "Workload"]

_HOMES = {"MeshSettings": "model", "UnknownVariableWarning": "model", "Workload": "workload"}

# Hidden from type checkers: a visible module `__getattr__` makes every misspelt name pass.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module  # noqa: PLC0415 (not needed before)

        value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        return value
