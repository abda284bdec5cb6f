"""Patterns run: right, and never for long."""

from __future__ import annotations

import random
import re
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaware.budgets.automaton import Pattern
from meshaware.budgets.re2 import Unsupported

_HOSTILE = [
    "(a+)+b",
    "(a|a)*b",
    "(a|aa)+b",
    "((a*)*)*b",
    "(.*)*x",
    ".*" * 30 + "x",
    "(a?){60}a{60}",
    "(a|b)*a" + "[ab]" * 190,
    "([a-z]+)*[0-9]",
    "(x+x+)+y",
]


def _patterns() -> st.SearchStrategy[str]:
    """Patterns of the part that RE2 and Python write alike, without what Python would take exponential time for."""
    atoms = st.sampled_from(["a", "b", "/", r"\.", "[ab]", "[^a]", r"\d", ".", "1"])
    pieces = st.builds(str.__add__, atoms, st.sampled_from(["", "", "*", "+", "?", "{2}", "{1,2}"]))
    sequences = st.lists(pieces, max_size=4).map("".join)
    choices = st.lists(sequences, min_size=1, max_size=3).map(lambda parts: f"({'|'.join(parts)})")
    return st.lists(sequences | choices, max_size=3).map("".join)


@given(_patterns(), st.text(st.sampled_from("ab/1."), max_size=8))
def test_it_finds_what_python_finds(pattern: str, text: str) -> None:
    """Where both speak the same language."""
    assert Pattern(pattern).match(text) is bool(re.fullmatch(pattern, text, re.ASCII))


@pytest.mark.parametrize("pattern", _HOSTILE)
def test_no_pattern_and_no_text_makes_it_hang(pattern: str) -> None:
    """What costs Python hours is answered, or left alone, in less time than a call takes."""
    texts = ["a" * 8000 + "!", "ab" * 4000, "x" * 8192, "abba" * 2000 + "b"]
    began = time.perf_counter()
    try:
        compiled = Pattern(pattern)
        for text in texts:
            compiled.match(text)
    except Unsupported:
        pass
    assert time.perf_counter() - began < 2


def test_a_pattern_that_needs_too_many_states_is_left_alone_from_then_on() -> None:
    """Its memory is bounded, and it does not pay for the same discovery twice."""
    compiled = Pattern("(a|b)*a" + "[ab]" * 20)
    text = "".join(random.Random(1).choices("ab", k=4000))
    assert compiled.match("b" * 30) is False
    assert compiled.match(text) is None
    assert compiled.match("b" * 30) is None


def test_a_text_that_is_too_long_or_not_ascii_is_not_judged() -> None:
    """Unless its beginning tells already."""
    compiled = Pattern("/a.*")
    assert compiled.match("/a" + "b" * 8190) is True
    assert compiled.match("/a" + "b" * 8191) is None
    assert compiled.match("/aé") is None
    assert compiled.match("/b" + "b" * 9000) is False
    assert compiled.match("é") is False


@pytest.mark.parametrize("pattern", ["(a{30}){30}", "[ab]{401}", "(" + "|".join(["abcdefghij"] * 40) + ")"])
def test_a_large_pattern_is_refused(pattern: str) -> None:
    """By what it grows to, before it does."""
    with pytest.raises(Unsupported, match="is too large"):
        Pattern(pattern)


def test_threads_may_share_a_pattern() -> None:
    """States are made by whoever needs them first; they come out the same."""
    compiled = Pattern("(a|b)*abb(c|d)*")
    texts = ["abb", "aababbcd", "ababab", "bbbabbdc", "abba"]
    wanted = [True, True, False, True, False]
    found: list[list[bool | None]] = []
    gate = threading.Barrier(4)

    def work() -> None:
        gate.wait(10)
        found.extend([compiled.match(text) for text in texts] for _ in range(50))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(found) == 200
    assert all(answers == wanted for answers in found)
