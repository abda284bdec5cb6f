"""
How long each part of a call may take: a budget and httpx's `timeout=` become one allowance. Pure.

| `timeout=` on a call or client | phases | total |
|---|---|---|
| not given | from the budget | the budget |
| a number or `httpx.Timeout` | the caller's | the caller's largest phase; the budget where a phase is unbounded |
| `None` | none | the budget |
| `call_options(timeout=...)` | as above, from that number in place of the budget | that number |
| `call_options(detached=True)` | as above | none |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from meshaware.budgets import Budget
from meshaware.client.options import CallOptions

__all__ = [
    "BUILT_IN",
    "FROM_BUDGET",
    "PHASES",
    "Allowance",
    "FromBudget",
    "Source",
    "allow",
    "default_allowances",
    "from_budget",
]

PHASES = ("connect", "read", "write", "pool")
Source = Literal["route", "settings", "default", "caller"]

# A sidecar takes a connection at once; Istio itself gives an upstream 10 s, and so do we where no sidecar is between.
_CONNECT = 10.0
_BUILT_IN_SECONDS = 60.0


class FromBudget(float):
    """
    The phase timeout of a client that was given none: a number httpx can carry, recognised by its type.

    httpx copies the four phases from the client into each request, so this is how "not given" survives the way.
    """


FROM_BUDGET = FromBudget(_BUILT_IN_SECONDS)


class Allowance(NamedTuple):
    """
    What one call may take, in seconds; None is unbounded.

    Both run from the end of the upload: `head` to the response's headers, `total` to the end of the body. `ours` tells
    whether the phases come from the budget too, and not from the caller.
    """

    head: float | None
    total: float | None
    phases: Mapping[str, float | None]
    source: Source
    ours: bool = True


def from_budget(seconds: float, source: Source, *, streams: bool = False) -> Allowance:
    """
    Spread a budget over the phases: each may be silent for the whole of it, a connect for 10 s at most.

    Args:
        seconds: The budget, buffer included.
        source: Who said so.
        streams: The mesh bounds nothing: hold the headers and each silence to `seconds`, not the body's length.
    """
    phases = {"connect": min(seconds, _CONNECT), "read": seconds, "write": seconds, "pool": seconds}
    return Allowance(seconds, None if streams else seconds, phases, source)


BUILT_IN = from_budget(_BUILT_IN_SECONDS, "default", streams=True)


def default_allowances(
    declared: Budget | None, buffer: float, policy: Literal["ceiling", "tight"]
) -> tuple[Allowance, Allowance]:
    """
    The allowances where no route sets one: for a call without a route, and for one whose route bounds nothing.

    What the settings declare stands in for a VirtualService, so it bounds the whole call. Where the mesh has a route
    and chose not to bound it, the same number bounds the headers and each silence only: the mesh is never cut short.
    """
    seconds = None if declared is None else declared.total(buffer, policy)
    if seconds is None:
        return BUILT_IN, BUILT_IN
    return from_budget(seconds, "settings"), from_budget(seconds, "settings", streams=True)


def allow(budgeted: Allowance, given: Mapping[str, Any] | None, options: CallOptions | None) -> Allowance:
    """
    Apply what the caller said to what the budget says; see the table above.

    Args:
        budgeted: From the route, the settings or the built-in default.
        given: `request.extensions["timeout"]`: httpx's four phases.
        options: From `call_options`.
    """
    allowance = budgeted
    if given is not None and not isinstance(given.get("read"), FromBudget):
        phases = {phase: given.get(phase) for phase in PHASES}
        numbers = [seconds for seconds in phases.values() if seconds is not None]
        if len(numbers) == len(PHASES):
            largest = max(numbers)
            allowance = Allowance(largest, largest, phases, "caller", ours=False)
        else:
            allowance = budgeted._replace(phases=phases, ours=False)
    if options is not None:
        if options.timeout is not None:
            number = options.timeout
            phases_of = from_budget(number, "caller").phases if allowance.ours else allowance.phases
            allowance = Allowance(number, number, phases_of, "caller", ours=allowance.ours)
        elif options.detached:
            allowance = allowance._replace(head=None, total=None)
    return allowance
