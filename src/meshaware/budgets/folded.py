"""
The virtual hosts of a large mesh, each as a few hundred bytes until somebody asks for it.

A workload calls a few of the thousands of hosts that its sidecar knows. Objects for all their routes would take half of
the time of reading them, and be gone through by the garbage collector again and again, which holds up every thread;
bytes it never looks at.
"""

from __future__ import annotations

import marshal
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast, overload

from meshaware.budgets.budget import Budget
from meshaware.budgets.route import Action, Entry, Route, RouteMatch, VirtualHost

__all__ = ["FoldedHosts", "Kind", "domains_of"]


class Kind(NamedTuple):
    """What a route says apart from what it is called: thousands of routes are of a few kinds."""

    match: RouteMatch
    budget: Budget
    action: Action = "route"
    note: str = ""


class FoldedHosts(Sequence[VirtualHost]):
    """
    Virtual hosts in their order; a sequence that makes a host when it is asked for by its number, and keeps it then.

    Args:
        kinds: What the numbers of kinds stand for; whoever adds hosts may add to it.

    Attributes:
        routes: How many routes they have.
    """

    __slots__ = ("_hosts", "_kinds", "_made", "routes")

    def __init__(self, kinds: Sequence[Kind]) -> None:
        self._kinds = kinds
        self._hosts: list[bytes] = []
        self._made: dict[int, VirtualHost] = {}
        self.routes = 0

    def add(self, name: str, domains: tuple[str, ...], routes: Sequence[Any]) -> None:
        """
        Add a host.

        Args:
            name: Its name.
            domains: Its domains.
            routes: The number of its kind, the name and the origin of the first route, then of the second, and so on.
        """
        self.routes += len(routes) // 3
        told: tuple[Any, ...] = (name, domains, routes)
        self._hosts.append(marshal.dumps(told))

    def domains(self) -> Iterator[tuple[str, ...]]:
        """The domains of each host."""
        for told in self._hosts:
            yield marshal.loads(told)[1]  # noqa: S302 (written above, by this process)

    def _unfold(self, number: int) -> VirtualHost:
        made = self._made.get(number)
        if made is not None:
            return made
        name, domains, routes = marshal.loads(self._hosts[number])  # noqa: S302 (as above)
        entries: list[Entry] = []
        for place in range(0, len(routes), 3):
            kind = self._kinds[int(routes[place])]
            route = Route(routes[place + 1], kind.budget, routes[place + 2], name, kind.action, kind.note)
            entries.append(Entry(kind.match, route))
        return VirtualHost(name, domains, tuple(entries))

    @overload
    def __getitem__(self, number: int) -> VirtualHost: ...

    @overload
    def __getitem__(self, number: slice) -> tuple[VirtualHost, ...]: ...

    def __getitem__(self, number: int | slice) -> VirtualHost | tuple[VirtualHost, ...]:
        """The same host each time, in every thread."""
        if isinstance(number, slice):
            return tuple(self[each] for each in range(len(self))[number])
        position = range(len(self))[number]
        return self._made.setdefault(position, self._unfold(position))

    def __iter__(self) -> Iterator[VirtualHost]:
        """Each host; what is made here is not kept."""
        return map(self._unfold, range(len(self)))

    def __len__(self) -> int:
        """How many hosts there are."""
        return len(self._hosts)

    def __eq__(self, other: object) -> bool:
        """Whether another sequence has equal hosts in the same order."""
        if self is other:
            return True
        if not isinstance(other, FoldedHosts | tuple):
            return NotImplemented
        hosts = cast("Sequence[object]", other)
        return len(self) == len(hosts) and all(mine == theirs for mine, theirs in zip(self, hosts, strict=True))

    def __hash__(self) -> int:
        """That of a tuple of the same hosts."""
        return hash(tuple(self))

    def __repr__(self) -> str:
        """That of a tuple of the same hosts."""
        return repr(tuple(self))


def domains_of(hosts: Sequence[VirtualHost]) -> Iterator[tuple[str, ...]]:
    """The domains of each host, in their order."""
    return hosts.domains() if isinstance(hosts, FoldedHosts) else (host.domains for host in hosts)
