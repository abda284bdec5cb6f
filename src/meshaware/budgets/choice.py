"""
Which virtual hosts a call may belong to: by its port the route configuration, in it by its host the virtual host.

Usually that is one. Where the sidecar knows more than can be known here, all that it may be are told.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from meshaware.budgets.domains import Domains, Namespace, split_authority
from meshaware.budgets.folded import domains_of
from meshaware.budgets.match import Compiled, Tests, compile_entries
from meshaware.budgets.route import RouteConfig, RouteMatch, VirtualHost

__all__ = ["Choice", "Entries", "Place", "is_for"]

Entries = tuple[Compiled, ...]
"""The routes of a virtual host, ready to be asked in order."""


class Place(NamedTuple):
    """
    A virtual host that a call may belong to, and why.

    Attributes:
        config: The name of its route configuration; empty if it is made from manifests.
        host: The virtual host.
        asked: The name that was looked for: the call's host, or the full name of the service that it means.
        domain: The domain of the virtual host that fits it.
        entries: Its routes, ready, those for other ports among them.
        ignore_parameters: Whether paths are compared without their parameters.
    """

    config: str
    host: VirtualHost
    asked: str
    domain: str
    entries: Entries
    ignore_parameters: bool


class Choice:
    """
    The virtual hosts of a table, found by host and port.

    A configuration whose name is a port serves the calls to that port; one named `host:port` those to that service;
    one with any other name (`http_proxy`, or a name of somebody's own) serves a port that has none of its own. A
    port that nothing serves passes the sidecar as plain TCP: there is no route then.

    Args:
        configs: The route configurations.
        namespace: Where the caller runs; None if that is not known.
    """

    __slots__ = ("_by_port", "_general", "_namespace", "_sniffed")

    def __init__(self, configs: Iterable[RouteConfig], namespace: Namespace | None) -> None:
        self._by_port: dict[int, _Config] = {}
        self._sniffed: dict[int, list[tuple[str, _Config]]] = {}
        self._general: list[_Config] = []
        self._namespace = namespace
        for config in configs:
            host, port = split_authority(config.name)
            if config.name.isascii() and config.name.isdigit() and len(config.name) <= 5:
                self._by_port.setdefault(int(config.name), _Config(config))
            elif port is not None and "/" not in host:
                self._sniffed.setdefault(port, []).append((host, _Config(config)))
            else:
                self._general.append(_Config(config))

    def find(self, authority: str, port: int | None) -> tuple[Entries, ...]:
        """
        The lists of routes that a call may be matched with, without those for other ports.

        Args:
            authority: The `Host` header, with or without a port.
            port: The port that is called; None: the one in the header, else 80.
        """
        called = self.port(authority, port)
        return tuple(_on_port(place.entries, called) for place in self.places(authority, port))

    def places(self, authority: str, port: int | None) -> list[Place]:
        """The virtual hosts that a call may belong to; the arguments are those of `find`."""
        host, written = split_authority(authority)
        called = self.port(authority, port)
        asked = authority.lower() if written is not None or called == 80 else f"{authority.lower()}:{called}"
        return [place for config in self._configs(host, called) for place in config.find(host, asked, self._namespace)]

    @staticmethod
    def port(authority: str, port: int | None) -> int:
        """The port that is called."""
        return port or split_authority(authority)[1] or 80

    def serves(self, authority: str, port: int | None) -> bool:
        """Whether there is a route configuration for calls to that port; without one they are plain TCP."""
        return bool(self._configs(split_authority(authority)[0], self.port(authority, port)))

    def _configs(self, host: str, port: int) -> list[_Config]:
        sniffed = [config for name, config in self._sniffed.get(port, ()) if self._means(host, name)]
        if sniffed:
            return sniffed
        if port in self._by_port:
            return [self._by_port[port]]
        knowing = [config for config in self._general if config.knows(host)]
        return knowing or self._general

    def _means(self, host: str, service: str) -> bool:
        """Whether a host can be a name of a service; without a namespace any service may be near enough."""
        if self._namespace is None:
            name, _, rest = service.partition(".")
            return host in Namespace(rest.partition(".")[0]).names(service) or host == name
        return host in self._namespace.names(service)


def _on_port(entries: Entries, port: int) -> Entries:
    if all(is_for(entry, port) for entry in entries):
        return entries
    return tuple(entry for entry in entries if is_for(entry, port))


def is_for(entry: Compiled, port: int) -> bool:
    """Whether a route is for calls to that port; Envoy's own always are."""
    return entry.port in (0, port) and port not in entry.other_ports


class _Config:
    __slots__ = ("_domains", "_hosts", "_ignore_parameters", "_ignore_port", "_known", "_made_here", "_name", "_ready")

    def __init__(self, config: RouteConfig) -> None:
        self._ignore_port, self._ignore_parameters = config.ignore_port, config.ignore_parameters
        self._name, self._made_here = config.name, not config.name
        self._hosts = config.hosts
        numbered = enumerate(domains_of(config.hosts))
        self._domains = Domains((domain, number) for number, domains in numbered for domain in domains)
        # Of the thousands of hosts that a sidecar knows, a workload calls a few: those are made ready.
        self._ready: dict[int, Entries] = {}
        self._known: dict[RouteMatch, tuple[Tests, str]] = {}

    def knows(self, host: str) -> bool:
        return self._domains.exact(host) is not None or self._domains.wildcard(host) is not None

    def find(self, host: str, asked: str, namespace: Namespace | None) -> list[Place]:
        if self._made_here and namespace is not None:
            return self._find_service(host, namespace)
        name = host if self._ignore_port else asked
        return self._places((name, self._domains.fitting(name)))

    def _places(self, *found: tuple[str, tuple[str, int] | None]) -> list[Place]:
        return [
            Place(self._name, self._hosts[each[1]], asked, each[0], self._entries(each[1]), self._ignore_parameters)
            for asked, each in found
            if each is not None
        ]

    def _entries(self, number: int) -> Entries:
        entries = self._ready.get(number)
        if entries is None:
            told = self._hosts[number].entries
            entries = compile_entries(told, ignore_parameters=self._ignore_parameters, known=self._known)
            self._ready[number] = entries
        return entries

    def _find_service(self, host: str, namespace: Namespace) -> list[Place]:
        """
        As Istio finds a VirtualService for a host: by name, else by the wildcard that fits the service's full name.

        Whether a name with one dot is a service or a host outside, only the registry knows: then both stay in play.
        """
        found = self._domains.exact(host)
        if found is not None:
            return self._places((host, (host, found)))
        bare = host.removesuffix(".")
        service, certain = namespace.services(host)
        by_service = self._domains.wildcard(service) if service else None
        by_name = None if certain and by_service is not None else self._domains.wildcard(bare)
        either = self._places((service, by_service), (bare, by_name))
        if either and (certain or by_name is not None or not service):
            return either
        default = self._domains.default
        return either + self._places((bare, None if default is None else ("*", default)))
