"""The clock of one call: what moves it, and when it ends."""

from __future__ import annotations

import httpx
import pytest

from meshaware.client import call as module
from meshaware.client.allowance import Allowance, from_budget
from meshaware.client.call import Call, Whole


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(name="clock")
def _clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "monotonic", clock)
    return clock


def start(allowance: Allowance | None = None, *, until: float | None = None, whole: Whole | None = None) -> Call:
    request = httpx.Request("GET", "http://inventory/")
    return Call(request, None, allowance or from_budget(2.0, "route"), until, whole)


def test_a_transport_that_tells_nothing_has_its_clock_started_at_the_begin(clock: Clock) -> None:
    """It is ended in time, and what it did was to wait for the answer."""
    call = start()
    call.begin("wait")
    assert call.end == 102.0
    clock.now = 101
    assert call.spent() == {"wait": 1}
    call.answered()
    assert call.end == 102.0


def test_a_transport_with_a_pool_says_so_at_the_begin_only(clock: Clock) -> None:
    """Who asks later for the pool's timeout has not been waiting for it since then."""
    call = start()
    call.begin("wait")
    call.begin("pool")
    clock.now = 101
    assert call.spent() == {"pool": 1}
    call.enter("send", 101)
    call.begin("wait")
    clock.now = 102
    assert call.spent() == {"pool": 1, "send": 1}


def test_the_clock_starts_when_the_upload_ends(clock: Clock) -> None:
    """Connecting and sending have bounds of their own and do not use the budget up."""
    call = start()
    call.enter("connect", 101)
    assert call.left() is None
    call.enter("send", 103)
    assert call.left() is None
    call.enter("wait", 110)
    assert call.end == 112
    clock.now = 111
    call.answered()
    assert call.end == 112
    assert call.spent() == {"pool": 1, "connect": 2, "send": 7, "wait": 1, "body": 0}
    assert call.began == 100
    assert call.since_sent() == 1


def test_a_deadline_of_the_work_in_hand_counts_from_the_begin(clock: Clock) -> None:
    """It holds in every phase."""
    call = start(until=101.5)
    assert call.end == 101.5
    call.enter("connect", clock.now)
    assert call.end == 101.5
    call.enter("wait", clock.now)
    assert call.end == 101.5
    call.answered()
    assert call.end == 101.5


def test_a_tunnel_s_own_request_does_not_start_the_clock(clock: Clock) -> None:
    """CONNECT is sent and answered as a request is; the one that follows starts over."""
    whole = Whole()
    call = start(whole=whole)
    call.enter("send", 100)
    call.enter("wait", 100)
    call.enter("connect", 105)
    assert call.left() is None
    call.enter("send", 106)
    call.enter("wait", 107)
    assert call.end == 109
    call.answered()
    assert start(whole=whole).until == 109


def test_who_follows_the_phases_is_told_of_each_new_end(clock: Clock) -> None:
    """A cancel scope moves with it."""
    ends: list[float | None] = []
    call = start()
    call.on_end = ends.append
    call.enter("send", clock.now)
    call.enter("wait", clock.now)
    assert ends == [None, 102.0]


def test_the_hops_of_one_call_share_its_end(clock: Clock) -> None:
    """A redirect does not start the budget anew."""
    whole = Whole()
    first = start(whole=whole)
    first.enter("wait", 100)
    first.answered()
    clock.now = 101
    second = start(from_budget(60, "default"), whole=whole)
    assert second.end == 102
    second.enter("connect", 101)
    assert second.end == 102
    assert start(until=101.5, whole=whole).end == 101.5
    second.enter("wait", 101)
    second.answered()
    assert whole.total is not None
    assert whole.total.at == 102


def test_where_the_mesh_bounds_nothing_the_hops_share_the_wait_for_the_headers(clock: Clock) -> None:
    """60 s to the response means the one that the caller gets; its body may run as long as it speaks."""
    streams = from_budget(60, "default", streams=True)
    whole = Whole()
    first = start(streams, whole=whole)
    first.answered()
    assert first.left() is None
    clock.now = 150
    second = start(streams, whole=whole)
    second.enter("wait", 155)
    assert second.end == 160
    second.answered()
    assert second.left() is None
    clock.now = 151
    assert start(whole=whole).end == 153
    assert start(Allowance(None, None, {}, "default"), whole=whole).end == 160


def test_an_upgraded_connection_is_nobody_s_answer(clock: Clock) -> None:
    """A WebSocket outlives budget and deadline; what its user waits for is his to bound."""
    call = start(until=101)
    call.enter("wait", 100)
    call.answered(upgraded=True)
    assert call.end is None
    assert not call.silent(0)


def test_silence_counts_where_the_budget_bounds_it(clock: Clock) -> None:
    """From the begin of the phase, or of the read; what the caller bounded is his own."""
    call = start(from_budget(2.0, "default", streams=True))
    call.enter("wait", 100)
    call.answered()
    clock.now = 101.9
    assert call.bound() == 2.0
    assert call.silent()
    assert not call.silent(101)
    theirs = start(from_budget(2.0, "route")._replace(ours=False))
    assert not theirs.silent(0)


def test_a_timer_that_fires_a_hair_early_counts(clock: Clock) -> None:
    """Within a millisecond of its end a call is over."""
    call = start()
    clock.now = 101.9995
    assert call.expired()
    assert call.left() == pytest.approx(0.0005)


def test_a_call_without_an_end_never_expires(clock: Clock) -> None:
    """None is not zero."""
    call = start(Allowance(None, None, {}, "default"))
    assert call.left() is None
    assert not call.expired()


def observed(clock: Clock, *, head: bool) -> tuple[Call, list[float]]:
    """A call that would have been cut after two seconds, and what was told of it."""
    told: list[float] = []
    call = start(Allowance(None, None, {}, "default", ours=False))
    call.observed, call.observed_head = 2.0, head
    call.on_overdue = lambda late, limit: told.append(clock.now if late is call else limit)
    return call, told


def test_a_call_that_is_observed_is_late_from_the_end_of_its_upload(clock: Clock) -> None:
    """An upload may take what it takes; and it is told once."""
    call, told = observed(clock, head=False)
    call.enter("send", 100)
    clock.now = 110
    assert not call.late()
    call.enter("wait", 110)
    clock.now = 111
    call.answered()
    assert not call.late()
    clock.now = 113
    assert call.late()
    call.overdue()
    call.overdue()
    assert told == [113]


def test_where_the_headers_alone_are_bounded_a_body_is_never_late(clock: Clock) -> None:
    """If they were in time, the call was."""
    call, told = observed(clock, head=True)
    call.enter("wait", 100)
    clock.now = 101
    call.answered()
    clock.now = 200
    assert not call.late()
    call.overdue()
    assert told == []


def test_headers_that_were_late_are_told_as_they_come(clock: Clock) -> None:
    """And the call stays late."""
    call, told = observed(clock, head=True)
    call.enter("wait", 100)
    clock.now = 103
    call.answered()
    assert told == [103]
    assert call.late()


def test_a_call_that_nobody_observes_is_never_late(clock: Clock) -> None:
    """It is ended."""
    call = start()
    clock.now = 1000
    call.overdue()
    assert not call.late()
