"""What a pod with redirection is told: names, addresses, rules."""

from __future__ import annotations

import ipaddress

import pytest

from meshaware.testing.redirect import Exemption, Named, Tool, address, hosts_file, rules


def test_a_pod_knows_the_names_that_dns_would_resolve_for_it() -> None:
    """The short one in its own namespace only."""
    services = [Named("inventory", "shop", "10.96.0.1"), Named("orders", "sales", "10.96.0.2")]
    assert hosts_file(services, "shop", "cluster.local").splitlines() == [
        "127.0.0.1 localhost",
        "::1 localhost",
        "10.96.0.1 inventory inventory.shop inventory.shop.svc inventory.shop.svc.cluster.local",
        "10.96.0.2 orders.sales orders.sales.svc orders.sales.svc.cluster.local",
    ]
    assert hosts_file([], "shop", "cluster.local") == "127.0.0.1 localhost\n::1 localhost\n"


def test_addresses_are_distinct_and_no_service_has_a_pods() -> None:
    """More of them than a mesh of this kind will ever have."""
    services = [ipaddress.ip_address(address("service", number)) for number in range(1000)]
    pods = [ipaddress.ip_address(address("pod", number)) for number in range(1000)]
    assert len({*services, *pods}) == 2000
    assert all(each in ipaddress.ip_network("10.96.0.0/16") for each in services)
    assert all(each in ipaddress.ip_network("10.244.0.0/16") for each in pods)
    assert (address("pod", 0), address("pod", 255)) == ("10.244.0.1", "10.244.1.0")


@pytest.mark.parametrize(
    ("tool", "exemption", "own"),
    [
        ("nft", "user", "meta skuid 1337 return"),
        ("nft", "mark", "meta mark 1337 return"),
        ("iptables-restore", "user", "-A OUTPUT -m owner --uid-owner 1337 -j RETURN"),
        ("iptables-restore", "mark", "-A OUTPUT -m mark --mark 1337 -j RETURN"),
    ],
)
def test_the_first_rule_lets_the_sidecars_own_connections_go(tool: Tool, exemption: Exemption, own: str) -> None:
    """They would come back to it without end."""
    lines = [line.strip() for line in rules(tool, exemption).splitlines()]
    ways_out = [line for line in lines if line.endswith(("return", "RETURN"))]
    assert ways_out[0] == own
    assert len(ways_out) == 5
