"""All who wait at one gate, on a clock of the tests' own."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshaware.flavours import FLAVOURS, Detected
from meshaware.flavours.unknown import UNKNOWN
from meshaware.sidecar.schedule import ATTEMPT, GRACE
from meshaware.sidecar.waiting import Answer, Turn, Waiter, WaitingRoom

URL = "http://localhost:15021/healthz/ready"
ISTIO = Detected(FLAVOURS["istio"], "mesh=istio is set", settled=True)
CANDIDATE = Detected(UNKNOWN, "nothing is known", settled=False)
FOUND = Detected(FLAVOURS["istio"], "localhost:15021 answers", settled=True)
# What a search takes for a proxy; anything else at its port, a 404 for one, does not prove that there is one.
SIGNS = ("ready", "503", "silent")
NONE = Detected(FLAVOURS["none"], "not in Kubernetes", settled=True)

Proxy = Callable[[float], tuple[str, float]]
"""What it says to one who asks at this instant, and how long it takes to."""


class Simulation:
    """Threads and tasks on one simulated clock: each wakes a little late, as they do."""

    def __init__(self, room: WaitingRoom, proxy: Proxy, *, late: float = 0.0) -> None:
        self.room, self.proxy, self.late = room, proxy, late
        self.asked: list[float] = []
        self.ended: dict[Waiter, float] = {}
        self.news: list[str] = []
        self._order = itertools.count()
        self._events: list[tuple[float, int, Waiter | None, Answer | None, float]] = []

    def arrive(self, at: float, timeout: float) -> None:
        heapq.heappush(self._events, (at, next(self._order), None, None, timeout))

    def run(self) -> None:
        while self._events:
            now, _, waiter, answer, timeout = heapq.heappop(self._events)
            if waiter is None:
                waiter = self.room.join(now, timeout)
            if answer is not None:
                if answer.said in SIGNS:
                    self.room.find(FOUND, now, needless=False)
                self.room.hear(waiter, answer, now)
            turn = self.room.turn(waiter, now)
            if turn is None:
                self.room.leave(waiter, now)
                self.ended[waiter] = now
            elif turn.ask:
                self.asked.append(now)
                said, takes = self.proxy(now)
                heard = Answer(URL, said) if takes <= turn.seconds else Answer(URL, "silent")
                self._push(now + min(takes, turn.seconds), waiter, heard)
            else:
                self._push(now + turn.seconds + self.late, waiter, None)
            self.news += [each.what for each in self.room.take_news()]

    def _push(self, at: float, waiter: Waiter, answer: Answer | None) -> None:
        heapq.heappush(self._events, (at, next(self._order), waiter, answer, 0.0))


def ready_at(instant: float, before: str, takes: float = 0.0005) -> Proxy:
    return lambda now: ("ready" if now >= instant else before, takes)


@settings(max_examples=300, deadline=None)
@given(
    ready=st.floats(min_value=0, max_value=59),
    before=st.sampled_from(["503", "refused"]),
    waiters=st.integers(min_value=1, max_value=5),
    takes=st.floats(min_value=0, max_value=0.0005),
    late=st.floats(min_value=0, max_value=0.0002),
)
def test_a_ready_proxy_is_noticed_within_a_tenth_of_the_wait_and_10_ms(
    ready: float, before: str, waiters: int, takes: float, late: float
) -> None:
    """However many wait, whatever the proxy said before: never more than 250 ms late, and all of them learn of it."""
    simulation = Simulation(WaitingRoom(ISTIO), ready_at(ready, before, takes), late=late)
    for _ in range(waiters):
        simulation.arrive(0.0, 60.0)
    simulation.run()
    assert len(simulation.ended) == waiters
    for ended in simulation.ended.values():
        assert ended - ready <= min(0.1 * ended + 0.01, 0.25)
    assert simulation.room.is_open


@settings(max_examples=100, deadline=None)
@given(ready=st.floats(min_value=0.5, max_value=20), waiters=st.integers(min_value=2, max_value=8))
def test_many_ask_as_often_as_one(ready: float, waiters: int) -> None:
    """The schedule is the gate's: with many waiters the proxy gets the requests that one would make, one at a time."""
    counts: list[int] = []
    for number in (1, waiters):
        simulation = Simulation(WaitingRoom(ISTIO), ready_at(ready, "503"), late=0.0002)
        for index in range(number):
            simulation.arrive(index * 0.01, 60.0)
        simulation.run()
        counts.append(len(simulation.asked))
        assert all(later - sooner >= 0.0079 for sooner, later in itertools.pairwise(simulation.asked))
    assert abs(counts[1] - counts[0]) <= 0.1 * counts[0] + 1


