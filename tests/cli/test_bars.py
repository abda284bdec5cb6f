"""The course of a call as bars."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshaware.budgets import Budget
from meshaware.budgets.timeline import course
from meshaware.cli.bars import draw
from meshaware.cli.terminal import Look

_SECONDS = st.floats(0.001, 1e9)


def drawn(budget: Budget, look: Look) -> list[str]:
    tight, ceiling = budget.total(policy="tight"), budget.total()
    assert tight is not None
    assert ceiling is not None
    return draw(course(budget), [("tight", tight), ("ceiling", ceiling)], look)


def test_each_part_stands_where_it_happens() -> None:
    """Tries, the back-offs between them, and both totals below, all in the same scale; here in ASCII."""
    budget = Budget(timeout=3.0, attempts=2, per_try_timeout=1.0, retry_on="5xx")
    assert drawn(budget, Look(80, drawn=False)) == [
        "  try 1        |#######                               | 0s to 1s",
        "  back-off     |       .                              | 1s to 1.025s",
        "  try 2        |       ########                       | 1.025s to 2.025s",
        "  back-off     |              .                       | 2.025s to 2.075s",
        "  try 3        |               #######                | 2.075s to 3s, timeout",
        "  tight        |========================              | 3.25s",
        "  ceiling      |======================================| 5.25s",
    ]


def test_connecting_delays_and_what_is_left_of_the_response_have_bars_of_their_own() -> None:
    """And many tries share one."""
    lines = drawn(Budget(20.0, 9, 1.0, "5xx", connect_timeout=0.5, delay=2.0), Look(60))
    assert [line[2:14].strip() for line in lines] == [
        "delay",
        *("connect 1", "try 1", "back-off"),
        *("connect 2", "try 2", "back-off"),
        *("connect 3", "try 3", "back-off"),
        *("6 more", "connect 10", "try 10"),
        *("response", "tight", "ceiling"),
    ]
    assert lines[0] == "  delay        |░                 | 0s to 2s"


def test_tries_that_fail_at_once_say_so() -> None:
    """A bar cannot be shorter than a column."""
    lines = drawn(Budget(timeout=3.0, attempts=1), Look(60))
    assert [line.partition("| ")[2] for line in lines[:3]] == ["0s, fails at once", "0s to 25ms", "25ms to 3s, timeout"]


@given(
    st.builds(
        Budget,
        timeout=_SECONDS,
        attempts=st.integers(0, (1 << 32) - 1),
        per_try_timeout=st.none() | _SECONDS,
        retry_on=st.sampled_from(["5xx", "connect-failure"]),
        connect_timeout=st.none() | _SECONDS,
        delay=st.just(0.0) | _SECONDS,
    ),
    st.builds(Look, st.integers(60, 100), st.booleans()),
)
def test_every_line_has_the_same_frame(budget: Budget, look: Look) -> None:
    """Whatever the numbers, each bar begins and ends inside it, and is not empty."""
    lines = drawn(budget, look)
    assert len(lines) <= 16
    frames = [line[15 : look.width - 25] for line in lines]
    for frame in frames:
        assert (frame[0], frame[-1]) == ("|", "|")
        assert frame[1:-1].strip()
    assert {line[look.width - 25] for line in lines} <= {" "}
