"""
What a route is, and what decides whether a request takes it: plain values, compared and printed, never run.

The same shapes hold what a VirtualService says and what Envoy's own configuration says; `match.py` makes tests of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from meshaware.budgets.budget import Budget

__all__ = [
    "Action",
    "Entry",
    "HeaderMatch",
    "IntegerRange",
    "QueryMatch",
    "Route",
    "RouteConfig",
    "RouteMatch",
    "TextMatch",
    "VirtualHost",
]

Action = Literal["route", "redirect", "direct_response"]


@dataclass(frozen=True, slots=True)
class Route:
    """
    One route of the mesh and what it allows a call.

    Attributes:
        name: Its name in the mesh; made from the VirtualService's where the rule has none.
        budget: What it allows; without bounds where Envoy answers itself, as nothing upstream is waited for.
        origin: Where it was read: "routes/inventory.yaml, document 2, line 14, spec.http[1]" or
            "sidecar: VirtualService shop/inventory".
        host: The host whose route it is, as the mesh names it.
        action: What Envoy does: sends the request on, or answers it with a redirect or a fixed response.
        note: What could not be told from here, and what was done about it; empty where all is certain.
    """

    name: str
    budget: Budget
    origin: str = ""
    host: str = "*"
    action: Action = "route"
    note: str = ""


class TextMatch(NamedTuple):
    """A text that is compared; `segments` is a prefix that ends where a path segment ends; `regex` matches in full."""

    kind: Literal["exact", "prefix", "segments", "suffix", "contains", "regex"]
    value: str
    ignore_case: bool = False


class IntegerRange(NamedTuple):
    """Whole numbers from `start` up to, and without, `end`."""

    start: int
    end: int


class HeaderMatch(NamedTuple):
    """
    A condition on one header or pseudo-header; without a value, on its presence.

    A header that is not there meets no condition on its value, not even an inverted one, unless `missing_is_empty`.
    """

    name: str
    value: TextMatch | IntegerRange | None = None
    invert: bool = False
    missing_is_empty: bool = False


class QueryMatch(NamedTuple):
    """
    A condition on the first query parameter of a name, as it is written; without a value, on its presence.

    `invert` turns presence into absence.
    """

    name: str
    value: TextMatch | None = None
    invert: bool = False


class RouteMatch(NamedTuple):
    """
    All that must hold for a request to take a route.

    Attributes:
        path: The path without query, as Envoy sees it.
        headers: Conditions on headers and pseudo-headers.
        query: Conditions on query parameters.
        port: The port that is called, or 0 for any.
        doubt: A condition that cannot be evaluated here, in words; empty if there is none.
        other_ports: Ports that it is not for, as other routes have the host there.
    """

    path: TextMatch = TextMatch("prefix", "/")
    headers: tuple[HeaderMatch, ...] = ()
    query: tuple[QueryMatch, ...] = ()
    port: int = 0
    doubt: str = ""
    other_ports: tuple[int, ...] = ()


class Entry(NamedTuple):
    """A route and what must hold for it."""

    match: RouteMatch
    route: Route


class VirtualHost(NamedTuple):
    """The domains that share a list of routes; the first that matches is taken."""

    name: str
    domains: tuple[str, ...]
    entries: tuple[Entry, ...]


class RouteConfig(NamedTuple):
    """
    The virtual hosts that one of the sidecar's listeners chooses from.

    Attributes:
        name: Envoy's name, from which follows which calls it is for: a port, `host:port`, or neither; empty if it is
            made from manifests, which hold for every port.
        hosts: The virtual hosts.
        ignore_port: Whether a port in `Host` is left aside; the sidecars of Istio before 1.15 compare it.
        ignore_parameters: Whether a path is compared without what follows its first semicolon.
    """

    name: str
    hosts: Sequence[VirtualHost]
    ignore_port: bool = True
    ignore_parameters: bool = False
