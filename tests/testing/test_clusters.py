"""Services and DestinationRules to Envoy's clusters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from meshaware.errors import LocalMeshError
from meshaware.testing.clusters import outbound_clusters
from meshaware.testing.manifests import Manifest
from meshaware.testing.view import View

Read = Callable[..., list[Manifest]]
HOST = "inventory.shop.svc.cluster.local"


def clusters(manifests: Sequence[Manifest], view: View) -> dict[str, dict[str, Any]]:
    """By name."""
    return {cluster["name"]: cluster for cluster in outbound_clusters(manifests, view)}


def ports(cluster: dict[str, Any]) -> list[int]:
    """Where its endpoints are."""
    return [
        endpoint["endpoint"]["address"]["socket_address"]["port_value"]
        for group in cluster["load_assignment"]["endpoints"]
        for endpoint in group["lb_endpoints"]
    ]


def test_a_service_has_a_cluster_and_one_for_each_version(view: View) -> None:
    """Under Istio's names, with Istio's timeout for connecting and no limits."""
    found = clusters([], view)
    assert list(found) == [
        "BlackHoleCluster",
        "PassthroughCluster",
        f"outbound|8080||{HOST}",
        f"outbound|8080|v1|{HOST}",
        f"outbound|8080|v2|{HOST}",
    ]
    whole = found[f"outbound|8080||{HOST}"]
    assert (ports(whole), whole["connect_timeout"]) == ([1001, 1002], "10s")
    assert set(whole["circuit_breakers"]["thresholds"][0].values()) == {4294967295}
    assert ports(found[f"outbound|8080|v2|{HOST}"]) == [1002]
    about = {"host": HOST, "name": "inventory", "namespace": "shop"}
    assert found[f"outbound|8080|v2|{HOST}"]["metadata"]["filter_metadata"]["istio"] == {
        "services": [about],
        "subset": "v2",
    }


def test_subsets_of_a_destination_rule_replace_those(read: Read, view: View) -> None:
    """The first rule for a host counts; labels that nobody has make an empty cluster."""
    rule = "host: inventory\nsubsets: [{name: new, labels: {version: v2}}, {name: none, labels: {x: y}}, {name: all}]"
    found = clusters(read(rule, "DestinationRule") + read("host: inventory", "DestinationRule"), view)
    subsets = {name.split("|")[2]: ports(found[name]) for name in found if name.startswith("outbound")}
    assert subsets == {"": [1001, 1002], "new": [1002], "none": [], "all": [1001, 1002]}


def test_a_traffic_policy_sets_limits_and_balancing(read: Read, view: View) -> None:
    """And leaves the versions as subsets, where it defines none."""
    rule = """
host: inventory
trafficPolicy:
  connectionPool:
    tcp: {connectTimeout: 250ms, maxConnections: 1}
    http: {http1MaxPendingRequests: 2, http2MaxRequests: 3, maxRetries: 4}
  loadBalancer: {simple: ROUND_ROBIN}
  tls: {mode: ISTIO_MUTUAL}
"""
    cluster = clusters(read(rule, "DestinationRule"), view)[f"outbound|8080|v1|{HOST}"]
    assert (cluster["connect_timeout"], cluster["lb_policy"]) == ("0.25s", "ROUND_ROBIN")
    assert cluster["circuit_breakers"]["thresholds"] == [
        {"max_connections": 1, "max_pending_requests": 2, "max_requests": 3, "max_retries": 4}
    ]
    some = clusters(read("host: inventory\ntrafficPolicy: {connectionPool: {}}", "DestinationRule"), view)
    assert some[f"outbound|8080|v1|{HOST}"]["connect_timeout"] == "10s"


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ("{}", r"spec\.host: a host is needed"),
        ("host: '*.shop.svc.cluster.local'", r"spec\.host: .* LocalMesh supports no wildcards there"),
        ("host: a\nsubsets: [{labels: {}}]", r"spec\.subsets\[0\]\.name: a name is needed"),
        ("host: a\nsubsets: [{name: b, labels: {c: 1}}]", r"spec\.subsets\[0\]\.labels\.c: 1 is no text"),
        ("host: a\nsubsets: [{name: b, trafficPolicy: {tls: {}}}]", r"spec\.subsets\[0\]\.trafficPolicy: LocalMesh"),
        (
            "host: a\ntrafficPolicy: {outlierDetection: {}}",
            r"spec\.trafficPolicy\.outlierDetection: LocalMesh does not",
        ),
        ("host: a\ntrafficPolicy: {loadBalancer: {simple: MAGLEV}}", r"simple: 'MAGLEV' LocalMesh supports LEAST_REQ"),
        ("host: a\ntrafficPolicy: {tls: {mode: SIMPLE}}", r"tls\.mode: 'SIMPLE' LocalMesh supports ISTIO_MUTUAL, DIS"),
        ("host: a\nexportTo: ['.']", r"spec\.exportTo: LocalMesh does not support this field"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(read: Read, view: View, rule: str, problem: str) -> None:
    with pytest.raises(LocalMeshError, match=problem):
        outbound_clusters(read(rule, "DestinationRule"), view)
