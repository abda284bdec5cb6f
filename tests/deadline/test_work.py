"""The deadline of the work in hand."""

from __future__ import annotations

import contextvars
import math
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from threading import Thread
from time import monotonic

import pytest

from meshaware.deadline import current_deadline, detached, limit, remaining
from meshaware.deadline.work import Work, begin, end, told_deadline


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
    """No deadline holds in the block, and after it the one before does."""
    with limit(1):
        for block in (detached(), limit(None)):
            with block:
                assert remaining() is None
                with limit(30):
                    assert (remaining() or 0) > 29
            assert (remaining() or math.inf) <= 1


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


def test_the_work_ends_for_all_that_share_it_once_it_says_so() -> None:
    """Tasks and threads that copied the context are let go together; limits of their own stay."""
    work = Work(monotonic() + 5)
    token = begin(work)
    with limit(30):
        seen = contextvars.copy_context()
    other = contextvars.copy_context()
    assert (other.run(remaining) or 0) > 4
    work.at = None
    assert other.run(remaining) is None
    assert (seen.run(remaining) or math.inf) <= 30
    end(token)
    assert remaining() is None


def test_what_is_only_observed_holds_nothing_and_is_told() -> None:
    """For adopting deadlines on a running fleet."""
    token = begin(Work(monotonic() + 1, held=False))
    try:
        assert remaining() is None
        assert (told_deadline() or 0) > monotonic()
        with limit(0.5):
            assert current_deadline() == told_deadline()
        with limit(30):
            assert (current_deadline() or 0) > (told_deadline() or 0)
    finally:
        end(token)
    assert told_deadline() is None


def test_work_that_is_ended_elsewhere_ends_there_without_an_error() -> None:
    """A request that nobody finishes is closed by whoever finds it."""
    token = contextvars.copy_context().run(begin, Work(None))
    end(token)
    assert remaining() is None


def test_a_block_around_a_yield_that_goes_on_elsewhere_says_so() -> None:
    """It would not have held all along."""

    def held() -> Generator[None]:
        with limit(1):
            yield

    generator = held()
    contextvars.copy_context().run(next, generator)
    with pytest.raises(RuntimeError, match="ends where it did not begin"):
        next(generator)


def test_an_error_on_its_way_is_not_replaced_by_that() -> None:
    """The error tells more."""

    def held() -> Generator[None]:
        with limit(1):
            yield

    generator = held()
    contextvars.copy_context().run(next, generator)
    with pytest.raises(KeyError):
        generator.throw(KeyError())


def test_a_block_ends_what_was_left_unfinished_inside_it() -> None:
    """A generator that is closed late puts nothing back."""

    def held() -> Generator[None]:
        with limit(1):
            yield

    with limit(5):
        generator = held()
        next(generator)
    assert remaining() is None


def test_a_plain_thread_starts_without() -> None:
    """As with headers; `carry` takes it along."""
    seen: list[float | None] = []
    with limit(5):
        thread = Thread(target=lambda: seen.append(remaining()))
        thread.start()
        thread.join(5)
        with ThreadPoolExecutor() as pool:
            carried = pool.submit(contextvars.copy_context().run, remaining).result(5)
    assert seen == [None]
    assert (carried or 0) > 4
