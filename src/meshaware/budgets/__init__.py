"""
How long a call may take: what the mesh was told, read from manifests or from the sidecar.

    budget.py           one budget: its numbers, and the seconds they come to
    route.py            a route and its conditions, as plain values
    table.py            all routes, and the one that a call takes
    choice.py           ... by port and host: domains.py;  by conditions: match.py, paths.py
                        ... by regular expressions: regex.py, re2.py, automaton.py
    manifests.py        routes from files: documents.py, fields.py
                        ... by kind: virtual_service.py, conditions.py, http_route.py, destination_rule.py, registry.py
                        ... which of them govern: precedence.py, delegates.py
    explain.py          why a call takes its route, told by the same tests
    timeline.py         the longest course of a call, try by try
    diff.py             what is different between two tables
    config_dump.py      routes from Envoy: dump_reader.py, pieces.py, envoy_json.py, envoy_route.py, envoy_match.py
    sources.py          the table that holds now, read from the live sidecar: rounds.py, polling.py, driving.py,
                        for all processes of a pod: sharing.py,  for some hosts: filtering.py
    once.py             ... and read once
"""

from __future__ import annotations

from meshaware.budgets.budget import Budget, declared_budget
from meshaware.budgets.route import Route
from meshaware.budgets.table import RouteSource, RouteTable

__all__ = ["Budget", "Route", "RouteSource", "RouteTable", "declared_budget"]
