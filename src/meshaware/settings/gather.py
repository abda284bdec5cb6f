"""The order of the sources: the first that knows a field is right."""

from __future__ import annotations

from collections.abc import Mapping

from meshaware.settings.found import Findings, Found, first_wins
from meshaware.settings.sources.arguments import find_arguments
from meshaware.settings.sources.derived import find_derived
from meshaware.settings.sources.kubernetes import find_kubernetes
from meshaware.settings.sources.linkerd import find_linkerd
from meshaware.settings.sources.podinfo import find_podinfo
from meshaware.settings.sources.resource_attributes import find_resource_attributes
from meshaware.settings.sources.variables import find_conventional, find_own
from meshaware.settings.variables import VARIABLES

__all__ = ["FACTS", "complete", "gather"]

FACTS: tuple[str, ...] = tuple(
    variable.field.removeprefix("workload.") for variable in VARIABLES if variable.field.startswith("workload.")
)


def gather(arguments: Mapping[str, object], environ: Mapping[str, str]) -> dict[str, Found]:
    """All that the sources know, by field; fields that nobody knows are left out."""
    said = first_wins(
        (
            find_arguments(arguments, FACTS),
            find_own(environ),
            find_conventional(environ),
            find_resource_attributes(environ),
        )
    )
    return complete(
        first_wins((said, find_podinfo(said.get("podinfo")), find_kubernetes(environ), find_linkerd(environ)))
    )


def complete(known: Findings) -> dict[str, Found]:
    """Add what follows from the facts that are known."""
    return first_wins((known, find_derived(known)))
