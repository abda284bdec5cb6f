"""What is counted, and that it stays few."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest

from meshaware.instrumentation import (
    CallOutcome,
    GateOutcome,
    ServedOutcome,
    Verdict,
    announce_call,
    announce_gate,
    announce_routes,
    announce_served,
)
from meshaware.telemetry.measures import Measures

PAGE = (Path(__file__).parents[2] / "docs" / "telemetry.md").read_text()
CALLS, HITS = "meshaware.client.calls", "meshaware.client.deadline.hits"


@pytest.fixture(name="measures")
def _measures(meters: Any) -> Measures:
    measures = Measures(meters.provider)
    measures.listen()
    return measures


@pytest.mark.usefixtures("measures")
def test_calls_are_counted_by_what_became_of_them(meters: Any) -> None:
    for _ in range(2):
        announce_call(CallOutcome("answered", "items", "a.yaml", 0.4, "route", 0.1, "application"), "end")
    announce_call(CallOutcome("replied", "items", answered_by="sidecar", reason="timeout"), "end")
    announce_call(CallOutcome("cancelled"), "end")
    announce_call(CallOutcome("answered"), "answer")

    points = {tuple(sorted(attributes.items())): value for value, attributes in meters.points(CALLS)}
    assert points == {
        (
            ("meshaware.answered_by", "application"),
            ("meshaware.route.name", "items"),
            ("meshaware.verdict", "answered"),
        ): 2,
        (
            ("meshaware.answered_by", "sidecar"),
            ("meshaware.reason", "timeout"),
            ("meshaware.route.name", "items"),
            ("meshaware.verdict", "replied"),
        ): 1,
        (("meshaware.verdict", "cancelled"),): 1,
    }
    assert meters.points(HITS) == []


@pytest.mark.usefixtures("measures")
@pytest.mark.parametrize(("verdict", "enforced"), [("deadline", True), ("overdue", False)])
def test_deadlines_are_counted_as_calls_and_as_hits(meters: Any, verdict: Any, *, enforced: bool) -> None:
    announce_call(CallOutcome(verdict, "items", source="work", reason="wait"), "end")

    assert [value for value, _ in meters.points(CALLS)] == [1]
    assert meters.points(HITS) == [
        (
            1,
            {
                "meshaware.deadline.enforced": enforced,
                "meshaware.budget.source": "work",
                "meshaware.route.name": "items",
            },
        )
    ]


@pytest.mark.usefixtures("measures")
def test_requests_with_a_deadline_are_counted_by_how_they_ended(meters: Any) -> None:
    for _ in range(2):
        announce_served(ServedOutcome("late", 0.2, -0.1, "grpc-timeout", held=False, retried=True))

    assert meters.points("meshaware.server.deadlines") == [
        (
            2,
            {
                "meshaware.verdict": "late",
                "meshaware.deadline.source": "grpc-timeout",
                "meshaware.deadline.enforced": False,
                "meshaware.deadline.retried": True,
            },
        )
    ]


@pytest.mark.usefixtures("measures")
def test_route_names_are_bounded_in_number_and_length(meters: Any) -> None:
    """They come from a configuration that changes while the process runs."""
    for number in range(1000):
        announce_call(CallOutcome("answered", f"{number:0>300}"[-300:] if number else "x" * 5000), "end")

    names = {attributes["meshaware.route.name"] for _, attributes in meters.points(CALLS)}
    assert "_OTHER" in names
    assert len(names) <= 201
    assert max(map(len, names)) == 128


@pytest.mark.usefixtures("measures")
def test_gates_are_measured_also_those_that_opened_before(meters: Any) -> None:
    announce_gate(GateOutcome("opened", 2.5, "istio"))

    assert meters.points("meshaware.gate.wait") == [
        (2.5, {"meshaware.gate.result": "opened", "meshaware.mesh": "istio"})
    ]


def test_a_gate_that_opened_before_anybody_listened_is_measured(meters: Any) -> None:
    announce_gate(GateOutcome("absent", 3.0, "none"))

    Measures(meters.provider).listen()

    assert [value for value, _ in meters.points("meshaware.gate.wait")] == [3.0]


@pytest.mark.usefixtures("measures")
def test_the_age_of_the_routes_counts_from_their_last_confirmation(meters: Any) -> None:
    never = meters.points("meshaware.routes.age")
    announce_routes(confirmed=True)
    announce_routes(confirmed=False)
    announce_routes(confirmed=False)

    assert never == []
    ((age, attributes),) = meters.points("meshaware.routes.age")
    assert 0 <= age < 10
    assert attributes == {}
    assert meters.points("meshaware.routes.refresh.failures") == [(2, {})]


def test_what_stops_counts_no_more_and_what_listens_twice_counts_once(meters: Any, measures: Measures) -> None:
    measures.listen()
    announce_call(CallOutcome("answered"), "end")
    measures.stop()
    announce_call(CallOutcome("answered"), "end")

    assert [value for value, _ in meters.points(CALLS)] == [1]


@pytest.mark.usefixtures("measures")
def test_the_documentation_has_every_metric_with_its_unit_and_attributes(meters: Any) -> None:
    announce_call(CallOutcome("overdue", "items", answered_by="application", reason="x"), "end")
    announce_served(ServedOutcome("cut", 1.0, -0.1, "header", held=True, retried=False))
    announce_gate(GateOutcome("opened", 1.0, "istio"))
    announce_routes(confirmed=True)
    announce_routes(confirmed=False)

    rows = re.findall(r"^\| `(meshaware[^`]+)` \| (?:counter|gauge|histogram), `(.+?)` \| (.*?) \|", PAGE, re.MULTILINE)
    documented = {name: (unit, set(re.findall(r"`(.+?)`", attributes))) for name, unit, attributes in rows}
    measured = {
        metric.name: (metric.unit, {name for point in metric.data.data_points for name in point.attributes})
        for metric in meters.metrics()
    }
    assert documented == measured


def test_the_documentation_has_every_verdict() -> None:
    table = PAGE[PAGE.index("### What became of a call") :]

    assert tuple(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))[: len(get_args(Verdict))] == get_args(Verdict)
