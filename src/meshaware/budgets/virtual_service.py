"""
One VirtualService as a caller's sidecar gets it: its rules, checked, with the time they allow.

Reference: https://istio.io/latest/docs/reference/config/networking/virtual-service/ (v1, v1beta1 and v1alpha3 are the
same). Unknown fields are left alone; what is read is checked as Istio's webhook checks it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from meshaware.budgets.budget import DEFAULT_RETRY_ON, Budget
from meshaware.budgets.conditions import Condition, read_condition
from meshaware.budgets.destination_rule import Destination
from meshaware.budgets.fields import Field, home_of, timestamp

__all__ = ["DEFAULT_ATTEMPTS", "VERSIONS", "Retries", "Rule", "VirtualService", "read_virtual_service"]

VERSIONS = tuple(f"networking.istio.io/{version}" for version in ("v1", "v1beta1", "v1alpha3"))

_RETRY_ON = frozenset({
    "5xx",
    "cancelled",
    "connect-failure",
    "deadline-exceeded",
    "envoy-ratelimited",
    "gateway-error",
    "http3-post-connect-failure",
    "internal",
    "refused-stream",
    "reset",
    "reset-before-request",
    "resource-exhausted",
    "retriable-4xx",
    "retriable-headers",
    "retriable-status-codes",
    "unavailable",
})  # fmt: skip
_MAX_ATTEMPTS = (1 << 31) - 1
_STATUS = range(100, 600)
_MAX_WEIGHT = (1 << 31) - 1

DEFAULT_ATTEMPTS = 2
"""Istio's retries where a route does not say, on `DEFAULT_RETRY_ON`: https://istio.io/latest/docs/concepts/traffic-management/#retries"""


class Retries(NamedTuple):
    """What a rule's `retries` says; zero attempts switch retries off."""

    attempts: int
    per_try_timeout: float | None = None
    retry_on: frozenset[str] = DEFAULT_RETRY_ON
    backoff: float | None = None


class Rule(NamedTuple):
    """
    One element of `spec.http`; of an HTTPRoute, one of a rule's matches.

    None is what the rule does not say: Istio's default then, or what a rule that delegates to it says. `delegate` is
    namespace and name. Without conditions it holds for every request.
    """

    name: str
    conditions: tuple[Condition, ...]
    timeout: float | None
    retries: Retries | None
    delay: float | None
    action: Literal["route", "redirect", "direct_response"]
    delegate: tuple[str, str] | None
    label: str
    origin: str
    destinations: tuple[Destination, ...] = ()

    def budget(self, connect_timeout: float | None) -> Budget:
        """The time that the rule allows; none where Envoy answers itself."""
        if self.action != "route":
            return Budget(delay=self.delay or 0.0)
        retries = Retries(DEFAULT_ATTEMPTS) if self.retries is None else self.retries
        if not retries.attempts:
            retries = Retries(0)
        return Budget(
            timeout=self.timeout,
            attempts=retries.attempts,
            per_try_timeout=retries.per_try_timeout,
            retry_on=retries.retry_on,
            connect_timeout=connect_timeout,
            delay=self.delay or 0.0,
            backoff=Budget().backoff if retries.backoff is None else retries.backoff,
        )


class VirtualService(NamedTuple):
    """
    One VirtualService, or what istiod makes of an HTTPRoute for one of its parents.

    Attributes:
        created: Its creationTimestamp, empty if it has none, in a form that sorts by time.
        kind: What it was made of.
        parent: Of an HTTPRoute, the namespace of the service that it is for.
        port: Of an HTTPRoute, the port of its parent, or 0.
        unused: Why it can govern nothing, if that is known already.
    """

    name: str
    namespace: str
    hosts: tuple[str, ...]
    gateways: tuple[str, ...]
    export_to: tuple[str, ...]
    rules: tuple[Rule, ...]
    created: str
    origin: str
    kind: Literal["VirtualService", "HTTPRoute"] = "VirtualService"
    parent: str = ""
    port: int = 0
    unused: str = ""

    def visible(self, namespace: str) -> bool:
        """
        Whether it is exported to a namespace: everywhere by default, `.` its own, `~` nowhere whatever else is named.

        An HTTPRoute holds for callers in its own namespace, and for all if that is the service's too.
        """
        if self.kind == "HTTPRoute":
            return self.namespace in (namespace, self.parent)
        names = {self.namespace if name == "." else name for name in self.export_to or ("*",)}
        return "*" in names or (namespace in names and "~" not in names)


