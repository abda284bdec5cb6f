"""Text that is safe to print."""

from __future__ import annotations

import io
import sys
from collections.abc import Generator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaware.cli.terminal import Look, look_of, plain, say, write


@given(st.text())
def test_nothing_that_does_not_print_is_left(text: str) -> None:
    """No control character, no line break, nothing invisible; and what prints stays as it is."""
    made = plain(text)
    assert made.isprintable()
    if text.isprintable() and len(text) <= 200:
        assert made == text


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("\x1b[2J\x07", "\\x1b[2J\\x07"),
        ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ("\x9b31m\x7f", "\\x9b31m\\x7f"),
        ("\u202eabc\u2066", "\\u202eabc\\u2066"),
        ("\udc80", "\\udc80"),
        ("café █", "café █"),
    ],
)
def test_escapes_tell_what_stood_there(text: str, made: str) -> None:
    """Control sequences, line breaks, C1 controls, turns of direction, halves of characters."""
    assert plain(text) == made


def test_very_long_text_is_cut() -> None:
    """So that a line stays a line."""
    assert plain("x" * 300) == "x" * 200 + "..."
    assert plain("x" * 300, 300) == "x" * 300


@contextmanager
def stream(name: str, encoding: str) -> Generator[tuple[io.TextIOWrapper, io.BytesIO]]:
    """A standard stream of an encoding."""
    before = getattr(sys, name)
    written = io.BytesIO()
    made = io.TextIOWrapper(written, encoding=encoding)
    setattr(sys, name, made)
    try:
        yield made, written
    finally:
        setattr(sys, name, before)


@pytest.mark.parametrize(
    ("encoding", "drawn", "written"),
    [("utf-8", True, "é █\n".encode()), ("ascii", False, b"\\xe9 \\u2588\n"), ("latin-1", False, b"\xe9 \\u2588\n")],
)
def test_what_the_encoding_has_not_is_escaped(encoding: str, drawn: bool, written: bytes) -> None:
    """And bars are drawn with ASCII where it has no blocks."""
    with stream("stdout", encoding) as (out, came):
        assert look_of(out).drawn is drawn
        write("é █")
        assert came.getvalue() == written
    with stream("stderr", encoding) as (_, came):
        say("é █")
        assert came.getvalue() == written


@pytest.mark.parametrize(("columns", "width"), [("1", 60), ("80", 80), ("100000", 100)])
def test_the_width_is_bounded(monkeypatch: pytest.MonkeyPatch, columns: str, width: int) -> None:
    """Wide terminals are not filled, narrow ones not obeyed."""
    monkeypatch.setenv("COLUMNS", columns)
    assert look_of(sys.stdout) == Look(width, look_of(sys.stdout).drawn)


def test_messages_keep_their_lines_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    """Line breaks are those of the message."""
    say("one\n  two\x1b[0m")
    assert capsys.readouterr().err == "one\n  two\\x1b[0m\n"
