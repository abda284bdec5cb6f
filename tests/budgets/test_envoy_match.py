"""Conditions as Envoy's own configuration states them."""

from __future__ import annotations

from typing import Any

import pytest

from meshaware.budgets.envoy_json import Message
from meshaware.budgets.envoy_match import read_match
from meshaware.budgets.route import HeaderMatch, IntegerRange, QueryMatch, RouteMatch, TextMatch


def match(**fields: Any) -> RouteMatch:
    return read_match(Message(fields, "match"))


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"prefix": "/a"}, TextMatch("prefix", "/a")),
        ({"prefix": ""}, TextMatch("prefix", "")),
        ({"path": "/a", "case_sensitive": False}, TextMatch("exact", "/a", ignore_case=True)),
        ({"path_separated_prefix": "/a", "case_sensitive": True}, TextMatch("segments", "/a")),
        ({"pathSeparatedPrefix": "/a", "caseSensitive": False}, TextMatch("segments", "/a", ignore_case=True)),
        ({"safe_regex": {"google_re2": {}, "regex": "/a+"}, "case_sensitive": False}, TextMatch("regex", "/a+")),
    ],
)
def test_paths(fields: dict[str, Any], path: TextMatch) -> None:
    """Every kind that Istio makes; case counts unless it is said, and always in patterns."""
    assert match(**fields) == RouteMatch(path)


@pytest.mark.parametrize(
    ("fields", "header"),
    [
        ({"string_match": {"exact": "a"}}, HeaderMatch("x", TextMatch("exact", "a"))),
        ({"string_match": {"exact": ""}}, HeaderMatch("x", TextMatch("exact", ""))),
        ({"string_match": {}}, HeaderMatch("x", TextMatch("exact", ""))),
        (
            {"string_match": {"prefix": "a", "ignore_case": True}},
            HeaderMatch("x", TextMatch("prefix", "a", ignore_case=True)),
        ),
        ({"stringMatch": {"safeRegex": {"regex": "a+"}}}, HeaderMatch("x", TextMatch("regex", "a+"))),
        (
            {"string_match": {"suffix": "a"}, "invert_match": True},
            HeaderMatch("x", TextMatch("suffix", "a"), invert=True),
        ),
        (
            {"string_match": {"contains": "a"}, "invert_match": True, "treat_missing_header_as_empty": True},
            HeaderMatch("x", TextMatch("contains", "a"), invert=True, missing_is_empty=True),
        ),
        ({"present_match": True}, HeaderMatch("x")),
        ({"present_match": False}, HeaderMatch("x", invert=True)),
        ({"present_match": True, "invert_match": True}, HeaderMatch("x", invert=True)),
        ({"present_match": False, "invert_match": True}, HeaderMatch("x")),
        ({}, HeaderMatch("x")),
        ({"invert_match": True}, HeaderMatch("x", invert=True)),
        ({"range_match": {"start": "1", "end": "5"}}, HeaderMatch("x", IntegerRange(1, 5))),
        ({"exact_match": "a"}, HeaderMatch("x", TextMatch("exact", "a"))),
        ({"prefix_match": "a"}, HeaderMatch("x", TextMatch("prefix", "a"))),
        ({"suffix_match": "a"}, HeaderMatch("x", TextMatch("suffix", "a"))),
        ({"contains_match": "a"}, HeaderMatch("x", TextMatch("contains", "a"))),
        ({"safe_regex_match": {"regex": "a+"}}, HeaderMatch("x", TextMatch("regex", "a+"))),
    ],
)
def test_headers(fields: dict[str, Any], header: HeaderMatch) -> None:
    """In the present form and in those of old dumps."""
    assert match(prefix="/", headers=[{"name": "X", **fields}]) == RouteMatch(headers=(header,))


@pytest.mark.parametrize(
    ("fields", "query"),
    [
        ({"string_match": {"exact": "1"}}, QueryMatch("q", TextMatch("exact", "1"))),
        ({"present_match": True}, QueryMatch("q")),
        ({"present_match": False}, QueryMatch("q", invert=True)),
        ({}, QueryMatch("q")),
    ],
)
def test_query_parameters(fields: dict[str, Any], query: QueryMatch) -> None:
    """By value or by presence."""
    assert match(prefix="/", query_parameters=[{"name": "q", **fields}]) == RouteMatch(query=(query,))


def test_grpc_and_connect_are_conditions_on_headers() -> None:
    """On the type of the content and on the method."""
    assert match(prefix="/", grpc={}).headers == (
        HeaderMatch("content-type", TextMatch("regex", r"application/grpc(\+.*)?")),
    )
    connect = match(connect_matcher={})
    assert connect == RouteMatch(TextMatch("prefix", ""), (HeaderMatch(":method", TextMatch("exact", "CONNECT")),))


DOUBTS: list[tuple[dict[str, Any], str]] = [
    ({"tls_context": {"presented": True}}, "tls_context decides"),
    ({"dynamic_metadata": [{"filter": "x"}]}, "dynamic_metadata decides"),
    ({"filter_state": [{}]}, "filter_state decides"),
    ({"cookies": [{}]}, "cookies decides"),
    ({"runtime_fraction": {"default_value": {"numerator": 50}}}, "it takes a fraction of the requests"),
    (
        {"runtime_fraction": {"default_value": {"numerator": 100}, "runtime_key": "x"}},
        "it takes a fraction of the requests",
    ),
    (
        {"runtime_fraction": {"default_value": {"numerator": 1, "denominator": "NEW"}}},
        "it takes a fraction of the requests",
    ),
    ({"runtime_fraction": {}}, "it takes a fraction of the requests"),
    ({"headers": [{"name": "x", "new_match": 1}]}, "a condition on 'x' is of an unknown kind"),
    ({"headers": [{"name": "x", "string_match": {"custom": {}}}]}, "a condition on 'x' is of an unknown kind"),
    (
        {"query_parameters": [{"name": "q", "new_match": 1}]},
        "a condition on the parameter 'q' is of an unknown kind",
    ),
    (
        {"query_parameters": [{"name": "q", "string_match": {"new": 1}}]},
        "a condition on the parameter 'q' is of an unknown kind",
    ),
]


@pytest.mark.parametrize(("fields", "doubt"), DOUBTS)
def test_what_cannot_be_evaluated_is_a_doubt(fields: dict[str, Any], doubt: str) -> None:
    """Never a condition that holds or fails."""
    assert match(prefix="/", **fields) == RouteMatch(doubt=doubt)


def test_all_of_the_requests_is_no_fraction() -> None:
    """A route that takes each of them."""
    for value in ({"numerator": 100}, {"numerator": 10_000, "denominator": "TEN_THOUSAND"}):
        assert match(prefix="/", runtime_fraction={"default_value": value}) == RouteMatch()


def test_a_path_in_an_unknown_way_leaves_every_path_in_play() -> None:
    """So does a route without any condition, which Envoy would refuse."""
    assert match(path_match_policy={"name": "x"}) == RouteMatch(
        TextMatch("prefix", ""), doubt="its path is compared in an unknown way"
    )
    assert read_match(None) == RouteMatch(doubt="it has no match")
