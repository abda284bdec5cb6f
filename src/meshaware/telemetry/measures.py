"""
What meshaware counts and measures, on whatever meter provider there is.

The names follow OpenTelemetry's conventions; the conventions themselves have no words for a mesh.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import monotonic

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

from meshaware.instrumentation import (
    CallOutcome,
    GateOutcome,
    RouteRefresh,
    ServedOutcome,
    on_call,
    on_gate,
    on_route_refresh,
    on_served,
    routes_confirmed,
)

__all__ = ["Measures"]

# Names come from the mesh's configuration, which changes while a process runs; what a backend pays for must not grow.
_MOST_ROUTES = 200
_LONGEST_ROUTE = 128
_OTHER_ROUTE = "_OTHER"
_GATE_BOUNDS = (0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0)


class Measures:
    """
    The instruments on one meter provider, and what they are told.

    Args:
        provider: Whoever made it.
    """

    def __init__(self, provider: MeterProvider) -> None:
        meter = provider.get_meter("meshaware")
        self._calls = meter.create_counter(
            "meshaware.client.calls", unit="{call}", description="Calls by what became of them."
        )
        self._cut = meter.create_counter(
            "meshaware.client.deadline.hits",
            unit="{call}",
            description="Calls that ran out of time: cut, or merely observed.",
        )
        self._served = meter.create_counter(
            "meshaware.server.deadlines",
            unit="{request}",
            description="Requests that came with a deadline, by how they ended.",
        )
        self._failures = meter.create_counter(
            "meshaware.routes.refresh.failures",
            unit="{failure}",
            description="Attempts to read the live routes that failed.",
        )
        self._gate = meter.create_histogram(
            "meshaware.gate.wait",
            unit="s",
            description="How long the sidecar was waited for.",
            explicit_bucket_boundaries_advisory=_GATE_BOUNDS,
        )
        meter.create_observable_gauge(
            "meshaware.routes.age",
            callbacks=[_age],
            unit="s",
            description="Time since the live routes were last confirmed.",
        )
        self._routes: dict[str, str] = {}
        self._stops: list[Callable[[], None]] = []

    def listen(self) -> None:
        """Count from now on, and what is known of gates already."""
        if not self._stops:
            self._stops = [
                on_call(self.call),
                on_served(self.served),
                on_route_refresh(self.refreshed),
                on_gate(self.gate),
            ]

    def stop(self) -> None:
        """Count no more."""
        while self._stops:
            self._stops.pop()()

    def call(self, outcome: CallOutcome) -> None:
        """Count one call."""
        route = {} if outcome.route is None else {"meshaware.route.name": self._bounded(outcome.route)}
        attributes = {"meshaware.verdict": outcome.verdict, **route}
        if outcome.answered_by is not None:
            attributes["meshaware.answered_by"] = outcome.answered_by
        if outcome.reason is not None:
            attributes["meshaware.reason"] = outcome.reason
        self._calls.add(1, attributes)
        if outcome.verdict in ("deadline", "overdue"):
            enforced = outcome.verdict == "deadline"
            self._cut.add(
                1, {"meshaware.deadline.enforced": enforced, "meshaware.budget.source": outcome.source, **route}
            )

    def served(self, outcome: ServedOutcome) -> None:
        """Count a request that came with a deadline."""
        self._served.add(
            1,
            {
                "meshaware.verdict": outcome.verdict,
                "meshaware.deadline.source": outcome.source,
                "meshaware.deadline.enforced": outcome.held,
                "meshaware.deadline.retried": outcome.retried,
            },
        )

    def gate(self, outcome: GateOutcome) -> None:
        """Record how long a gate was waited for."""
        self._gate.record(outcome.waited, {"meshaware.gate.result": outcome.result, "meshaware.mesh": outcome.mesh})

    def refreshed(self, refresh: RouteRefresh) -> None:
        """Count an attempt to read the live routes that failed."""
        if not refresh.confirmed:
            self._failures.add(1)

    def _bounded(self, route: str) -> str:
        known = self._routes.get(route)
        if known is None:
            if len(self._routes) >= _MOST_ROUTES:
                return _OTHER_ROUTE
            known = self._routes[route] = route[:_LONGEST_ROUTE]
        return known


def _age(_: CallbackOptions) -> Iterable[Observation]:
    confirmed = routes_confirmed()
    return () if confirmed is None else (Observation(monotonic() - confirmed),)
