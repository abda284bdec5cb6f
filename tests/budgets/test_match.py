"""Conditions: which requests meet them, and what cannot be told. `test_against_envoy.py` asks Envoy the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import httpx
import pytest

from meshaware.budgets.budget import Budget
from meshaware.budgets.match import Headers, compile_entries, taken
from meshaware.budgets.route import Entry, HeaderMatch, IntegerRange, QueryMatch, Route, RouteMatch, TextMatch


def verdict(
    match: RouteMatch,
    target: str = "/",
    headers: Headers | None = None,
    *,
    method: str = "GET",
    host: str = "inventory:8080",
    ignore_parameters: bool = False,
) -> bool | None:
    """Whether a request meets it: None if that cannot be told."""
    route = Route("it", Budget())
    entries = compile_entries([Entry(match, route)], ignore_parameters=ignore_parameters)
    path, _, query = target.partition("?")
    found = taken(entries, path, (method, host, target, query, {} if headers is None else headers))
    return found is route if not isinstance(found, list) else None


def on_header(name: str, value: TextMatch | IntegerRange | None = None, **how: bool) -> RouteMatch:
    return RouteMatch(headers=(HeaderMatch(name, value, **how),))


@pytest.mark.parametrize(
    ("text", "path", "met"),
    [
        (TextMatch("exact", "/a"), "/a", True),
        (TextMatch("exact", "/a"), "/a/", False),
        (TextMatch("exact", "/a"), "/A", False),
        (TextMatch("exact", "/A", ignore_case=True), "/a", True),
        (TextMatch("prefix", "/foo"), "/foobar", True),
        (TextMatch("prefix", "/foo"), "/fo", False),
        (TextMatch("prefix", "/Foo", ignore_case=True), "/fOObar", True),
        (TextMatch("prefix", ""), "*", True),
        (TextMatch("segments", "/foo"), "/foo", True),
        (TextMatch("segments", "/foo"), "/foo/bar", True),
        (TextMatch("segments", "/foo"), "/foobar", False),
        (TextMatch("regex", "/[a-z]+"), "/abc", True),
        (TextMatch("regex", "/[a-z]+"), "/abc/", False),
    ],
)
def test_paths(text: TextMatch, path: str, met: bool) -> None:
    """The query is left aside in every kind; a prefix ends anywhere, a prefix of segments where one ends."""
    assert verdict(RouteMatch(text), path) is met
    assert verdict(RouteMatch(text), f"{path}?x=/abc") is met


def test_parameters_of_a_path_count_unless_envoy_is_told_otherwise() -> None:
    """They end with their segment, or, up to Envoy 1.39.0, with the path: then it may be either."""
    match = RouteMatch(TextMatch("exact", "/a"))
    assert verdict(match, "/a;v=1") is False
    assert verdict(match, "/a;v=1", ignore_parameters=True) is True
    assert verdict(match, "/a;v=1/b", ignore_parameters=True) is None
    assert verdict(RouteMatch(TextMatch("prefix", "/a")), "/a;v=1/b;c", ignore_parameters=True) is True
    assert verdict(RouteMatch(TextMatch("exact", "/b")), "/a;v=1/b", ignore_parameters=True) is False
    assert verdict(RouteMatch(TextMatch("prefix", "")), "/a;v", ignore_parameters=True) is True


@pytest.mark.parametrize(
    ("text", "value", "met"),
    [
        (TextMatch("exact", "premium"), "premium", True),
        (TextMatch("exact", "premium"), "Premium", False),
        (TextMatch("exact", ""), "", True),
        (TextMatch("prefix", "pre"), "premium", True),
        (TextMatch("suffix", "ium"), "premium", True),
        (TextMatch("suffix", "IUM", ignore_case=True), "premium", True),
        (TextMatch("contains", "emi"), "premium", True),
        (TextMatch("contains", "x"), "premium", False),
        (TextMatch("regex", "p.*m"), "premium", True),
    ],
)
def test_values_of_headers(text: TextMatch, value: str, met: bool) -> None:
    """Each kind of text, and its opposite."""
    assert verdict(on_header("x-user", text), headers={"x-user": value}) is met
    assert verdict(on_header("x-user", text, invert=True), headers={"x-user": value}) is not met


@pytest.mark.parametrize(
    ("value", "met"),
    [("1", True), ("4", True), ("5", False), ("0", False), ("-1", False), (" 4", True), ("+4", True), ("04", True)]
    + [(text, False) for text in ("", "x", "4.0", "-", "+-4", "٤", "4" * 30)],
)
def test_a_range_of_whole_numbers(value: str, met: bool) -> None:
    """From the first up to, and without, the last; what is no number is in no range."""
    assert verdict(on_header("x-n", IntegerRange(1, 5)), headers={"x-n": value}) is met


def test_a_header_that_is_missing() -> None:
    """It meets no condition on its value, not even an inverted one, unless missing is as good as empty."""
    exact = TextMatch("exact", "1")
    assert verdict(on_header("x-a", exact)) is False
    assert verdict(on_header("x-a", exact, invert=True)) is False
    assert verdict(on_header("x-a", exact, invert=True, missing_is_empty=True)) is True
    assert verdict(on_header("x-a", TextMatch("exact", ""), missing_is_empty=True)) is True


def test_presence() -> None:
    """An empty value is a value."""
    assert verdict(on_header("x-a"), headers={"x-a": ""}) is True
    assert verdict(on_header("x-a")) is False
    assert verdict(on_header("x-a", invert=True)) is True
    assert verdict(on_header("x-a", invert=True), headers={"x-a": ""}) is False


@pytest.mark.parametrize("name", ["x-envoy-max-retries", "connection", "x-forwarded-client-cert", ":status"])
def test_what_the_sidecar_takes_away_is_missing(name: str) -> None:
    """Whatever the application sent."""
    assert verdict(on_header(name), headers={name: "1"}) is False


def test_what_the_sidecar_adds_is_there() -> None:
    """Its value is known for the protocol, and to nobody for an identifier that it makes up."""
    assert verdict(on_header("x-request-id")) is True
    assert verdict(on_header("x-request-id", invert=True)) is False
    assert verdict(on_header("x-request-id", TextMatch("prefix", "a"))) is None
    assert verdict(on_header("x-request-id", TextMatch("prefix", "a")), headers={"x-request-id": ""}) is None
    assert verdict(on_header("x-request-id", TextMatch("prefix", "a")), headers={"x-request-id": "abc"}) is True
    assert verdict(on_header("x-forwarded-proto", TextMatch("exact", "http"))) is True
    assert verdict(on_header("x-forwarded-proto", TextMatch("exact", "x")), headers={"x-forwarded-proto": "x"}) is True


def test_pseudo_headers() -> None:
    """The method, the `Host` as it is sent, the path with its query, and the scheme that the application claims."""
    assert verdict(on_header(":method", TextMatch("exact", "POST")), method="POST") is True
    assert verdict(on_header(":authority", TextMatch("exact", "inventory:8080"))) is True
    assert verdict(on_header("host", TextMatch("exact", "inventory"))) is False
    assert verdict(on_header(":path", TextMatch("suffix", "?x=1")), "/a?x=1") is True
    assert verdict(on_header(":scheme", TextMatch("exact", "http"))) is True
    assert verdict(on_header(":scheme", TextMatch("exact", "https")), headers={"x-forwarded-proto": "https"}) is True
    assert verdict(on_header(":scheme", TextMatch("exact", "http")), headers={"x-forwarded-proto": "ftp"}) is True


@pytest.mark.parametrize(("sent", "answer"), [({}, False), ({"te": "trailers"}, True), ({"te": "gzip"}, None)])
def test_te_is_only_known_as_trailers(sent: Mapping[str, str], answer: bool | None) -> None:
    """Envoy takes the rest away, in different ways by version."""
    assert verdict(on_header("te"), headers=sent) is answer
    assert verdict(on_header("te", TextMatch("exact", "trailers")), headers=sent) is answer


def test_a_header_on_several_lines_counts_only_where_envoys_agree() -> None:
    """Up to 1.36 it is one text with commas, in 1.40 each line is compared."""
    headers = httpx.Headers([("x-a", "1"), ("x-a", "2")])
    assert verdict(on_header("x-a", TextMatch("exact", "1")), headers=headers) is None
    assert verdict(on_header("x-a", TextMatch("exact", "1,2")), headers=headers) is None
    assert verdict(on_header("x-a", TextMatch("exact", "3")), headers=headers) is False
    assert verdict(on_header("x-a", TextMatch("prefix", "1")), headers=headers) is True
    assert verdict(on_header("x-a", TextMatch("prefix", "1"), invert=True), headers=headers) is False
    odd = httpx.Headers([(b"x-a", b"\xc3\xa9"), (b"x-a", b"2")])
    assert verdict(on_header("x-a", TextMatch("regex", "1|é")), headers=odd) is None
    one = httpx.Headers([("x-a", "1, 2")])
    assert verdict(on_header("x-a", TextMatch("exact", "1, 2")), headers=one) is True


def test_headers_may_be_asked_of_a_function() -> None:
    """Of whatever a client has at hand."""
    ask: Callable[[str], str | None] = {"x-a": "1"}.get
    assert verdict(on_header("x-a", TextMatch("exact", "1")), headers=ask) is True
    assert verdict(on_header("x-b"), headers=ask) is False


@pytest.mark.parametrize(
    ("query", "met"),
    [
        ("a=1", True),
        ("a=2&a=1", False),
        ("a=1&a=2", True),
        ("=&a=1", True),
        ("a=1;b", False),
        ("%61=1", False),
        ("", False),
    ],
)
def test_the_first_query_parameter_of_a_name(query: str, met: bool) -> None:
    """As it is written: nothing is decoded."""
    assert verdict(RouteMatch(query=(QueryMatch("a", TextMatch("exact", "1")),)), f"/?{query}") is met


def test_presence_of_a_query_parameter() -> None:
    """And absence."""
    assert verdict(RouteMatch(query=(QueryMatch("c"),)), "/?c") is True
    assert verdict(RouteMatch(query=(QueryMatch("c"),)), "/?d=c") is False
    assert verdict(RouteMatch(query=(QueryMatch("c", invert=True),)), "/?c=") is False
    assert verdict(RouteMatch(query=(QueryMatch("c", invert=True),)), "/") is True


def test_all_conditions_of_a_route_must_hold() -> None:
    """One that fails settles it, even beside one that cannot be answered."""
    present, unknown = HeaderMatch("x-a"), HeaderMatch("x-request-id", TextMatch("exact", "1"))
    assert verdict(RouteMatch(headers=(present, unknown))) is False
    assert verdict(RouteMatch(headers=(unknown, present))) is False
    assert verdict(RouteMatch(headers=(unknown, present)), headers={"x-a": ""}) is None
    assert verdict(RouteMatch(headers=(present,), query=(QueryMatch("q"),)), "/?q", {"x-a": ""}) is True
    assert verdict(RouteMatch(doubt="who knows")) is None
    assert verdict(RouteMatch(TextMatch("exact", "/a"), doubt="who knows"), "/b") is False


def test_a_pattern_that_is_not_evaluated_leaves_its_route_in_play() -> None:
    """And those after it, up to the first that is certain; the reason is kept."""
    routes = [Route(name, Budget()) for name in "abcd"]
    matches = [
        RouteMatch(TextMatch("exact", "/x")),
        RouteMatch(TextMatch("regex", "([a-z]{1,30}-?){30}")),
        RouteMatch(headers=(HeaderMatch("x-a", TextMatch("regex", "(?=a)")),)),
        RouteMatch(),
    ]
    entries = compile_entries(Entry(match, route) for match, route in zip(matches, routes, strict=True))
    found = taken(entries, "/y", ("GET", "inventory", "/y", "", {"x-a": "1"}))
    assert isinstance(found, list)
    assert [entry.route.name for entry in found] == ["b", "c", "d"]
    assert found[0].why == "the regular expression '([a-z]{1,30}-?){30}' is too large"
    assert taken(entries, "/x", ("GET", "inventory", "/x", "", {})) is routes[0]
    assert taken(entries[:1], "/y", ("GET", "inventory", "/y", "", {})) is None
