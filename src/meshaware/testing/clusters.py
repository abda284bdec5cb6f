"""Services and DestinationRules -> the outbound clusters that Istio would give a sidecar. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from meshaware.testing.fields import Fields
from meshaware.testing.manifests import Manifest
from meshaware.testing.retries import duration
from meshaware.testing.view import Endpoint, ServiceView, View, cluster_name

__all__ = ["outbound_clusters", "static_cluster"]

# Istio's default, meshConfig.connectTimeout.
_CONNECT_TIMEOUT = 10.0
_UNLIMITED = (1 << 32) - 1


def outbound_clusters(manifests: Iterable[Manifest], view: View) -> list[dict[str, Any]]:
    """
    Return a cluster for each service, one for each of its subsets, and the two that Istio always has.

    A subset comes from a DestinationRule; without one for the service, each value of the label `version`
    is one.

    Raises:
        LocalMeshError: A DestinationRule has a field that is not supported.
    """
    rules: dict[str, _Rule] = {}
    for manifest in manifests:
        if manifest.kind == "DestinationRule":
            rule = _Rule(manifest, view)
            rules.setdefault(rule.host, rule)
    clusters = [_black_hole(), _pass_through()]
    for service in sorted(view.services, key=lambda s: s.host):
        rule_or_none = rules.get(service.host)
        clusters.append(_cluster(service, "", service.endpoints, rule_or_none))
        for name, labels in (rule_or_none.subsets if rule_or_none else _versions(service)).items():
            chosen = [each for each in service.endpoints if labels.items() <= each.labels.items()]
            clusters.append(_cluster(service, name, chosen, rule_or_none))
    return clusters


def static_cluster(name: str, endpoints: Sequence[tuple[str, int]], **more: object) -> dict[str, Any]:
    """An Envoy cluster of fixed addresses, with Istio's limits: none."""
    thresholds = {
        "max_connections": _UNLIMITED,
        "max_pending_requests": _UNLIMITED,
        "max_requests": _UNLIMITED,
        "max_retries": _UNLIMITED,
    }
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": duration(_CONNECT_TIMEOUT),
        "circuit_breakers": {"thresholds": [thresholds]},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [_endpoint(*each) for each in endpoints]}] if endpoints else [],
        },
        **more,
    }


class _Rule:
    """What is read of a DestinationRule."""

    def __init__(self, manifest: Manifest, view: View) -> None:
        spec = manifest.fields()
        host = spec.text("host")
        if not host:
            spec.refuse("host", "a host is needed")
        self.host = view.resolve(host, manifest.namespace)
        self.subsets: dict[str, Mapping[str, str]] = {}
        for subset in spec.items("subsets"):
            name = subset.text("name")
            if not name:
                subset.refuse("name", "a name is needed")
            self.subsets[name] = subset.pairs("labels")
            subset.finish()
        self.connect_timeout, self.limits = _CONNECT_TIMEOUT, dict[str, int]()
        policy = spec.fields("trafficPolicy")
        if policy is not None:
            self._policy(policy)
        spec.finish()

    def _policy(self, policy: Fields) -> None:
        pool = policy.fields("connectionPool")
        if pool is not None:
            tcp, http = pool.fields("tcp"), pool.fields("http")
            if tcp is not None:
                self.connect_timeout = tcp.seconds("connectTimeout") or _CONNECT_TIMEOUT
                self._limit(tcp, maxConnections="max_connections")
                tcp.finish()
            if http is not None:
                self._limit(
                    http,
                    http1MaxPendingRequests="max_pending_requests",
                    http2MaxRequests="max_requests",
                    maxRetries="max_retries",
                )
                http.finish()
            pool.finish()
        policy.finish()

    def _limit(self, fields: Fields, **names: str) -> None:
        for istio, envoy in names.items():
            number = fields.integer(istio)
            if number is not None:
                self.limits[envoy] = number


def _black_hole() -> dict[str, Any]:
    return static_cluster("BlackHoleCluster", [])


def _pass_through() -> dict[str, Any]:
    # Without iptables there is no original destination: the Host header has to say it.
    return {
        "name": "PassthroughCluster",
        "type": "ORIGINAL_DST",
        "connect_timeout": duration(_CONNECT_TIMEOUT),
        "lb_policy": "CLUSTER_PROVIDED",
        "original_dst_lb_config": {"use_http_header": True, "http_header_name": ":authority"},
    }


def _versions(service: ServiceView) -> dict[str, Mapping[str, str]]:
    versions = {version for each in service.endpoints if (version := each.labels.get("version"))}
    return {version: {"version": version} for version in sorted(versions)}


def _cluster(service: ServiceView, subset: str, endpoints: Sequence[Endpoint], rule: _Rule | None) -> dict[str, Any]:
    about = {"host": service.host, "name": service.name, "namespace": service.namespace}
    istio = {"services": [about], **({"subset": subset} if subset else {})}
    cluster = static_cluster(
        cluster_name(service.host, service.port, subset),
        [(each.address, each.port) for each in endpoints],
        lb_policy="LEAST_REQUEST",
        metadata={"filter_metadata": {"istio": istio}},
    )
    if rule is not None:
        cluster["connect_timeout"] = duration(rule.connect_timeout)
        cluster["circuit_breakers"]["thresholds"][0] |= rule.limits
    return cluster


def _endpoint(address: str, port: int) -> dict[str, Any]:
    return {"endpoint": {"address": {"socket_address": {"address": address, "port_value": port}}}}
