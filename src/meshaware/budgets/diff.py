"""What is different between two states of the mesh, route by route."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import NamedTuple

from meshaware.budgets.budget import Budget
from meshaware.budgets.route import Route, RouteConfig, RouteMatch

__all__ = ["RouteChange", "RouteDiff", "compare"]

_NAMED = 3


class RouteChange(NamedTuple):
    """
    A route that is in both tables, and says something else in the second.

    Attributes:
        before: The route of the first table.
        after: The route of the second.
        what: What changed, a text each, such as "timeout: 2.0 -> 5.0".
    """

    before: Route
    after: Route
    what: tuple[str, ...]


class RouteDiff(NamedTuple):
    """
    What leads from one table to another; false if nothing does, and `str()` tells it, a route a line.

    Attributes:
        added: Routes that only the second table has.
        removed: Routes that only the first table has.
        changed: Routes that both have, and that differ.
    """

    added: tuple[Route, ...] = ()
    removed: tuple[Route, ...] = ()
    changed: tuple[RouteChange, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything is different."""
        return bool(self.added or self.removed or self.changed)

    def __str__(self) -> str:
        """A line for each route: `+` for one that was added, `-` for one that was removed, `~` for one that changed."""
        lines = [f"- {_said(route)}" for route in self.removed]
        lines += [f"+ {_said(route)}" for route in self.added]
        lines += [f"~ {_named(each.after)}: {'; '.join(each.what)}" for each in self.changed]
        return "\n".join(lines) or "no difference"

    def summary(self) -> str:
        """The same on one line, with the first few names."""
        parts: list[str] = []
        for count, what, routes in (
            (len(self.added), "added", self.added),
            (len(self.removed), "removed", self.removed),
            (len(self.changed), "changed", [each.after for each in self.changed[:_NAMED]]),
        ):
            if count:
                names = ", ".join(_named(route) for route in routes[:_NAMED])
                parts.append(f"{count} {what} ({names}{', ...' if count > _NAMED else ''})")
        return "; ".join(parts) or "no difference"


class _Place(NamedTuple):
    """A route where it stands in a table."""

    route: Route
    matches: tuple[RouteMatch, ...]
    domains: tuple[str, ...]
    settings: tuple[str, bool, bool]
    position: int


def compare(before: Iterable[RouteConfig], after: Iterable[RouteConfig]) -> RouteDiff:
    """
    Compare two tables by what they were made from.

    A route is the same one if it has the same name in the virtual host of the same name in the same route
    configuration; the second of such a name is compared with the second.
    """
    earlier, later = list(before), list(after)
    if earlier == later:
        return RouteDiff()
    old, new = _places(earlier, later), _places(later, earlier)
    added = tuple(place.route for key, place in new.items() if key not in old)
    removed = tuple(place.route for key, place in old.items() if key not in new)
    changed = tuple(
        RouteChange(old[key].route, place.route, what)
        for key, place in new.items()
        if key in old and (what := tuple(_differences(old[key], place)))
    )
    return RouteDiff(added, removed, changed)


Key = tuple[str, str, str, int]


def _places(configs: list[RouteConfig], others: list[RouteConfig]) -> dict[Key, _Place]:
    """Every route by what it is called, without the virtual hosts that are in the other table too."""
    kept = {id(config) for config in configs} & {id(config) for config in others}
    same = {(_settings(config), host) for config in others if id(config) not in kept for host in config.hosts}
    found: dict[Key, _Place] = {}
    numbers: Counter[tuple[str, str, str]] = Counter()
    for config in configs:
        if id(config) in kept:
            continue
        settings = _settings(config)
        for host in config.hosts:
            if (settings, host) in same:
                continue
            routes: dict[int, Route] = {}
            matches: dict[int, list[RouteMatch]] = {}
            for entry in host.entries:
                routes.setdefault(id(entry.route), entry.route)
                matches.setdefault(id(entry.route), []).append(entry.match)
            for position, (key, route) in enumerate(routes.items()):
                name = (config.name, host.name, route.name)
                found[*name, numbers[name]] = _Place(route, tuple(matches[key]), host.domains, settings, position)
                numbers[name] += 1
    return found


def _settings(config: RouteConfig) -> tuple[str, bool, bool]:
    return config.name, config.ignore_port, config.ignore_parameters


def _differences(old: _Place, new: _Place) -> Iterator[str]:
    yield from _budget(old.route.budget, new.route.budget)
    for name in ("action", "host", "origin", "note"):
        before, after = getattr(old.route, name), getattr(new.route, name)
        if before != after:
            yield f"{name}: {before!r} -> {after!r}"
    if old.matches != new.matches:
        yield "its conditions"
    if old.position != new.position:
        yield f"position: {old.position + 1} -> {new.position + 1}"
    if old.domains != new.domains:
        gone = [f"without {name}" for name in old.domains if name not in new.domains]
        come = [f"with {name}" for name in new.domains if name not in old.domains]
        yield f"domains: {', '.join([*gone, *come][:_NAMED]) or 'their order'}"
    if old.settings != new.settings:
        yield "how ports or parameters are compared"


def _budget(old: Budget, new: Budget) -> Iterator[str]:
    if old == new:
        return
    for field in fields(Budget):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if before != after:
            if field.name == "retry_on":
                before, after = ",".join(sorted(before)) or "none", ",".join(sorted(after)) or "none"
            yield f"{field.name}: {before} -> {after}"


def _named(route: Route) -> str:
    return f"{route.host} {route.name}"


def _said(route: Route) -> str:
    return f"{_named(route)}  {route.budget!r}  ({route.origin})"
