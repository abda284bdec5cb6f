"""`match` of a VirtualService: read, checked, and given to Envoy as istiod gives it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from meshaware.budgets import RouteTable
from meshaware.budgets.conditions import Caller, Condition, read_condition
from meshaware.budgets.documents import read_documents
from meshaware.budgets.fields import Field
from meshaware.budgets.route import HeaderMatch, QueryMatch, RouteMatch, TextMatch
from meshaware.errors import ManifestError


def condition(text: str) -> Condition:
    (document,) = read_documents(f"match: {text}\n", "routes.yaml")
    return read_condition(Field(document.load(), document.place, document.line).need("match", ""))


def test_all_that_can_be_asked_for() -> None:
    """As one of Envoy's conditions: inverted ones take a missing header as empty, unless presence is what they ask."""
    match = condition(
        """{name: all, uri: {prefix: /Items}, ignoreUriCase: true, method: {exact: GET}, authority: {prefix: inv},
            scheme: {exact: http}, headers: {X-User: {exact: a}, x-any: {}, x-star: {regex: "*"}},
            withoutHeaders: {x-no: {regex: "b+"}, x-none: {}, x-null: }, port: 8080,
            queryParams: {Page: {exact: "1"}, all: {}, star: {regex: "*"}}, unknown: {field: 1}}"""
    )
    assert match.name == "all"
    assert match.route_match() == RouteMatch(
        path=TextMatch("prefix", "/Items", ignore_case=True),
        headers=(
            HeaderMatch("x-user", TextMatch("exact", "a")),
            HeaderMatch("x-any"),
            HeaderMatch("x-star"),
            HeaderMatch("x-no", TextMatch("regex", "b+"), invert=True, missing_is_empty=True),
            HeaderMatch("x-none", None, invert=True),
            HeaderMatch("x-null", None, invert=True),
            HeaderMatch(":scheme", TextMatch("exact", "http")),
            HeaderMatch(":method", TextMatch("exact", "GET")),
            HeaderMatch(":authority", TextMatch("prefix", "inv")),
        ),
        query=(QueryMatch("Page", TextMatch("exact", "1")), QueryMatch("all"), QueryMatch("star")),
        port=8080,
    )


def test_nothing_asked_for_is_every_request() -> None:
    """An empty element of `match`."""
    assert condition("{}").route_match() == RouteMatch()


def test_a_pattern_keeps_its_case() -> None:
    """`ignoreUriCase` is about exact texts and prefixes; an empty prefix is every path."""
    match = condition('{uri: {regex: "/[a-z]+"}, ignoreUriCase: true}')
    assert match.route_match().path == TextMatch("regex", "/[a-z]+")
    assert condition('{uri: {prefix: ""}}').route_match().path == TextMatch("prefix", "")
    assert condition('{uri: {regex: "*"}}').route_match().path == TextMatch("regex", "*")


