"""
What Services and ServiceEntries among the manifests tell of hosts: further names and addresses they are called by.

Source: generateVirtualHostDomains in Istio's httproute.go. Nothing is said of what is not among the manifests, so a
host without either is taken as known to the mesh. They are read as they are found: they bound no call.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from meshaware.budgets.domains import Namespace

__all__ = ["Registry"]


class Registry:
    """
    The Services and ServiceEntries that were read.

    Args:
        home: Where the caller runs.
    """

    def __init__(self, home: Namespace) -> None:
        self._home = home
        self._addresses: dict[str, list[str]] = {}
        self._headless: set[str] = set()
        self._entries: dict[tuple[str, str], tuple[str, ...]] = {}

    def add(self, kind: str, resource: Mapping[str, Any]) -> None:
        """Take a document of kind `Service` or `ServiceEntry`; what it should have and has not is left out."""
        metadata, spec = _mapping(resource.get("metadata")), _mapping(resource.get("spec"))
        name, namespace = metadata.get("name"), metadata.get("namespace", self._home.name)
        if not isinstance(name, str) or not isinstance(namespace, str):
            return
        if kind == "Service":
            self._add_service(self._home.full(name, namespace), spec)
            return
        hosts = tuple(host.lower() for host in _texts(spec.get("hosts")))
        self._entries[namespace, name] = hosts
        exported = {namespace if each == "." else each for each in _texts(spec.get("exportTo")) or ["*"]}
        if "*" in exported or self._home.name in exported:
            for host in hosts:
                self._addresses.setdefault(host, []).extend(_texts(spec.get("addresses")))

    def _add_service(self, host: str, spec: Mapping[str, Any]) -> None:
        addresses = [*_texts(spec.get("clusterIPs")), *_texts([spec.get("clusterIP")])]
        if "None" in addresses:
            self._headless.add(host)
        else:
            self._addresses.setdefault(host, []).extend(addresses)

    def entry(self, namespace: str, name: str) -> tuple[str, ...] | None:
        """The hosts of a ServiceEntry, or None if it is not among the manifests."""
        return self._entries.get((namespace, name))

    def domains(self, host: str) -> tuple[str, ...]:
        """Every domain by which the caller reaches a host, which is a full name or one outside the cluster."""
        if host.startswith("*"):
            return (host,)
        names = self._home.names(host)
        if host in self._headless:
            names += tuple(f"*.{name}" for name in names)
        # A range of addresses is no domain that a `Host` could name.
        addresses = (each for each in self._addresses.get(host, ()) if each and "/" not in each)
        return tuple(dict.fromkeys((*names, *(f"[{each}]" if ":" in each else each for each in addresses))))


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}


def _texts(value: object) -> list[str]:
    return [each for each in cast("list[object]", value) if isinstance(each, str)] if isinstance(value, list) else []
