"""What the caller of `MeshSettings` gave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from meshaware.settings.found import ARGUMENT, Found, Unusable
from meshaware.settings.problems import nearest, show

__all__ = ["find_arguments"]


def find_arguments(arguments: Mapping[str, object], facts: tuple[str, ...]) -> dict[str, Found]:
    """
    Take the arguments apart into fields.

    An empty string counts as not given; `None` counts as given: no variable or file is asked then.

    Args:
        arguments: By name; `workload` as a mapping of facts, whose values may be `Found` with an origin.
        facts: The names that `workload` may have.
    """
    found: dict[str, Found] = {}
    for name, value in arguments.items():
        if name != "workload":
            found[name] = Found(value, ARGUMENT)
        elif isinstance(value, Mapping):
            found |= _facts(cast("Mapping[object, object]", value), facts)
        else:
            problem = f"argument workload is {show(value)}; accepted: a Workload, or a mapping of its facts"
            found["workload"] = Found(Unusable((problem,)), ARGUMENT)
    return {field: each for field, each in found.items() if each.value != ""}


def _facts(given: Mapping[object, object], facts: tuple[str, ...]) -> dict[str, Found]:
    found: dict[str, Found] = {}
    for name, value in given.items():
        if name in facts:
            found[f"workload.{name}"] = value if isinstance(value, Found) else Found(value, ARGUMENT)
            continue
        guess = nearest(str(name), facts)
        hint = f"{', '.join(facts)}" + (f" (did you mean {guess}?)" if guess else "")
        problem = f"argument workload has {show(name)}; accepted: {hint}"
        found[f"workload.{name}"] = Found(Unusable((problem,)), ARGUMENT)
    return found
