"""Rules that delegate: joined with those of the VirtualService they name, as istiod joins them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from meshaware.budgets import Budget, Route, RouteTable

ROOT = """
    apiVersion: networking.istio.io/v1
    kind: VirtualService
    metadata: {name: root, namespace: shop}
    spec:
      hosts: [shop]
      http:
      - name: items
        match: [{uri: {prefix: /items}, headers: {x-a: {}}}]
        delegate: {name: items, namespace: stock}
        timeout: 9s
        retries: {attempts: 1}
        fault: {delay: {fixedDelay: 1s}}
      - name: rest
        timeout: 1s
"""
LEAF = """
    ---
    apiVersion: networking.istio.io/v1
    kind: VirtualService
    metadata: {name: items, namespace: stock}
    spec:
      http:
      - name: special
        match: [{uri: {exact: /items/special}, method: {exact: GET}}]
        timeout: 20s
        retries: {attempts: 0}
      - match: [{uri: {prefix: /other}}]
        timeout: 30s
      - {}
"""


def path(routes: RouteTable, target: str, headers: dict[str, str] | None = None) -> Route:
    route = routes.match("GET", f"http://shop{target}", {"x-a": "1"} if headers is None else headers)
    assert route is not None
    return route


def test_the_delegates_own_word_counts_and_the_roots_where_it_says_nothing(read: Callable[..., RouteTable]) -> None:
    """Name, conditions, timeout, retries and fault; the origin has both."""
    routes = read(ROOT + LEAF, namespace="shop")
    special = path(routes, "/items/special")
    assert special.name == "items-special"
    assert special.budget == Budget(timeout=20.0, delay=1.0)
    assert special.origin.endswith("document 1, line 8, spec.http[0]")
    assert ", document 2, line 23, spec.http[0], delegated by " in special.origin
    rest = path(routes, "/items/x")
    assert rest.name == "items"
    assert rest.budget == Budget(timeout=9.0, attempts=1, delay=1.0)
    assert path(routes, "/items/special", {}).name == "rest"


def test_a_rule_that_matches_more_than_its_root_is_dropped(read: Callable[..., RouteTable]) -> None:
    """A delegate cannot take what it was not given."""
    routes = read(ROOT + LEAF, namespace="shop")
    assert path(routes, "/other").name == "rest"
    assert all(route.budget.timeout != 30.0 for route in routes)


def test_a_delegate_is_no_virtual_service_of_its_own(read: Callable[..., RouteTable]) -> None:
    """It has no hosts."""
    routes = read(ROOT + LEAF, namespace="shop")
    assert {route.host for route in routes} == {"shop.shop.svc.cluster.local"}
    assert routes.skipped == {"VirtualService to delegate to": 1}


@pytest.mark.parametrize("leaf", ["", LEAF.replace("spec:", "spec:\n      exportTo: [elsewhere]")])
def test_a_delegate_that_is_not_there_may_say_anything(read: Callable[..., RouteTable], leaf: str) -> None:
    """No bound is assumed for what it would have taken, and the route says so."""
    route = path(read(ROOT + leaf, namespace="shop"), "/items/x")
    assert route.budget.total() is None
    assert "its delegate stock/items is not among the manifests: no bound is assumed" in route.note
    assert path(read(ROOT + leaf, namespace="shop"), "/other").note == ""


def test_a_rule_without_conditions_may_delegate(read: Callable[..., RouteTable]) -> None:
    """By default to the namespace of the root; what comes after it is still in play if the delegate is missing."""
    root = """
        apiVersion: networking.istio.io/v1
        kind: VirtualService
        metadata: {name: root, namespace: shop}
        spec:
          hosts: [shop]
          http: [{delegate: {name: leaf}}, {name: rest, timeout: 1s}]
    """
    leaf = """
        ---
        apiVersion: networking.istio.io/v1
        kind: VirtualService
        metadata: {name: leaf, namespace: shop}
        spec: {http: [{name: leaf, timeout: 2s, match: [{uri: {regex: "/a.*"}}]}]}
    """
    assert path(read(root + leaf, namespace="shop"), "/abc").name == "leaf"
    assert path(read(root + leaf, namespace="shop"), "/b").name == "rest"
    missing = path(read(root, namespace="shop"), "/b")
    assert missing.budget == Budget()
    assert "rest" in missing.note


@pytest.mark.parametrize(
    ("root", "leaf", "kept"),
    [
        ("uri: {prefix: /a}", "uri: {prefix: /a/b}", True),
        ("uri: {prefix: /a}", "uri: {exact: /ab}", True),
        ("uri: {prefix: /a/b}", "uri: {prefix: /a}", False),
        ("uri: {exact: /a}", "uri: {exact: /a}", True),
        ("uri: {exact: /a}", "uri: {exact: /b}", False),
        ("uri: {exact: /a}", "uri: {prefix: /a}", False),
        ("uri: {prefix: /a}", "uri: {regex: /ab}", False),
        ("headers: {x: {exact: a}}", "headers: {x: {exact: a}}", True),
        ("headers: {x: {exact: a}}", "headers: {x: {exact: b}}", False),
        ("headers: {x: {exact: a}}", "headers: {y: {exact: b}}", True),
        ("headers: {x: {}}", "headers: {x: {exact: b}}", False),
        ("withoutHeaders: {x: {exact: a}}", "withoutHeaders: {x: {exact: b}}", False),
        ("method: {exact: GET}", "method: {exact: POST}", False),
        ("queryParams: {q: {prefix: a}}", "queryParams: {q: {exact: ab}}", True),
        ("ignoreUriCase: true", "uri: {exact: /a}", False),
        ("port: 80", "port: 81", False),
        ("port: 80", "uri: {exact: /a}", True),
    ],
)
def test_conditions_are_joined_where_the_roots_are_the_wider_ones(
    read: Callable[..., RouteTable], root: str, leaf: str, kept: bool
) -> None:
    """Both must hold then."""
    routes = read(f"""
        apiVersion: networking.istio.io/v1
        kind: VirtualService
        metadata: {{name: root}}
        spec: {{hosts: [shop], http: [{{match: [{{{root}}}], delegate: {{name: leaf}}}}]}}
        ---
        apiVersion: networking.istio.io/v1
        kind: VirtualService
        metadata: {{name: leaf}}
        spec: {{http: [{{match: [{{{leaf}}}]}}]}}
    """)
    assert len(routes) == (1 if kept else 0)


def test_each_element_of_match_needs_a_wider_one(read: Callable[..., RouteTable]) -> None:
    """It is joined with each that is."""
    routes = read("""
        apiVersion: networking.istio.io/v1
        kind: VirtualService
        metadata: {name: root}
        spec:
          hosts: [shop]
          http:
          - match: [{name: a, uri: {prefix: /a}}, {name: b, headers: {x: {exact: b}}}]
            delegate: {name: leaf}
        ---
        apiVersion: networking.istio.io/v1
        kind: VirtualService
        metadata: {name: leaf}
        spec:
          http:
          - name: both
            match: [{name: c, uri: {exact: /a/c}}]
          - name: all
    """)
    names = [route.name for route in routes]
    assert names == ["both.a-c", "both.b-c", "all.a", "all.b"]
    assert path(routes, "/a/c", {}).name == "both.a-c"
    assert path(routes, "/a/d", {}).name == "all.a"
    assert path(routes, "/x", {"x": "b"}).name == "all.b"
