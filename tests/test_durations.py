"""Durations as the mesh writes them."""

from __future__ import annotations

import math
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaware.durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1h30m", 5400.0),
        ("0.5s", 0.5),
        ("250ms", 0.25),
        ("1.5h", 5400.0),
        ("2.500s", 2.5),  # Envoy's own JSON
        (".5s", 0.5),
        ("1.s", 1.0),
        ("1m0.25s", 60.25),
        ("100us", 0.0001),
        ("100µs", 0.0001),  # the micro sign
        ("100μs", 0.0001),  # the Greek letter, which Go accepts too
        ("1ns", 1e-9),
        ("0.5ns", 0.0),  # Go has nothing shorter than a nanosecond
        ("1s1s", 2.0),  # Go adds them up
        ("0", 0.0),  # the only number without a unit
        ("0s", 0.0),
        ("  3s\n", 3.0),
        ("315576000000s", 315_576_000_000.0),  # the longest that protobuf has
    ],
)
def test_a_go_duration_is_read_as_seconds(text: str, seconds: float) -> None:
    """In every form that Go's `time.ParseDuration` takes."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("milliseconds", [1, 7, 9, 33, 1100, 86_399_999])
def test_what_is_read_is_the_nearest_number(milliseconds: int) -> None:
    """ "9ms" is 0.009, not what nine times 0.001 comes to."""
    assert parse_duration(f"{milliseconds}ms") == milliseconds / 1000


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "5",
        "5 s",
        "-5s",
        "+5s",
        "1:30",
        "5S",
        "s",
        ".s",
        "1e3s",
        "inf",
        "nan",
        "5d",
        "1h30",
        "٣s",
        "5s;",
        "1" * 64 + "s",
    ],
)
def test_anything_else_is_refused_in_one_sentence(text: str) -> None:
    """The error repeats the value, bounded, and says what is accepted."""
    with pytest.raises(ValueError, match=r'is not a duration such as "250ms", "1.5s" or "1h30m"$') as raised:
        parse_duration(text)
    assert len(str(raised.value)) < 160


def test_a_number_of_seconds_is_read_where_that_is_asked_for() -> None:
    """As in `MESHAWARE_TIMEOUT=2.5`; elsewhere a number is a mistake."""
    assert parse_duration("2.5", bare_seconds=True) == 2.5
    assert parse_duration("250ms", bare_seconds=True) == 0.25
    with pytest.raises(ValueError, match=r"or seconds$"):
        parse_duration("2,5", bare_seconds=True)
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration("2.5")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.00005, "0.05ms"),
        (0.009, "9ms"),
        (0.25, "250ms"),
        (0.9996, "1s"),
        (1, "1s"),
        (1.5, "1.5s"),
        (5.25, "5.25s"),
        (59.9996, "1m"),
        (60, "1m"),
        (90, "1m30s"),
        (90.04, "1m30s"),
        (90.25, "1m30.2s"),
        (3600, "1h"),
        (5400, "1h30m"),
        (3599.96, "1h"),
        (36_061.5, "10h1m1.5s"),
    ],
)
def test_seconds_are_written_as_a_person_would(seconds: float, text: str) -> None:
    """No more digits than matter, no unit that is zero."""
    assert format_duration(seconds) == text


@pytest.mark.parametrize("seconds", [-1.0, -1e-9, math.inf, math.nan])
def test_what_is_no_duration_is_not_written(seconds: float) -> None:
    """The error repeats it."""
    with pytest.raises(ValueError, match="must be finite and not negative"):
        format_duration(seconds)


@given(st.floats(min_value=0, max_value=1e9))
def test_what_was_written_is_read_back(seconds: float) -> None:
    """Rounded to the millisecond below a minute, to the tenth of a second above, and never into another unit."""
    precision = 0.0005 if seconds < 60 else 0.05
    assert math.isclose(parse_duration(format_duration(seconds)), seconds, abs_tol=precision * 1.001, rel_tol=1e-12)


@given(st.integers(0, 59_999))
def test_whole_milliseconds_below_a_minute_survive_exactly(milliseconds: int) -> None:
    """So a duration of a manifest is shown as it stands there."""
    assert parse_duration(format_duration(milliseconds / 1000)) == milliseconds / 1000


@given(
    st.lists(
        st.tuples(st.integers(0, 10**6), st.sampled_from(["ns", "us", "ms", "s", "m", "h"])), min_size=1, max_size=4
    )
)
def test_the_parts_of_a_duration_add_up(parts: list[tuple[int, str]]) -> None:
    """In any order and any number, to the nanosecond."""
    sizes = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
    text = "".join(f"{number}{unit}" for number, unit in parts)
    assert parse_duration(text) == sum(number * sizes[unit] for number, unit in parts) / 10**9


@given(st.text(st.sampled_from(string.printable + "µμ٣"), max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Nothing but a duration or a ValueError comes out."""
    try:
        seconds = parse_duration(text, bare_seconds=True)
    except ValueError:
        return
    assert math.isfinite(seconds)
    assert seconds >= 0
