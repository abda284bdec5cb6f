"""Values of documents read as something, and the sentence that tells a mistake."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaware.budgets.documents import read_documents
from meshaware.budgets.fields import Field, home_of, timestamp
from meshaware.errors import ManifestError


def field(text: str) -> Field:
    (document,) = read_documents(text, "routes.yaml")
    return Field(document.load(), document.place, document.line)


def value(text: str) -> Field:
    found = field(f"spec:\n  timeout: {text}\n").need("spec", "").get("timeout")
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1h30m", 5400.0), ("0.5s", 0.5), ("250ms", 0.25), ("1ms", 0.001), ("'3s'", 3.0), ("0.0010s", 0.001)],
)
def test_durations_are_gos(text: str, seconds: float) -> None:
    """Of at least a millisecond, and whole milliseconds."""
    assert value(text).duration() == seconds


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0s", "timeout: 0s: must be at least 1ms; leave it out to disable"),
        ("'0'", "timeout: 0: must be at least 1ms; leave it out to disable"),
        ("999us", "timeout: 999us: must be at least 1ms; leave it out to disable"),
        ("1.5ms", "timeout: 1.5ms: must be whole milliseconds"),
        ("1h0.0001s", "timeout: 1h0.0001s: must be whole milliseconds"),
        ("5", 'timeout: 5: must be a duration in text, such as "250ms", "1.5s" or "1h30m"; YAML'),
        ("2562048h", "timeout: 2562048h: must be at most 2562047h, the longest"),
        ("1:30", 'timeout: 90: must be a duration in text, such as "250ms"'),
        ("yes", "timeout: true: must be a duration in text"),
        ("[5s]", "timeout: a list: must be a duration in text"),
        ("{a: 5s}", "timeout: a mapping: must be a duration in text"),
        ("5 seconds", 'timeout: 5 seconds: must be a duration such as "250ms", "1.5s" or "1h30m"'),
        ("-5s", "timeout: -5s: must be a duration such as"),
        ("''", "timeout: '': must be a duration such as"),
        ("'5s\"'", "timeout: '5s\"': must be a duration such as"),
        ("x" * 200, f"timeout: '{'x' * 80}'...: must be a duration such as"),
        (".inf", "timeout: inf: must be a duration in text"),
        ("1" * 60, "timeout: a very large number: must be a duration in text"),
    ],
)
def test_a_duration_that_istio_refuses_is_refused(text: str, said: str) -> None:
    """With file, document, line, path, value and rule."""
    with pytest.raises(ManifestError) as raised:
        value(text).duration()
    assert str(raised.value).startswith(f"routes.yaml, document 1, line 2: spec.{said}")
    assert raised.value.__cause__ is None or "is not a duration" in str(raised.value.__cause__)


READERS: list[tuple[Callable[[Field], Any], str, str]] = [
    (Field.text, "5", "timeout: 5: must be a text; put it in quotes"),
    (Field.flag, "1", "timeout: 1: must be true or false"),
    (lambda it: it.whole(0, 9), "yes", "timeout: true: must be a whole number"),
    (lambda it: it.whole(0, 9), "1.0", "timeout: 1.0: must be a whole number"),
    (lambda it: it.whole(0, 9), "10", "timeout: 10: must be from 0 to 9"),
    (Field.texts, "abc", "timeout: abc: must be a list"),
    (Field.texts, "[a, 1]", "timeout[1]: 1: must be a text; put it in quotes"),
    (lambda it: it.get("x"), "abc", "timeout: abc: must be a mapping"),
    (lambda it: it.need("x", "say it"), "{y: 1}", "timeout.x: is missing: say it"),
    (lambda it: it.need("x", "say it"), "{x: }", "timeout.x: is missing: say it"),
    (lambda it: list(it.entries()), "[]", "timeout: a list: must be a mapping"),
]


@pytest.mark.parametrize(("read", "text", "said"), READERS)
def test_what_is_something_else_is_refused(read: Callable[[Field], Any], text: str, said: str) -> None:
    """By the same form of sentence."""
    with pytest.raises(ManifestError) as raised:
        read(value(text))
    assert str(raised.value) == f"routes.yaml, document 1, line 2: spec.{said}"


def test_what_is_right_is_returned() -> None:
    """As plain values."""
    it = value("{a: x, b: true, c: 3, d: [x, y], e: , f: {}}")
    assert [child.value for _, child in it.entries()] == ["x", True, 3, ["x", "y"], None, {}]
    assert list(it.keys()) == ["a", "b", "c", "d", "e", "f"]
    assert (it.need("a", "").text(), it.need("b", "").flag(), it.need("c", "").whole(3, 3)) == ("x", True, 3)
    assert it.need("d", "").texts() == ("x", "y")
    assert it.get("e") is None
    assert it.get("g") is None


def test_a_field_knows_where_it_is() -> None:
    """Down to the line, for the origin of a route."""
    (first, second) = field("spec:\n  http:\n  - a: 1\n  - b: 2\n").need("spec", "").need("http", "").elements()
    assert first.origin == "routes.yaml, document 1, line 3, spec.http[0]"
    assert second.need("b", "").origin == "routes.yaml, document 1, line 4, spec.http[1].b"
    assert field("a: 1\n").origin == "routes.yaml, document 1, line 1"
    assert str(field("a: 1\n").error("is wrong")) == "routes.yaml, document 1, line 1: is wrong"


@given(st.integers(1, 10**12))
def test_whole_milliseconds_are_always_accepted(milliseconds: int) -> None:
    """However long, and however they are written."""
    for text in (f"{milliseconds}ms", f"{milliseconds / 1000:.3f}s"):
        assert Field(text, "routes.yaml, document 1", 1, "timeout").duration() == pytest.approx(milliseconds / 1000)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1h30m", 5400.0), ("1500ms", 1.5), ("0s", 0.0), ("0h0m", 0.0), ("1s1s1s1s", 4.0), ("99999h", 359996400.0)],
)
def test_durations_of_the_gateway_api_are_whole_numbers(text: str, seconds: float) -> None:
    """GEP-2257; 0 is none."""
    assert value(text).gateway_duration() == seconds


@pytest.mark.parametrize("text", ["1.5s", "100000s", "1s1s1s1s1s", "5", "1d", "1us", "''", "s", "-1s", "1 s"])
def test_other_durations_are_none_of_the_gateway_api(text: str) -> None:
    """Go's fractions among them."""
    with pytest.raises(ManifestError, match=r"must be a duration of whole h, m, s or ms in text"):
        value(text).gateway_duration()


def test_a_text_may_be_one_of_several() -> None:
    """The message names them."""
    assert value("GET").one_of("GET", "PUT") == "GET"
    with pytest.raises(ManifestError, match=r"spec.timeout: get: must be one of GET, PUT$"):
        value("get").one_of("GET", "PUT")


def test_a_resource_says_where_it_is() -> None:
    """Or is where its reader says."""
    assert home_of(field("metadata: {name: a, namespace: b}"), "Route", "c")[:2] == ("a", "b")
    assert home_of(field("metadata: {name: a}"), "Route", "c")[:2] == ("a", "c")
    with pytest.raises(ManifestError, match=r"metadata.name: is missing: must be the name of the Route$"):
        home_of(field("metadata: {}"), "Route", "c")


@pytest.mark.parametrize("text", ["2024-01-02T03:04:05Z", "'2024-01-02T03:04:05Z'"])
def test_a_timestamp_sorts_as_text(text: str) -> None:
    """Quoted or not."""
    assert timestamp(value(text)) == "2024-01-02T03:04:05Z"
    assert timestamp(None) == ""
