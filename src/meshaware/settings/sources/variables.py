"""Environment variables: meshaware's own names, then the names that others already use."""

from __future__ import annotations

import re
from collections.abc import Mapping

from meshaware.settings.found import Found
from meshaware.settings.problems import nearest
from meshaware.settings.variables import ELSEWHERE, PREFIX, VARIABLES

__all__ = ["find_conventional", "find_own", "unknown_variables"]

# A Service called "meshaware-demo" gives every pod of its namespace MESHAWARE_DEMO_SERVICE_HOST,
# MESHAWARE_DEMO_PORT and more: https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables
_SERVICE_LINK = re.compile(r"(.*_)?SERVICE_(HOST|PORT(_\w+)?)|(.*_)?PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?")


def find_own(environ: Mapping[str, str]) -> dict[str, Found]:
    """What the `MESHAWARE_` variables say; an empty one counts as unset."""
    return {
        variable.field: Found(environ[variable.name], f"env {variable.name}")
        for variable in VARIABLES
        if environ.get(variable.name)
    }


def find_conventional(environ: Mapping[str, str]) -> dict[str, Found]:
    """What `POD_NAME`, `OTEL_SERVICE_NAME` and the like say; of several names the first that is set."""
    found: dict[str, Found] = {}
    for variable in VARIABLES:
        for name in variable.conventional:
            if environ.get(name):
                found.setdefault(variable.field, Found(environ[name], f"env {name}"))
    return found


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Sentences on variables that look like meshaware's, but are none, each with the nearest right name."""
    right = {variable.name for variable in VARIABLES} | set(ELSEWHERE)
    # A fact is found under its own name too: MESHAWARE_NAMESPACE is near to MESHAWARE_WORKLOAD__NAMESPACE.
    tails = {name.removeprefix(PREFIX).rpartition("__")[2]: name for name in right}
    tails |= {name.removeprefix(PREFIX): name for name in right}
    sentences: list[str] = []
    for name in sorted(environ):
        rest = name.upper().removeprefix(PREFIX)
        if rest == name.upper() or name in right or _SERVICE_LINK.fullmatch(rest):
            continue
        guess = nearest(rest, tails)
        hint = f"did you mean {tails[guess]}?" if guess else "no variable has a similar name"
        sentences.append(f"the variable {name} is set, but means nothing to meshaware: {hint}")
    return sentences
