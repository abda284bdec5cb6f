"""
A route of Envoy's own configuration: the time it allows, and what it is called.

Reference: Route, RouteAction and RetryPolicy in envoy/config/route/v3/route_components.proto.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from meshaware.budgets.budget import DEFAULT_RETRY_ON, Budget
from meshaware.budgets.envoy_json import Message
from meshaware.budgets.envoy_match import read_match
from meshaware.budgets.folded import FoldedHosts, Kind
from meshaware.budgets.route import Action, RouteMatch
from meshaware.errors import ConfigDumpError

__all__ = ["Clusters", "HostReader", "injected_delay", "plain_clusters"]

Clusters = Mapping[str, float]
"""Connect timeouts in seconds by the cluster's name."""

_UNBOUNDED = Budget()
_TREE = "it chooses by a tree of matchers, which is not evaluated"
_BY_TREE = Kind(RouteMatch(doubt=_TREE), _UNBOUNDED, note=_TREE)
_TO_TLS = Kind(RouteMatch(), _UNBOUNDED, "redirect")
_DEFAULT_TIMEOUT = 15.0  # where a route does not say; Istio's always do
_DEFAULT_RATE_LIMITED_BACKOFF = 300.0
_FAULT = "envoy.filters.http.fault"
_CODES = "retriable-status-codes"
_PLAIN = ("name", "domains", "routes", "include_request_attempt_count")
_REMEMBERED = 4096
_NOTHING_LIKE_IT: tuple[Any, Any] = (None, None)
_VIRTUAL_SERVICE = "/virtual-service/"
_NAMESPACES = "/namespaces/"


class _Above(NamedTuple):
    """What a route inherits from its virtual host and route configuration."""

    delay: float
    retry_policy: Message | None = None
    hedges: bool = False


class _Terms(NamedTuple):
    """What a route says apart from what it is called and which cluster it names; `number` stands for its kind."""

    number: int
    kind: Kind
    sends: bool = False
    timed: bool = False
    further: tuple[str, ...] = ()


