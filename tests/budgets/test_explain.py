"""Explanations: the route is the one that `match` finds, and the words are those of what was compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaware.budgets import Budget, Route, RouteTable
from meshaware.budgets.domains import Namespace
from meshaware.budgets.explain import Condition, Search
from meshaware.budgets.route import (
    Entry,
    HeaderMatch,
    IntegerRange,
    QueryMatch,
    RouteConfig,
    RouteMatch,
    TextMatch,
    VirtualHost,
)

_TOO_LARGE = "/([a-z]{1,30}-?){30}"
T = TypeVar("T")
_KINDS = st.sampled_from(["exact", "prefix", "segments", "suffix", "contains"])
_PATHS = st.sampled_from(["/", "/a", "/a/", "/A/b", "/a/b/c", "/a/../b", "/%61", "/a;v=1", "/b?q=1", "/b?q=2&r", "*"])
_VALUES = st.sampled_from(["", "1", "12", "a", "A", "ab", "GET", "http"])
_NAMES = st.sampled_from(["x-user", "x-request-id", "te", "connection", ":method", ":authority", ":scheme", "host"])


def _plain(kind: str, value: str, ignore_case: bool) -> TextMatch:
    return TextMatch(kind, value, ignore_case)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def _regex(pattern: str) -> TextMatch:
    return TextMatch("regex", pattern)


_PATTERNS = st.sampled_from(["/a.*", "[a-z]+", "(?i)/A", _TOO_LARGE, "("]).map(_regex)
_TEXTS = st.builds(_plain, _KINDS, _VALUES, st.booleans()) | _PATTERNS
_ROUTE_PATHS = st.builds(_plain, st.sampled_from(["exact", "prefix", "segments"]), _PATHS, st.booleans()) | _PATTERNS
_RANGES = st.builds(IntegerRange, st.integers(0, 5), st.integers(5, 20))
_HEADERS = st.builds(HeaderMatch, _NAMES, st.none() | _TEXTS | _RANGES, st.booleans(), st.booleans())
_QUERY = st.builds(QueryMatch, st.sampled_from("qr"), st.none() | _TEXTS, st.booleans())


def _few(
    values: st.SearchStrategy[HeaderMatch] | st.SearchStrategy[QueryMatch],
) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(values, max_size=2).map(tuple)


_MATCHES = st.builds(
    RouteMatch,
    st.just(TextMatch("prefix", "/")) | _ROUTE_PATHS,
    _few(_HEADERS),
    _few(_QUERY),
    st.sampled_from([0, 0, 80, 8080]),
    st.sampled_from(["", "", "", "labels decide"]),
    st.sampled_from([(), (), (80,)]),
)


@st.composite
def _tables(draw: st.DrawFn) -> RouteTable:
    number = 0
    configs: list[RouteConfig] = []
    for name in draw(st.lists(st.sampled_from(["", "80", "8080", "http_proxy"]), min_size=1, max_size=3, unique=True)):
        hosts: list[VirtualHost] = []
        for domains in draw(st.lists(st.sampled_from(_DOMAINS), max_size=4)):
            entries: list[Entry] = []
            for match in draw(st.lists(_MATCHES, max_size=5)):
                number += 1
                entries.append(Entry(match, Route(f"route-{number}", Budget(timeout=float(number)))))
            hosts.append(VirtualHost(domains[0], domains, tuple(entries)))
        ignore = draw(st.booleans())
        configs.append(RouteConfig(name, tuple(hosts), ignore_parameters=ignore))
    return RouteTable(configs, namespace=draw(st.sampled_from([None, Namespace("shop")])))


_DOMAINS = [("inventory", "inventory.shop"), ("*.shop.svc.cluster.local",), ("*.shop",), ("inv*",), ("*",)]
_URLS = st.builds(
    "{}://{}{}".format,
    st.sampled_from(["http", "http", "http", "https"]),
    st.sampled_from(["inventory", "inventory:8080", "inventory.shop", "orders.shop", "elsewhere.org:9999"]),
    _PATHS.map(lambda path: "/*" if path == "*" else path),
)
_SENT = st.dictionaries(st.sampled_from(["x-user", "te", "Host", "X-Request-Id", "connection"]), _VALUES, max_size=3)


@given(_tables(), st.sampled_from(["GET", "post"]), _URLS, _SENT)
def test_the_route_is_the_one_that_match_finds(table: RouteTable, method: str, url: str, sent: dict[str, str]) -> None:
    """On random tables; and where it is sure, all that was tried before it says no."""
    explanation = table.explain(method, url, sent)
    assert explanation.route is table.match(method, url, sent)
    assert bool(explanation.why) is not bool(explanation.searches)
    for search in explanation.searches:
        for candidate in search.candidates:
            verdicts = [condition.verdict for condition in candidate.conditions]
            assert False not in verdicts[:-1]
            assert candidate.verdict is (False if False in verdicts else None if None in verdicts else True)
        assert all(candidate.verdict is not True for candidate in search.candidates[:-1])
    if len(explanation.searches) == 1 and explanation.route is not None and not explanation.route.note:
        assert explanation.searches[0].candidates[-1].route is explanation.route
        assert explanation.searches[0].candidates[-1].verdict is True


def only(match: RouteMatch, url: str = "http://inventory/items/42", sent: object = None) -> tuple[Condition, ...]:
    """What is said of a table's only route."""
    config = RouteConfig("", (VirtualHost("inventory", ("inventory",), (Entry(match, Route("it", Budget())),)),))
    headers: dict[str, str] = sent  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    (search,) = RouteTable([config]).explain("GET", url, headers).searches
    (candidate,) = search.candidates
    return candidate.conditions


