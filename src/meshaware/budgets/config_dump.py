"""
The outbound routes in what an Envoy answers to `/config_dump`.

| asked for | answered |
|---|---|
| `/config_dump` | sections; among them RoutesConfigDump, with lists of dynamic and of static route configurations |
| `/config_dump?resource=dynamic_route_configs` | the elements of that list, without the section around them |
| `istioctl proxy-config routes -o json` | a list of route configurations, in camel case |
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

from meshaware.budgets.envoy_json import Message
from meshaware.budgets.envoy_route import Clusters, injected_delay, read_virtual_host
from meshaware.budgets.route import RouteConfig
from meshaware.errors import ConfigDumpError

__all__ = ["MAX_BYTES", "ConfigDump", "read_config_dump"]

MAX_BYTES = 64 << 20
"""Larger dumps are refused: 50 MB are 18 000 routes."""

_INBOUND = "inbound|"
# Istio's own listeners for readiness and metrics, in every bootstrap.
_BOOTSTRAP_CLUSTERS = frozenset({"agent", "prometheus_stats"})


class ConfigDump(NamedTuple):
    """
    What was read.

    Attributes:
        configs: The route configurations for outbound calls.
        namespace: Where the workload runs, if the dump tells.
        skipped: What was left out, by reason.
    """

    configs: tuple[RouteConfig, ...]
    namespace: str | None
    skipped: Mapping[str, int]


def read_config_dump(
    data: bytes | str, *, connect_timeout: float | None = None, max_bytes: int = MAX_BYTES
) -> ConfigDump:
    """
    Read a reply.

    Args:
        data: The reply.
        connect_timeout: What counts for clusters that the dump does not have.
        max_bytes: A larger reply is refused.

    Raises:
        ConfigDumpError: It is no config dump, is cut off or too large, or has no section with routes.
    """
    sections = _sections(_json(data, max_bytes))
    dump = _Sections(sections)
    skipped: Counter[str] = Counter()
    if dump.missing:
        raise ConfigDumpError(
            f"config dump: has no routes, only {', '.join(dump.missing)};"
            " ask for /config_dump?resource=dynamic_route_configs"
        )
    chosen = [message for message in dump.dynamic if _outbound(message, skipped)]
    if not chosen:
        chosen = [message for message in dump.static if _outbound(message, skipped)]
    else:
        skipped["static route configuration"] += len(dump.static)
    configs = tuple(_config(message, dump.clusters, connect_timeout) for message in chosen)
    return ConfigDump(configs, dump.namespace, {reason: count for reason, count in skipped.items() if count})


def _json(data: bytes | str, max_bytes: int) -> Any:
    if len(data) > max_bytes:
        raise ConfigDumpError(
            f"config dump: is larger than {max_bytes} bytes; ask for /config_dump?resource=dynamic_route_configs"
        )
    try:
        return json.loads(data if isinstance(data, str) else data.decode())
    except UnicodeDecodeError as error:
        raise ConfigDumpError(f"config dump: is not UTF-8: byte {error.start}") from error
    except json.JSONDecodeError as error:
        cut = error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated string")
        if cut and error.doc.strip():
            raise ConfigDumpError(f"config dump: is cut off after {len(data)} bytes, at line {error.lineno}") from error
        begin = error.doc[:60]
        raise ConfigDumpError(
            f"config dump: is not JSON: {error.msg} at line {error.lineno}; begins {begin!r}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ConfigDumpError(f"config dump: is not JSON that Envoy writes: {str(error)[:200]}") from error


def _sections(value: Any) -> list[Message]:
    if isinstance(value, list):
        listed = cast("Sequence[Any]", value)
        return [Message({"route_config": config}, f"[{number}]") for number, config in enumerate(listed)]
    top = Message(value, "config dump")
    if top.raw("configs") is None and not top.only():
        keys = ", ".join(repr(key[:40]) for key in list(cast("dict[str, Any]", value))[:5])
        raise ConfigDumpError(f'config dump: has no "configs" but {keys}: this is no config dump of an Envoy')
    return list(top.messages("configs"))


class _Sections:
    """The sections of a dump, sorted by what they are about."""

    def __init__(self, sections: list[Message]) -> None:
        self.dynamic: list[Message] = []
        self.static: list[Message] = []
        self.clusters: dict[str, float] = {}
        self.namespace: str | None = None
        others: dict[str, None] = {}
        complete = not sections
        for section in sections:
            kind = section.text("@type").rpartition(".")[2]
            if kind == "RoutesConfigDump":
                complete = True
                self.dynamic.extend(_route_configs(section.messages("dynamic_route_configs")))
                self.static.extend(_route_configs(section.messages("static_route_configs")))
            elif kind in ("DynamicRouteConfig", "StaticRouteConfig") or section.raw("route_config") is not None:
                complete = True
                (self.static if kind == "StaticRouteConfig" else self.dynamic).extend(_route_configs([section]))
            elif kind == "ClustersConfigDump":
                self.clusters.update(_clusters(section))
                others[kind] = None
            elif kind == "BootstrapConfigDump":
                # The whole dump of an Envoy that serves no HTTP has no section of routes.
                complete = True
                self.namespace = _namespace(section)
            else:
                others[kind[:60] or "something without a type"] = None
        self.missing = [] if complete else list(others)


def _route_configs(sections: Iterable[Message]) -> Iterator[Message]:
    for section in sections:
        config = section.message("route_config")
        if config is not None:
            yield config


def _clusters(section: Message) -> Iterator[tuple[str, float]]:
    for kind in ("static_clusters", "dynamic_active_clusters", "dynamic_warming_clusters"):
        for element in section.messages(kind):
            cluster = element.message("cluster")
            seconds = None if cluster is None else cluster.seconds("connect_timeout")
            if cluster is not None:
                # Envoy's own default, where a cluster does not say.
                yield cluster.text("name"), 5.0 if seconds is None else seconds


def _namespace(section: Message) -> str | None:
    """From the node that Istio's agent writes: its id is kind~address~pod.namespace~namespace.svc.domain."""
    bootstrap = section.message("bootstrap")
    node = None if bootstrap is None else bootstrap.message("node")
    parts = [] if node is None else node.text("id").split("~")
    return parts[3].partition(".")[0] or None if len(parts) == 4 else None


