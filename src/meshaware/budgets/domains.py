"""Which virtual host a request belongs to, by its `Host` header; and the names by which a service is called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Generic, NamedTuple, TypeVar

__all__ = ["Domains", "Namespace", "split_authority"]

T = TypeVar("T")


class Domains(Generic[T]):
    """
    The domains of a route configuration, and what each stands for.

    Envoy's precedence: the exact domain, the longest `*suffix`, the longest `prefix*`, then `*`. A star stands for at
    least one character, and not only for whole labels. Source: RouteMatcher::findVirtualHost.

    Args:
        domains: What each domain stands for, the first of equal ones counts; case is ignored.
    """

    __slots__ = ("_default", "_exact", "_prefixes", "_suffixes")

    def __init__(self, domains: Iterable[tuple[str, T]]) -> None:
        self._exact: dict[str, T] = {}
        self._default: T | None = None
        suffixes: dict[int, dict[str, T]] = {}
        prefixes: dict[int, dict[str, T]] = {}
        for name, value in domains:
            domain = name.lower()
            if "*" not in domain:
                self._exact.setdefault(domain, value)
            elif domain == "*":
                self._default = value if self._default is None else self._default
            elif domain.startswith("*"):
                suffixes.setdefault(len(domain) - 1, {}).setdefault(domain[1:], value)
            elif domain.endswith("*"):
                prefixes.setdefault(len(domain) - 1, {}).setdefault(domain[:-1], value)
            else:
                self._exact.setdefault(domain, value)
        self._suffixes = _longest_first(suffixes)
        self._prefixes = _longest_first(prefixes)

    def exact(self, host: str) -> T | None:
        """What the very domain stands for; `host` is in lower case."""
        return self._exact.get(host)

    def wildcard(self, host: str) -> tuple[str, T] | None:
        """The longest wildcard that fits, `*` aside, and what it stands for."""
        for length, values in self._suffixes:
            if length < len(host) and (found := values.get(host[-length:])) is not None:
                return f"*{host[-length:]}", found
        for length, values in self._prefixes:
            if length < len(host) and (found := values.get(host[:length])) is not None:
                return f"{host[:length]}*", found
        return None

    def find(self, host: str) -> T | None:
        """What `host` belongs to, or None; `host` is in lower case."""
        fitting = self.fitting(host)
        return None if fitting is None else fitting[1]

    def fitting(self, host: str) -> tuple[str, T] | None:
        """The domain that `host` belongs to and what it stands for, or None; `host` is in lower case."""
        found = self.exact(host)
        if found is not None:
            return host, found
        by_wildcard = self.wildcard(host)
        return by_wildcard if by_wildcard is not None or self._default is None else ("*", self._default)

    @property
    def default(self) -> T | None:
        """What `*` stands for."""
        return self._default


def _longest_first(by_length: Mapping[int, dict[str, T]]) -> tuple[tuple[int, dict[str, T]], ...]:
    return tuple(sorted(by_length.items(), reverse=True, key=lambda item: item[0]))


def split_authority(authority: str) -> tuple[str, int | None]:
    """
    Take a `Host` header apart: the host in lower case, and the port or None.

    What stands behind the last colon outside brackets is the port, and no part of the host even if it is no number, as
    Envoy has it.
    """
    host = authority.lower()
    colon = host.rfind(":")
    if colon < 0 or host.rfind("]") > colon:
        return host, None
    digits = host[colon + 1 :]
    port = int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 5 else None
    return host[:colon], port


class Namespace(NamedTuple):
    """
    Where the caller runs, which decides what short names mean.

    Istio generates a service's domains with it: `inventory` in its own namespace only, `inventory.shop` and
    `inventory.shop.svc` everywhere. Source: generateVirtualHostDomains in Istio's httproute.go.
    """

    name: str
    cluster_domain: str = "cluster.local"

    def full(self, host: str, namespace: str | None = None) -> str:
        """The full name of a VirtualService's host: without a dot it is a service of its namespace."""
        if "." in host or host == "*":
            return host.lower()
        return f"{host}.{namespace or self.name}.svc.{self.cluster_domain}".lower()

    def owner(self, host: str) -> str:
        """The namespace of the service that a full name is of; empty if it is none of the cluster's."""
        service = host.removesuffix(f".svc.{self.cluster_domain}".lower())
        return service.partition(".")[2] if service != host and service.count(".") == 1 else ""

    def names(self, host: str) -> tuple[str, ...]:
        """Every domain by which a caller here reaches a host, which is a full name or one outside the cluster."""
        bare = host.removesuffix(".")
        names = [bare, f"{bare}."]
        suffix = f".svc.{self.cluster_domain}".lower()
        service = bare.removesuffix(suffix)
        if service != bare and "." in service:
            short, _, namespace = service.partition(".")
            names += [service, f"{service}.svc"]
            if namespace == self.name.lower():
                names.append(short)
        return tuple(names)

    def services(self, host: str) -> tuple[str, bool]:
        """
        The full name that a request's host has if it is a service's short name.

        Returns:
            The name, and whether the host can only be one; a name with one dot may as well be outside the cluster.
        """
        cluster = f"svc.{self.cluster_domain}".lower()
        if "." not in host:
            return f"{host}.{self.name.lower()}.{cluster}", True
        if host.endswith(".svc"):
            return f"{host}.{self.cluster_domain}".lower(), True
        return (f"{host}.{cluster}", False) if host.count(".") == 1 else ("", False)
