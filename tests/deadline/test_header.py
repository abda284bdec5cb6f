"""How a deadline is told: what is written is read back, and what is not exactly a time is nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaware.deadline.header import MAX_SECONDS, read_grpc_timeout, read_milliseconds, write_milliseconds


@given(st.floats(min_value=0.001, max_value=MAX_SECONDS))
def test_what_is_written_is_read_back_to_the_millisecond_and_never_longer(seconds: float) -> None:
    written = write_milliseconds(seconds)
    assert written is not None
    read = read_milliseconds(written)
    assert read is not None
    assert read <= seconds < read + 0.001 + 1e-9


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 0.0004])
def test_no_time_at_all_is_written_as_the_shortest(seconds: float) -> None:
    """0 is what others take for "never"."""
    assert write_milliseconds(seconds) == b"1"


@pytest.mark.parametrize("seconds", [MAX_SECONDS * 2, float("inf")])
def test_what_bounds_nothing_is_not_written(seconds: float) -> None:
    assert write_milliseconds(seconds) is None


@pytest.mark.parametrize(
    ("value", "seconds"), [(b"1", 0.001), (b"250", 0.25), (b"007", 0.007), (b"999999999", 999_999.999)]
)
def test_a_number_of_milliseconds(value: bytes, seconds: float) -> None:
    assert read_milliseconds(value) == seconds


HOSTILE = [
    b"",
    b"0",
    b"000",
    b"-1",
    b"+1",
    b"1.5",
    b"1e3",
    b"1_000",
    b"0x10",
    b" 100",
    b"100 ",
    b"100\t",
    b"1 0",
    b"100, 200",
    b"100ms",
    b"NaN",
    b"inf",
    b"soon",
    b"1000000000",
    b"9" * 5000,
    "١٢٣".encode(),
    "\uff11\uff10\uff10".encode(),
    "²".encode(),
    b"\xb2",
    b"100\x00",
    b"100\r\nx-evil: 1",
]


@pytest.mark.parametrize("value", HOSTILE)
def test_anything_else_is_nothing(value: bytes) -> None:
    """Negative, huge, text, other digits than ASCII's, blanks."""
    assert read_milliseconds(value) is None


@given(st.binary(max_size=32))
def test_whatever_comes_is_a_time_that_is_believed_or_nothing(value: bytes) -> None:
    for seconds in (read_milliseconds(value), read_grpc_timeout(value)):
        assert seconds is None or 0 < seconds <= MAX_SECONDS


@given(st.integers(min_value=1, max_value=99_999_999), st.sampled_from("HMSmun"))
def test_what_grpc_writes_is_read(number: int, unit: str) -> None:
    nanoseconds = {"H": 3600 * 10**9, "M": 60 * 10**9, "S": 10**9, "m": 10**6, "u": 1000, "n": 1}[unit]
    seconds = number * nanoseconds / 10**9
    read = read_grpc_timeout(f"{number}{unit}".encode())
    assert read is None if seconds > MAX_SECONDS else read == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value", [b"", b"1", b"S", b"0S", b"-1S", b"1s", b"1 S", b"1S ", b"123456789S", b"1.5S", "\uff11S".encode(), b"1SS"]
)
def test_what_grpc_does_not_write_is_nothing(value: bytes) -> None:
    assert read_grpc_timeout(value) is None
