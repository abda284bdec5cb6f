"""The app's own downward-API files: labels, annotations, name and namespace of the pod in one directory."""

from __future__ import annotations

from pathlib import Path

from meshaware.settings.found import Found, Unusable, first_wins
from meshaware.settings.podinfo import parse_pairs
from meshaware.settings.problems import describe, show
from meshaware.settings.readers import unpath
from meshaware.settings.sources.files import read_small

__all__ = ["USUAL_PLACES", "find_podinfo"]

# Kubernetes' own documentation mounts the volume at the first; Istio's proxy has its files at the second.
USUAL_PLACES = ("/etc/podinfo", "/etc/istio/pod")

_PAIRS = {"labels": "workload.labels", "annotations": "workload.annotations"}
_NAMES = {"name": "workload.pod_name", "namespace": "workload.namespace"}
_REPORTED_LINES = 5
# No field of the settings: under this name stands only what is wrong with the directory itself.
_PLACE = "podinfo directory"


def find_podinfo(declared: Found | None) -> dict[str, Found]:
    """
    What the files say.

    Args:
        declared: The directory that an argument or variable names. Then it must be there and hold one of
            the files at least; of the usual places none need be there.
    """
    if declared is None or declared.value is None:
        return first_wins(_directory(Path(place)) for place in USUAL_PLACES)
    value = unpath(declared.value)
    found = _directory(Path(value)) if isinstance(value, str) else {}
    if found:
        return found
    accepted = f"a directory with at least one of the files {', '.join([*_PAIRS, *_NAMES])}"
    return {_PLACE: Found(Unusable((describe("podinfo", declared, accepted),)), declared.origin)}


def _directory(directory: Path) -> dict[str, Found]:
    found: dict[str, Found] = {}
    for name, field in (_PAIRS | _NAMES).items():
        path = directory / name
        content = read_small(path)
        if isinstance(content, str):
            value = _pairs(path, content) if name in _PAIRS else content.strip()
            found[field] = Found(value, f"file {path}")
        elif content is not None:
            found[field] = Found(content, f"file {path}")
    return {field: each for field, each in found.items() if each.value != ""}


def _pairs(path: Path, content: str) -> dict[str, str] | Unusable:
    pairs, bad = parse_pairs(content)
    if not bad:
        return pairs
    problems = [
        f'file {path}:{line.number} is {show(line.text)}; accepted: key="value", the value quoted as Go does'
        for line in bad[:_REPORTED_LINES]
    ]
    if len(bad) > _REPORTED_LINES:
        problems.append(f"file {path} has {len(bad) - _REPORTED_LINES} more such lines")
    return Unusable(tuple(problems))
