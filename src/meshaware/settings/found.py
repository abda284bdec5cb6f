"""What a source of settings hands back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

__all__ = ["ARGUMENT", "COMPUTED", "DEFAULT", "Findings", "Found", "Unusable", "first_wins"]

ARGUMENT = "argument"
DEFAULT = "default"
COMPUTED = "computed from "


class Found(NamedTuple):
    """A value as its source gives it, not yet checked, and the origin that `MeshSettings.origins` names."""

    value: object
    origin: str


class Unusable(NamedTuple):
    """Takes the place of a value that could not even be read: a file with malformed lines, say."""

    problems: tuple[str, ...]


Findings = Mapping[str, Found]
"""What one source knows, by field: `timeout`, `workload.namespace`."""


def first_wins(sources: Iterable[Findings]) -> dict[str, Found]:
    """Join what the sources know; where two know the same field, the earlier one is right."""
    joined: dict[str, Found] = {}
    for source in sources:
        for field, found in source.items():
            joined.setdefault(field, found)
    return joined
