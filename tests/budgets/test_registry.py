"""Services and ServiceEntries: the names and addresses by which their hosts are called."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from meshaware.budgets import RouteTable
from meshaware.budgets.domains import Namespace
from meshaware.budgets.registry import Registry

SHOP = Namespace("shop")
FULL = "inventory.shop.svc.cluster.local"
Read = Callable[..., RouteTable]


def registry(kind: str, spec: object, *, name: object = "inventory", namespace: object = "shop") -> Registry:
    made = Registry(SHOP)
    made.add(kind, {"metadata": {"name": name, "namespace": namespace}, "spec": spec})
    return made


def test_a_service_is_called_by_its_address_too() -> None:
    """An IPv6 one in brackets, as a `Host` has it."""
    made = registry("Service", {"clusterIP": "10.0.0.7", "clusterIPs": ["10.0.0.7", "2001:db8::7"]})
    assert made.domains(FULL) == (*SHOP.names(FULL), "10.0.0.7", "[2001:db8::7]")


def test_a_headless_service_has_names_below_its_own() -> None:
    """Those of its pods."""
    made = registry("Service", {"clusterIP": "None"})
    assert made.domains(FULL) == (*SHOP.names(FULL), *(f"*.{name}" for name in SHOP.names(FULL)))


@pytest.mark.parametrize(
    ("spec", "more"),
    [
        ({"hosts": ["API.example.com"], "addresses": ["192.0.2.7", "192.0.2.0/24"]}, ("192.0.2.7",)),
        ({"hosts": ["api.example.com"], "addresses": ["192.0.2.7"], "exportTo": ["shop"]}, ("192.0.2.7",)),
        ({"hosts": ["api.example.com"], "addresses": ["192.0.2.7"], "exportTo": ["."]}, ("192.0.2.7",)),
        ({"hosts": ["api.example.com"], "addresses": ["192.0.2.7"], "exportTo": ["other"]}, ()),
    ],
)
def test_a_service_entry_is_called_by_its_addresses(spec: object, more: tuple[str, ...]) -> None:
    """Ranges are no names, and what is not exported here is not known here."""
    made = registry("ServiceEntry", spec)
    assert made.domains("api.example.com") == ("api.example.com", "api.example.com.", *more)
    assert made.entry("shop", "inventory") == ("api.example.com",)
    assert made.entry("shop", "other") is None


@pytest.mark.parametrize(
    "spec", [None, [], {}, {"clusterIP": 7, "clusterIPs": "10.0.0.7"}, {"hosts": [1], "addresses": 1}]
)
@pytest.mark.parametrize("kind", ["Service", "ServiceEntry"])
def test_what_is_odd_is_left_out(kind: str, spec: object) -> None:
    """They bound no call, so they are no reason to fail."""
    assert registry(kind, spec).domains(FULL) == SHOP.names(FULL)
    assert registry(kind, spec, name=1).domains(FULL) == SHOP.names(FULL)
    assert registry(kind, spec, namespace=1).domains(FULL) == SHOP.names(FULL)


def test_a_wildcard_stands_for_itself() -> None:
    """It is no service."""
    assert Registry(SHOP).domains("*.example.com") == ("*.example.com",)


def test_a_call_to_an_address_is_governed_as_one_to_the_name(read: Read) -> None:
    """And the documents still count as passed over: they are no routes."""
    routes = read(
        """
        apiVersion: v1
        kind: Service
        metadata: {name: inventory, namespace: shop}
        spec: {clusterIP: 10.0.0.7}
        ---
        apiVersion: networking.istio.io/v1
        kind: VirtualService
        metadata: {name: v, namespace: shop}
        spec: {hosts: [inventory], http: [{timeout: 3s}]}
        """,
        namespace="front",
    )
    for host in ("10.0.0.7:8080", "inventory.shop"):
        route = routes.match("GET", f"http://{host}/")
        assert route is not None
        assert route.budget.timeout == 3.0
    assert routes.match("GET", "http://10.0.0.8/") is None
    assert routes.skipped == {"Service": 1}
