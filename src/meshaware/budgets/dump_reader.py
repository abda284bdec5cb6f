"""
One pass over a config dump, virtual host by virtual host, each forgotten as JSON before the next.

That takes less time and memory than the JSON of the whole, and lets other threads run in between. What counts for all
routes of a configuration may stand behind them; then a second pass is made, which knows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from meshaware.budgets.envoy_json import Message, shown
from meshaware.budgets.envoy_route import HostReader, injected_delay, plain_clusters
from meshaware.budgets.pieces import Cursor
from meshaware.budgets.route import RouteConfig
from meshaware.errors import ConfigDumpError

__all__ = ["ENVOYS_CONNECT_TIMEOUT", "DumpReader", "ReadConfig"]

ENVOYS_CONNECT_TIMEOUT = 5.0
"""Where a cluster does not say, in seconds."""

_INBOUND = "inbound|"
# Istio's own listeners for readiness and metrics, in every bootstrap.
_BOOTSTRAP_CLUSTERS = frozenset({"agent", "prometheus_stats"})
_ROUTE_CONFIG = ("route_config", "routeConfig")
_LISTS = {
    "dynamic_route_configs": "dynamic",
    "dynamicRouteConfigs": "dynamic",
    "static_route_configs": "static",
    "staticRouteConfigs": "static",
}
_CLUSTER_LISTS = frozenset({
    "static_clusters",
    "staticClusters",
    "dynamic_active_clusters",
    "dynamicActiveClusters",
    "dynamic_warming_clusters",
    "dynamicWarmingClusters",
})  # fmt: skip


class ReadConfig(NamedTuple):
    """
    One route configuration of a dump.

    Attributes:
        config: What was read.
        left_out: Why it is not among the outbound ones; empty if it is.
        timed: The clusters whose connect timeout counts: a route to them has a per-try timeout and no timeout.
        filtered: How many virtual hosts were not wanted.
    """

    config: RouteConfig
    left_out: str = ""
    timed: frozenset[str] = frozenset()
    filtered: int = 0


class _Facts(NamedTuple):
    """What counts for all routes of a route configuration."""

    name: str
    delay: float


@dataclass
class _Section:
    """What was found in a section, before it is known of which kind that is."""

    kind: str = ""
    dynamic: list[ReadConfig] = field(default_factory=list[ReadConfig])
    static: list[ReadConfig] = field(default_factory=list[ReadConfig])
    single: list[ReadConfig] = field(default_factory=list[ReadConfig])
    clusters: dict[str, float] = field(default_factory=dict[str, float])
    namespace: str | None = None


class DumpReader:
    """
    One pass over a dump.

    Args:
        clusters: Connect timeouts that are known already, by cluster.
        connect_timeout: What counts for clusters that nobody knows.
        keep: Whether a virtual host with such domains is wanted; all are, if it is None.
        facts: What an earlier pass learned.

    Attributes:
        dynamic: The dynamic route configurations.
        static: The static ones.
        namespace: Where the workload runs, if the dump tells.
        others: What kinds of sections there were that are about something else.
        complete: Whether routes would be in the dump if there were any.
        late: Whether something was learned that should have been known before.
    """

    def __init__(
        self,
        clusters: dict[str, float],
        connect_timeout: float | None,
        keep: Callable[[tuple[str, ...]], bool] | None,
        facts: Mapping[str, _Facts] | None = None,
    ) -> None:
        self._clusters = clusters
        self._connect_timeout = connect_timeout
        self._keep = keep
        self._known = facts or {}
        self._facts: dict[str, _Facts] = {}
        self._hosts = HostReader(clusters, connect_timeout)
        self.dynamic: list[ReadConfig] = []
        self.static: list[ReadConfig] = []
        self.namespace: str | None = None
        self.others: dict[str, None] = {}
        self.complete = False
        self.late = False

    def again(self) -> DumpReader:
        """A second pass, which knows what this one learned too late."""
        return DumpReader(self._clusters, self._connect_timeout, self._keep, self._facts)

    def read(self, data: bytes | memoryview | str) -> None:
        """
        Read a dump.

        Raises:
            ConfigDumpError: It is none, or is cut off.
        """
        cursor = Cursor(data)
        if cursor.peek() == "[":
            for number in cursor.elements():
                self.dynamic.append(self._config(cursor, f"[{number}].route_config"))
            self.complete = True
        else:
            self._sections(cursor)
        cursor.finish()

    def _sections(self, cursor: Cursor) -> None:
        found, sections, names = False, 0, list[str]()
        for name in _members(cursor, "config dump"):
            if name == "configs" and (elements := _elements(cursor, "config dump.configs")) is not None:
                found = True
                for number in elements:
                    sections += 1
                    self._section(cursor, f"config dump.configs[{number}]")
            else:
                names.append(name)
                cursor.skip()
        if names and not found:
            keys = ", ".join(repr(name[:40]) for name in names[:5])
            raise ConfigDumpError(f'config dump: has no "configs" but {keys}: this is no config dump of an Envoy')
        self.complete = self.complete or not sections

    def _section(self, cursor: Cursor, path: str) -> None:
        section = _Section()
        for name in _members(cursor, path):
            self._field(cursor, name, path, section)
        kind = section.kind
        if kind == "RoutesConfigDump":
            self.complete = True
            self.dynamic += section.dynamic
            self.static += section.static
        elif kind in ("DynamicRouteConfig", "StaticRouteConfig") or section.single:
            self.complete = True
            (self.static if kind == "StaticRouteConfig" else self.dynamic).extend(section.single)
        elif kind == "BootstrapConfigDump":
            # The whole dump of an Envoy that serves no HTTP has no section of routes.
            self.complete = True
            self.namespace = section.namespace
        else:
            self.others[kind[:60] or "something without a type"] = None
            if kind == "ClustersConfigDump" and not section.clusters.items() <= self._clusters.items():
                self.late = self.late or bool(self._facts)
                self._clusters.update(section.clusters)

    def _field(self, cursor: Cursor, name: str, path: str, section: _Section) -> None:
        place = f"{path}.{name}"
        if name == "@type":
            section.kind = Message({name: cursor.value()}, path).text(name).rpartition(".")[2]
        elif name in _LISTS:
            read = section.dynamic if _LISTS[name] == "dynamic" else section.static
            for number in _elements(cursor, place) or ():
                read.extend(self._element(cursor, f"{place}[{number}]"))
        elif name in _ROUTE_CONFIG and not _is_null(cursor):
            section.single.append(self._config(cursor, place))
        elif name in _CLUSTER_LISTS:
            for number, value in enumerate(_values(cursor, place)):
                section.clusters.update(_cluster(Message(value, f"{place}[{number}]")))
        elif name == "bootstrap":
            section.namespace = _namespace(Message({name: cursor.value()}, path).message(name))
        elif name not in _ROUTE_CONFIG:
            cursor.skip()

    def _element(self, cursor: Cursor, path: str) -> Iterator[ReadConfig]:
        for name in _members(cursor, path):
            if name not in _ROUTE_CONFIG:
                cursor.skip()
            elif not _is_null(cursor):
                yield self._config(cursor, f"{path}.{name}")

    def _config(self, cursor: Cursor, path: str) -> ReadConfig:
        known = self._known.get(path)
        facts = known or _Facts("", 0.0)
        rest: dict[str, Any] = {}
        hosts = self._hosts.hosts()
        kinds: set[bool] = set()
        sent: set[str] = set()
        filtered = 0
        self._hosts.timed = set()
        for name in _members(cursor, path):
            if name not in ("virtual_hosts", "virtualHosts"):
                if cursor.peek() == "[":
                    cursor.skip()
                else:
                    rest[name] = cursor.value()
                continue
            if known is None:
                facts = _Facts(Message(rest, path).text("name"), 0.0)
            place = f"{path}.{name}"
            for number, value in enumerate(_values(cursor, place)):
                message = Message(value, place, None, number)
                kinds.add(message.text("name").startswith(_INBOUND))
                if not facts.name:
                    sent |= plain_clusters(message)
                if self._keep is None or self._keep(message.texts("domains")):
                    # An empty name stands for what is made from manifests.
                    self._hosts.read(hosts, message, facts.name or "unnamed", facts.delay)
                else:
                    filtered += 1
        message = Message(rest, path)
        actual = self._facts[path] = _Facts(message.text("name"), injected_delay(message))
        self.late = self.late or (bool(kinds) and actual != facts)
        reason = ""
        if actual.name.startswith(_INBOUND) or kinds == {True}:
            reason = "inbound route configuration"
        elif not actual.name and sent and sent <= _BOOTSTRAP_CLUSTERS:
            reason = "route configuration of the agent's own"
        config = RouteConfig(
            actual.name or "unnamed",
            hosts,
            ignore_port=message.flag("ignore_port_in_host_matching"),
            ignore_parameters=message.flag("ignore_path_parameters_in_path_matching"),
        )
        return ReadConfig(config, reason, frozenset(self._hosts.timed), filtered)


def _cluster(element: Message) -> Iterator[tuple[str, float]]:
    cluster = element.message("cluster")
    if cluster is not None:
        seconds = cluster.seconds("connect_timeout")
        yield cluster.text("name"), ENVOYS_CONNECT_TIMEOUT if seconds is None else seconds


def _namespace(bootstrap: Message | None) -> str | None:
    """From the node that Istio's agent writes: its id is kind~address~pod.namespace~namespace.svc.domain."""
    node = None if bootstrap is None else bootstrap.message("node")
    parts = [] if node is None else node.text("id").split("~")
    return parts[3].partition(".")[0] or None if len(parts) == 4 else None


def _members(cursor: Cursor, path: str) -> Iterator[str]:
    if cursor.peek() != "{":
        raise ConfigDumpError(f"{path}: {shown(cursor.value())}: must be an object")
    return cursor.members()


def _elements(cursor: Cursor, path: str) -> Iterable[int] | None:
    """The numbers of a list's elements; None for null."""
    return cursor.elements() if _is_list(cursor, path) else None


def _is_list(cursor: Cursor, path: str) -> bool:
    """Whether a list stands here; null is passed over."""
    if cursor.peek() == "[":
        return True
    value = cursor.value()
    if value is not None:
        raise ConfigDumpError(f"{path}: {shown(value)}: must be a list")
    return False


def _values(cursor: Cursor, path: str) -> Iterable[Any]:
    """The elements of a list, none of null."""
    return cursor.values() if _is_list(cursor, path) else ()


def _is_null(cursor: Cursor) -> bool:
    """Whether null stands here; it is passed over then."""
    if cursor.peek() != "n":
        return False
    cursor.value()
    return True
