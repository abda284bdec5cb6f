"""The clock of one call: which events move it, and when it ends."""

from __future__ import annotations

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
    return Call("GET http://inventory/", None, allowance or from_budget(2.0, "route"), until, whole)


def test_without_events_the_clock_starts_at_the_begin(clock: Clock) -> None:
    """A transport that reports nothing is still ended in time."""
    assert start().end == 102.0


def test_the_clock_starts_when_the_upload_ends(clock: Clock) -> None:
    """Connecting and sending have bounds of their own and do not use the budget up."""
    call = start()
    clock.now = 101
    call.enter("connect")
    assert call.left() is None
    clock.now = 103
    call.enter("send")
    assert call.left() is None
    clock.now = 110
    call.enter("wait")
    assert call.end == 112
    clock.now = 111
    call.enter("body")
    call.answered()
    assert call.end == 112
    assert call.spent() == {"pool": 1, "connect": 2, "send": 7, "wait": 1, "body": 0}


def test_a_deadline_of_the_work_in_hand_counts_from_the_begin(clock: Clock) -> None:
    """It holds in every phase."""
    call = start(until=101.5)
    assert call.end == 101.5
    call.enter("connect")
    assert call.end == 101.5
    call.enter("wait")
    assert call.end == 101.5


def test_a_tunnel_s_own_request_does_not_start_the_clock(clock: Clock) -> None:
    """CONNECT goes through the same events; the request that follows starts over."""
    call = start()
    call.enter("wait")
    call.enter("body")
    clock.now = 105
    call.enter("send")
    assert call.end is None
    call.enter("wait")
    assert call.end == 107


def test_the_hops_of_one_call_share_its_end(clock: Clock) -> None:
    """A redirect does not start the budget anew."""
    whole = Whole()
    first = start(whole=whole)
    first.enter("wait")
    first.answered()
    clock.now = 101
    second = start(from_budget(60, "default"), whole=whole)
    assert second.end == 102


def test_an_unbounded_total_bounds_no_later_hop(clock: Clock) -> None:
    """Where the mesh bounds nothing, each hop has the default for its headers."""
    whole = Whole()
    first = start(from_budget(60, "default", streams=True), whole=whole)
    first.answered()
    assert first.end is None
    assert start(whole=whole).end == 102


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
