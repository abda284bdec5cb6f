"""
What a route is, and what decides whether a request takes it: plain values, compared and printed, never run.

The same shapes hold what a VirtualService says and what Envoy's own configuration says; `match.py` makes tests of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from meshaware.budgets.budget import Budget

__all__ = [
    "Action",
    "Entry",
    "Folded",
    "HeaderMatch",
    "IntegerRange",
    "QueryMatch",
    "Kind",
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


class Kind(NamedTuple):
    """What a route says apart from what it is called: thousands of routes are of a few kinds."""

    match: RouteMatch
    budget: Budget
    action: Action = "route"


class Folded:
    """
    The routes of many virtual hosts, each host's as one flat tuple until somebody asks for it.

    A workload calls a few of the thousands of hosts that its sidecar knows. To make all their routes would take half
    the time of reading them, and leave objects that the garbage collector goes through again and again; a tuple of
    texts and numbers it passes by.
    """

    __slots__ = ("_hosts", "_kinds", "_made")

    def __init__(self) -> None:
        self._kinds: list[Kind] = []
        self._hosts = 0
        self._made: dict[int, tuple[Entry, ...]] = {}

    def kind(self, kind: Kind) -> int:
        """Take in a kind; the number stands for it."""
        self._kinds.append(kind)
        return len(self._kinds) - 1

    def host(self, name: str, domains: tuple[str, ...], routes: Iterable[Any]) -> VirtualHost:
        """A host whose routes are given flat: the number of its kind, name and origin of the first, then of the next."""
        self._hosts += 1
        return VirtualHost(name, domains, (self._hosts, *routes), self)

    def told(self, routes: tuple[Any, ...]) -> Iterator[tuple[Kind, str, str]]:
        """Kind, name and origin of each route of a host."""
        for place in range(1, len(routes), 3):
            number, name, origin = routes[place : place + 3]
            yield self._kinds[number], name, origin

    def unfold(self, host: str, routes: tuple[Any, ...]) -> tuple[Entry, ...]:
        """The entries of a host, made when they are asked for first; the same ones each time, in every thread."""
        made = self._made.get(routes[0])
        if made is None:
            entries = tuple([
                Entry(kind.match, Route(name, kind.budget, origin, host, kind.action))
                for kind, name, origin in self.told(routes)
            ])
            made = self._made.setdefault(routes[0], entries)
        return made


class VirtualHost:
    """
    The domains that share a list of routes; the first that matches is taken. A value: equal if it says the same.

    Args:
        name: Its name in the mesh.
        domains: The domains.
        entries: Its routes; a flat tuple where they are `folded`.
        folded: Who makes entries of them.
    """

    __slots__ = ("_entries", "_folded", "domains", "name")

    def __init__(
        self, name: str, domains: tuple[str, ...], entries: tuple[Any, ...], folded: Folded | None = None
    ) -> None:
        self.name, self.domains, self._entries, self._folded = name, domains, entries, folded

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Its routes, in order."""
        return self._entries if self._folded is None else self._folded.unfold(self.name, self._entries)

    @property
    def own_routes(self) -> int | None:
        """How many routes it has, if no other host has them too; None where that is not said."""
        return None if self._folded is None else len(self._entries) // 3

    def _told(self) -> list[tuple[Kind, str, str, str, str]]:
        if self._folded is not None:
            return [(kind, name, origin, self.name, "") for kind, name, origin in self._folded.told(self._entries)]
        return [
            (Kind(match, route.budget, route.action), route.name, route.origin, route.host, route.note)
            for match, route in self.entries
        ]

    def __eq__(self, other: object) -> bool:
        """Whether it has the same name, domains and routes, made already or not."""
        if not isinstance(other, VirtualHost):
            return NotImplemented
        if self is other:
            return True
        return self.name == other.name and self.domains == other.domains and self._told() == other._told()

    def __hash__(self) -> int:
        """Equal hosts are one key."""
        return hash((self.name, self.domains))

    def __repr__(self) -> str:
        """All that it says."""
        return f"VirtualHost({self.name!r}, {self.domains!r}, {self.entries!r})"


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
    hosts: tuple[VirtualHost, ...]
    ignore_port: bool = True
    ignore_parameters: bool = False