def on(name: str, value: TextMatch | IntegerRange | None = None, **how: bool) -> RouteMatch:
    return RouteMatch(headers=(HeaderMatch(name, value, **how),))


EXACT_A = TextMatch("exact", "a")


@pytest.mark.parametrize(
    ("match", "said"),
    [
        (RouteMatch(TextMatch("prefix", "/admin")), ("uri prefix /admin", False, "the path is /items/42")),
        (
            RouteMatch(TextMatch("segments", "/ITEMS", ignore_case=True)),
            ("uri prefix of segments /ITEMS in any case", True, "the path is /items/42"),
        ),
        (
            RouteMatch(TextMatch("regex", _TOO_LARGE)),
            (f"uri regex {_TOO_LARGE}", None, "the path is /items/42"),
        ),
        (on("x-user", EXACT_A), ("header x-user exact a", False, "it is b")),
        (on("x-user", EXACT_A, invert=True), ("header x-user not exact a", True, "it is b")),
        (on("x-user", IntegerRange(1, 5)), ("header x-user from 1 to under 5", False, "it is b")),
        (on("x-none", EXACT_A), ("header x-none exact a", False, "there is none")),
        (on("x-empty", EXACT_A), ("header x-empty exact a", False, 'it is ""')),
        (on("x-user"), ("header x-user is there", True, "it is b")),
        (on("x-user", invert=True), ("header x-user is not there", False, "it is b")),
        (on("connection"), ("header connection is there", False, "the sidecar takes it away")),
        (on("x-request-id", EXACT_A), ("header x-request-id exact a", None, "the sidecar makes one")),
        (on("te", EXACT_A), ("header te exact a", None, "what the sidecar makes of it, only the sidecar knows")),
        (on(":method", TextMatch("exact", "POST")), ("method exact POST", False, "it is GET")),
        (RouteMatch(query=(QueryMatch("q", EXACT_A),)), ("query parameter q exact a", False, "it is 1")),
        (RouteMatch(query=(QueryMatch("r"),)), ("query parameter r is there", False, "there is none")),
        (RouteMatch(query=(QueryMatch("r", invert=True),)), ("query parameter r is not there", True, "there is none")),
        (RouteMatch(doubt="claims of a token decide"), ("claims of a token decide", None, "")),
        (RouteMatch(port=8080), ("port 8080", False, "it is 80")),
        (RouteMatch(other_ports=(80, 81)), ("port none of 80, 81", False, "it is 80")),
    ],
)
def test_each_condition_says_what_it_asks_and_what_it_was_compared_with(
    match: RouteMatch, said: tuple[str, bool | None, str]
) -> None:
    """The first that fails is the last that is told."""
    sent = {"x-user": "b", "x-empty": "", "connection": "close", "te": "gzip"}
    assert only(match, "http://inventory/items/42?q=1", sent) == (said,)


