"""Those who know and those who want to know meet, whoever comes first."""

from __future__ import annotations

import gc
from weakref import ref

import pytest

from meshaware import MeshSettings, RouteTable, create_client, instrumentation
from meshaware.instrumentation import (
    CallOutcome,
    GateOutcome,
    RouteRefresh,
    ServedOutcome,
    announce_call,
    announce_client,
    announce_gate,
    announce_routes,
    announce_served,
    calls_observed,
    on_call,
    on_client,
    on_gate,
    on_route_refresh,
    on_served,
    routes_confirmed,
    served_observed,
)


class Client:
    """Like a client of httpx: it can be referred to weakly."""


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instrumentation, "_registry", type(instrumentation._registry)())  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(instrumentation, "_clients", type(instrumentation._clients)())  # pyright: ignore[reportPrivateUsage]


def test_a_client_made_later_is_told() -> None:
    told: list[object] = []
    on_client(told.append)
    client = Client()

    announce_client(client)

    assert told == [client]


def test_a_client_made_before_is_told_at_once() -> None:
    client, told = Client(), list[object]()
    announce_client(client)

    on_client(told.append)

    assert told == [client]


def test_everybody_who_asked_is_told_of_every_client_once() -> None:
    first, second = list[object](), list[object]()
    on_client(first.append)
    announce_client(early := Client())
    on_client(second.append)
    on_client(first.append)
    announce_client(late := Client())

    assert first == [early, late]
    assert second == [early, late]


def test_a_client_is_not_kept_alive() -> None:
    client = Client()
    announce_client(client)
    gone = ref(client)
    del client
    gc.collect()
    told: list[object] = []

    on_client(told.append)

    assert gone() is None
    assert told == []


def test_an_error_of_one_who_is_told_of_clients_is_logged_once_and_reaches_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Neither whoever makes a client, nor whoever asks, nor the others who are told."""
    told: list[object] = []

    def fail(client: object) -> None:
        raise LookupError("no such client")

    announce_client(early := Client())
    on_client(fail)
    on_client(told.append)
    with create_client(MeshSettings(mesh="none"), routes=RouteTable.empty()) as client:
        assert told == [early, client]

    (record,) = caplog.records
    assert (record.name, record.levelname) == ("meshaware.instrumentation", "ERROR")


def test_who_was_told_of_clients_may_stop_and_ask_again() -> None:
    told: list[object] = []
    stop = on_client(told.append)
    announce_client(first := Client())

    stop()
    announce_client(second := Client())
    assert told == [first]

    on_client(told.append)
    assert len(told) == 3
    assert set(told[1:]) == {first, second}


def test_a_call_is_told_at_the_moment_that_was_asked_for() -> None:
    answers, ends = list[CallOutcome](), list[CallOutcome]()
    on_call(answers.append, at="answer")
    on_call(ends.append)

    announce_call(CallOutcome("answered"), "answer")
    announce_call(CallOutcome("deadline"), "end")

    assert (answers, ends) == ([CallOutcome("answered")], [CallOutcome("deadline")])


def test_how_a_request_with_a_deadline_ended_is_told_until_nobody_listens() -> None:
    told = list[ServedOutcome]()
    outcome = ServedOutcome("in_time", 1.0, 0.5, "header", held=True, retried=False)
    before = served_observed()
    stop = on_served(told.append)
    during = served_observed()

    announce_served(outcome)
    stop()
    announce_served(outcome)

    assert (before, during, served_observed()) == (False, True, False)
    assert told == [outcome]


def test_whether_anybody_listens_can_be_asked_until_he_stops() -> None:
    before = calls_observed()
    stops = [on_call(print, at="answer"), on_call(print)]

    assert (before, calls_observed()) == (False, True)
    for stop in stops:
        stop()
        stop()
    assert not calls_observed()


def test_who_listens_may_say_when_there_is_something_for_him(caplog: pytest.LogCaptureFixture) -> None:
    """A condition that fails is said once, and counts as none that holds."""
    there = False

    def fail() -> bool:
        raise LookupError("no span")

    stops = [on_call(print, at="answer", when=lambda: there), on_call(repr, at="answer", when=fail)]
    nothing = calls_observed(), calls_observed("answer"), calls_observed("end")
    there = True
    something = calls_observed(), calls_observed("answer"), calls_observed("end")

    assert nothing == (False, False, False)
    assert something == (True, True, False)
    assert len(caplog.records) == 1
    stops[0]()
    assert not calls_observed()


def test_an_equal_callback_is_told_once() -> None:
    told: list[CallOutcome] = []
    on_call(told.append)
    on_call(told.append)

    announce_call(CallOutcome("answered"), "end")

    assert told == [CallOutcome("answered")]


def test_an_error_of_one_who_listens_is_logged_once_and_the_others_are_told(caplog: pytest.LogCaptureFixture) -> None:
    told: list[CallOutcome] = []

    def fail(outcome: CallOutcome) -> None:
        raise LookupError("no such metric")

    on_call(fail)
    on_call(told.append)
    announce_call(CallOutcome("answered"), "end")
    announce_call(CallOutcome("error"), "end")

    assert len(told) == 2
    (record,) = caplog.records
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], LookupError)


def test_gates_are_told_to_those_who_come_later_too_and_only_the_last_few_are_kept() -> None:
    for number in range(100):
        announce_gate(GateOutcome("opened", float(number), "istio"))
    told: list[GateOutcome] = []
    stop = on_gate(told.append)
    announce_gate(GateOutcome("failed", 100.0, "istio"))
    stop()
    announce_gate(GateOutcome("failed", 101.0, "istio"))

    assert [outcome.waited for outcome in told] == [float(number) for number in range(84, 101)]


def test_a_failed_refresh_leaves_the_last_confirmation() -> None:
    told: list[RouteRefresh] = []
    on_route_refresh(told.append)
    never = routes_confirmed()

    announce_routes(confirmed=True)
    announce_routes(confirmed=False)

    assert never is None
    assert [refresh.confirmed for refresh in told] == [True, False]
    assert routes_confirmed() == told[0].at
