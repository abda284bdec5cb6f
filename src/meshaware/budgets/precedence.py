"""
Which VirtualServices govern a host, and in which order: the part of istiod that chooses between them.

Sources in Istio: SelectVirtualServices and initVirtualServices (pilot/pkg/model), BuildHTTPRoutesForVirtualService and
separateVSHostsAndServices (pilot/pkg/networking/core/route), buildVirtualHost (httproute.go). All of it is read from
source; no running istiod was asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from meshaware.budgets.budget import Budget
from meshaware.budgets.conditions import Caller
from meshaware.budgets.delegates import resolve
from meshaware.budgets.destination_rule import DestinationRules
from meshaware.budgets.domains import Namespace
from meshaware.budgets.route import Entry, Route, RouteMatch
from meshaware.budgets.virtual_service import Rule, VirtualService

__all__ = ["Chooser"]

_Rank = tuple[int, bool, bool, str, str, str]


class Chooser:
    """
    Chooses for one sidecar.

    Args:
        home: Where it runs.
        caller: What is known of its workload.
        rules: The DestinationRules that it goes by.
        connect_timeout: What counts where they say nothing.
    """

    def __init__(self, home: Namespace, caller: Caller, rules: DestinationRules, connect_timeout: float | None) -> None:
        self._home = home
        self._caller = caller
        self._rules = rules
        self._connect_timeout = connect_timeout

    def hosts(self, given: Sequence[VirtualService], skipped: Counter[str]) -> Mapping[str, tuple[Entry, ...]]:
        """
        The routes of each host, by its full name.

        Of several VirtualServices for one host the first by rank has it, and they are not merged. One that has no
        rule for this caller and this port leaves it to the next of that very name, but not to a wildcard: istiod
        looks for the most specific host first, and for rules in it afterwards.
        """
        delegates = {(service.namespace, service.name): service for service in reversed(given) if not service.hosts}
        hosts: dict[str, _Host] = {}
        for service in sorted(given, key=self._rank):
            reason = self._passed_over(service)
            if reason:
                skipped[f"{service.kind} {reason}"] += 1
                continue
            rules = resolve(service.rules, service.namespace, delegates)
            for name in service.hosts:
                host = self._home.full(name, service.namespace).removesuffix(".")
                governed = hosts.get(host)
                if governed is None:
                    governed = hosts[host] = _Host()
                elif governed.everywhere or host.startswith("*"):
                    skipped[f"{service.kind} for a host that another one has"] += 1
                    continue
                governed.add(self._entries(rules, host))
        return {host: tuple(governed.entries) for host, governed in hosts.items()}

    def _rank(self, service: VirtualService) -> _Rank:
        """As istiod ranks them: private to the namespace, exported to it, public; its own HTTPRoutes; the oldest."""
        public = service.kind == "HTTPRoute" or "*" in (service.export_to or ("*",))
        visibility = 2 if public else 0 if service.namespace == self._home.name else 1
        later = not (service.kind == "HTTPRoute" and service.namespace == self._home.name)
        if not service.created:
            # No date: sorting is stable, so the one read first stays first, behind those that are in a cluster already.
            return visibility, later, True, "", "", ""
        return visibility, later, False, service.created, service.name, service.namespace

    def _passed_over(self, service: VirtualService) -> str:
        if service.unused:
            return service.unused
        if not service.hosts:
            return "to delegate to"
        if service.gateways and "mesh" not in service.gateways:
            return "for gateways only"
        if not service.visible(self._home.name):
            return f"not exported to {self._home.name}"
        return ""

    def _entries(self, rules: Iterable[Rule], host: str) -> Iterator[tuple[Entry, bool]]:
        """What istiod makes of rules, and for each route whether it is sure that this sidecar has it."""
        for rule in rules:
            unknown = rule.delegate is not None
            note = ""
            if rule.delegate is not None:
                note = f"its delegate {'/'.join(rule.delegate)} is not among the manifests: no bound is assumed"
            connect_timeout = self._rules.connect_timeout(rule.destinations, self._connect_timeout)
            budget = Budget() if unknown else rule.budget(connect_timeout)
            route = Route(rule.name or rule.label, budget, rule.origin, host, rule.action, note)
            if not rule.conditions:
                yield Entry(RouteMatch(doubt=note), route), not unknown
                if not unknown:
                    return
            for condition in rule.conditions:
                applies = condition.applies(self._caller)
                if applies is False:
                    continue
                named = replace(route, name=f"{rule.name}.{condition.name}") if condition.name else route
                doubts = [note, "" if applies else "the caller's labels or namespace decide"]
                match = condition.route_match(doubt="; ".join(filter(None, doubts)))
                yield Entry(match, named), bool(applies) and not unknown


class _Host:
    """
    The routes of one host, and the ports on which it is taken by them.

    Attributes:
        entries: The routes.
        everywhere: Whether it is taken on every port, so that no further VirtualService can have it.
    """

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.everywhere = False
        self._ports: dict[int, None] = {}

    def add(self, entries: Iterable[tuple[Entry, bool]]) -> None:
        """Add the routes of the next VirtualService, for the ports that those before it leave."""
        before = tuple(self._ports)
        for entry, certain in entries:
            port = entry.match.port
            if port in before:
                continue
            self.entries.append(entry if port or not before else _elsewhere(entry, before))
            if certain and port:
                self._ports[port] = None
            self.everywhere = self.everywhere or (certain and not port)


def _elsewhere(entry: Entry, ports: tuple[int, ...]) -> Entry:
    return Entry(entry.match._replace(other_ports=ports), entry.route)