def _outbound(message: Message, skipped: Counter[str]) -> bool:
    hosts = list(message.messages("virtual_hosts"))
    inbound = message.text("name").startswith(_INBOUND) or (
        bool(hosts) and all(host.text("name").startswith(_INBOUND) for host in hosts)
    )
    if inbound:
        skipped["inbound route configuration"] += 1
        return False
    if _is_bootstrap(message, hosts):
        skipped["route configuration of the agent's own"] += 1
        return False
    return True


def _is_bootstrap(message: Message, hosts: list[Message]) -> bool:
    if message.text("name"):
        return False
    sent = [route.message("route") for host in hosts for route in host.messages("routes")]
    clusters = {route.text("cluster") for route in sent if route is not None}
    return bool(clusters) and clusters <= _BOOTSTRAP_CLUSTERS


def _config(message: Message, clusters: Clusters, connect_timeout: float | None) -> RouteConfig:
    # An empty name stands for what is made from manifests.
    name = message.text("name") or "unnamed"
    delay = injected_delay(message)
    hosts = tuple(
        read_virtual_host(host, name, delay=delay, clusters=clusters, connect_timeout=connect_timeout)
        for host in message.messages("virtual_hosts")
    )
    return RouteConfig(
        name,
        hosts,
        ignore_port=message.flag("ignore_port_in_host_matching"),
        ignore_parameters=message.flag("ignore_path_parameters_in_path_matching"),
    )
