"""What is different between two tables: which routes, and what in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from meshaware.budgets import Budget, Route, RouteTable
from meshaware.budgets.route import Entry, RouteConfig, RouteMatch, TextMatch, VirtualHost

ONE = """
    apiVersion: networking.istio.io/v1
    kind: VirtualService
    metadata: {name: inventory}
    spec:
      hosts: [inventory]
      http:
        - {name: slow, match: [{uri: {prefix: /slow}}], timeout: 9s}
        - {name: rest, timeout: 2s, retries: {attempts: 1, retryOn: 5xx}}
    """


def entry(name: str, seconds: float, path: str = "/", **more: Any) -> Entry:
    route = Route(name, Budget(timeout=seconds), "sidecar", "inventory", **more)
    return Entry(RouteMatch(TextMatch("prefix", path)), route)


def table(*entries: Entry, domains: tuple[str, ...] = ("inventory",), **more: Any) -> RouteTable:
    return RouteTable([RouteConfig("8080", (VirtualHost("inventory", domains, entries),), **more)])


def test_equal_tables_have_no_difference(read: Callable[..., RouteTable]) -> None:
    """Which is false, and says so."""
    before, after = read(ONE), read(ONE)
    difference = before.diff(after)
    assert not difference
    assert (difference.added, difference.removed, difference.changed) == ((), (), ())
    assert str(difference) == difference.summary() == "no difference"
    assert not before.diff(before)


def test_a_changed_route_says_what_changed(read: Callable[..., RouteTable]) -> None:
    """Number by number, with the value before and after."""
    after = read(ONE.replace("timeout: 2s", "timeout: 5s").replace("attempts: 1, retryOn: 5xx", "attempts: 3"))
    difference = read(ONE).diff(after)
    (change,) = difference.changed
    assert (change.before.budget.timeout, change.after.budget.timeout) == (2.0, 5.0)
    assert change.what == (
        "timeout: 2.0 -> 5.0",
        "attempts: 1 -> 3",
        "retry_on: 5xx -> cancelled,connect-failure,refused-stream,unavailable",
    )
    assert not difference.added
    assert not difference.removed
    assert str(difference) == f"~ {change.after.host} rest: {'; '.join(change.what)}"
    assert difference.summary() == f"1 changed ({change.after.host} rest)"


def test_routes_come_and_go() -> None:
    """One that is called otherwise is another one."""
    difference = table(entry("a", 1)).diff(table(entry("b", 2)))
    assert [route.name for route in difference.added] == ["b"]
    assert [route.name for route in difference.removed] == ["a"]
    assert str(difference).splitlines() == [
        "- inventory a  Budget(timeout=1.0)  (sidecar)",
        "+ inventory b  Budget(timeout=2.0)  (sidecar)",
    ]
    assert difference.summary() == "1 added (inventory b); 1 removed (inventory a)"
    assert RouteTable.empty().diff(table(entry("a", 1))).summary() == "1 added (inventory a)"
    many = table(*(entry(f"r{number}", 1) for number in range(5)))
    assert many.diff(RouteTable.empty()).summary() == "5 removed (inventory r0, inventory r1, inventory r2, ...)"


def test_all_that_decides_about_a_route_is_compared() -> None:
    """Its conditions, its place, its host's domains, what Envoy does."""
    base = table(entry("a", 1), entry("b", 2))
    cases = [
        (table(entry("a", 1, "/x"), entry("b", 2)), [("its conditions",)]),
        (table(entry("b", 2), entry("a", 1)), [("position: 2 -> 1",), ("position: 1 -> 2",)]),
        (table(entry("a", 1, action="redirect"), entry("b", 2)), [("action: 'route' -> 'redirect'",)]),
        (table(entry("a", 1), entry("b", 2), domains=("stock",)), [("domains: without inventory, with stock",)] * 2),
        (table(entry("a", 1), entry("b", 2), ignore_port=False), [("how ports or parameters are compared",)] * 2),
    ]
    for other, what in cases:
        assert [change.what for change in base.diff(other).changed] == what
        assert len(other.diff(base).changed) == len(what)


def test_routes_of_one_name_are_told_apart_by_their_order() -> None:
    """As of rules without a name, and of those with several matches."""
    before = table(entry("a", 1, "/1"), entry("a", 2, "/2"))
    after = table(entry("a", 1, "/1"), entry("a", 3, "/2"), entry("a", 4))
    difference = before.diff(after)
    assert [change.what for change in difference.changed] == [("timeout: 2.0 -> 3.0",)]
    assert [route.budget.timeout for route in difference.added] == [4.0]
