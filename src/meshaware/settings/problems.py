"""A value that cannot be used, put into words: where it stands, what it is, what is accepted."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from meshaware.settings.found import ARGUMENT, COMPUTED, Found

if TYPE_CHECKING:
    from pydantic import ValidationError

__all__ = ["describe", "nearest", "problems_of", "sentence_of", "show"]

_SHOWN = 80
_CREDENTIALS = re.compile(r"//[^/@\s]*@")
_SIMILAR = 0.55


def show(value: object) -> str:
    """The value for a message: its repr, bounded in length, without the user and password of a URL."""
    text = _CREDENTIALS.sub("//***@", repr(value))
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text)} characters)"


def describe(field: str, found: Found, accepted: str) -> str:
    """One line of a `SettingsError`."""
    place = found.origin
    if found.origin == ARGUMENT:
        place = f"argument {field}"
    elif found.origin.startswith(COMPUTED):
        place = f"{field}, {found.origin},"
    return f"{place} is {show(found.value)}; accepted: {accepted}"


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The most similar of the right names, or `None` if none is similar."""
    matches = difflib.get_close_matches(name, list(names), n=1, cutoff=_SIMILAR)
    return matches[0] if matches else None


def sentence_of(problems: list[str]) -> str:
    """The message of a `SettingsError`: how many settings cannot be used, and each on a line of its own."""
    head = f"{len(problems)} settings" if len(problems) > 1 else "1 setting"
    return "\n  ".join([f"{head} cannot be used:", *problems])


def problems_of(error: ValidationError, found: Mapping[str, Found]) -> list[str]:
    """What pydantic refused, by the place where each value was found instead of by the model's field."""
    lines: list[str] = []
    for each in error.errors(include_url=False):
        accepted = str(each.get("ctx", {}).get("error", each["msg"]))
        path = [str(part) for part in each["loc"]]
        field = ".".join(path[:2] if path[:1] == ["workload"] else path[:1])
        lines.append(describe(field, found[field], accepted) if field in found else accepted)
    return lines
