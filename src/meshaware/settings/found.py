"""What a source of settings hands back, and how a value that cannot be used is put into words."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

__all__ = ["ARGUMENT", "COMPUTED", "DEFAULT", "Findings", "Found", "Unusable", "describe", "first_wins", "nearest", "show"]

ARGUMENT = "argument"
DEFAULT = "default"
COMPUTED = "computed from "

_SHOWN = 80
_CREDENTIALS = re.compile(r"//[^/@\s]*@")


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


def show(value: object) -> str:
    """The value for a message: its repr, bounded in length, without the user and password of a URL."""
    text = _CREDENTIALS.sub("//***@", repr(value))
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text)} characters)"


def describe(field: str, found: Found, accepted: str) -> str:
    """One line for `SettingsError`: where the value stands, what it is, what is accepted instead."""
    place = f"argument {field}" if found.origin == ARGUMENT else found.origin
    return f"{place} is {show(found.value)}; accepted: {accepted}"


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The most similar of the right names, or `None` if none is similar."""
    matches = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return matches[0] if matches else None
