"""Which virtual hosts a call may belong to."""

from __future__ import annotations

import pytest

from meshaware.budgets.budget import Budget
from meshaware.budgets.choice import Choice
from meshaware.budgets.domains import Namespace
from meshaware.budgets.route import Entry, Route, RouteConfig, RouteMatch, VirtualHost

SHOP = Namespace("shop")


def config(name: str, *domains: str, ignore_port: bool = True) -> RouteConfig:
    """Each domain a virtual host of its own, with one route named after both."""
    hosts = [
        VirtualHost(domain, (domain,), (Entry(RouteMatch(), Route(f"{name}/{domain}", Budget())),))
        for domain in domains
    ]
    return RouteConfig(name, tuple(hosts), ignore_port=ignore_port)


def names(choice: Choice, host: str, port: int | None = None) -> list[str]:
    return [entry.route.name for entries in choice.find(host, port) for entry in entries]


def test_a_port_has_its_own_configuration() -> None:
    """The port is that of the call, else that in the header, else 80."""
    choice = Choice([config("80", "inventory"), config("8080", "inventory")], None)
    assert names(choice, "inventory") == ["80/inventory"]
    assert names(choice, "inventory:8080") == ["8080/inventory"]
    assert names(choice, "inventory", 8080) == ["8080/inventory"]
    assert names(choice, "inventory:80", 8080) == ["8080/inventory"]


def test_a_port_that_nothing_serves_has_no_routes() -> None:
    """Such a call passes the sidecar as plain TCP: another port's budget would cut it short."""
    choice = Choice([config("80", "inventory", "*")], None)
    assert names(choice, "inventory:9999") == []


def test_a_configuration_that_is_for_no_port_serves_those_without_one() -> None:
    """One that knows the host, if any does; the star of one that does not is the last resort."""
    choice = Choice([config("80", "inventory"), config("http_proxy", "*"), config("own", "orders", "*.eu")], None)
    assert names(choice, "orders:9999") == ["own/orders"]
    assert names(choice, "x.eu:9999") == ["own/*.eu"]
    assert names(choice, "elsewhere:9999") == ["http_proxy/*"]
    assert names(choice, "orders:80") == []


def test_a_service_whose_protocol_is_found_out_has_a_configuration_of_its_own() -> None:
    """Named after the service, with a star for its domain; every name of the service leads there."""
    service = "inventory.shop.svc.cluster.local"
    choice = Choice([config("8080", "*"), config(f"{service}:8080", "*")], SHOP)
    for host in ("inventory", "inventory.shop", "inventory.shop.svc", service, f"{service}.", "INVENTORY"):
        assert names(choice, host, 8080) == [f"{service}:8080/*"]
    assert names(choice, "inventory.other", 8080) == ["8080/*"]
    assert names(choice, "inventory", 80) == []


def test_without_a_namespace_a_short_name_may_be_any_service_of_that_name() -> None:
    """All of them stay in play."""
    services = [f"inventory.{namespace}.svc.cluster.local:80" for namespace in ("shop", "other")]
    choice = Choice([config(name, "*") for name in services], None)
    assert names(choice, "inventory") == [f"{name}/*" for name in services]
    assert names(choice, "inventory.shop") == [f"{services[0]}/*"]
    assert names(choice, "orders") == []


def test_old_sidecars_compare_the_port() -> None:
    """A call to port 80 has none in its header."""
    choice = Choice(
        [
            config("8080", "inventory", "inventory:8080", ignore_port=False),
            config("80", "inventory", ignore_port=False),
        ],
        None,
    )
    assert names(choice, "inventory:8080") == ["8080/inventory:8080"]
    assert names(choice, "inventory", 8080) == ["8080/inventory:8080"]
    assert names(choice, "inventory") == ["80/inventory"]
    assert names(choice, "inventory:80") == []


def test_a_unix_socket_is_no_port() -> None:
    """Its configuration serves what no other does."""
    assert names(Choice([config("unix:///run/mesh.sock", "inventory")], None), "inventory:80") == [
        "unix:///run/mesh.sock/inventory"
    ]


def test_routes_for_another_port_are_left_out() -> None:
    """`match.port` of a VirtualService is decided by the port of the call."""
    entries = tuple(Entry(RouteMatch(port=port), Route(str(port), Budget())) for port in (80, 8080, 0))
    choice = Choice([RouteConfig("", (VirtualHost("inventory", ("inventory",), entries),))], SHOP)
    assert names(choice, "inventory") == ["80", "0"]
    assert names(choice, "inventory", 8080) == ["8080", "0"]


def test_routes_that_others_have_a_port_of_are_left_out_there() -> None:
    """As where two VirtualServices share a host."""
    entries = (
        Entry(RouteMatch(port=8080), Route("first", Budget())),
        Entry(RouteMatch(other_ports=(8080,)), Route("second", Budget())),
    )
    choice = Choice([RouteConfig("", (VirtualHost("inventory", ("inventory",), entries),))], SHOP)
    assert names(choice, "inventory", 8080) == ["first"]
    assert names(choice, "inventory", 81) == ["second"]


@pytest.mark.parametrize(
    ("host", "wanted"),
    [
        ("inventory", ["/inventory"]),
        ("orders", ["/*.shop.svc.cluster.local"]),
        ("orders.shop.svc", ["/*.shop.svc.cluster.local"]),
        ("orders.shop.svc.cluster.local.", ["/*.shop.svc.cluster.local"]),
        ("api.example.com", ["/*.example.com"]),
        ("api.example.com.", ["/*.example.com"]),
        ("orders.other.svc", ["/*"]),
        ("elsewhere.org", ["/*"]),
        ("orders.shop", ["/*.shop.svc.cluster.local", "/*"]),
        ("a.com", ["/*.com"]),
        ("x.y.z", ["/*"]),
    ],
)
def test_a_wildcard_of_a_manifest_is_held_against_the_full_name(host: str, wanted: list[str]) -> None:
    """Where only the registry knows whether a name is a service's, both readings stay in play."""
    domains = ["inventory", "*.shop.svc.cluster.local", "*.example.com", "*.com", "*"]
    assert names(Choice([config("", *domains)], SHOP), host) == wanted


def test_two_wildcards_for_one_name_stay_both_in_play() -> None:
    """A service "b" in "eu", or a host "b.eu"."""
    choice = Choice([config("", "*.eu.svc.cluster.local", "*.eu")], SHOP)
    assert names(choice, "b.eu") == ["/*.eu.svc.cluster.local", "/*.eu"]
    assert names(choice, "b.eu.svc") == ["/*.eu.svc.cluster.local"]
    assert names(choice, "b") == []