def test_requests_are_a_step_apart() -> None:
    """A proxy that answers 503 gets at most one request a step: under 60 in five seconds."""
    simulation = Simulation(WaitingRoom(ISTIO), ready_at(5.0, "503"))
    simulation.arrive(0.0, 60.0)
    simulation.run()
    assert 45 <= len(simulation.asked) <= 60


def test_a_silent_proxy_is_given_the_attempt_and_not_a_second_more() -> None:
    """Each attempt is bounded, the last by what is left; the wait ends on time."""
    simulation = Simulation(WaitingRoom(ISTIO), lambda _: ("ready", 1e9))
    simulation.arrive(0.0, 3.5)
    simulation.run()
    assert list(simulation.ended.values()) == [3.5]
    assert simulation.asked == pytest.approx([0.0, 1.0, 2.0, 3.0])
    assert simulation.room.state(4.0) == ("failed", f"{URL}: silent", 3.5, 4, "istio")


def test_an_attempt_without_time_for_an_answer_does_not_hide_what_was_said_before() -> None:
    """A proxy that takes 20 ms for its 503 is not called silent because 10 ms were left at the end."""
    simulation = Simulation(WaitingRoom(ISTIO), ready_at(99.0, "503", takes=0.02))
    simulation.arrive(0.0, 0.09)
    simulation.run()
    assert simulation.room.state(1.0) == ("failed", f"{URL}: 503", 0.09, 5, "istio")


def test_news_of_a_wait_are_its_begin_and_its_end() -> None:
    """One line when it begins, one when it opens."""
    simulation = Simulation(WaitingRoom(ISTIO), ready_at(2.0, "503"))
    for _ in range(3):
        simulation.arrive(0.0, 60.0)
    simulation.run()
    assert simulation.news == ["begun", "opened"]


def test_a_failed_wait_is_told_once() -> None:
    """Even if many gave up at the same instant; and the next wait tells anew."""
    simulation = Simulation(WaitingRoom(ISTIO), ready_at(99.0, "503"))
    for _ in range(3):
        simulation.arrive(0.0, 1.0)
    simulation.arrive(5.0, 1.0)
    simulation.run()
    assert simulation.news == ["begun", "failed", "begun", "failed"]


def test_a_proxy_that_is_ready_at_once_opens_the_gate_without_a_wait() -> None:
    """Nobody is told that a wait begins."""
    simulation = Simulation(WaitingRoom(ISTIO), ready_at(0.0, "503"))
    simulation.arrive(0.0, 1.0)
    simulation.run()
    assert simulation.news == ["opened"]
    assert simulation.room.state(9.0) == ("open", f"{URL}: ready", 0.0005, 1, "istio")


def test_the_gate_fails_when_the_last_one_gives_up() -> None:
    """One impatient caller does not make the gate fail for another who still waits."""
    room = WaitingRoom(ISTIO)
    impatient, patient = room.join(0.0, 1.0), room.join(0.0, 2.0)
    room.leave(impatient, 1.0)
    assert room.state(1.5) == ("waiting", "not asked yet: mesh=istio is set", 1.5, 0, "istio")
    room.leave(patient, 2.0)
    assert room.state(9.0)[:3] == ("failed", "not asked yet: mesh=istio is set", 2.0)


def test_a_cancelled_wait_is_no_failure() -> None:
    """The one who asked is gone: the state stays `waiting`, and the next one to wait begins a new schedule."""
    room = WaitingRoom(ISTIO)
    waiter = room.join(0.0, 60.0)
    assert room.turn(waiter, 0.0) == Turn(ask=True, seconds=ATTEMPT)
    room.leave(waiter, 0.3)
    assert room.state(5.0)[:3] == ("waiting", "not asked yet: mesh=istio is set", 0.3)
    assert room.take_news() == []
    assert room.turn(room.join(5.0, 60.0), 5.0) == Turn(ask=True, seconds=ATTEMPT)


