"""Configuration handed to a running Envoy through files, and how it says what it has taken."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

__all__ = [
    "CLUSTERS",
    "LISTENERS",
    "REFUSALS_QUERY",
    "ROUTES",
    "Resources",
    "accepted_version",
    "publish",
    "refusals",
    "routes_of_port",
]

REFUSALS_QUERY = "/stats?filter=update_rejected&format=json"


class Resources(NamedTuple):
    """A kind of resource: the file it is handed over in, its type, and where the admin says its version."""

    file: str
    type: str
    query: str
    version_in: str


CLUSTERS = Resources(
    "clusters.json",
    "type.googleapis.com/envoy.config.cluster.v3.Cluster",
    "/config_dump?mask=version_info",
    "ClustersConfigDump",
)
LISTENERS = Resources(
    "listeners.json",
    "type.googleapis.com/envoy.config.listener.v3.Listener",
    "/config_dump?mask=version_info",
    "ListenersConfigDump",
)


def _routes(file: str, name: str) -> Resources:
    return Resources(
        file,
        "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        f"/config_dump?resource=dynamic_route_configs&mask=version_info&name_regex=%5E{name}%24",
        "DynamicRouteConfig",
    )


ROUTES = _routes("routes.json", "http_proxy")


def routes_of_port(port: int) -> Resources:
    """The routes of the listener of one port, where each port has one."""
    return _routes(f"routes-{port}.json", str(port))


def publish(directory: Path, resources: Resources, items: Sequence[dict[str, Any]]) -> str:
    """
    Write the resources for the Envoy that watches this directory; return their version.

    The version is a digest of the content, because Envoy keeps the old version when the content did not change.
    There must be an item: of an empty list Envoy notes no version.
    """
    content = [{"@type": resources.type, **item} for item in items]
    version = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    file = directory / resources.file
    # Envoy watches for files that are moved into the directory, and so never reads half of one.
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps({"version_info": version, "resources": content}, indent=1), encoding="utf-8")
    os.replace(fresh, file)  # noqa: PTH105
    return version


def accepted_version(resources: Resources, body: bytes) -> str | None:
    """Read the version from the admin's answer; None when nothing has been taken yet."""
    for config in json.loads(body).get("configs", ()):
        if config["@type"].endswith(resources.version_in):
            version: str | None = config.get("version_info")
            return version
    return None


def refusals(body: bytes) -> int:
    """Read from the admin's answer to `REFUSALS_QUERY` how often Envoy has refused what it was given."""
    return sum(stat.get("value", 0) for stat in json.loads(body)["stats"])
