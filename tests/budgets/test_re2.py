"""RE2 patterns: what is read, what is left alone, and that it means what RE2 means."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaware.budgets.automaton import Pattern
from meshaware.budgets.re2 import ALL, Chars, Repeat, Sequence, Unsupported, parse

Patterns = list[tuple[str, list[str], list[str]]]


def test_a_pattern_means_what_it_means_in_re2(re2_patterns: Patterns) -> None:
    """The whole text has to match; `test_against_envoy.py` asks Envoy the same."""
    wrong: list[tuple[str, str]] = []
    for pattern, matching, other in re2_patterns:
        compiled = Pattern(pattern)
        wrong += [(pattern, text) for text in matching if compiled.match(text) is not True]
        wrong += [(pattern, text) for text in other if compiled.match(text) is not False]
    assert wrong == []


def test_a_line_break_is_no_dot_unless_it_is_said() -> None:
    """And the end is the end, not what is before a last line break, as it is for Python."""
    assert Pattern("a.b").match("a\nb") is False
    assert Pattern("(?s)a.b").match("a\nb") is True
    assert Pattern("a$").match("a\n") is False


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("(?=a)b", "(?="),
        ("(?!a)b", "(?!"),
        ("(?<=a)b", "looks behind"),
        ("(?<!a)b", "looks behind"),
        ("(?m)^a", "(?m"),
        ("(?#x)", "(?#"),
        ("(?", "(?"),
        ("(?i-i-", "(?-"),
        ("(?P=a)", "(?P"),
        ("(?P<1>a)", "bad name"),
        ("(?P<a", "bad name"),
        (r"(a)\1", r"\1"),
        (r"\bfoo", r"\b"),
        (r"\pN", r"\p"),
        (r"\C", r"\C"),
        ("\\", "\\"),
        (r"[\pN]", r"\p"),
        ("*", "nothing to repeat"),
        (r"\Qa*\E+", "nothing to repeat"),
        ("(+a)", "nothing to repeat"),
        ("a**", "repetition of a repetition"),
        ("a{2}{3}", "repetition of a repetition"),
        ("a++", "repetition of a repetition"),
        ("a{1001}", "more than 1000"),
        ("a{2,00001}", "more than 1000"),
        ("a{3,2}", "at most less"),
        ("(a", "unmatched ("),
        ("a)", "unmatched )"),
        ("[a", "unmatched ["),
        ("[", "unmatched ["),
        ("[b-a]", "bad range"),
        (r"[\d-z]", "bad range"),
        ("[[:nope:]]", "unknown class"),
        ("[[:alpha]", "unknown class"),
        ("[é]", "beyond ASCII"),
        ("(?i)é", "beyond ASCII"),
        (r"\xff", "beyond ASCII"),
        (r"\x4", "bad \\x"),
        (r"\x{zz}", "bad \\x"),
        (r"\x{41", "bad \\x"),
        ("a" * 1025, "longer than 1024"),
        ("(" * 60 + ")" * 60, "nests too deeply"),
    ],
)
def test_what_is_not_read_is_said_and_not_guessed(pattern: str, problem: str) -> None:
    """The reason is part of a sentence about the pattern."""
    with pytest.raises(Unsupported) as raised:
        parse(pattern)
    assert problem in str(raised.value)


def test_a_pattern_becomes_a_tree_of_sets_of_characters() -> None:
    """Sets are bits, so ignoring case and negating are cheap."""
    assert parse("[^/]*") == Sequence((Repeat(Chars(ALL & ~(1 << ord("/"))), 0, None),))
    assert parse("(?i)a") == Sequence((Chars(1 << ord("a") | 1 << ord("A")),))


@given(st.text(st.sampled_from("ab01[]()*+?{}|^$\\.-:,PQEiUsdDwx<>=!"), max_size=16))
def test_any_text_is_a_pattern_or_refused(text: str) -> None:
    """Nothing but a tree or `Unsupported` comes out."""
    with contextlib.suppress(Unsupported):
        parse(text)