def test_claims_of_a_token_cannot_be_told() -> None:
    """They are no headers, though they stand among them."""
    match = condition('{headers: {"@request.auth.claims.admin": {exact: "yes"}, x-a: {}}}').route_match(doubt="first")
    assert match.headers == (HeaderMatch("x-a"),)
    assert match.doubt == "first; claims of a token decide"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("abc", "match: abc: must be a mapping"),
        ("{uri: /items}", "match.uri: /items: must be a mapping"),
        ("{uri: {exact: 1}}", "match.uri.exact: 1: must be a text; put it in quotes"),
        (
            "{uri: {exact: /a, prefix: /b}}",
            "match.uri: a mapping: has exact and prefix: must be one of exact, prefix and regex",
        ),
        (
            "{uri: {suffix: /a}}",
            "match.uri: a mapping: has 'suffix': must be one of exact, prefix and regex, or {} for presence",
        ),
        ('{uri: {regex: ""}}', "match.uri.regex: '': must not be empty"),
        ('{headers: {x-a: {prefix: ""}}}', "match.headers.x-a.prefix: '': must not be empty"),
        (
            "{headers: {x-a: }}",
            "match.headers.x-a: null: must be {} where only presence counts, or have one of exact, prefix",
        ),
        ("{headers: {x-a: 1}}", "match.headers.x-a: 1: must be a mapping"),
        ('{headers: {"": {}}}', "match.headers: a mapping: has an empty name"),
        ("{headers: [x-a]}", "match.headers: a list: must be a mapping"),
        ("{port: http}", "match.port: http: must be a whole number"),
        ("{port: 65536}", "match.port: 65536: must be from 0 to 65535"),
        ("{gateways: mesh}", "match.gateways: mesh: must be a list"),
        ("{sourceLabels: {version: 1}}", "match.sourceLabels.version: 1: must be a text; put it in quotes"),
        ("{sourceNamespace: true}", "match.sourceNamespace: true: must be a text; put it in quotes"),
        ("{ignoreUriCase: 'true'}", "match.ignoreUriCase: true: must be true or false"),
        ("{name: 5}", "match.name: 5: must be a text; put it in quotes"),
    ],
)
def test_what_istio_refuses_is_refused(text: str, said: str) -> None:
    """At its place, by its rule."""
    with pytest.raises(ManifestError) as raised:
        condition(text)
    assert str(raised.value).startswith(f"routes.yaml, document 1, line 1: {said}")


@pytest.mark.parametrize(
    ("text", "caller", "applies"),
    [
        ("{}", Caller(), True),
        ("{gateways: [mesh]}", Caller(), True),
        ("{gateways: [ingress]}", Caller(), False),
        ("{gateways: [mesh], sourceLabels: {a: b}, sourceNamespace: x}", Caller({}, "shop"), True),
        ("{sourceLabels: {a: b}}", Caller(), None),
        ("{sourceLabels: {a: b}}", Caller({"a": "b", "c": "d"}), True),
        ("{sourceLabels: {a: b, c: d}}", Caller({"a": "b"}), False),
        ("{sourceNamespace: shop}", Caller(), None),
        ("{sourceNamespace: shop}", Caller(None, "shop"), True),
        ("{sourceNamespace: shop}", Caller(None, "other"), False),
        ("{sourceNamespace: shop, sourceLabels: {a: b}}", Caller(None, "other"), False),
        ("{sourceNamespace: shop, sourceLabels: {a: b}}", Caller(None, "shop"), None),
    ],
)
def test_whom_a_condition_is_for(text: str, caller: Caller, applies: bool | None) -> None:
    """istiod decides that for each sidecar; where gateways are named it asks for nothing else."""
    assert condition(text).applies(caller) is applies


SOURCES = """
    apiVersion: networking.istio.io/v1
    kind: VirtualService
    metadata: {name: inventory, namespace: shop}
    spec:
      hosts: [inventory]
      http:
      - name: gateway
        match: [{gateways: [ingress]}]
        timeout: 1s
      - name: patient
        match: [{sourceLabels: {app: reports}, uri: {prefix: /big}}]
        timeout: 60s
      - name: rest
        timeout: 2s
"""


@pytest.mark.parametrize(
    ("arguments", "name", "timeout", "noted"),
    [
        ({"source_labels": {"app": "reports"}}, "patient", 60.0, False),
        ({"source_labels": {"app": "orders"}}, "rest", 2.0, False),
        ({"source_labels": {}}, "rest", 2.0, False),
        ({}, "patient", 60.0, True),
    ],
)
def test_a_rule_for_other_callers_counts_where_labels_are_not_known(
    read: Callable[..., RouteTable], arguments: dict[str, Any], name: str, timeout: float, noted: bool
) -> None:
    """A longer budget is never dropped on a guess; a rule for gateways never counts."""
    routes = read(SOURCES, namespace="shop", **arguments)
    route = routes.match("GET", "http://inventory/big")
    assert route is not None
    assert (route.name, route.budget.timeout, bool(route.note)) == (name, timeout, noted)
    assert not noted or "the caller's labels or namespace decide" in route.note
    other = routes.match("GET", "http://inventory/small")
    assert other is not None
    assert (other.name, other.note) == ("rest", "")
