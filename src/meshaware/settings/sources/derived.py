"""What follows from the facts that all other sources gave."""

from __future__ import annotations

from collections.abc import Mapping

from meshaware.settings.canonical import Derived, canonical_name, canonical_revision, workload_name
from meshaware.settings.facts import read_pairs
from meshaware.settings.found import COMPUTED, Findings, Found

__all__ = ["find_derived"]


def find_derived(known: Findings) -> dict[str, Found]:
    """
    Workload, service and version, as Istio's rules have them.

    Without labels nothing is said of the version: `latest` is Istio's word for a pod whose labels name none.
    """
    labels = _labels(known)
    pod_name = _text(known, "workload.pod_name")
    workload = workload_name(labels, pod_name)
    name = canonical_name(labels, _text(known, "workload.workload_name") or (workload and workload.value))
    derived: dict[str, Derived | None] = {
        "workload.workload_name": workload,
        "workload.service": name,
        "workload.version": canonical_revision(labels) if "workload.labels" in known else None,
    }
    return {field: Found(each.value, COMPUTED + each.basis) for field, each in derived.items() if each is not None}


def _labels(known: Findings) -> Mapping[str, str]:
    try:
        return read_pairs(known["workload.labels"].value)
    except (KeyError, ValueError):
        return {}


def _text(known: Findings, field: str) -> str | None:
    value = known[field].value if field in known else None
    return value if isinstance(value, str) else None
