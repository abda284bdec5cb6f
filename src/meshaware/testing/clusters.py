"""Services and DestinationRules -> the outbound clusters that Istio would give a sidecar. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from meshaware.testing.fields import Fields
from meshaware.testing.manifests import Manifest
from meshaware.testing.retries import duration
from meshaware.testing.view import Endpoint, ServiceView, View, cluster_name

__all__ = ["outbound_clusters", "static_cluster"]

# Istio's default, meshConfig.connectTimeout.
_CONNECT_TIMEOUT = 10.0
_UNLIMITED = (1 << 32) - 1
_BALANCING = ("LEAST_REQUEST", "ROUND_ROBIN", "RANDOM")
_TLS = ("ISTIO_MUTUAL", "DISABLE")


def outbound_clusters(manifests: Iterable[Manifest], view: View) -> list[dict[str, Any]]:
    """
    Return a cluster for each service, one for each of its subsets, and the two that Istio always has.

    Subsets come from the service's DestinationRule; where none defines any, each value of the label `version`
    is one.

    Raises:
        LocalMeshError: A DestinationRule has a field that is not supported.
    """
    policies: dict[str, _Policy] = {}
    for manifest in manifests:
        if manifest.kind == "DestinationRule":
            host, policy = _read(manifest, view)
            policies.setdefault(host, policy)
    clusters = [_black_hole(), _pass_through()]
    for service in sorted(view.services, key=lambda s: s.host):
        policy = policies.get(service.host) or _Policy()
        clusters.append(_cluster(service, "", service.endpoints, policy))
        for name, labels in (policy.subsets or _versions(service)).items():
            chosen = [each for each in service.endpoints if labels.items() <= each.labels.items()]
            clusters.append(_cluster(service, name, chosen, policy))
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


@dataclass
class _Policy:
    """What is read of a DestinationRule, and Istio's defaults."""

    subsets: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    connect_timeout: float = _CONNECT_TIMEOUT
    limits: dict[str, int] = field(default_factory=dict[str, int])
    balancing: str = _BALANCING[0]


def _read(manifest: Manifest, view: View) -> tuple[str, _Policy]:
    spec, policy = manifest.fields(), _Policy()
    host = spec.text("host")
    if not host or "*" in host:
        spec.refuse("host", "a host is needed, and LocalMesh supports no wildcards there")
    for subset in spec.items("subsets"):
        name = subset.text("name")
        if not name:
            subset.refuse("name", "a name is needed")
        policy.subsets[name] = subset.pairs("labels")
        subset.finish()
    traffic = spec.fields("trafficPolicy")
    if traffic is not None:
        _read_traffic(traffic, policy)
    spec.finish()
    return view.resolve(host, manifest.namespace), policy


def _read_traffic(traffic: Fields, policy: _Policy) -> None:
    pool, balancer, tls = traffic.fields("connectionPool"), traffic.fields("loadBalancer"), traffic.fields("tls")
    traffic.finish()
    if pool is not None:
        tcp, http = pool.fields("tcp"), pool.fields("http")
        pool.finish()
        if tcp is not None:
            policy.connect_timeout = tcp.seconds("connectTimeout") or _CONNECT_TIMEOUT
            policy.limits |= _limits(tcp, maxConnections="max_connections")
        if http is not None:
            policy.limits |= _limits(
                http,
                http1MaxPendingRequests="max_pending_requests",
                http2MaxRequests="max_requests",
                maxRetries="max_retries",
            )
    if balancer is not None:
        policy.balancing = _one_of(balancer, "simple", _BALANCING)
    if tls is not None:
        # Both are plaintext here, and the same to HTTP.
        _one_of(tls, "mode", _TLS)


def _limits(fields: Fields, **names: str) -> dict[str, int]:
    limits = {envoy: number for istio, envoy in names.items() if (number := fields.integer(istio)) is not None}
    fields.finish()
    return limits


def _one_of(fields: Fields, name: str, values: Sequence[str]) -> str:
    value = fields.text(name) or ""
    if value not in values:
        fields.refuse(name, f"LocalMesh supports {', '.join(values)}")
    fields.finish()
    return value


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


def _cluster(service: ServiceView, subset: str, endpoints: Sequence[Endpoint], policy: _Policy) -> dict[str, Any]:
    about = {"host": service.host, "name": service.name, "namespace": service.namespace}
    istio = {"services": [about], **({"subset": subset} if subset else {})}
    cluster = static_cluster(
        cluster_name(service.host, service.port, subset),
        [(each.address, each.port) for each in endpoints],
        lb_policy=policy.balancing,
        metadata={"filter_metadata": {"istio": istio}},
    )
    cluster["connect_timeout"] = duration(policy.connect_timeout)
    cluster["circuit_breakers"]["thresholds"][0] |= policy.limits
    return cluster


def _endpoint(address: str, port: int) -> dict[str, Any]:
    return {"endpoint": {"address": {"socket_address": {"address": address, "port_value": port}}}}
