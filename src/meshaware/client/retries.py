"""
Who else retries: what is handed to the factories, and what that comes to beside the mesh's own tries.

meshaware makes no call again; the mesh does. Where the application does too, the tries multiply: an upstream in
trouble gets them all, and a POST may be carried out more than once.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from inspect import currentframe
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

from meshaware.budgets import Route, RouteSource, RouteTable
from meshaware.client.nested import METHODS, transports_within
from meshaware.flavours import detect
from meshaware.propagation.hosts import HostPolicy
from meshaware.settings import MeshSettings

__all__ = ["LIBRARIES", "DoubleRetryWarning", "MeshTries", "Tries", "say_once", "warn_of_transports"]

LIBRARIES = frozenset({"backoff", "httpx_retries", "httpx_tenacity", "pydantic_ai", "retrying", "stamina", "tenacity"})
"""Packages that make calls again. hishel is none of them: it is a cache, and revalidates at most."""

# Whose frames stand between a warning and the line that it is about.
_BETWEEN = LIBRARIES | {"meshaware", "httpx", "httpx2", "opentelemetry", "concurrent", "contextlib"}
_REMEMBERED = 256
_ADVICE = (
    "Keep one of the two: leave it to the mesh, or set `retries: {attempts: 0}` on the route. To keep both in silence:"
    " warnings.simplefilter('ignore', meshaware.client.retries.DoubleRetryWarning)"
)

_said: set[object] = set()


class DoubleRetryWarning(UserWarning):
    """
    Something beside the mesh makes calls again, and the tries of both multiply.

    It is said once for each transport, or for each route and method where calls were seen again and again;
    `warnings.simplefilter("ignore", DoubleRetryWarning)` silences it, `"error"` makes it fatal.
    """


class Tries(NamedTuple):
    """
    How often the mesh tries one call.

    Attributes:
        number: The first try included.
        source: Who says so, for people.
    """

    number: int
    source: str


class MeshTries:
    """
    Knows how often the mesh tries a call: from the route that governs it, else from what its kind of mesh does.

    Args:
        settings: Say which mesh this is, and which hosts are inside it.
        routes: Those of the client.
    """

    def __init__(self, settings: MeshSettings, routes: RouteTable | RouteSource) -> None:
        self._settings = settings
        self._routes = routes

    def of(self, method: str, url: str, headers: Mapping[str, str] | None = None) -> Tries:
        """How often the mesh tries this call; once where it does not see it, as inside TLS."""
        route = self._table.match(method, url, headers)
        if route is not None:
            return _by(route)
        parts = urlsplit(url)
        hosts = HostPolicy(self._settings.mesh_hosts, cluster_domain=self._settings.cluster_domain)
        inside = parts.scheme == "http" and hosts.inside(parts.netloc.rpartition("@")[2])
        return self._unrouted if inside else Tries(1, "")

    def most(self) -> Tries:
        """The most that it tries any call."""
        return max([self._unrouted, *map(_by, self._table)])

    @property
    def _table(self) -> RouteTable:
        return self._routes if isinstance(self._routes, RouteTable) else self._routes.current

    @property
    def _unrouted(self) -> Tries:
        settings, workload = self._settings, self._settings.workload
        flavour = detect(settings.mesh, workload.labels, workload.annotations, settings.in_kubernetes).flavour
        return Tries(flavour.retries + 1, f"{flavour.title}, where no route says otherwise")


def _by(route: Route) -> Tries:
    return Tries(route.budget.attempts + 1, f"route {route.name!r} ({route.origin})")


class _Found(NamedTuple):
    """What makes calls again: its name, its number of tries if it can be told, and whether it does so with a POST."""

    name: str
    number: int | None
    post: bool


def warn_of_transports(transports: Iterable[Any], base_url: str, tries: MeshTries) -> None:
    """
    Warn of each transport that makes calls again, where the mesh does too.

    Args:
        transports: What the caller handed over; what they wrap is looked at as well.
        base_url: The client's, or an empty text: the route that it leads to is asked first.
        tries: What the mesh does.
    """
    for given in transports:
        for transport in transports_within(given):
            found = _retrying(transport)
            if found is not None:
                _warn_of(found, _mesh("POST" if found.post else "GET", base_url, tries))
            elif _connects_again(transport):
                _warn_of_connects(transport, _mesh("GET", base_url, tries))


def _mesh(method: str, base_url: str, tries: MeshTries) -> Tries:
    return tries.of(method, base_url) if base_url.startswith(("http://", "https://")) else tries.most()


def _warn_of(found: _Found, mesh: Tries) -> None:
    if mesh.number == 1 or found.number == 1:
        return
    own, method = found.number, "POST" if found.post else "GET"
    total = f"{own} x {mesh.number} = {own * mesh.number}" if own else f"n x {mesh.number}"
    often = f"up to {own} times" if own else "again and again"
    say_once(
        ("transport", found.name),
        f"{found.name} makes a call {often}, and so does the mesh, {mesh.number} times: {total} tries of a {method}."
        f" The mesh's number is from {mesh.source}. {_ADVICE}",
    )


def _warn_of_connects(transport: Any, mesh: Tries) -> None:
    name = _name(transport)
    if mesh.number > 1:
        say_once(
            ("connects", name),
            f"{name}(retries={transport._pool._retries}) tries to connect again, never a request that was sent, so it"  # noqa: SLF001
            f" multiplies nothing; but beside a sidecar it is of no use, as that takes every connection at once and"
            f" makes {mesh.number} tries of its own. Leave it out",
        )


def _connects_again(transport: Any) -> bool:
    retries = getattr(getattr(transport, "_pool", None), "_retries", 0)
    return isinstance(retries, int) and retries > 0


def _name(transport: object) -> str:
    kind = type(transport)
    return f"{kind.__module__.partition('.')[0]}.{kind.__name__}"


def _retrying(transport: Any) -> _Found | None:
    """
    What makes calls again here, if this transport does.

    Told by its package, by its name, or by the decorator of a known library around the method that sends.
    """
    name = _name(transport)
    policy = next((v for key in ("retry", "_retry") if (v := getattr(transport, key, None)) is not None), None)
    package, _, kind = name.partition(".")
    if "retry" in kind.lower() or package in LIBRARIES:
        methods = getattr(policy, "allowed_methods", None)
        return _Found(name, _number(transport, policy), methods is None or "POST" in methods)
    for method in METHODS:
        function = getattr(transport, method, None)
        while function is not None:
            # What a decorator returns is named after what it wraps; where it was written, its globals tell.
            library = getattr(function, "__globals__", {}).get("__name__", "").partition(".")[0]
            if library in LIBRARIES:
                number = _number(function, getattr(function, "retry", None))
                return _Found(f"{library} around {name}.{method}", number, post=True)
            function = getattr(function, "__wrapped__", None)
    return None


def _number(holder: Any, policy: Any) -> int | None:
    """The number of tries, the first included, as far as an attribute that is known tells; None where none does."""
    total = getattr(policy, "total", None)
    if isinstance(total, int):
        return total + 1
    config: object = getattr(holder, "config", None)
    options = cast("Mapping[str, Any]", config) if isinstance(config, dict) else None
    stop: Any = getattr(policy, "stop", None) if options is None else options.get("stop")
    for each in (stop, *getattr(stop, "stops", ())):
        number = getattr(each, "max_attempt_number", None)
        if isinstance(number, int):
            return number
    most = getattr(holder, "max_retries", None)
    return most + 1 if isinstance(most, int) else None


def say_once(key: object, message: str) -> None:
    """Warn the first time, at the line of the application's that it is about."""
    if key in _said or len(_said) >= _REMEMBERED:
        return
    _said.add(key)
    # `skip_file_prefixes` came with Python 3.12.
    level, frame = 1, currentframe()
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in _BETWEEN:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, DoubleRetryWarning, stacklevel=level)
