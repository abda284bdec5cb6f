"""The course of a call: it takes what the tight total says, and its parts follow each other."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaware.budgets import Budget
from meshaware.budgets.timeline import Span, course

_SECONDS = st.floats(0.001, 100.0)
_RETRY_ON = st.sampled_from(["5xx", "connect-failure", "reset,unavailable", "connect-failure,refused-stream"])
_BUDGETS = st.builds(
    Budget,
    timeout=st.none() | _SECONDS,
    attempts=st.integers(0, 12) | st.just(1_000_000),
    per_try_timeout=st.none() | _SECONDS,
    retry_on=_RETRY_ON,
    connect_timeout=st.none() | _SECONDS,
    backoff=st.floats(0.001, 1.0),
    delay=st.just(0.0) | _SECONDS,
)


@given(_BUDGETS)
def test_it_ends_where_the_tight_total_ends(budget: Budget) -> None:
    """Without gaps, from the end of the request on; of a million tries no more is told than of five."""
    spans, tight = course(budget), budget.total(0.0, "tight")
    if tight is None:
        assert spans == ()
        return
    assert spans[0].start == 0.0
    assert all(before.end == after.start for before, after in pairwise(spans))
    assert spans[-1].end == pytest.approx(tight, rel=1e-9, abs=1e-9)
    assert [span.cut for span in spans[:-1]] == [False] * (len(spans) - 1)
    assert spans[-1].cut is (budget.timeout is not None)
    assert len(spans) <= 14


def rounded(budget: Budget) -> list[tuple[str, int, float, float]]:
    return [(span.kind, span.number, round(span.start, 6), round(span.end, 6)) for span in course(budget)]


def test_tries_that_time_out_are_repeated_until_the_timeout() -> None:
    """With back-off at its longest between them."""
    assert rounded(Budget(timeout=3.0, attempts=2, per_try_timeout=1.0, retry_on="5xx")) == [
        ("try", 1, 0.0, 1.0),
        ("backoff", 1, 1.0, 1.025),
        ("try", 2, 1.025, 2.025),
        ("backoff", 2, 2.025, 2.075),
        ("try", 3, 2.075, 3.0),
    ]


def test_a_try_that_is_not_repeated_when_it_times_out_comes_last() -> None:
    """The tries before it fail while they connect, as Istio's default repeats those only."""
    assert rounded(Budget(attempts=1, per_try_timeout=1.0, connect_timeout=10.0, delay=2.0)) == [
        ("delay", 0, 0.0, 2.0),
        ("connect", 1, 2.0, 12.0),
        ("backoff", 1, 12.0, 12.025),
        ("connect", 2, 12.025, 22.025),
        ("try", 2, 22.025, 23.025),
    ]


@pytest.mark.parametrize("condition", ["connect-failure", "5xx"])
def test_a_try_without_a_bound_of_its_own_lasts_until_the_timeout_as_the_last(condition: str) -> None:
    """So that all tries are told: any of them may last as long."""
    assert rounded(Budget(timeout=3.0, attempts=1, retry_on=condition)) == [
        ("try", 1, 0.0, 0.0),
        ("backoff", 1, 0.0, 0.025),
        ("try", 2, 0.025, 3.0),
    ]


def test_a_response_may_go_on_until_the_timeout() -> None:
    """A per-try timeout ends with its head."""
    assert course(Budget(timeout=3.0, per_try_timeout=1.0)) == (
        Span("try", 1, 0.0, 1.0),
        Span("response", 1, 1.0, 3.0, cut=True),
    )


def test_many_tries_are_told_as_one() -> None:
    """The first three and the last one stand by themselves."""
    assert rounded(Budget(attempts=10, per_try_timeout=1.0, retry_on="5xx"))[-2:] == [
        ("more", 7, 3.175, 11.875),
        ("try", 11, 11.875, 12.875),
    ]
