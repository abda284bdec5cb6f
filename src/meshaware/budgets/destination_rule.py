"""
What DestinationRules say of connecting: how long a route's destination may take to be reached.

Sources in Istio: setDestinationRules, destinationRule and mergeDestinationRule (pilot/pkg/model), MergeTrafficPolicy
(pilot/pkg/networking/util). Reference: https://istio.io/latest/docs/reference/config/networking/destination-rule/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from meshaware.budgets.domains import Domains, Namespace
from meshaware.budgets.fields import Field, home_of, timestamp

__all__ = ["ROOT_NAMESPACE", "Destination", "DestinationRule", "DestinationRules", "Policy", "read_destination_rule"]

ROOT_NAMESPACE = "istio-system"
"""`rootNamespace` of the mesh's configuration where nobody set it: its rules hold for every namespace."""

_MAX_PORT = 65535


class Destination(NamedTuple):
    """Where a route leads: a host as it is written in `namespace`, and the port and subset of it, if they are said."""

    host: str
    namespace: str
    port: int = 0
    subset: str = ""


class Policy(NamedTuple):
    """
    A `trafficPolicy`, as far as it is about connecting; None is the mesh's default.

    Attributes:
        connect_timeout: Seconds.
        has_pool: Whether it has a `connectionPool` at all; one that has replaces that of the policy above it whole.
        ports: The `portLevelSettings`; each replaces all else for its port, so that None is the mesh's default there.
    """

    connect_timeout: float | None = None
    has_pool: bool = False
    ports: Mapping[int, float | None] = {}


class DestinationRule(NamedTuple):
    """One DestinationRule; `selector` is None where it holds for every workload."""

    name: str
    namespace: str
    host: str
    export_to: tuple[str, ...]
    selector: Mapping[str, str] | None
    policy: Policy | None
    subsets: Mapping[str, Policy | None]
    created: str

    def exported(self, namespace: str) -> bool:
        """Whether another namespace sees it; one that selects workloads is for its own namespace only."""
        return self.selector is None and (not self.export_to or "*" in self.export_to or namespace in self.export_to)

    @property
    def local(self) -> bool:
        """Whether its own namespace sees it."""
        home = {"*", ".", self.namespace}
        return self.selector is not None or not self.export_to or not home.isdisjoint(self.export_to)

    @property
    def private(self) -> bool:
        """Whether nobody but its own namespace sees it."""
        return self.selector is not None or (len(self.export_to) == 1 and self.export_to[0] in (".", self.namespace))


class DestinationRules:
    """
    The DestinationRules that a caller's sidecar goes by.

    Args:
        rules: All there are, in the order in which they were read.
        home: Where the caller runs.
        labels: The caller's labels, for rules that select workloads; None if they are not known.
        root: The mesh's root namespace.
    """

    def __init__(
        self,
        rules: Iterable[DestinationRule],
        home: Namespace,
        labels: Mapping[str, str] | None,
        root: str = ROOT_NAMESPACE,
    ) -> None:
        self._home = home
        self._root = root
        self._labels = labels
        local: dict[str, list[DestinationRule]] = {}
        exported: dict[str, dict[str, list[DestinationRule]]] = {}
        for rule in sorted(rules, key=_age):
            host = home.full(rule.host, rule.namespace).removesuffix(".")
            if rule.namespace == home.name and rule.local and (home.name != root or rule.private):
                local.setdefault(host, []).append(rule)
            if not rule.private and rule.exported(home.name):
                exported.setdefault(rule.namespace, {}).setdefault(host, []).append(rule)
        self._local = Domains(local.items())
        self._exported = {namespace: Domains(hosts.items()) for namespace, hosts in exported.items()}

    def connect_timeout(self, destinations: Iterable[Destination], otherwise: float | None) -> float | None:
        """
        The seconds that connecting may take at most, whichever of the destinations is chosen.

        Where a destination has no port, it is the service's own or the one that is called: then the largest of those
        that the rules tell apart. `otherwise` counts where no rule says anything.
        """
        found: set[float | None] = set()
        for destination in destinations:
            found.update(self._of(destination))
        seconds = [otherwise if each is None else each for each in found or {None}]
        return max((each for each in seconds if each is not None), default=None)

    def _of(self, destination: Destination) -> set[float | None]:
        host = self._home.full(destination.host, destination.namespace).removesuffix(".")
        found: set[float | None] = set()
        for policy, subsets in self._chosen(host):
            policies = (policy, subsets.get(destination.subset) if destination.subset else None)
            ports = {0, *(port for each in policies if each is not None for port in each.ports)}
            found.update(_applied(policies, port) for port in ({destination.port} if destination.port else ports))
        return found

    def _chosen(self, host: str) -> list[tuple[Policy | None, Mapping[str, Policy | None]]]:
        """The rule for a host: of the caller's namespace, else of the service's, else of the root namespace."""
        places = [self._local]
        places += [self._exported[name] for name in (self._home.owner(host), self._root) if name in self._exported]
        rules = next((found for place in places if (found := place.find(host)) is not None), list[DestinationRule]())
        selecting = [rule for rule in rules if rule.selector is not None]
        general = [rule for rule in rules if rule.selector is None]
        labels = self._labels
        if labels is not None:
            selecting = [rule for rule in selecting if (rule.selector or {}).items() <= labels.items()][:1]
            general = [] if selecting else general
        # Where it is not known whether any selects this workload, none may: then it is what holds for all, or nothing.
        return [(rule.policy, rule.subsets) for rule in selecting] + (
            [_merged(general)] if general or labels is None or not selecting else []
        )


