"""Who is inside the mesh; and, by the same grammar, whether a host is one of those that somebody listed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from meshaware.errors import SettingsError

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

    _Network = IPv4Network | IPv6Network

__all__ = ["HostList", "HostPolicy"]

# 253 characters of name, a dot at its end, a colon and five digits of port.
_MAX_HOST = 260
_MAX_NAME = 253
_MAX_CACHED = 1024
_SHOWN = 80

_NAME = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*+[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_PORT = re.compile(r"(?::\d{0,5})?")
# What every resolver takes for an address, however it is written: 10.0.0.1, 167772161, 0xa000001.
_NUMBER = re.compile(r"(?:.*\.)?(?:\d+|0x[0-9a-f]*)")
_ADDRESS = re.compile(r"[0-9a-f:.]+")

# Single labels that /etc/hosts gives to the machine itself.
_ONESELF = frozenset({"localhost", "localhost4", "localhost6", "ip6-localhost", "ip6-loopback", "loopback"})


class HostList:
    """
    Tells which hosts are listed, and knows no others: neither single labels nor those of the cluster are on it.

    Port and case do not matter, nor does a dot at the end of a name.

    Args:
        hosts: Hosts (`api.corp.example`), suffixes (`.corp.example` or `*.corp.example`: everything under it, not
            itself), addresses and networks (`10.0.0.7`, `fd00::/8`); as one string, with commas between.
        variable: What the error names: where people list them.

    Raises:
        SettingsError: A host is none of these.
    """

    __slots__ = ("_cache", "_names", "_networks", "_suffixes")

    def __init__(self, hosts: Iterable[str] = (), *, variable: str) -> None:
        names: set[str] = set()
        suffixes: set[str] = set()
        networks: list[_Network] = []
        for item in hosts.split(",") if isinstance(hosts, str) else hosts:
            word = item.strip().lower()
            if not word:
                continue
            suffix = word.removeprefix("*").removesuffix(".")
            if suffix.startswith("."):
                if not _is_name(suffix[1:]):
                    raise _refusal(variable, item)
                suffixes.add(suffix)
            elif _is_name(word.removesuffix(".")) and not _NUMBER.fullmatch(word):
                names.add(word.removesuffix("."))
            else:
                networks.append(_network(variable, item, word))
        self._names = frozenset(names)
        self._suffixes = tuple(sorted(suffixes))
        self._networks = tuple(networks)
        self._cache: dict[str | bytes, bool] = {}

    def inside(self, host: str | bytes) -> bool:
        """
        Tell whether a host belongs to these. What cannot be read as a host does not.

        Args:
            host: As it stands in a URL or in a `Host` header, with or without a port.
        """
        known = self._cache.get(host)
        if known is not None:
            return known
        # Over-long ones are not remembered: whoever can choose hosts could fill the memory with them.
        if len(host) > _MAX_HOST:
            return False
        name = _name_of(host)
        verdict = name is not None and self._judge(name)
        if len(self._cache) >= _MAX_CACHED:
            self._cache.clear()
        self._cache[host] = verdict
        return verdict

    def _judge(self, name: str) -> bool:
        name = name.removesuffix(".")
        if name in self._names or name.endswith(self._suffixes):
            return True
        return bool(self._networks) and (":" in name or _NUMBER.fullmatch(name) is not None) and self._in_network(name)

    def _in_network(self, name: str) -> bool:
        from ipaddress import ip_address  # noqa: PLC0415 (only where addresses are listed)

        try:
            address = ip_address(name)
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any(address in network or (mapped is not None and mapped in network) for network in self._networks)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HostList) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def __repr__(self) -> str:
        return f"HostList({self._listed()!r})"

    def _listed(self) -> list[str]:
        return [*sorted(self._names), *self._suffixes, *map(str, self._networks)]

    def _identity(self) -> tuple[object, ...]:
        return (self._names, self._suffixes, frozenset(self._networks))


class HostPolicy(HostList):
    """
    Tells which hosts are inside the mesh: those that get the headers of a request.

    Inside are single labels (`orders`), `*.svc`, everything under the cluster's domain,
    `*.svc.clusterset.local`, and what is listed. Everything else is outside; so are `localhost` and every
    address, unless listed. A name of two labels (`orders.shop`) is outside as well: it may be a public one.
    Port and case do not matter, nor does a dot at the end of more than one label.

    Args:
        mesh_hosts: Further hosts (`api.corp.example`), suffixes (`.corp.example` or `*.corp.example`:
            everything under it, not itself), addresses and networks (`10.0.0.7`, `fd00::/8`).
        cluster_domain: DNS domain of the cluster.
        trace_hosts: Hosts outside the mesh that get the trace context, and nothing else; written as `mesh_hosts` are.

    Raises:
        SettingsError: A host is none of these.
    """

    __slots__ = ("_domain", "_traced")

    def __init__(
        self,
        mesh_hosts: Iterable[str] = (),
        *,
        cluster_domain: str = "cluster.local",
        trace_hosts: Iterable[str] = (),
    ) -> None:
        domain = cluster_domain.strip().lower().strip(".")
        if not _is_name(domain):
            raise SettingsError(
                f"MESHAWARE_CLUSTER_DOMAIN={_shown(cluster_domain)}: no DNS domain such as cluster.local"
            )
        super().__init__(mesh_hosts, variable="MESHAWARE_MESH_HOSTS")
        self._domain = domain
        self._traced = HostList(trace_hosts, variable="MESHAWARE_TRACE_HOSTS")

    def traced(self, host: str | bytes) -> bool:
        """Tell whether a host gets the trace context though it is outside; meaningless for one inside."""
        return self._traced.inside(host)

    def _judge(self, name: str) -> bool:
        if super()._judge(name):
            return True
        absolute = name.endswith(".")
        name = name.removesuffix(".")
        if ":" in name or _NUMBER.fullmatch(name):
            return False
        if "." not in name:
            # With a dot at its end it is a top-level domain, not a name that the cluster completes.
            return not absolute and name not in _ONESELF
        return name.endswith((".svc", "." + self._domain, ".svc.clusterset.local"))

    def __repr__(self) -> str:
        traced = f", trace_hosts={listed!r}" if (listed := self._traced._listed()) else ""  # noqa: SLF001 (its own class)
        return f"HostPolicy({self._listed()!r}, cluster_domain={self._domain!r}{traced})"

    def _identity(self) -> tuple[object, ...]:
        return (self._domain, self._traced, *super()._identity())


def _name_of(host: str | bytes) -> str | None:
    """Give the host without port and brackets, lower-case; None for what is no host."""
    if not host.isascii():
        return None
    text = (host.decode("ascii") if isinstance(host, bytes) else host).lower()
    if text.startswith("["):
        inner, bracket, port = text[1:].partition("]")
        complete = bracket and ":" in inner and _ADDRESS.fullmatch(inner) and _PORT.fullmatch(port)
        return inner if complete else None
    if text.count(":") > 1:
        return text if _ADDRESS.fullmatch(text) else None
    name, colon, port = text.partition(":")
    return name if _is_name(name.removesuffix(".")) and _PORT.fullmatch(colon + port) else None


def _is_name(text: str) -> bool:
    return len(text) <= _MAX_NAME and _NAME.fullmatch(text) is not None


def _network(variable: str, item: str, word: str) -> _Network:
    from ipaddress import ip_network  # noqa: PLC0415 (only where addresses are listed)

    if word.startswith("[") and word.endswith("]"):
        word = word[1:-1]
    try:
        return ip_network(word)
    except ValueError as error:
        raise _refusal(variable, item, has_host="host bits" in str(error)) from error


def _refusal(variable: str, item: str, *, has_host: bool = False) -> SettingsError:
    hint = "a network has no host: 10.0.0.0/8" if has_host else "no scheme, port or path; xn-- where not ASCII"
    return SettingsError(
        f"{variable} names {_shown(item)}. Write a host (api.corp.example), a suffix"
        f" (.corp.example), an address or a network ({hint})"
    )


def _shown(item: str) -> str:
    return repr(item if len(item) <= _SHOWN else item[:_SHOWN] + "...")
