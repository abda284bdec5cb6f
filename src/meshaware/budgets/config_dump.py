"""
The outbound routes in what an Envoy answers to `/config_dump`.

| asked for | answered |
|---|---|
| `/config_dump` | sections; among them RoutesConfigDump, with lists of dynamic and of static route configurations |
| `/config_dump?resource=dynamic_route_configs` | the elements of that list, without the section around them |
| `istioctl proxy-config routes -o json` | a list of route configurations, in camel case |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from meshaware.budgets.dump_reader import DumpReader, ReadConfig
from meshaware.budgets.envoy_route import Clusters
from meshaware.budgets.route import RouteConfig
from meshaware.errors import ConfigDumpError

__all__ = ["MAX_BYTES", "ConfigDump", "left_out", "outbound", "read_config_dump"]

MAX_BYTES = 64 << 20
"""Larger dumps are refused: 50 MB are 18 000 routes."""


class ConfigDump(NamedTuple):
    """
    What was read.

    Attributes:
        configs: The route configurations for outbound calls.
        namespace: Where the workload runs, if the dump tells.
        skipped: What was left out, by reason.
        dynamic: The dynamic route configurations, those that were left out too.
    """

    configs: tuple[RouteConfig, ...]
    namespace: str | None
    skipped: Mapping[str, int]
    dynamic: tuple[ReadConfig, ...] = ()


def read_config_dump(
    data: bytes | memoryview | str,
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
    reader = DumpReader(dict(clusters or {}), connect_timeout, keep)
    reader.read(data)
    if reader.late:
        reader = reader.again()
        reader.read(data)
    if not reader.complete:
        raise ConfigDumpError(
            f"config dump: has no routes, only {', '.join(reader.others)};"
            " ask for /config_dump?resource=dynamic_route_configs"
        )
    chosen, read, skipped = outbound(reader.dynamic), list(reader.dynamic), Counter[str]()
    if chosen:
        skipped["static route configuration"] += len(reader.static)
    else:
        chosen = outbound(reader.static)
        read += reader.static
    skipped.update(left_out(read))
    counted = {reason: count for reason, count in skipped.items() if count}
    return ConfigDump(chosen, reader.namespace, counted, tuple(reader.dynamic))


def outbound(read: Iterable[ReadConfig]) -> tuple[RouteConfig, ...]:
    """The route configurations that are for outbound calls."""
    return tuple(each.config for each in read if not each.left_out)


def left_out(read: Iterable[ReadConfig]) -> Counter[str]:
    """How much is not among the outbound routes, by reason."""
    reasons = Counter[str]()
    for each in read:
        if each.left_out:
            reasons[each.left_out] += 1
        elif each.filtered:
            reasons["virtual host that was not asked for"] += each.filtered
    return reasons
