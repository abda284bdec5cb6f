"""The table: what it is, and the route that a call takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from meshaware.budgets import Budget, Route, RouteSource, RouteTable, table
from meshaware.budgets.domains import Namespace
from meshaware.budgets.route import Entry, HeaderMatch, RouteConfig, RouteMatch, TextMatch, VirtualHost

INVENTORY = """
    apiVersion: networking.istio.io/v1
    kind: VirtualService
    metadata: {name: inventory, namespace: shop}
    spec:
      hosts: [inventory]
      http:
      - name: premium
        match:
        - headers: {x-user-type: {exact: premium}}
          uri: {prefix: /items}
        timeout: 5s
      - match:
        - uri: {regex: "/reports/[0-9]{4}"}
        timeout: 1h30m
      - timeout: 3s
        retries: {attempts: 2, perTryTimeout: 1s}
"""


def made(*entries: tuple[RouteMatch, Route], name: str = "http_proxy") -> RouteTable:
    """A table of one virtual host for every host."""
    host = VirtualHost("all", ("*",), tuple(Entry(match, route) for match, route in entries))
    return RouteTable([RouteConfig(name, (host,))])


def test_the_route_of_the_readme(read: Callable[..., RouteTable]) -> None:
    """Method, URL and headers in; name, budget and origin out."""
    routes = read(INVENTORY, namespace="shop")
    route = routes.match("GET", "http://inventory:8080/items/42", headers={"X-User-Type": "premium"})
    assert route is not None
    assert route.name == "premium"
    assert route.budget == Budget(timeout=5.0, attempts=2)
    assert route.origin.endswith("routes.yaml, document 1, line 8, spec.http[0]")
    assert route.host == "inventory.shop.svc.cluster.local"
    assert route.action == "route"
    assert route.note == ""


@pytest.mark.parametrize(
    ("method", "url", "name"),
    [
        ("GET", "http://inventory/items/42", "shop/inventory[2]"),
        ("get", "HTTP://Inventory.Shop:81", "shop/inventory[2]"),
        ("GET", "http://inventory.shop.svc.cluster.local./reports/2024?x=1#top", "shop/inventory[1]"),
        ("GET", "http://user:secret@inventory.shop.svc/", "shop/inventory[2]"),
        ("GET", "http://inventory.other/", None),
        ("GET", "http://inventory./", None),
        ("GET", "https://inventory/", None),
        ("GET", "ftp://inventory/", None),
    ],
)
def test_a_call_is_matched_by_its_url(read: Callable[..., RouteTable], method: str, url: str, name: str | None) -> None:
    """TLS passes the sidecar unread, so nothing governs it; user and fragment are not sent."""
    route = read(INVENTORY, namespace="shop").match(method, url)
    assert (None if route is None else route.name) == name


def test_the_host_header_decides(read: Callable[..., RouteTable]) -> None:
    """As it does in Envoy, whatever the URL says."""
    routes = read(INVENTORY, namespace="shop")
    assert routes.match("GET", "http://127.0.0.1:15001/", {"Host": "inventory"}) is not None
    assert routes.match("GET", "http://inventory/", {"host": "elsewhere"}) is None


def test_a_url_of_httpx_is_as_good_as_text(read: Callable[..., RouteTable]) -> None:
    """And what is not ASCII in a path is escaped as httpx escapes it."""
    routes = made((RouteMatch(TextMatch("exact", "/caf%C3%A9")), Route("café", Budget())))
    assert routes.match("GET", str(httpx.URL("http://inventory/café"))) is not None
    assert routes.match("GET", "http://inventory/café") is not None
    assert read(INVENTORY, namespace="shop").match("GET", httpx.URL("http://inventory/")) is not None  # type: ignore[arg-type]


@pytest.mark.parametrize("url", ["inventory", "/items", "//inventory/items", "http:///items", ""])
def test_a_url_that_is_not_absolute_is_a_mistake(url: str) -> None:
    """It would match nothing, and nobody would notice."""
    with pytest.raises(ValueError, match="is not an absolute URL such as"):
        RouteTable.empty().match("GET", url)


def test_a_port_that_is_none_is_a_mistake() -> None:
    """Of the URL."""
    with pytest.raises(ValueError, match=r"[Pp]ort"):
        RouteTable.empty().match("GET", "http://inventory:99999/")


def test_an_empty_table_governs_nothing() -> None:
    """It is what holds before anything was read."""
    routes = RouteTable.empty()
    assert routes.match("GET", "http://inventory/") is None
    assert routes.match_parts("GET", "inventory", "/", {}) is None
    assert len(routes) == 0
    assert list(routes) == []
    assert routes == RouteTable.empty()
    assert repr(routes) == "<RouteTable: 0 routes, 0 hosts>"


def test_a_table_is_a_value(read: Callable[..., RouteTable]) -> None:
    """Equal if it says the same; printed on one line, or one line for each route."""
    routes, same = read(INVENTORY, namespace="shop"), read(INVENTORY, namespace="shop")
    assert routes == same
    assert hash(routes) == hash(same)
    assert routes != read(INVENTORY.replace("3s", "4s"), namespace="shop")
    assert routes != "routes"
    assert [route.name for route in routes] == ["premium", "shop/inventory[1]", "shop/inventory[2]"]
    assert repr(routes) == "<RouteTable: 3 routes, 1 hosts>"
    lines = str(routes).splitlines()
    assert len(lines) == 4
    assert lines[3].startswith(
        "inventory.shop.svc.cluster.local  shop/inventory[2]  Budget(timeout=3.0, attempts=2, per_try_timeout=1.0)  ("
    )
    assert not hasattr(routes, "__dict__")


def test_asking_does_not_change_a_table(read: Callable[..., RouteTable]) -> None:
    """What it remembers of answers is no part of what it says."""
    routes, same = read(INVENTORY, namespace="shop"), read(INVENTORY, namespace="shop")
    routes.match("GET", "http://inventory/")
    assert routes == same
    routes.skipped["x"] = 1  # type: ignore[index]
    assert routes.skipped == {}


def test_where_the_route_cannot_be_told_the_largest_budget_holds() -> None:
    """Law 1: the shorter one might cut the other's call. The route says so, and is the same one each time."""
    routes = made(
        (RouteMatch(TextMatch("regex", r"(a)\1")), Route("odd", Budget(timeout=1.0), "first")),
        (
            RouteMatch(headers=(HeaderMatch("x-request-id", TextMatch("exact", "1")),)),
            Route("traced", Budget(timeout=9.0)),
        ),
        (RouteMatch(), Route("rest", Budget(timeout=2.0, attempts=3, per_try_timeout=1.0))),
        (RouteMatch(), Route("never", Budget())),
    )
    route = routes.match_parts("GET", "inventory", "/", {})
    assert route is not None
    assert route.name == "odd"
    assert route.origin == "first"
    assert route.budget == Budget(timeout=9.0)
    # The rest of what is said about the expression is the engine's.
    assert route.note is not None
    assert route.note.startswith(r"which route is taken cannot be told here (the regular expression '(a)\\1' ")
    assert route.note.endswith(": the largest budget of odd, traced, rest holds")
    assert routes.match_parts("POST", "orders", "/x", {}) is route
    known = routes.match_parts("GET", "inventory", "/", {"x-request-id": "2"})
    assert known is not None
    assert known.budget.total(0.0) == 5.0


