"""
A route of Envoy's own configuration: the time it allows, and what it is called.

Reference: Route, RouteAction and RetryPolicy in envoy/config/route/v3/route_components.proto.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Literal, NamedTuple

from meshaware.budgets.budget import DEFAULT_RETRY_ON, Budget
from meshaware.budgets.envoy_json import Message
from meshaware.budgets.envoy_match import read_match
from meshaware.budgets.route import Entry, Route, RouteMatch, VirtualHost
from meshaware.errors import ConfigDumpError

__all__ = ["Clusters", "HostReader", "injected_delay", "plain_clusters"]

Clusters = Mapping[str, float]
"""Connect timeouts in seconds by the cluster's name."""

Action = Literal["route", "redirect", "direct_response"]

_UNBOUNDED = Budget()
_DEFAULT_TIMEOUT = 15.0  # where a route does not say; Istio's always do
_DEFAULT_RATE_LIMITED_BACKOFF = 300.0
_FAULT = "envoy.filters.http.fault"
_CODES = "retriable-status-codes"
_PLAIN = ("name", "domains", "routes", "include_request_attempt_count")
_REMEMBERED = 4096
_VIRTUAL_SERVICE = "/virtual-service/"
_NAMESPACES = "/namespaces/"


class _Above(NamedTuple):
    """What a route inherits from its virtual host and route configuration."""

    host: str
    config: str
    delay: float
    retry_policy: Message | None = None
    hedges: bool = False
    key: bytes = b""


class _Terms(NamedTuple):
    """What a route says apart from what it is called and which cluster it names."""

    match: RouteMatch
    action: Action
    budget: Budget = _UNBOUNDED
    sends: bool = False
    timed: bool = False
    further: tuple[str, ...] = ()


class HostReader:
    """
    Reads virtual hosts of one mesh, which mostly say the same: what has been read once is found again by its JSON.

    Args:
        clusters: What is known of connect timeouts.
        connect_timeout: What counts for a cluster that is not known.

    Attributes:
        timed: The clusters seen so far whose connect timeout counts: those of routes with a per-try timeout and no
            timeout.
    """

    def __init__(self, clusters: Clusters, connect_timeout: float | None) -> None:
        self._clusters, self._connect_timeout = clusters, connect_timeout
        self._terms: dict[bytes, _Terms] = {}
        self._owners: dict[bytes, tuple[str, str]] = {}
        self._connecting: dict[tuple[Budget, float], Budget] = {}
        self.timed: set[str] = set()

    def read(self, message: Message, config: str, delay: float) -> VirtualHost:
        """
        Read a virtual host with its routes; its JSON is used up by that.

        Args:
            message: The virtual host.
            config: The name of its route configuration.
            delay: What the route configuration injects, in seconds.

        Raises:
            ConfigDumpError: It is not what Envoy writes.
        """
        name = message.text("name")
        if message.only(*_PLAIN):
            above = _Above(name, config, delay, key=str(delay).encode())
        else:
            above = _Above(
                name,
                config,
                max(delay, injected_delay(message)),
                message.message("retry_policy"),
                _hedges(message.message("hedge_policy")),
                message.key("name", "domains", "routes"),
            )
        origin = f"sidecar: route configuration {config}"
        entries = tuple([self._entry(route, above, origin) for route in message.messages("routes")])
        if message.text("require_tls") not in ("", "NONE"):
            entries = (_answer(name, above, "redirect", ""),)
        elif message.raw("matcher") is not None:
            # A tree of matchers in the place of routes. Nothing bounds a call that takes a route nobody can tell.
            entries = (_answer(name, above, "route", "it chooses by a tree of matchers, which is not evaluated"),)
        return VirtualHost(name, message.texts("domains"), entries)

    def _entry(self, message: Message, above: _Above, origin: str) -> Entry:
        # What differs between routes that say the same is taken out, and what is left is what they are known by.
        name, metadata, sent, cluster = message.take_names()
        owner = ""
        if metadata is not None:
            owner, origin = self._owner(metadata, origin)
        key = message.key() + above.key
        terms = self._terms.get(key)
        if terms is None:
            terms = self._read(message, above, key)
        budget = terms.budget
        if sent and (terms.timed or self._clusters or self._connect_timeout is not None):
            budget = self._connect(terms, (cluster, *terms.further))
        return Entry(terms.match, Route(name or owner or above.host, budget, origin, above.host, terms.action))

    def _read(self, message: Message, above: _Above, key: bytes) -> _Terms:
        if len(self._terms) >= _REMEMBERED:
            self._terms.clear()
        terms = self._terms[key] = _read_terms(message, above)
        return terms

    def _owner(self, metadata: Message, origin: str) -> tuple[str, str]:
        """The VirtualService that istiod made a route from, and what it says of its origin then."""
        key = metadata.key()
        owner = self._owners.get(key)
        if owner is None:
            if len(self._owners) >= _REMEMBERED:
                self._owners.clear()
            found = _owner(metadata)
            owner = self._owners[key] = found, f"sidecar: VirtualService {found}"
        return owner if owner[0] else ("", origin)

    def _connect(self, terms: _Terms, names: Iterable[str]) -> Budget:
        if not terms.sends:
            return terms.budget
        if terms.timed:
            self.timed.update(filter(None, names))
        known = [self._clusters[name] for name in names if name in self._clusters]
        seconds = max(known) if known else self._connect_timeout
        if seconds is None:
            return terms.budget
        made = self._connecting.get((terms.budget, seconds))
        if made is None:
            made = self._connecting[terms.budget, seconds] = replace(terms.budget, connect_timeout=seconds)
        return made


