"""
The request as it leaves: its route, its budget, the headers that go with it, and where it is sent.

Decides and touches no socket. The caller's request is never changed: what leaves is a copy that shares its stream.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from meshaware.budgets import Budget, Route, RouteSource, RouteTable, declared_budget
from meshaware.client.allowance import Allowance, allow, default_allowances, from_budget
from meshaware.client.call import Call, Whole
from meshaware.client.options import OPTIONS, CallOptions
from meshaware.client.refusal import was_refused
from meshaware.deadline import current_deadline
from meshaware.durations import format_duration
from meshaware.propagation.context import attach, attach_trace
from meshaware.propagation.hosts import HostPolicy
from meshaware.propagation.outside import detach
from meshaware.request_copy import copy_request

if TYPE_CHECKING:
    from meshaware.settings import MeshSettings

__all__ = ["WHOLE", "Leaving", "Outgoing"]

WHOLE = "meshaware.whole"
_OURS = (OPTIONS, WHOLE)
_SILENT: Mapping[str, None] = dict.fromkeys(("connect", "read", "write", "pool"))
_REMEMBERED = 4096

_log = logging.getLogger("meshaware.client")


class Leaving(NamedTuple):
    """One request, ready to leave."""

    request: Any
    call: Call
    inside: bool
    plain: bool
    observed: float | None
    """Seconds after which the call would have been cut, where deadlines are only observed."""


class Outgoing:
    """Makes requests ready; one for each client, shared by its transports."""

    def __init__(self, settings: MeshSettings, routes: RouteTable | RouteSource) -> None:
        self._source = routes
        self._hosts = HostPolicy(
            settings.mesh_hosts, cluster_domain=settings.cluster_domain, trace_hosts=settings.trace_hosts
        )
        self._buffer = settings.buffer
        self._policy: Literal["ceiling", "tight"] = settings.budget_policy
        self._deadlines = settings.deadlines
        declared = declared_budget(settings.timeout, settings.attempts, settings.per_try_timeout)
        self._unrouted, self._unbounded = default_allowances(declared, self._buffer, self._policy)
        self._sidecar = _address(settings.outbound_proxy)
        mesh = settings.detected
        self._one = mesh.flavour.one_trace_format
        self._captor = mesh.flavour.title if mesh.settled and mesh.flavour.container is not None else None
        self._allowances: dict[int, tuple[Budget, Allowance]] = {}
        self._said: set[str] = set()
        self.would_have_cut = 0

    def leave(self, request: Any) -> Leaving:
        """Decide everything about one request that can be decided before it is sent."""
        url, headers = request.url, request.headers
        raw: list[tuple[bytes, bytes]] = headers.raw
        host = url.raw_host
        plain = url.raw_scheme == b"http"
        authority = next((value for name, value in raw if name.lower() == b"host"), host)
        inside = self._hosts.inside(host) and self._hosts.inside(authority)
        if inside:
            attached = attach(raw, one=self._one)
        elif self._hosts.traced(host) and self._hosts.traced(authority):
            attached = attach_trace(raw)
        else:
            attached = detach(raw)
        if attached is not raw:
            headers = type(headers)(attached)
        route = None
        if plain:
            table = self._source if isinstance(self._source, RouteTable) else self._source.current
            asked = authority.decode("ascii", "replace")
            path = url.raw_path.decode("ascii")
            route = table.match_parts(request.method, asked, path, headers, port=url.port or 80)
        extensions: dict[str, Any] = {name: value for name, value in request.extensions.items() if name not in _OURS}
        options: CallOptions | None = request.extensions.get(OPTIONS)
        budgeted = self._allowance(route)
        allowance = allow(budgeted, extensions.get("timeout"), options)
        if allowance.source == "caller" and route is not None:
            self._warn_if_shorter(route, allowance, budgeted)
        observed = None
        if self._deadlines != "enforce":
            observed = allowance.total or allowance.head if self._deadlines == "observe" else None
            phases = allowance.phases if budgeted.phases is not allowance.phases or observed is None else _SILENT
            allowance = Allowance(None, None, phases, allowance.source)
        whole: Whole | None = request.extensions.get(WHOLE)
        call = Call(f"{request.method} {url}", route, allowance, self._until(options), whole)
        extensions["timeout"] = allowance.phases
        leaving = copy_request(request)
        leaving.headers, leaving.extensions = headers, extensions
        if self._sidecar is not None and inside and plain:
            leaving.url = url.copy_with(host=self._sidecar[0], port=self._sidecar[1])
        return Leaving(leaving, call, inside, plain, observed)

    def _until(self, options: CallOptions | None) -> float | None:
        if self._deadlines != "enforce" or (options is not None and options.detached):
            return None
        until = current_deadline()
        if options is not None and options.deadline is not None:
            until = options.deadline if until is None else min(until, options.deadline)
        return until

    def _allowance(self, route: Route | None) -> Allowance:
        if route is None:
            return self._unrouted
        # By identity: hashing a budget costs more than everything else here, and a table never changes.
        known = self._allowances.get(id(route.budget))
        if known is not None and known[0] is route.budget:
            return known[1]
        seconds = route.budget.total(self._buffer, self._policy)
        allowance = self._unbounded if seconds is None else from_budget(seconds, "route")
        if len(self._allowances) >= _REMEMBERED:
            self._allowances.clear()
        self._allowances[id(route.budget)] = (route.budget, allowance)
        return allowance

    def _warn_if_shorter(self, route: Route, given: Allowance, budgeted: Allowance) -> None:
        if budgeted.source != "route" or given.total is None or budgeted.total is None or given.total >= budgeted.total:
            return
        self.say_once(
            f"timeout {format_duration(given.total)} is under the {format_duration(budgeted.total)} that the mesh may"
            f" take on route {route.name!r} ({route.origin}): calls may be given up that would have succeeded"
        )

    def say_once(self, message: str) -> None:
        """Log a warning the first time it would be said."""
        if message not in self._said and len(self._said) < _REMEMBERED:
            self._said.add(message)
            _log.warning("%s", message)

    def overdue(self, call: Call, limit: float) -> None:
        """Count a call that would have been cut if deadlines were enforced, and say so once a route."""
        self.would_have_cut += 1
        where = "no route" if call.route is None else f"route {call.route.name!r} ({call.route.origin})"
        self.say_once(
            f"deadlines are observed: on {where} a call took longer than {format_duration(limit)}"
            " and would have been cut there"
        )

    def unreachable(self, leaving: Leaving, error: Exception) -> str | None:
        """Which sidecar did not take the connection, where only a sidecar can have been meant; else None."""
        if not leaving.inside or not leaving.plain:
            return None
        if self._sidecar is not None:
            return f"the sidecar at {self._sidecar[0]}:{self._sidecar[1]}"
        # A sidecar that captures the traffic accepts every connection and answers 503 for an upstream that is down.
        return f"the sidecar ({self._captor})" if self._captor is not None and was_refused(error) else None


def _address(proxy: str | None) -> tuple[str, int] | None:
    if proxy is None:
        return None
    host, _, port = proxy.partition("://")[2].rstrip("/").rpartition(":")
    return host.strip("[]"), int(port)
