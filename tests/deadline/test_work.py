"""The deadline of the work in hand."""

from __future__ import annotations

import contextvars
import math

import pytest

from meshaware.deadline import current_deadline, limit, remaining


def test_nothing_holds_unless_it_is_said() -> None:
    """Outside of a limit there is no deadline."""
    assert remaining() is None
    assert current_deadline() is None


def test_a_limit_holds_in_its_block_and_ends_with_it() -> None:
    """Also when the block raises."""
    with pytest.raises(KeyError), limit(5):
        left = remaining()
        assert left is not None
        assert 4.9 < left <= 5
        raise KeyError
    assert remaining() is None


def test_a_limit_can_only_be_shortened() -> None:
    """A callee never gets more time than its caller has."""
    with limit(1):
        outer = current_deadline()
        with limit(60):
            assert current_deadline() == outer
        with limit(0.5):
            assert (current_deadline() or math.inf) < (outer or 0)
        assert current_deadline() == outer


def test_background_work_can_detach() -> None:
    """None says that no deadline holds in the block."""
    with limit(1), limit(None):
        assert remaining() is None


def test_what_is_left_is_never_negative() -> None:
    """A driver that takes a timeout would take a negative one for an error."""
    with limit(0):
        assert remaining() == 0.0


@pytest.mark.parametrize("seconds", [-1, math.nan])
def test_a_limit_is_a_number_of_seconds_from_now(seconds: float) -> None:
    """A negative number or NaN is refused and named."""
    with pytest.raises(ValueError, match=f"seconds={seconds}"), limit(seconds):
        pass


def test_a_limit_stays_in_its_context() -> None:
    """Another context does not see it."""
    other = contextvars.copy_context()
    with limit(1):
        assert other.run(remaining) is None