def test_a_route_for_every_call_has_no_conditions() -> None:
    """Nothing is to be said of a path that any path will do for."""
    assert only(RouteMatch()) == ()


def test_a_header_on_several_lines_is_told_in_every_way_that_envoys_read_it() -> None:
    """As one text by older ones, line by line by newer ones."""
    sent = httpx.Headers([("x-user", "a"), ("x-user", "b")])
    assert only(on("x-user", EXACT_A), sent=sent) == (
        Condition("header x-user exact a", None, "it is a,b, or a, or b"),
    )


def test_conditions_are_tried_until_one_fails() -> None:
    """All of them in the order in which the matcher asks."""
    match = RouteMatch(TextMatch("prefix", "/items"), (HeaderMatch("x-a"), HeaderMatch("x-b")), (QueryMatch("q"),))
    assert [each.asks for each in only(match, sent={"x-a": "1"})] == [
        "uri prefix /items",
        "header x-a is there",
        "header x-b is there",
    ]


MANIFEST = """
    apiVersion: networking.istio.io/v1
    kind: VirtualService
    metadata: {name: inventory, namespace: shop}
    spec:
      hosts: [%s]
      http:
        - {name: admin, match: [{uri: {prefix: /admin}}], timeout: 30s}
        - {name: all, match: [{withoutHeaders: {x-never: {exact: "1"}}}], timeout: 3s}
        - {name: never, timeout: 1s}
"""


@pytest.mark.parametrize(
    ("host", "url", "found"),
    [
        ("inventory", "http://inventory/", ("inventory", "inventory", "exact")),
        (
            '"*.shop.svc.cluster.local"',
            "http://inventory/",
            ("inventory.shop.svc.cluster.local", "*.shop.svc.cluster.local", "suffix"),
        ),
        ('"*"', "http://elsewhere.org/", ("elsewhere.org", "*", "any")),
    ],
)
def test_the_virtual_host_and_its_domain_are_told(
    read: Callable[..., RouteTable], host: str, url: str, found: tuple[str, str, str]
) -> None:
    """With the name that was looked for, and how many routes were not asked any more."""
    (search,) = read(MANIFEST % host, namespace="shop").explain("GET", url).searches
    assert (search.asked, search.domain, search.found_by) == found
    assert [candidate.route.name for candidate in search.candidates] == ["admin", "all"]
    assert search.untried == 1


def test_a_domain_may_end_with_a_star() -> None:
    """As only Envoy's own can."""
    assert Search("80", "it", "inventory", "inv*", "/", (), 0).found_by == "prefix"


def test_each_way_to_read_the_path_is_searched(read: Callable[..., RouteTable]) -> None:
    """As it is sent, and as the sidecar may rewrite it."""
    explanation = read(MANIFEST % "inventory", namespace="shop").explain("GET", "http://inventory/a/../admin")
    assert [search.path for search in explanation.searches] == ["/a/../admin", "/admin"]
    assert explanation.route is not None
    assert explanation.route.budget.timeout == 30.0


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://inventory/", "https is a tunnel: the sidecar passes it on unread"),
        ("ftp://inventory/", "ftp is not http, and the sidecar passes it on unread"),
        ("http://reviews/", "no virtual host is for reviews, which is reviews.shop.svc.cluster.local here"),
        ("http://reviews.example.org:81/", "no virtual host is for reviews.example.org"),
    ],
)
def test_where_nothing_is_searched_it_says_why(read: Callable[..., RouteTable], url: str, why: str) -> None:
    """In words that name the call."""
    explanation = read(MANIFEST % "inventory", namespace="shop").explain("GET", url)
    assert (explanation.route, explanation.searches, explanation.why) == (None, (), why)


def test_a_port_that_the_sidecar_does_not_serve_is_named() -> None:
    """It is plain TCP then."""
    table = RouteTable([RouteConfig("8080", (VirtualHost("it", ("*",), ()),))])
    assert table.explain("GET", "http://inventory:9999/").why == (
        "the sidecar has no routes for port 9999: such a call passes it as plain TCP"
    )


def test_a_url_that_is_not_absolute_is_refused() -> None:
    """As by `match`."""
    with pytest.raises(ValueError, match="is not an absolute URL"):
        RouteTable.empty().explain("GET", "/items/42")
