"""
Which virtual hosts a call may belong to: by its port the route configuration, in it by its host the virtual host.

Usually that is one. Where the sidecar knows more than can be known here, all that it may be are told.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshaware.budgets.domains import Domains, Namespace, split_authority
from meshaware.budgets.match import Compiled, Tests, compile_entries
from meshaware.budgets.route import RouteConfig, RouteMatch, VirtualHost

__all__ = ["Choice", "Entries"]

Entries = tuple[Compiled, ...]
"""The routes of a virtual host, ready to be asked in order."""


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
        host, written = split_authority(authority)
        called = port or written or 80
        asked = authority.lower() if written is not None or called == 80 else f"{authority.lower()}:{called}"
        found: list[Entries] = []
        for config in self._configs(host, called):
            lists = config.find(host, asked, self._namespace)
            found.extend(lists if config.every_port else (_on_port(entries, called) for entries in lists))
        return tuple(found)

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
    return tuple(entry for entry in entries if entry.port in (0, port) and port not in entry.other_ports)


class _Config:
    __slots__ = ("_domains", "_ignore_parameters", "_ignore_port", "_known", "_made_here", "_ready", "every_port")

    def __init__(self, config: RouteConfig) -> None:
        self._ignore_port, self._ignore_parameters = config.ignore_port, config.ignore_parameters
        self._made_here = not config.name
        self._domains = Domains((domain, host) for host in config.hosts for domain in host.domains)
        # Of the thousands of hosts that a sidecar knows, a workload calls a few: those are made ready.
        self._ready: dict[int, Entries] = {}
        self._known: dict[RouteMatch, tuple[Tests, str]] = {}
        # Whether no route asks for the port: Envoy's own never do.
        self.every_port = not any(
            entry.match.port or entry.match.other_ports for host in config.hosts for entry in host.entries
        )

    def knows(self, host: str) -> bool:
        return self._domains.exact(host) is not None or self._domains.wildcard(host) is not None

    def find(self, host: str, asked: str, namespace: Namespace | None) -> list[Entries]:
        if not self._made_here or namespace is None:
            found = self._domains.find(host if self._ignore_port else asked)
            hosts = [] if found is None else [found]
        else:
            hosts = self._find_service(host, namespace)
        return [self._entries(virtual_host) for virtual_host in hosts]

    def _entries(self, host: VirtualHost) -> Entries:
        entries = self._ready.get(id(host))
        if entries is None:
            entries = compile_entries(host.entries, ignore_parameters=self._ignore_parameters, known=self._known)
            self._ready[id(host)] = entries
        return entries

    def _find_service(self, host: str, namespace: Namespace) -> list[VirtualHost]:
        """
        As Istio finds a VirtualService for a host: by name, else by the wildcard that fits the service's full name.

        Whether a name with one dot is a service or a host outside, only the registry knows: then both stay in play.
        """
        found = self._domains.exact(host)
        if found is not None:
            return [found]
        bare = host.removesuffix(".")
        service, certain = namespace.services(host)
        by_service = self._domains.wildcard(service) if service else None
        by_name = None if certain and by_service is not None else self._domains.wildcard(bare)
        either = [virtual_host for virtual_host in (by_service, by_name) if virtual_host is not None]
        if either and (certain or by_name is not None or not service):
            return either
        return either + ([] if self._domains.default is None else [self._domains.default])