def read_virtual_service(field: Field, namespace: str) -> VirtualService:
    """
    Read a document.

    Args:
        field: The whole document.
        namespace: Where it is if its metadata do not say.

    Raises:
        ManifestError: It is not what Istio accepts.
    """
    name, home, metadata = home_of(field, "VirtualService", namespace)
    spec = field.need("spec", "must have hosts and http rules")
    hosts, gateways, exported = spec.get("hosts"), spec.get("gateways"), spec.get("exportTo")
    http = spec.get("http")
    rules: list[Rule] = []
    if http is not None:
        for number, rule in enumerate(http.elements()):
            rules.append(_read_rule(rule, f"{home}/{name}[{number}]", home))
    return VirtualService(
        name=name,
        namespace=home,
        hosts=() if hosts is None else tuple(_host(host) for host in hosts.elements()),
        gateways=() if gateways is None else gateways.texts(),
        export_to=() if exported is None else exported.texts(),
        rules=tuple(rules),
        created=timestamp(metadata.get("creationTimestamp")),
        origin=field.origin,
    )


def _read_rule(field: Field, label: str, namespace: str) -> Rule:
    name, match, timeout = field.get("name"), field.get("match"), field.get("timeout")
    retries, fault, delegate = field.get("retries"), field.get("fault"), field.get("delegate")
    actions = [key for key in ("route", "redirect", "directResponse") if field.get(key) is not None]
    if len(actions) > 1:
        raise field.error(f"has {' and '.join(actions)}: must be one of route, redirect and directResponse")
    if delegate is not None and actions:
        raise field.error(f"has delegate and {actions[0]}: a rule that delegates says nothing else of where to go")
    action = actions[0] if actions else "route"
    return Rule(
        name="" if name is None else name.text(),
        conditions=() if match is None else tuple(read_condition(element) for element in match.elements()),
        timeout=None if timeout is None else timeout.duration(),
        retries=None if retries is None else _read_retries(retries),
        delay=None if fault is None else _read_delay(fault),
        action="redirect" if action == "redirect" else "direct_response" if action == "directResponse" else "route",
        delegate=None if delegate is None else _read_delegate(delegate, namespace),
        label=label,
        origin=field.origin,
        destinations=() if action != "route" else _read_destinations(field.get("route"), namespace),
    )


def _read_destinations(field: Field | None, namespace: str) -> tuple[Destination, ...]:
    """Where a rule leads: of several destinations, those with a weight."""
    read = [] if field is None else [_read_destination(element, namespace) for element in field.elements()]
    if len(read) < 2:
        return tuple(destination for destination, _ in read)
    return tuple(destination for destination, weight in read if weight)


def _read_destination(field: Field, namespace: str) -> tuple[Destination, int]:
    rule = "must have the host that the rule leads to"
    destination, weight = field.need("destination", rule), field.get("weight")
    port, subset = destination.get("port"), destination.get("subset")
    number = None if port is None else port.get("number")
    return Destination(
        destination.need("host", rule).text(),
        namespace,
        0 if number is None else number.whole(0, 65535),
        "" if subset is None else subset.text(),
    ), 0 if weight is None else weight.whole(0, _MAX_WEIGHT)


def _read_retries(field: Field) -> Retries:
    attempts, per_try = field.get("attempts"), field.get("perTryTimeout")
    retry_on, backoff = field.get("retryOn"), field.get("backoff")
    tries = 0 if attempts is None else attempts.whole(0, _MAX_ATTEMPTS)
    if not tries:
        for key in ("perTryTimeout", "retryOn", "retryRemoteLocalities"):
            said = field.get(key)
            if said is not None and said.value != "":
                raise said.error("needs attempts of at least 1: 0, and leaving it out here, switch retries off")
    return Retries(
        tries,
        None if per_try is None else per_try.duration(),
        DEFAULT_RETRY_ON if retry_on is None else _read_retry_on(retry_on),
        None if backoff is None else backoff.duration(),
    )


def _read_retry_on(field: Field) -> frozenset[str]:
    if isinstance(field.value, int) and not isinstance(field.value, bool) and field.value in _STATUS:
        raise field.error("must be a text; put the status code in quotes")
    names = [name.strip() for name in field.text().split(",")]
    for name in names:
        if name and name not in _RETRY_ON and not (name.isascii() and name.isdigit() and int(name[:4]) in _STATUS):
            raise field.error(
                f"{name[:40]!r} is no condition of Envoy's: must be of {', '.join(sorted(_RETRY_ON))}, or status codes"
            )
    named = frozenset(filter(None, names))
    # The token without codes retries nothing, and with codes goes without saying.
    return named - {"retriable-status-codes"} if named else DEFAULT_RETRY_ON


def _read_delay(field: Field) -> float:
    delay = field.get("delay")
    fixed = None if delay is None else delay.get("fixedDelay")
    return 0.0 if fixed is None else fixed.duration()


def _read_delegate(field: Field, namespace: str) -> tuple[str, str]:
    own = field.get("namespace")
    home = "" if own is None else own.text()
    return home or namespace, field.need("name", "must be the name of a VirtualService").text()


def _host(field: Field) -> str:
    host = field.text()
    if not host or any(character.isspace() or character in "/:,@" for character in host):
        raise field.error("must be a host name such as inventory or *.example.com, without port or scheme")
    if "*" in host[1:] or (host.startswith("*") and not (host == "*" or host.startswith("*."))):
        raise field.error("must have its star alone or as the first label, as in *.example.com")
    return host
