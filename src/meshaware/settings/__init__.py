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
"""

from __future__ import annotations

from meshaware.settings.model import MeshSettings, UnknownVariableWarning
from meshaware.settings.workload import Workload

__all__ = ["MeshSettings", "UnknownVariableWarning", "Workload"]