def test_a_doubt_that_arises_with_the_request_is_told_too() -> None:
    """Such as a text that is too long to be compared with a pattern."""
    routes = made(
        (RouteMatch(TextMatch("regex", "/a.*b")), Route("a", Budget(timeout=1.0))),
        (RouteMatch(), Route("rest", Budget(timeout=2.0))),
    )
    route = routes.match("GET", "http://inventory/a" + "b" * 9000)
    assert route is not None
    assert route.budget == Budget(timeout=2.0)
    assert "the host, the path or a header can be read in more than one way" in route.note


def test_a_path_that_a_sidecar_may_rewrite_is_matched_both_ways() -> None:
    """Unless both ways lead to one route, and then that is certain."""
    routes = made(
        (RouteMatch(TextMatch("prefix", "/items")), Route("items", Budget(timeout=5.0))),
        (RouteMatch(TextMatch("prefix", "/")), Route("rest", Budget(timeout=1.0))),
    )
    route = routes.match_parts("GET", "inventory", "/%69tems/1?x=1", {})
    assert route is not None
    assert route.budget == Budget(timeout=5.0)
    assert "rest, items" in route.note
    certain = routes.match_parts("GET", "inventory", "/items/%41", {})
    assert certain is not None
    assert certain.note == ""
    only = made((RouteMatch(TextMatch("exact", "/items")), Route("items", Budget(timeout=5.0))))
    perhaps = only.match_parts("GET", "inventory", "/%69tems", {})
    assert perhaps is not None
    assert perhaps.note


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts come from callers, so their number is not ours to know; long ones are not kept at all."""
    monkeypatch.setattr(table, "_REMEMBERED", 3)
    doubtful = [(RouteMatch(doubt="?"), Route(str(number), Budget(timeout=1.0 + number))) for number in range(6)]
    hosts = [VirtualHost(str(number), (f"h{number}",), (Entry(*doubtful[number]),)) for number in range(6)]
    routes = RouteTable([RouteConfig("http_proxy", tuple(hosts))], namespace=Namespace("shop"))
    for _ in range(2):
        for number in range(6):
            route = routes.match_parts("GET", f"h{number}", "/", {})
            assert route is not None
            assert route.name == str(number)
    assert len(routes._found) <= 3  # pyright: ignore[reportPrivateUsage]
    assert len(routes._ready) <= 3  # pyright: ignore[reportPrivateUsage]
    assert len(routes._doubtful) <= 3  # pyright: ignore[reportPrivateUsage]
    assert routes.match_parts("GET", "h" * 300, "/", {}) is None
    assert "h" * 300 not in routes._ready  # pyright: ignore[reportPrivateUsage]


def test_a_table_is_a_route_source_by_its_holder() -> None:
    """Whoever has a `current` table can be given to a client."""

    class Holder:
        current = RouteTable.empty()

    source: RouteSource = Holder()
    assert source.current == RouteTable.empty()


def test_one_table_from_each_side_agree(read: Callable[..., RouteTable]) -> None:
    """What istiod would make of the manifest gives the same budgets as the manifest."""
    retry: dict[str, Any] = {
        "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
        "num_retries": 2,
        "host_selection_retry_max_attempts": "5",
    }
    header = {"name": "x-user-type", "string_match": {"exact": "premium"}}
    dump = {
        "name": "8080",
        "ignore_port_in_host_matching": True,
        "virtual_hosts": [
            {
                "name": "inventory.shop.svc.cluster.local:8080",
                "domains": ["inventory.shop.svc.cluster.local", "inventory", "inventory.shop.svc", "inventory.shop"],
                "routes": [
                    {
                        "name": "premium",
                        "match": {"prefix": "/items", "case_sensitive": True, "headers": [header]},
                        "route": {"timeout": "5s", "retry_policy": retry},
                    },
                    {
                        "match": {"safe_regex": {"regex": "/reports/[0-9]{4}"}},
                        "route": {"timeout": "5400s", "retry_policy": retry},
                    },
                    {
                        "match": {"prefix": "/"},
                        "route": {"timeout": "3s", "retry_policy": {**retry, "per_try_timeout": "1s"}},
                    },
                ],
            }
        ],
    }
    live = RouteTable.from_config_dump(json.dumps([dump]))
    written = read(INVENTORY, namespace="shop")
    for path in ("/items/1", "/reports/2024", "/reports/x", "/"):
        for headers in ({}, {"x-user-type": "premium"}):
            ours, theirs = (routes.match("GET", f"http://inventory:8080{path}", headers) for routes in (written, live))
            assert ours is not None
            assert theirs is not None
            assert ours.budget == theirs.budget


@pytest.mark.parametrize("host", ["inventory", "Inventory.Shop", "orders", "10.0.0.1", "a_b.c-d"])
@pytest.mark.parametrize("port", ["", ":80", ":8080", ":443", ":65535", ":08080", ":0"])
@pytest.mark.parametrize(
    "path", ["", "/", "/items/42", "/items?q=1&r=/", "/reports/2024", "/a/../items", "/%61", "/x|y"]
)
def test_a_plain_url_is_read_as_any_other(read: Callable[..., RouteTable], host: str, port: str, path: str) -> None:
    """What is read at once, and what is taken apart with care, lead to the same route."""
    routes = read(INVENTORY, namespace="shop")
    url = f"http://{host}{port}{path}"
    assert routes.match("GET", url) == routes.match("GET", url, {})
    assert routes.match("get", httpx.URL(url)) == routes.match("GET", url, {})  # type: ignore[arg-type]