class _Memory(NamedTuple):
    """
    Routes that have been read, of hosts that inherit the same.

    Attributes:
        terms: What they say, by their JSON.
        last: The last one with such a prefix and timeout: its JSON, and what it says.
    """

    terms: dict[bytes, _Terms]
    last: dict[tuple[Any, Any], tuple[dict[str, Any], _Terms]]

    def note(self, like: tuple[Any, Any], left: dict[str, Any], terms: _Terms) -> None:
        if type(like[0]) is str and type(like[1]) is str:
            if len(self.last) >= _REMEMBERED:
                self.last.clear()
            self.last[like] = left, terms


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
        self._kinds: list[Kind] = []
        # By what is inherited.
        self._memories: dict[bytes, _Memory] = {}
        self._owners: dict[str, tuple[str, str]] = {}
        self._connecting: dict[tuple[int, float], int] = {}
        self.timed: set[str] = set()

    def hosts(self) -> FoldedHosts:
        """Where hosts are put that are read here; none yet."""
        return FoldedHosts(self._kinds)

    def read(self, hosts: FoldedHosts, message: Message, of: str, delay: float) -> None:
        """
        Read a virtual host with its routes; its JSON is used up by that.

        Args:
            hosts: It is put there.
            message: The virtual host.
            of: The name of its route configuration.
            delay: What the route configuration injects, in seconds.

        Raises:
            ConfigDumpError: It is not what Envoy writes.
        """
        name, domains = message.text("name"), message.texts("domains")
        origin = f"sidecar: route configuration {of}"
        if message.only(*_PLAIN):
            above, key = _Above(delay), b"%r" % delay
        else:
            if message.text("require_tls") not in ("", "NONE"):
                hosts.add(name, domains, (self._kind(_TO_TLS), name, origin))
                return
            if message.raw("matcher") is not None:
                # A tree of matchers in the place of routes. Nothing bounds a call that takes a route nobody can tell.
                hosts.add(name, domains, (self._kind(_BY_TREE), name, origin))
                return
            above = _Above(
                max(delay, injected_delay(message)),
                message.message("retry_policy"),
                _hedges(message.message("hedge_policy")),
            )
            key = b"%r" % delay + message.key("name", "domains", "routes")
        memory = self._memories.get(key)
        if memory is None:
            if len(self._memories) >= _REMEMBERED:
                self._memories.clear()
            memory = self._memories[key] = _Memory({}, {})
        last = memory.last
        connects = bool(self._clusters) or self._connect_timeout is not None
        routes: list[int | str] = []
        # What differs between routes that say the same is taken out, and what is left is what they are known by.
        for place, left, called, made_from, cluster, sent in message.take_routes():
            terms, like = None, _NOTHING_LIKE_IT
            try:
                like = left["match"]["prefix"], left["route"]["timeout"]
                same, found = last[like]
                # Quicker than making a key: that it does not tell 1 from true does not matter.
                terms = found if same == left else None
            except (KeyError, TypeError, RecursionError):
                pass
            if terms is None:
                terms = self._find(message.route(place), above, memory)
                memory.note(like, left, terms)
            number = terms.number
            if sent and (connects or terms.timed):
                number = self._connect(terms, (cluster, *terms.further))
            owner, read_at = self._owner(made_from, origin) if made_from else ("", origin)
            routes += (number, called or owner or name, read_at)
        hosts.add(name, domains, routes)

    def _kind(self, kind: Kind) -> int:
        self._kinds.append(kind)
        return len(self._kinds) - 1

    def _find(self, message: Message, above: _Above, memory: _Memory) -> _Terms:
        key = message.key()
        terms = memory.terms.get(key)
        if terms is None:
            if len(memory.terms) >= _REMEMBERED:
                memory.terms.clear()
            terms = _read_terms(message, above)
            terms = memory.terms[key] = terms._replace(number=self._kind(terms.kind))
        return terms

    def _owner(self, config: str, origin: str) -> tuple[str, str]:
        """The VirtualService that istiod made a route from, and where the route was read."""
        owner = self._owners.get(config)
        if owner is None:
            if len(self._owners) >= _REMEMBERED:
                self._owners.clear()
            found = _owner(config)
            owner = self._owners[config] = found, f"sidecar: VirtualService {found}"
        return owner if owner[0] else ("", origin)

    def _connect(self, terms: _Terms, names: Iterable[str]) -> int:
        """The number of the same kind with the connect timeout of the slowest of its clusters."""
        if not terms.sends:
            return terms.number
        if terms.timed:
            self.timed.update(filter(None, names))
        known = [self._clusters[name] for name in names if name in self._clusters]
        seconds = max(known) if known else self._connect_timeout
        if seconds is None:
            return terms.number
        made = self._connecting.get((terms.number, seconds))
        if made is None:
            budget = replace(terms.kind.budget, connect_timeout=seconds)
            made = self._kind(terms.kind._replace(budget=budget))
            self._connecting[terms.number, seconds] = made
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


def _read_terms(message: Message, above: _Above) -> _Terms:
    action = _action(message)
    sent = message.message("route") if action == "route" else None
    match = read_match(message.message("match"))
    if sent is None:
        return _Terms(0, Kind(match, _UNBOUNDED, action))
    further = tuple(cluster.text("name") for cluster in _weighted(sent))
    budget = _budget(sent, above, max(above.delay, injected_delay(message), _weighted_delay(sent)))
    timed = budget.timeout is None and budget.per_try_timeout is not None
    return _Terms(0, Kind(match, budget, action), sends=True, timed=timed, further=further)


def _action(message: Message) -> Action:
    match message.has("redirect", "direct_response", "non_forwarding_action", "filter_action"):
        case "redirect":
            return "redirect"
        case "direct_response":
            return "direct_response"
        case _:
            return "route"


def _owner(config: str) -> str:
    """The VirtualService that istiod's metadata name, as namespace/name; empty if they name none."""
    _, inside, rest = config.partition(_NAMESPACES)
    namespace, _, _ = rest.partition("/")
    _, named, service = config.partition(_VIRTUAL_SERVICE)
    return f"{namespace}/{service}" if inside and named else ""


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
