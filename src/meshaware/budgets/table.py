"""The routes of the mesh as one table: read from files or from the sidecar, asked before each call."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote, urlsplit

from meshaware.budgets.budget import largest
from meshaware.budgets.choice import Choice, Entries
from meshaware.budgets.config_dump import MAX_BYTES, read_config_dump
from meshaware.budgets.diff import RouteDiff, compare
from meshaware.budgets.domains import Namespace
from meshaware.budgets.explain import Explanation, Search, search, unreached
from meshaware.budgets.folded import FoldedHosts
from meshaware.budgets.match import Compiled, Headers, Tests, sure, taken
from meshaware.budgets.paths import variants
from meshaware.budgets.route import Route, RouteConfig

if TYPE_CHECKING:
    from typing import Self

__all__ = ["RouteSource", "RouteTable"]

_REMEMBERED = 16_384
_LONGEST_HOST = 260
_NOTHING: Mapping[str, str] = {}
# What most calls look like, read at once: scheme, host with its port, path with its query.
_PLAIN_URL = re.compile(r"http://([A-Za-z0-9._-]+(?::[1-9][0-9]{0,3})?)((?:/[!-\"$-~]*)?)", re.ASCII)


class RouteSource(Protocol):
    """Anything that has a current table of routes; clients ask it on each call, so answering must cost nothing."""

    @property
    def current(self) -> RouteTable:
        """The table that holds now."""
        ...


class RouteTable:
    """
    Routes and what decides between them. Immutable: a new state of the mesh is a new table.

    `len(table)` and `for route in table` are about its routes; two tables are equal if they say the same.
    """

    __slots__ = (
        "_choice", "_configs", "_count", "_doubtful", "_found", "_namespace", "_ready", "_shapes", "_skipped",
    )  # fmt: skip

    def __init__(
        self,
        configs: Iterable[RouteConfig] = (),
        *,
        namespace: Namespace | None = None,
        skipped: Mapping[str, int] | None = None,
    ) -> None:
        """Made by the class methods; `configs` is what they read."""
        self._configs = tuple(configs)
        self._namespace = namespace
        self._skipped = dict(skipped or {})
        self._choice = Choice(self._configs, namespace)
        # Memories of what was worked out once; they never change what the table says. Most hosts have one list: then
        # its tests, which hosts share, come first and its routes after them, so that little memory is looked at.
        self._ready: dict[object, tuple[Any, ...]] = {}
        self._shapes: dict[tuple[Tests, ...], tuple[Tests, ...]] = {}
        self._count: int | None = None
        self._found: dict[object, tuple[Entries, ...]] = {}
        self._doubtful: dict[tuple[int, ...], Route] = {}

    @classmethod
    def empty(cls) -> Self:
        """A table without routes: nothing governs any call."""
        return cls()

    @classmethod
    def from_manifests(
        cls,
        paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        *,
        namespace: str = "default",
        cluster_domain: str = "cluster.local",
        source_labels: Mapping[str, str] | None = None,
        source_namespace: str | None = None,
        connect_timeout: float | None = None,
        root_namespace: str = "istio-system",
    ) -> Self:
        """
        Read VirtualServices, HTTPRoutes and DestinationRules, as they hold for a sidecar in `namespace`.

        Directories are read with all below them: `*.yaml`, `*.yml` and `*.json`, sorted, hidden names left out. Other
        kinds of resources are passed over and counted in `skipped`.

        Args:
            paths: A file, a directory, or several.
            namespace: Where the caller runs: it decides what short names mean and which VirtualServices it sees.
            cluster_domain: The cluster's DNS domain.
            source_labels: The caller's labels, for `sourceLabels`. Where they are not given, such a condition may
                hold or not: of the routes that a call might take, the largest budget counts.
            source_namespace: The caller's namespace if it is known for sure, for `sourceNamespace`; as above.
            connect_timeout: Seconds that connecting upstream may take where no DestinationRule says; it counts for
                budgets without a timeout.
            root_namespace: The mesh's `rootNamespace`, whose DestinationRules hold for every namespace.

        Raises:
            ManifestError: A path is missing, or a document is not what Istio or the Gateway API accepts.
        """
        from meshaware.budgets.manifests import read_manifests  # noqa: PLC0415 (YAML only for those who have files)

        home = Namespace(namespace, cluster_domain)
        config, skipped = read_manifests(
            paths,
            home,
            labels=source_labels,
            source=source_namespace,
            connect_timeout=connect_timeout,
            root=root_namespace,
        )
        return cls((config,), namespace=home, skipped=skipped)

    @classmethod
    def from_config_dump(
        cls,
        data: bytes | str,
        *,
        namespace: str | None = None,
        cluster_domain: str = "cluster.local",
        connect_timeout: float | None = None,
        max_bytes: int = MAX_BYTES,
    ) -> Self:
        """
        Read the outbound routes of an Envoy from what its admin port answers to `/config_dump`.

        Both shapes are read, the full dump and `?resource=dynamic_route_configs`, and what `istioctl proxy-config
        routes -o json` prints. Routes for inbound traffic are left out; static ones count only where there are no
        dynamic ones.

        Args:
            data: The reply.
            namespace: Where the caller runs; if not given, it is taken from the dump where that tells.
            cluster_domain: The cluster's DNS domain.
            connect_timeout: Seconds that connecting upstream may take, where the dump has no clusters to tell.
            max_bytes: A larger reply is refused.

        Raises:
            ConfigDumpError: It is no config dump, is cut off or too large, or has no section with routes.
        """
        read = read_config_dump(data, connect_timeout=connect_timeout, max_bytes=max_bytes)
        name = namespace or read.namespace
        home = None if name is None else Namespace(name, cluster_domain)
        return cls(read.configs, namespace=home, skipped=read.skipped)

    def match(self, method: str, url: str, headers: Mapping[str, str] | None = None) -> Route | None:
        """
        Find the route that a call takes.

        Args:
            method: Its method.
            url: Its absolute URL.
            headers: Its headers; `Host` among them decides instead of the URL's host, as it does in Envoy. A mapping
                with `get_list`, as httpx has it, knows of headers on several lines.

        Returns:
            None where nothing governs the call: no route fits, its `x-forwarded-proto` is empty, which makes Envoy
            answer 404, or the URL is not plain `http`, which a sidecar passes on unread.

        Raises:
            ValueError: The URL is not absolute, or its port is no port.
        """
        text = str(url)
        if headers is None and (plain := _PLAIN_URL.fullmatch(text)) is not None:
            host, path = plain.groups()
            return self.match_parts(method.upper(), host.removesuffix(":80"), path or "/", _NOTHING)
        asked = _asked(text, headers)
        if asked is None or _unrouted(asked[2]):
            return None
        host, path, given, port = asked
        return self.match_parts(method.upper(), host, path, given, port=port)

    def explain(self, method: str, url: str, headers: Mapping[str, str] | None = None) -> Explanation:
        """
        Tell which route a call takes and why: what was asked of it, in order, and what was compared.

        The arguments are those of `match`, and so is the route; this takes its time.

        Raises:
            ValueError: As for `match`.
        """
        asked = _asked(str(url), headers)
        if asked is None:
            return Explanation(None, why=unreached(url.partition(":")[0].lower()))
        host, path, given, port = asked
        if _unrouted(given):
            return Explanation(None, why="the sidecar gives no route to a call whose x-forwarded-proto is empty")
        places = self._choice.places(host, port)
        if not places:
            return Explanation(
                None, why=unreached("http", host, port, self._namespace, served=self._choice.serves(host, port))
            )
        bare, _, query = path.partition("?")
        searches: list[Search] = []
        outcomes: list[Route | list[Compiled] | None] = []
        for place in places:
            for way in variants(bare):
                request = (method.upper(), host, f"{way}?{query}" if query else way, query, given)
                made, outcome = search(place, way, request, port)
                searches.append(made)
                outcomes.append(outcome)
        return Explanation(self._decide(outcomes), tuple(searches))

    def match_parts(
        self, method: str, host: str, path: str, headers: Headers, *, port: int | None = None
    ) -> Route | None:
        """
        Find the route that a call over plain HTTP takes; for clients, on each call.

        Args:
            method: Its method.
            host: Its `Host` header, with or without a port.
            path: Its path and query, as they are sent.
            headers: A mapping with lower-case names, or one that ignores case, or what answers for a name.
            port: The port that is called; if not given, that of `host`, else 80.
        """
        key = host if port is None else (host, port)
        ready = self._ready.get(key)
        if ready is None:
            ready = self._prepare(key, host, port)
        bare, _, query = path.partition("?")
        paths = variants(bare)
        if ready and len(paths) == 1:
            number = sure(ready[0], bare, (method, host, path, query, headers))
            if number is not None:
                route: Route | None = ready[number] if number else None
                return route
        found = self._find(key, host, port)
        if not found:
            return None
        outcomes = [
            taken(entries, way, (method, host, f"{way}?{query}" if query else way, query, headers))
            for entries in found
            for way in paths
        ]
        return self._decide(outcomes)

    def _decide(self, outcomes: list[Route | list[Compiled] | None]) -> Route | None:
        first = outcomes[0]
        if not isinstance(first, list) and all(outcome is first for outcome in outcomes):
            return first
        possible: list[Compiled | Route] = []
        for outcome in outcomes:
            possible.extend(outcome if isinstance(outcome, list) else () if outcome is None else (outcome,))
        return self._widest(possible)

    def _prepare(self, key: object, host: str, port: int | None) -> tuple[Any, ...]:
        """The tests of a host and its routes; empty where it may have one list of routes or another."""
        found = self._choice.find(host, port)
        ready: tuple[Any, ...] = ()
        if len(found) < 2:
            entries = found[0] if found else ()
            tests = tuple(entry.tests for entry in entries)
            ready = (self._shapes.setdefault(tests, tests), *(entry.route for entry in entries))
        if len(host) <= _LONGEST_HOST:
            if len(self._ready) >= _REMEMBERED:
                self._ready.clear()
                self._shapes.clear()
            self._ready[key] = ready
        return ready

    def _find(self, key: object, host: str, port: int | None) -> tuple[Entries, ...]:
        known = self._found.get(key)
        if known is not None:
            return known
        found = self._choice.find(host, port)
        if len(host) <= _LONGEST_HOST:
            if len(self._found) >= _REMEMBERED:
                self._found.clear()
            self._found[key] = found
        return found

    def _widest(self, possible: Iterable[Compiled | Route]) -> Route:
        """One route for several that a call might take: the first by name, the largest by budget."""
        routes: dict[int, Route] = {}
        reasons: dict[str, None] = {}
        for each in possible:
            route = each if isinstance(each, Route) else each.route
            routes.setdefault(id(route), route)
            if isinstance(each, Compiled) and each.why:
                reasons.setdefault(each.why)
        first = next(iter(routes.values()))
        key = tuple(routes)
        known = self._doubtful.get(key)
        if known is not None:
            return known
        why = "; ".join(reasons) or "the host, the path or a header can be read in more than one way"
        names = ", ".join(dict.fromkeys(route.name for route in routes.values()))
        note = f"which route is taken cannot be told here ({why}): the largest budget of {names} holds"
        made = Route(
            first.name, largest(route.budget for route in routes.values()), first.origin, first.host, first.action, note
        )
        if len(self._doubtful) >= _REMEMBERED:
            self._doubtful.clear()
        self._doubtful[key] = made
        return made

    @property
    def skipped(self) -> Mapping[str, int]:
        """What was read and is not in the table, by kind or reason, with how often."""
        return dict(self._skipped)

    def diff(self, other: RouteTable) -> RouteDiff:
        """
        What leads from this table to another: the routes it adds and removes, and what it changes in which.

        `print(before.diff(after))` tells a route a line; nothing is different if it is false.
        """
        return compare(self._configs, other._configs)

    def __iter__(self) -> Iterator[Route]:
        """Each route once, in the order in which they were read."""
        seen: dict[int, Route] = {}
        for config in self._configs:
            for virtual_host in config.hosts:
                for entry in virtual_host.entries:
                    seen.setdefault(id(entry.route), entry.route)
        return iter(seen.values())

    def __len__(self) -> int:
        """How many routes there are."""
        if self._count is None:
            shared, count = set[int](), 0
            for config in self._configs:
                if isinstance(config.hosts, FoldedHosts):
                    count += config.hosts.routes
                else:
                    shared.update(id(entry.route) for host in config.hosts for entry in host.entries)
            self._count = count + len(shared)
        return self._count

    def __eq__(self, other: object) -> bool:
        """Whether both tables have the same routes under the same conditions, and were read for the same caller."""
        if not isinstance(other, RouteTable):
            return NotImplemented
        return self._configs == other._configs and self._namespace == other._namespace

    def __hash__(self) -> int:
        """Equal tables are one key."""
        return hash((self._configs, self._namespace))

    def __repr__(self) -> str:
        """How much is in it; `str()` tells all."""
        hosts = sum(len(config.hosts) for config in self._configs)
        return f"<RouteTable: {len(self)} routes, {hosts} hosts>"

    def __str__(self) -> str:
        """One line for each route: host, name, budget and origin."""
        lines = [f"{route.host}  {route.name}  {route.budget!r}  ({route.origin})" for route in self]
        return "\n".join([repr(self), *lines])


def _asked(text: str, headers: Mapping[str, str] | None) -> tuple[str, str, Mapping[str, str], int] | None:
    """Host, path with query, headers by lower-case names, and port of a call; None if it is not plain HTTP."""
    parts = urlsplit(text)
    if not parts.scheme or not parts.hostname:
        raise ValueError(f"{text[:100]!r} is not an absolute URL such as 'http://inventory:8080/items'")
    if parts.scheme != "http":
        return None
    port = parts.port or 80
    given: Mapping[str, str] = _NOTHING if headers is None else headers
    if not hasattr(given, "get_list"):
        given = {name.lower(): value for name, value in given.items()}
    host = parts.netloc.rpartition("@")[2].removesuffix(":80" if port == 80 else "")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not path.isascii():
        path = quote(path, safe="".join(map(chr, range(33, 127))))
    return given.get("host", host), path, given, port


def _unrouted(headers: Mapping[str, str]) -> bool:
    """Whether Envoy looks for no route at all. On the way of a call nobody asks: it has been answered by then."""
    return headers.get("x-forwarded-proto") == ""