def read_destination_rule(field: Field, namespace: str) -> DestinationRule:
    """
    Read a document.

    Args:
        field: The whole document.
        namespace: Where it is if its metadata do not say.

    Raises:
        ManifestError: It is not what Istio accepts.
    """
    name, home, metadata = home_of(field, "DestinationRule", namespace)
    spec = field.need("spec", "must have a host")
    exported, selector, subsets = spec.get("exportTo"), spec.get("workloadSelector"), spec.get("subsets")
    labels = None if selector is None else selector.get("matchLabels")
    return DestinationRule(
        name=name,
        namespace=home,
        host=spec.need("host", "must be the host that it is for").text().lower(),
        export_to=() if exported is None else exported.texts(),
        selector=None if labels is None else {key: value.text() for key, value in labels.entries()},
        policy=_policy(spec.get("trafficPolicy")),
        subsets={} if subsets is None else dict(_subset(subset) for subset in reversed(list(subsets.elements()))),
        created=timestamp(metadata.get("creationTimestamp")),
    )


def _subset(field: Field) -> tuple[str, Policy | None]:
    return field.need("name", "must be the name of the subset").text(), _policy(field.get("trafficPolicy"))


def _policy(field: Field | None) -> Policy | None:
    if field is None:
        return None
    ports: dict[int, float | None] = {}
    settings = field.get("portLevelSettings")
    for setting in () if settings is None else settings.elements():
        port = setting.need("port", "must have the number of the port").need("number", "must be the port")
        ports.setdefault(port.whole(1, _MAX_PORT), _connect_timeout(setting.get("connectionPool")))
    pool = field.get("connectionPool")
    return Policy(_connect_timeout(pool), pool is not None, ports)


def _connect_timeout(pool: Field | None) -> float | None:
    tcp = None if pool is None else pool.get("tcp")
    said = None if tcp is None else tcp.get("connectTimeout")
    return None if said is None else said.duration()


def _age(rule: DestinationRule) -> tuple[bool, bool, str, str]:
    return rule.selector is None, not rule.created, rule.created, rule.name if rule.created else ""


def _merged(rules: Iterable[DestinationRule]) -> tuple[Policy | None, Mapping[str, Policy | None]]:
    """Several rules of a namespace for one host: the oldest policy there is, and all subsets, the oldest of a name."""
    policy: Policy | None = None
    subsets: dict[str, Policy | None] = {}
    for rule in rules:
        policy = rule.policy if policy is None else policy
        for name, subset in rule.subsets.items():
            subsets.setdefault(name, subset)
    return policy, subsets


def _applied(policies: Iterable[Policy | None], port: int) -> float | None:
    """One policy upon the other, for a port; 0 is a port that none of them names."""
    seconds: float | None = None
    for policy in policies:
        if policy is not None and port in policy.ports:
            seconds = policy.ports[port]
        elif policy is not None and policy.has_pool:
            seconds = policy.connect_timeout
    return seconds
