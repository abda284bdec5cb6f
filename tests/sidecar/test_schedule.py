"""When a proxy is asked again."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaware.sidecar.schedule import ATTEMPT, GRACE, again, look, step

SECONDS = st.floats(min_value=0, max_value=1e9)


@given(waited=SECONDS)
def test_a_step_is_a_tenth_of_the_wait_between_about_10_and_250_ms(waited: float) -> None:
    """Short at first, so that a quick proxy costs nothing; never so long that a ready one goes unseen."""
    assert 0.008 <= step(waited) <= 0.25
    if 0.1 <= waited <= 2:
        assert step(waited) == pytest.approx(waited / 10)


@given(one=SECONDS, other=SECONDS)
def test_steps_never_get_shorter(one: float, other: float) -> None:
    """Who has waited longer asks less often."""
    earlier, later = sorted((one, other))
    assert step(earlier) <= step(later)


@given(waited=SECONDS)
def test_a_refused_attempt_is_repeated_after_half_a_step(waited: float) -> None:
    """It costs the proxy nothing, and a port that refuses is the one that opens any moment."""
    assert step(waited, refused=True) == step(waited) / 2


@given(waited=SECONDS)
def test_looking_at_the_others_adds_little(waited: float) -> None:
    """Step and look together stay within what was promised."""
    assert 0 < look(waited) <= 0.01
    assert step(waited) + look(waited) <= min(0.1 * waited + 0.01, 0.25)


def test_a_minute_of_waiting_takes_some_three_hundred_attempts() -> None:
    """A proxy that starts slowly is not asked more than that."""
    waited, attempts = 0.0, 0
    while waited < 60:
        waited += step(waited)
        attempts += 1
    assert 270 <= attempts <= 310


def test_attempt_and_grace_are_short() -> None:
    """One attempt never holds up the others for long; a pod without a sidecar is not kept waiting."""
    assert ATTEMPT == 1.0
    assert GRACE == 3.0


def test_a_proxy_that_nobody_waits_for_is_looked_for_ever_more_rarely() -> None:
    """After a second first; later once a minute, for ever."""
    assert list(islice(again(), 9)) == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
