"""Hosts: domains by Envoy's precedence, authorities taken apart, and the names of a service."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaware.budgets.domains import Domains, Namespace, split_authority

_LABELS = st.text(st.sampled_from("ab.-"), min_size=1, max_size=5)
_DOMAINS = st.one_of(_LABELS, _LABELS.map("*{}".format), _LABELS.map("{}*".format), st.just("*"))
SHOP = Namespace("shop")


def test_the_exact_domain_then_the_longest_suffix_then_the_longest_prefix_then_the_star() -> None:
    """Whatever order they are given in."""
    names = ["*", "inventory.*", "in*", "*.shop", "*y.shop", "inventory.shop"]
    domains = Domains((name, name) for name in names)
    assert domains.find("inventory.shop") == "inventory.shop"
    assert domains.find("memory.shop") == "*y.shop"
    assert domains.find("orders.shop") == "*.shop"
    assert domains.find("inventory.other") == "inventory.*"
    assert domains.find("internal") == "in*"
    assert domains.find("elsewhere") == "*"
    assert domains.default == "*"


def test_a_star_stands_for_at_least_one_character() -> None:
    """So "*.shop" is not the shop itself, with or without its dot."""
    domains = Domains([("*.shop", 1), ("a.*", 2)])
    assert domains.find(".shop") is None
    assert domains.find("shop") is None
    assert domains.find("a.") is None
    assert domains.find("x.shop") == 1
    assert domains.find("a.b") == 2


def test_domains_ignore_case_and_the_first_of_equal_ones_counts() -> None:
    """Envoy would refuse a second one; istiod drops it."""
    domains = Domains([("Inventory", 1), ("inventory", 2), ("*.A", 3), ("*.a", 4), ("*", 5), ("*", 6)])
    assert (domains.find("inventory"), domains.find("x.a"), domains.find("y")) == (1, 3, 5)


def _slow(names: list[str], host: str) -> str | None:
    """The same, told as the documentation of `VirtualHost.domains` tells it."""
    if host in names:
        return host
    suffixes = [name for name in names if name.startswith("*") and name != "*" and len(name) <= len(host)]
    prefixes = [name for name in names if name.endswith("*") and not name.startswith("*") and len(name) <= len(host)]
    fitting = sorted((name for name in suffixes if host.endswith(name[1:])), key=len)
    fitting = fitting or sorted((name for name in prefixes if host.startswith(name[:-1])), key=len)
    return fitting[-1] if fitting else "*" if "*" in names else None


@given(st.lists(_DOMAINS.filter(lambda name: name.count("*") < 2), unique=True, max_size=8), _LABELS)
def test_the_precedence_is_that_of_the_documentation(names: list[str], host: str) -> None:
    """Against a version that is slow and plain."""
    assert Domains((name, name) for name in names).find(host) == _slow(names, host)


@pytest.mark.parametrize(
    ("authority", "host", "port"),
    [
        ("inventory", "inventory", None),
        ("Inventory.Shop:8080", "inventory.shop", 8080),
        ("10.0.0.1:80", "10.0.0.1", 80),
        ("[::1]", "[::1]", None),
        ("[::1]:8080", "[::1]", 8080),
        ("inventory:", "inventory", None),
        ("inventory:http", "inventory", None),
        ("inventory:\u0661", "inventory", None),
        ("inventory:123456", "inventory", None),
        ("user@inventory", "user@inventory", None),
        ("", "", None),
    ],
)
def test_an_authority_is_a_host_and_a_port(authority: str, host: str, port: int | None) -> None:
    """What follows the last colon outside of brackets is no part of the host."""
    assert split_authority(authority) == (host, port)


def test_a_host_without_a_dot_is_a_service_of_its_namespace() -> None:
    """Any dot, and it stands for itself: "reviews.default" is no short name."""
    assert SHOP.full("Inventory") == "inventory.shop.svc.cluster.local"
    assert SHOP.full("inventory", "other") == "inventory.other.svc.cluster.local"
    assert SHOP.full("reviews.default") == "reviews.default"
    assert SHOP.full("*") == "*"
    assert SHOP.full("*.Example.com") == "*.example.com"
    assert Namespace("shop", "mesh.Corp").full("inventory") == "inventory.shop.svc.mesh.corp"


def test_a_service_is_reached_by_the_names_that_istio_makes_for_it() -> None:
    """The shortest one in its own namespace only; the full one with a dot at the end too."""
    everywhere = {
        "inventory.shop.svc.cluster.local",
        "inventory.shop.svc.cluster.local.",
        "inventory.shop",
        "inventory.shop.svc",
    }
    assert set(SHOP.names("inventory.shop.svc.cluster.local")) == {*everywhere, "inventory"}
    assert set(Namespace("other").names("inventory.shop.svc.cluster.local.")) == everywhere


@pytest.mark.parametrize(
    "host", ["api.example.com", "inventory.shop", "svc.cluster.local", "x.svc.cluster.local", "10.0.0.1"]
)
def test_any_other_host_has_its_own_name_only(host: str) -> None:
    """It is outside the cluster, or no name of a service."""
    assert SHOP.names(host) == (host, f"{host}.")


@pytest.mark.parametrize(
    ("host", "service", "certain"),
    [
        ("inventory", "inventory.shop.svc.cluster.local", True),
        ("inventory.other.svc", "inventory.other.svc.cluster.local", True),
        ("inventory.other", "inventory.other.svc.cluster.local", False),
        ("example.com", "example.com.svc.cluster.local", False),
        ("api.example.com", "", False),
        ("inventory.shop.svc.cluster.local", "", False),
    ],
)
def test_a_short_name_has_a_full_one(host: str, service: str, certain: bool) -> None:
    """With one dot it may be that of a service, or of a host outside."""
    assert SHOP.services(host) == (service, certain)


@pytest.mark.parametrize(
    ("host", "owner"),
    [
        ("inventory.shop.svc.cluster.local", "shop"),
        ("inventory.shop", ""),
        ("a.inventory.shop.svc.cluster.local", ""),
        ("svc.cluster.local", ""),
        ("api.example.com", ""),
    ],
)
def test_a_full_name_has_a_namespace(host: str, owner: str) -> None:
    """Others have none that is known."""
    assert SHOP.owner(host) == owner
