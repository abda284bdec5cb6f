"""Headers are answered for as httpx would answer for them."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaware.client.lines import HeaderLines

RAW = [(b"Host", b"inventory"), (b"X-A", b"1"), (b"x-a", b"2, 3"), (b"x-b", b"caf\xe9"), (b"x-c", "café".encode())]


@pytest.mark.parametrize("name", ["host", "x-a", "x-none"])
def test_as_httpx_answers(name: str) -> None:
    lines, headers = HeaderLines(RAW[:3]), httpx.Headers(RAW[:3])
    assert lines(name) == headers.get(name)
    assert lines.get_list(name) == headers.get_list(name)


def test_text_is_utf_8_or_else_latin_1() -> None:
    assert HeaderLines(RAW)("x-b") == HeaderLines(RAW)("x-c") == "café"


@given(st.binary(max_size=20))
def test_any_bytes_are_some_text(value: bytes) -> None:
    assert isinstance(HeaderLines([(b"x", value)])("x"), str)
