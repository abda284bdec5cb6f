"""Regular expressions by both engines: they agree, and neither hangs."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaware.budgets import regex
from meshaware.budgets.automaton import Pattern
from meshaware.budgets.budget import Budget
from meshaware.budgets.re2 import Unsupported
from meshaware.budgets.regex import compile_pattern
from meshaware.budgets.route import Entry, HeaderMatch, Route, RouteConfig, RouteMatch, TextMatch, VirtualHost
from meshaware.budgets.table import RouteTable

HOSTILE = [
    "(a+)+b",
    "(a|a)*b",
    "((a*)*)*b",
    "(.*)*x",
    ".*" * 30 + "x",
    "(a?){60}a{60}",
    "(a|b)*a" + "[ab]" * 190,
    "([a-z]+)*[0-9]",
    "(x+x+)+y",
    "(.*a){200}b",
    "(?:[a-z]{1,30}){30}!",
    "((a{0,30}){0,30})b",
]
TEXTS = ["a" * 8000 + "!", "ab" * 4000, "x" * 8192, "abba" * 2000 + "b"]


@pytest.fixture(params=["automaton", "google-re2"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each engine in its turn, as far as it is installed."""
    if request.param == "automaton":
        monkeypatch.setitem(sys.modules, "re2", None)
    else:
        pytest.importorskip("re2")
    regex.google_re2.cache_clear()
    yield request.param
    regex.google_re2.cache_clear()


def test_a_pattern_means_what_it_means_in_re2(
    engine: str, re2_patterns: list[tuple[str, list[str], list[str]]]
) -> None:
    """The whole text has to match; `test_against_envoy.py` asks Envoy the same."""
    wrong: list[tuple[str, str]] = []
    for pattern, matching, other in re2_patterns:
        match = compile_pattern(pattern)
        wrong += [(pattern, text) for text in matching if match(text) is not True]
        wrong += [(pattern, text) for text in other if match(text) is not False]
    assert wrong == []


@pytest.mark.parametrize("pattern", HOSTILE)
def test_no_pattern_and_no_text_makes_it_hang(engine: str, pattern: str) -> None:
    """What costs Python hours is answered, or left alone, in less time than a call takes."""
    began = time.perf_counter()
    try:
        match = compile_pattern(pattern)
        for text in TEXTS:
            match(text)
    except Unsupported:
        pass
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize("pattern", ["(?=a)b", r"(a)\1", "(a", "a**b(", "[b-a]", "(?P=a)"])
def test_what_is_no_re2_is_refused(engine: str, pattern: str) -> None:
    """Envoy would not take such a route either."""
    with pytest.raises(Unsupported):
        compile_pattern(pattern)


@pytest.mark.parametrize("pattern", ["(a{30}){30}b{900}", "a" * 1025])
def test_a_large_pattern_is_refused(engine: str, pattern: str) -> None:
    """Linear in a text is not little when the factor is large."""
    with pytest.raises(Unsupported, match=r"is too large|is longer than 1024"):
        compile_pattern(pattern)


def test_a_text_that_is_too_long_or_not_ascii_is_not_judged(engine: str) -> None:
    """Unless its beginning tells already: what bytes the sidecar would see is not known."""
    match = compile_pattern("/a.*")
    assert match("/a" + "b" * 8190) is True
    assert match("/a" + "b" * 8191) is None
    assert match("/aé") is None
    assert match("/bé") is False


def test_google_re2_runs_what_the_automaton_does_not() -> None:
    """So nothing is in doubt where it is installed."""
    pytest.importorskip("re2")
    assert compile_pattern(r"/(a|b)\b.*")("/a/x") is True
    assert compile_pattern(r"/(a|b)\b.*")("/ax") is False
    assert compile_pattern(r"(?m)^\pL+$")("abc") is True


def _table(pattern: str) -> RouteTable:
    slow = Entry(
        RouteMatch(headers=(HeaderMatch("x-a", TextMatch("regex", pattern)),)), Route("slow", Budget(timeout=9.0))
    )
    rest = Entry(RouteMatch(), Route("rest", Budget(timeout=1.0)))
    return RouteTable([RouteConfig("80", (VirtualHost("all", ("*",), (slow, rest)),))])


def test_what_cannot_be_run_leaves_the_largest_budget_and_a_note(engine: str) -> None:
    """Whichever engine it is."""
    route = _table("(a{30}){30}b{900}").match("GET", "http://inventory/", {"x-a": "a"})
    assert route is not None
    assert route.budget.timeout == 9.0
    assert "the regular expression '(a{30}){30}b{900}' is too large" in route.note


def test_a_pattern_of_the_subset_is_run_by_either(engine: str) -> None:
    """And then nothing is in doubt."""
    for value, name in (("a42", "slow"), ("b42", "rest")):
        route = _table("a[0-9]+").match("GET", "http://inventory/", {"x-a": value})
        assert route is not None
        assert (route.name, route.note) == (name, "")


def test_another_library_of_that_name_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would take exponential time for what it hands on to Python."""
    monkeypatch.setitem(sys.modules, "re2", ModuleType("re2"))
    regex.google_re2.cache_clear()
    try:
        with pytest.raises(Unsupported, match=r"has \\b, which is not evaluated"):
            compile_pattern(r"a\b")
    finally:
        regex.google_re2.cache_clear()


_PIECES = st.builds(
    str.__add__,
    st.sampled_from(["a", "b", "/", ".", "[ab]", "[^a]", r"\d", r"\w", "(a|b)", "(?i:a)", "(?:ab|)", "^$", r"\x61"]),
    st.sampled_from(["", "", "*", "+", "?", "{2}", "{1,2}", "{0,}", "*?"]),
)
_PATTERNS = st.lists(_PIECES, max_size=5).map("".join) | st.text(
    st.sampled_from("ab01[]()*+?{}|^$\\.-:,PQEiUsdDwx<>=!"), max_size=12
)


@given(_PATTERNS, st.text(st.sampled_from("abA/1.\n"), max_size=8))
def test_both_engines_agree(pattern: str, text: str) -> None:
    """What the automaton reads at all, RE2 reads too, and means the same by it."""
    engine = pytest.importorskip("re2")
    try:
        ours = Pattern(pattern).match(text)
    except Unsupported:
        return
    theirs = regex.compile_by_google(engine, pattern)(text)
    assert ours is theirs or ours is None
