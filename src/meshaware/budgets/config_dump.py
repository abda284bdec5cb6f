"""
The outbound routes in what an Envoy answers to `/config_dump`.

| asked for | answered |
|---|---|
| `/config_dump` | sections; among them RoutesConfigDump, with lists of dynamic and of static route configurations |
| `/config_dump?resource=dynamic_route_configs` | the elements of that list, without the section around them |
| `istioctl proxy-config routes -o json` | a list of route configurations, in camel case |

A dump is read virtual host by virtual host, each forgotten as JSON before the next: that takes less time and memory
than the JSON of the whole, and lets other threads run in between.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from meshaware.budgets.envoy_json import Message, shown
from meshaware.budgets.envoy_route import Clusters, HostReader, injected_delay, plain_clusters
from meshaware.budgets.pieces import Cursor
from meshaware.budgets.route import RouteConfig, VirtualHost
from meshaware.errors import ConfigDumpError

__all__ = ["MAX_BYTES", "ConfigDump", "read_config_dump"]

MAX_BYTES = 64 << 20
"""Larger dumps are refused: 50 MB are 18 000 routes."""

_INBOUND = "inbound|"
# Istio's own listeners for readiness and metrics, in every bootstrap.
_BOOTSTRAP_CLUSTERS = frozenset({"agent", "prometheus_stats"})
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
_ENVOYS_CONNECT_TIMEOUT = 5.0  # where a cluster does not say


class ConfigDump(NamedTuple):
    """
    What was read.

    Attributes:
        configs: The route configurations for outbound calls.
        namespace: Where the workload runs, if the dump tells.
        skipped: What was left out, by reason.
        timed: The clusters whose connect timeout counts: a route to them has a per-try timeout and no timeout.
    """

    configs: tuple[RouteConfig, ...]
    namespace: str | None
    skipped: Mapping[str, int]
    timed: frozenset[str] = frozenset()


def read_config_dump(
    data: bytes | str,
    *,
    connect_timeout: float | None = None,
    max_bytes: int = MAX_BYTES,
    clusters: Clusters | None = None,
    keep: Callable[[tuple[str, ...]], bool] | None = None,
) -> ConfigDump:
    """
    Read a reply.

    Args:
        data: The reply.
        connect_timeout: What counts for clusters that the dump does not have.
        max_bytes: A larger reply is refused.
        clusters: Connect timeouts that are known already, by cluster.
        keep: Whether a virtual host with such domains is wanted; all are, if it is not given.

    Raises:
        ConfigDumpError: It is no config dump, is cut off or too large, or has no section with routes.
    """
    if len(data) > max_bytes:
        raise ConfigDumpError(
            f"config dump: is larger than {max_bytes} bytes; ask for /config_dump?resource=dynamic_route_configs"
        )
    reader = _Reader(dict(clusters or {}), connect_timeout, keep)
    reader.read(data)
    if reader.late:
        # Something that counts for all routes stood behind them.
        reader = reader.again()
        reader.read(data)
    return reader.result()


class _Facts(NamedTuple):
    """What counts for all routes of a route configuration."""

    name: str
    delay: float


class _Read(NamedTuple):
    """A route configuration, and why it is left out if it is."""

    config: RouteConfig
    skipped: str


class _Reader:
    """One pass over a dump."""

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
        self._dynamic: list[_Read] = []
        self._static: list[_Read] = []
        self._namespace: str | None = None
        self._others: dict[str, None] = {}
        self._complete = False
        self._filtered = 0
        self.late = False

    def again(self) -> _Reader:
        """A second pass, which knows what this one learned too late."""
        return _Reader(self._clusters, self._connect_timeout, self._keep, self._facts)

    def read(self, data: bytes | str) -> None:
        cursor = Cursor(data)
        if cursor.peek() == "[":
            for number in cursor.elements():
                self._dynamic.append(self._config(cursor, f"[{number}].route_config"))
            self._complete = True
        else:
            self._sections(cursor)
        cursor.finish()

    def result(self) -> ConfigDump:
        if not self._complete:
            raise ConfigDumpError(
                f"config dump: has no routes, only {', '.join(self._others)};"
                " ask for /config_dump?resource=dynamic_route_configs"
            )
        skipped = Counter(each.skipped for each in self._dynamic if each.skipped)
        chosen = [each.config for each in self._dynamic if not each.skipped]
        if chosen:
            skipped["static route configuration"] += len(self._static)
        else:
            skipped.update(each.skipped for each in self._static if each.skipped)
            chosen = [each.config for each in self._static if not each.skipped]
        skipped["virtual host that was not asked for"] += self._filtered
        counted = {reason: count for reason, count in skipped.items() if count}
        return ConfigDump(tuple(chosen), self._namespace, counted, frozenset(self._hosts.timed))

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
        self._complete = self._complete or not sections

    def _section(self, cursor: Cursor, path: str) -> None:
        kind, read = "", {"dynamic": list[_Read](), "static": list[_Read]()}
        single: _Read | None = None
        clusters: dict[str, float] = {}
        namespace: str | None = None
        for name in _members(cursor, path):
            place = f"{path}.{name}"
            if name == "@type":
                kind = Message({"@type": cursor.value()}, path).text("@type").rpartition(".")[2]
            elif name in _LISTS:
                for number in _elements(cursor, place) or ():
                    config = self._element(cursor, f"{place}[{number}]")
                    if config is not None:
                        read[_LISTS[name]].append(config)
            elif name in ("route_config", "routeConfig"):
                single = None if _is_null(cursor) else self._config(cursor, place)
            elif name in _CLUSTER_LISTS:
                for number, value in enumerate(_values(cursor, place)):
                    clusters.update(_cluster(Message(value, f"{place}[{number}]")))
            elif name == "bootstrap":
                namespace = _namespace(Message({name: cursor.value()}, path).message(name))
            else:
                cursor.skip()
        if kind == "RoutesConfigDump":
            self._complete = True
            self._dynamic += read["dynamic"]
            self._static += read["static"]
        elif kind in ("DynamicRouteConfig", "StaticRouteConfig") or single is not None:
            self._complete = True
            if single is not None:
                (self._static if kind == "StaticRouteConfig" else self._dynamic).append(single)
        elif kind == "BootstrapConfigDump":
            # The whole dump of an Envoy that serves no HTTP has no section of routes.
            self._complete = True
            self._namespace = namespace
        else:
            self._others[kind[:60] or "something without a type"] = None
            if kind == "ClustersConfigDump" and not clusters.items() <= self._clusters.items():
                self.late = self.late or bool(self._facts)
                self._clusters.update(clusters)

    def _element(self, cursor: Cursor, path: str) -> _Read | None:
        read: _Read | None = None
        for name in _members(cursor, path):
            if name in ("route_config", "routeConfig") and not _is_null(cursor):
                read = self._config(cursor, f"{path}.{name}")
            else:
                cursor.skip()
        return read

    def _config(self, cursor: Cursor, path: str) -> _Read:
        known = self._known.get(path)
        facts = known or _Facts("", 0.0)
        rest: dict[str, Any] = {}
        hosts: list[VirtualHost] = []
        kinds: set[bool] = set()
        sent: set[str] = set()
        for field in _members(cursor, path):
            if field not in ("virtual_hosts", "virtualHosts"):
                if cursor.peek() == "[":
                    cursor.skip()
                else:
                    rest[field] = cursor.value()
                continue
            if known is None:
                facts = _Facts(Message(rest, path).text("name"), 0.0)
            for number, value in enumerate(_values(cursor, f"{path}.{field}")):
                message = Message(value, f"{path}.{field}[{number}]")
                kinds.add(message.text("name").startswith(_INBOUND))
                if not facts.name:
                    sent |= plain_clusters(message)
                if self._keep is None or self._keep(message.texts("domains")):
                    # An empty name stands for what is made from manifests.
                    hosts.append(self._hosts.read(message, facts.name or "unnamed", facts.delay))
                else:
                    self._filtered += 1
        message = Message(rest, path)
        actual = self._facts[path] = _Facts(message.text("name"), injected_delay(message))
        self.late = self.late or (bool(kinds) and actual != facts)
        skipped = ""
        if actual.name.startswith(_INBOUND) or kinds == {True}:
            skipped = "inbound route configuration"
        elif not actual.name and sent and sent <= _BOOTSTRAP_CLUSTERS:
            skipped = "route configuration of the agent's own"
        config = RouteConfig(
            actual.name or "unnamed",
            tuple(hosts),
            ignore_port=message.flag("ignore_port_in_host_matching"),
            ignore_parameters=message.flag("ignore_path_parameters_in_path_matching"),
        )
        return _Read(config, skipped)


def _cluster(element: Message) -> Iterator[tuple[str, float]]:
    cluster = element.message("cluster")
    if cluster is not None:
        seconds = cluster.seconds("connect_timeout")
        yield cluster.text("name"), _ENVOYS_CONNECT_TIMEOUT if seconds is None else seconds


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