def test_another_takes_over_from_one_who_was_cancelled_while_asking() -> None:
    """A cancelled attempt holds up nobody."""
    room = WaitingRoom(ISTIO)
    first, second = room.join(0.0, 60.0), room.join(0.0, 60.0)
    assert room.turn(first, 0.0) == Turn(ask=True, seconds=ATTEMPT)
    looking = room.turn(second, 0.0)
    assert looking is not None
    assert not looking.ask
    room.leave(first, 0.001)
    assert room.turn(second, 0.002) == Turn(ask=True, seconds=ATTEMPT)


def test_another_takes_over_from_one_who_vanished_while_asking() -> None:
    """An event loop that was closed, a fork without its thread: whoever asked never says what it heard, nor leaves."""
    room = WaitingRoom(ISTIO)
    vanished, second = room.join(0.0, 60.0), room.join(0.0, 60.0)
    room.turn(vanished, 0.0)
    turn = room.turn(second, 1.5)
    assert turn is not None
    assert not turn.ask
    assert room.turn(second, 2.0) == Turn(ask=True, seconds=ATTEMPT)
    # What the vanished one hears after all is an answer too, and does not end the attempt of the other.
    room.hear(vanished, Answer(URL, "503"), 2.1)
    assert room.state(2.1).attempts == 1
    looking = room.turn(room.join(2.1, 60.0), 2.1)
    assert looking is not None
    assert not looking.ask


def test_those_who_vanished_do_not_keep_a_later_wait_from_beginning_anew() -> None:
    """Their time is up some day."""
    room = WaitingRoom(ISTIO)
    room.turn(room.join(0.0, 1.0), 0.0)
    assert room.state(3.0)[:3] == ("waiting", "not asked yet: mesh=istio is set", 0.0)
    waiter = room.join(5.0, 1.0)
    assert room.turn(waiter, 5.0) == Turn(ask=True, seconds=1.0)
    assert room.state(5.5).waited == 0.5


def test_an_answer_that_comes_after_the_gate_opened_changes_nothing() -> None:
    """Once open, always open."""
    room = WaitingRoom(ISTIO)
    slow, quick = room.join(0.0, 60.0), room.join(0.0, 60.0)
    room.turn(slow, 0.0)
    room.turn(quick, 2.0)
    room.hear(quick, Answer(URL, "ready"), 2.0)
    room.hear(slow, Answer(URL, "503"), 2.5)
    room.leave(slow, 2.5)
    assert room.state(9.0)[:2] == ("open", f"{URL}: ready")


def test_where_nothing_answers_a_merely_possible_sidecar_is_not_waited_for() -> None:
    """After the grace the gate is open, and says why; which mesh it is stays unknown. One line of news, not two."""
    simulation = Simulation(WaitingRoom(CANDIDATE), ready_at(99.0, "refused", takes=0.0))
    simulation.arrive(0.0, 60.0)
    simulation.arrive(0.0, 60.0)
    simulation.run()
    assert all(GRACE <= ended <= GRACE + 0.25 for ended in simulation.ended.values())
    state = simulation.room.state(99.0)
    assert (state.status, state.flavour) == ("open", "unknown")
    assert not simulation.room.settled
    assert state.reason.startswith(f"no sidecar: {URL}: refused, ")
    assert simulation.news == ["absent"]


def test_what_is_no_proxy_does_not_prove_one() -> None:
    """A 404 at Istio's port is somebody else's."""
    simulation = Simulation(WaitingRoom(CANDIDATE), ready_at(99.0, "404"))
    simulation.arrive(0.0, 60.0)
    simulation.run()
    assert simulation.room.state(99.0).flavour == "unknown"