def injected_delay(message: Message) -> float:
    """The longest delay that the fault filter may inject, in seconds, by a message's own configuration of filters."""
    delays = [0.0]
    for name, config in message.entries("typed_per_filter_config"):
        if name == _FAULT:
            inner = config.message("config") or config
            delay = inner.message("delay")
            delays.append(0.0 if delay is None else delay.seconds("fixed_delay") or 0.0)
    return max(delays)


def plain_clusters(message: Message) -> set[str]:
    """The clusters that the routes of a virtual host send to, weighted ones aside."""
    sent = [route.message("route") for route in message.messages("routes")]
    return {route.text("cluster") for route in sent if route is not None}


def _answer(name: str, above: _Above, action: Action, note: str) -> Entry:
    route = Route(name, _UNBOUNDED, f"sidecar: route configuration {above.config}", above.host, action, note)
    return Entry(RouteMatch(doubt=note), route)


def _read_terms(message: Message, above: _Above) -> _Terms:
    action = _action(message)
    sent = message.message("route") if action == "route" else None
    match = read_match(message.message("match"))
    if sent is None:
        return _Terms(match, action)
    further = tuple(cluster.text("name") for cluster in _weighted(sent))
    budget = _budget(sent, above, max(above.delay, injected_delay(message), _weighted_delay(sent)))
    timed = budget.timeout is None and budget.per_try_timeout is not None
    return _Terms(match, action, budget, sends=True, timed=timed, further=further)


def _action(message: Message) -> Action:
    match message.has("redirect", "direct_response", "non_forwarding_action", "filter_action"):
        case "redirect":
            return "redirect"
        case "direct_response":
            return "direct_response"
        case _:
            return "route"


def _owner(metadata: Message) -> str:
    """The VirtualService that istiod made a route from, as namespace/name; empty if it was none."""
    for name, found in metadata.entries("filter_metadata"):
        if name == "istio":
            config = found.text("config")
            _, inside, rest = config.partition(_NAMESPACES)
            namespace, _, _ = rest.partition("/")
            _, named, service = config.partition(_VIRTUAL_SERVICE)
            if inside and named:
                return f"{namespace}/{service}"
    return ""


def _budget(sent: Message, above: _Above, delay: float) -> Budget:
    timeout = sent.seconds("timeout")
    timeout = _DEFAULT_TIMEOUT if timeout is None else timeout or None
    policy = sent.message("retry_policy") or above.retry_policy
    stream = sent.message("max_stream_duration")
    longest = None if stream is None else stream.seconds("max_stream_duration") or None
    if longest is not None:
        # It ends the whole stream, as a timeout does; it even begins to count earlier.
        timeout = longest if timeout is None else min(timeout, longest)
    if sent.message("internal_redirect_policy") is not None:
        # Each redirect that Envoy follows by itself starts the route's clock again.
        timeout, policy = None, None
    retries = _Retries() if policy is None else _retries(policy)
    hedges = above.hedges or _hedges(sent.message("hedge_policy"))
    try:
        return Budget(
            timeout=timeout,
            attempts=retries.attempts,
            # Tries that run beside each other: without a timeout, nothing says when the last one ends.
            per_try_timeout=None if hedges and timeout is None else retries.per_try_timeout,
            retry_on=retries.retry_on,
            backoff=retries.backoff,
            delay=delay,
        )
    except ValueError as error:
        raise ConfigDumpError(f"{sent.path}: {error}") from error


class _Retries(NamedTuple):
    attempts: int = 0
    per_try_timeout: float | None = None
    retry_on: frozenset[str] = DEFAULT_RETRY_ON
    backoff: float = 0.025


def _retries(policy: Message) -> _Retries:
    names = {name.strip() for name in policy.text("retry_on").split(",") if name.strip()}
    codes = {str(code) for code in policy.wholes("retriable_status_codes")}
    if codes and _CODES in names:
        names |= codes
    names.discard(_CODES)
    per_try_timeout = policy.seconds("per_try_timeout") or None
    attempts = policy.whole("num_retries", 1) if names else 0
    if not attempts:
        return _Retries(0, per_try_timeout)
    return _Retries(attempts, per_try_timeout, frozenset(names), _backoff(policy))


def _backoff(policy: Message) -> float:
    """The base whose doubled bounds, ten times it at most, are never under those of the policy."""
    bases = [0.025]
    plain = policy.message("retry_back_off")
    if plain is not None:
        base = plain.seconds("base_interval") or bases[0]
        bases = [max(base, (plain.seconds("max_interval") or 0.0) / 10)]
    limited = policy.message("rate_limited_retry_back_off")
    if limited is not None:
        bases.append(limited.seconds("max_interval") or _DEFAULT_RATE_LIMITED_BACKOFF)
    return max(bases)


def _hedges(policy: Message | None) -> bool:
    return policy is not None and policy.flag("hedge_on_per_try_timeout")


def _weighted(sent: Message) -> Iterable[Message]:
    weighted = sent.message("weighted_clusters")
    return () if weighted is None else weighted.messages("clusters")


def _weighted_delay(sent: Message) -> float:
    return max(map(injected_delay, _weighted(sent)), default=0.0)