def test_one_who_has_less_time_than_the_grace_is_not_failed_by_a_sidecar_that_may_not_exist() -> None:
    """No mesh is a normal state, not an error."""
    simulation = Simulation(WaitingRoom(CANDIDATE), ready_at(99.0, "refused"))
    simulation.arrive(0.0, 0.5)
    simulation.run()
    assert list(simulation.ended.values()) == pytest.approx([0.5])
    assert simulation.room.is_open


@pytest.mark.parametrize("sign", ["503", "silent"])
def test_a_sign_of_a_sidecar_is_waited_for_beyond_the_grace(sign: str) -> None:
    """It exists, so the whole timeout is its own; and the wait is worth a line from then on."""

    def proxy(now: float) -> tuple[str, float]:
        return ("refused" if now < 1 else sign if now < 10 else "ready"), 0.001

    simulation = Simulation(WaitingRoom(CANDIDATE), proxy)
    simulation.arrive(0.0, 60.0)
    simulation.run()
    state = simulation.room.state(99.0)
    assert (state.status, state.flavour) == ("open", "istio")
    assert simulation.news == ["begun", "opened"]


def test_a_candidate_that_answers_at_once_is_open_at_once() -> None:
    """A native sidecar is up before the application is."""
    simulation = Simulation(WaitingRoom(CANDIDATE), ready_at(0.0, "refused"))
    simulation.arrive(0.0, 60.0)
    simulation.run()
    assert len(simulation.asked) == 1
    assert simulation.news == ["opened"]


def test_a_sidecar_that_comes_after_the_grace_is_found() -> None:
    """The gate stays open, the mesh is known from then on, and one line says so."""
    simulation = Simulation(WaitingRoom(CANDIDATE), ready_at(99.0, "refused"))
    simulation.arrive(0.0, 60.0)
    simulation.run()
    room = simulation.room
    room.find(FOUND, 20.0, needless=False)
    room.find(Detected(FLAVOURS["kuma"], "another", settled=True), 21.0, needless=False)
    assert room.is_open
    assert room.state(99.0)[:2] == ("open", FOUND.reason)
    assert room.flavour.name == "istio"
    assert [news.what for news in room.take_news()] == ["found"]


def test_a_mesh_that_is_found_to_have_no_proxy_opens_the_gate() -> None:
    """Ambient is told by its ports, and there is nothing to wait for."""
    room = WaitingRoom(CANDIDATE)
    waiter = room.join(0.0, 60.0)
    room.find(Detected(FLAVOURS["ambient"], "localhost:15008 is listening", settled=True), 0.5, needless=True)
    assert room.turn(waiter, 0.5) is None
    assert room.state(1.0)[:2] == ("open", "localhost:15008 is listening")


def test_without_an_address_there_is_nothing_to_wait_for() -> None:
    """Open from the start, with the reason."""
    room = WaitingRoom(NONE, "not in Kubernetes")
    assert room.is_open
    assert room.state(5.0) == ("open", "not in Kubernetes", 0.0, 0, "none")
    assert room.state(5.0).describe() == {"status": "open", "reason": "not in Kubernetes", "waited_ms": 0}


@settings(max_examples=200, deadline=None)
@given(
    arrivals=st.lists(st.tuples(st.floats(0, 20), st.floats(0.001, 10)), min_size=1, max_size=6),
    said=st.lists(st.sampled_from(["ready", "503", "refused", "404", "silent"]), min_size=1, max_size=40),
    takes=st.floats(min_value=0, max_value=3),
    candidate=st.booleans(),
)
def test_nobody_waits_longer_than_agreed(
    arrivals: list[tuple[float, float]], said: list[str], takes: float, candidate: bool
) -> None:
    """Whatever a proxy says and however slowly, everybody's wait ends when its time is up at the latest."""
    answers = iter(said)
    simulation = Simulation(WaitingRoom(CANDIDATE if candidate else ISTIO), lambda _: (next(answers, "503"), takes))
    for at, timeout in arrivals:
        simulation.arrive(at, timeout)
    simulation.run()
    assert len(simulation.ended) == len(arrivals)
    for waiter, ended in simulation.ended.items():
        assert ended <= waiter.until + 1e-9
    assert simulation.news.count("opened") + simulation.news.count("absent") <= 1
    state = simulation.room.state(99.0)
    assert state.status in ("open", "failed")
