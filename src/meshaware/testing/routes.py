"""
VirtualServices -> the RouteConfiguration that Istio would give a sidecar. Pure.

A translation of its own, from what istiod does (pilot/pkg/networking/core/httproute.go and route/route.go),
and with nothing in common with `meshaware.budgets`: the one is checked against the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from meshaware.testing.actions import fill_route, forward
from meshaware.testing.fields import Fields
from meshaware.testing.manifests import Manifest
from meshaware.testing.matches import EVERYTHING, route_match
from meshaware.testing.view import DEFAULT_PORT, ServiceView, View, cluster_name

__all__ = ["ROUTES", "check_routes", "route_configuration"]

# Istio's name of the routes of a proxy that is addressed as one (meshConfig.proxyHttpPort), for all ports.
ROUTES = "http_proxy"


def route_configuration(manifests: Iterable[Manifest], view: View, port: int | None = None) -> dict[str, Any]:
    """
    Return the outbound routes of one workload.

    Args:
        manifests: The VirtualServices among them count.
        view: The workload's.
        port: Only those of services that have this port, and by its name; None: all of them.

    Raises:
        LocalMeshError: A VirtualService has a field that is not supported, or that Istio would refuse.
    """
    services = [_VirtualService(manifest, view) for manifest in manifests if manifest.kind == "VirtualService"]
    # Of the same rank, the first document over later ones: they do not merge.
    governing = sorted((service for service in services if service.applies), key=lambda service: service.rank)
    served = [service for service in sorted(view.services, key=lambda s: s.host) if port in {None, service.port}]
    hosts = [_service_host(service, governing, view) for service in served]
    known = {service.host for service in view.services}
    others = {
        host: routes
        for virtual in reversed(governing)
        for host in virtual.hosts
        if host not in known and host != "*" and (routes := virtual.routes(host, DEFAULT_PORT))
    }
    if port not in {None, DEFAULT_PORT}:
        others = {}
    hosts += [
        {
            "name": f"{host}:{DEFAULT_PORT}",
            "domains": [host],
            "include_request_attempt_count": True,
            "routes": routes,
        }
        for host, routes in sorted(others.items())
        if not any(set(_domains(service, view)) & {host} for service in view.services)
    ]
    return {
        "name": ROUTES if port is None else str(port),
        "virtual_hosts": [*hosts, _pass_through(), _block_all()],
        "validate_clusters": False,
        "max_direct_response_body_size_bytes": 1_048_576,
        "ignore_port_in_host_matching": True,
    }


def check_routes(manifests: Iterable[Manifest], view: View) -> None:
    """
    Translate every VirtualService, also one that governs nothing here, so that none is refused only later.

    Raises:
        LocalMeshError: As for `route_configuration`.
    """
    for manifest in manifests:
        if manifest.kind == "VirtualService":
            virtual = _VirtualService(manifest, view)
            for host in virtual.hosts:
                virtual.routes(host, DEFAULT_PORT)


class _VirtualService:
    """One VirtualService, its head read."""

    def __init__(self, manifest: Manifest, view: View) -> None:
        self._manifest, self._view = manifest, view
        spec = manifest.fields()
        spec.raw("http")
        self.hosts = [view.resolve(host, manifest.namespace) for host in spec.texts("hosts")]
        gateways, exported = spec.texts("gateways") or ["mesh"], spec.texts("exportTo") or ["*"]
        spec.finish()
        if not self.hosts:
            spec.refuse(
                "hosts",
                "a VirtualService that is no delegate needs hosts, and LocalMesh supports no delegates",
            )
        home, client = manifest.namespace, view.client.namespace
        public = "*" in exported
        seen_by = {home if namespace == "." else namespace for namespace in exported}
        # Istio's ranks: private to the client's namespace, exported to it by name, public.
        self.rank = 2 if public else 0 if home == client else 1
        self.applies = "mesh" in gateways and (public or ("~" not in exported and client in seen_by))

    def fits(self, host: str) -> int:
        """How well one of the hosts names this one: 0 not at all, more for a longer name."""
        return max((_fit(pattern, host) for pattern in self.hosts), default=0)

    def routes(self, host: str, port: int) -> list[dict[str, Any]]:
        """The routes for one of the hosts, up to the first that takes everything; all rules are checked."""
        routes: list[dict[str, Any]] = []
        for rule in self._manifest.fields().items("http"):
            routes += self._routes_of(rule, host, port)
        last = next((i for i, route in enumerate(routes) if _takes_everything(route["match"])), len(routes))
        return routes[: last + 1]

    def _routes_of(self, rule: Fields, host: str, port: int) -> list[dict[str, Any]]:
        name = rule.text("name") or ""
        entries = rule.items("match")
        matches: list[tuple[str, dict[str, Any]]] = [] if entries else [(name, dict(EVERYTHING))]
        for entry in entries:
            label, match = entry.text("name"), route_match(entry, self._view, port)
            if match is not None:
                matches.append((f"{name}.{label}" if label else name, match))
        routes = [self._route(rule, label, match, host, port) for label, match in matches]
        if not matches:
            # For nobody here, and yet to be refused if it could not be translated.
            self._route(rule, name, dict(EVERYTHING), host, port)
        rule.finish()
        return routes

    def _route(self, rule: Fields, name: str, match: dict[str, Any], host: str, port: int) -> dict[str, Any]:
        manifest = self._manifest
        config = f"/apis/networking.istio.io/v1/namespaces/{manifest.namespace}/virtual-service/{manifest.name}"
        route: dict[str, Any] = {"match": match, "metadata": {"filter_metadata": {"istio": {"config": config}}}}
        if name:
            route["name"] = name
        fill_route(route, rule, self._view, manifest.namespace, host)
        route["decorator"] = {"operation": _operation(route, f"{manifest.name}:{port}")}
        return route


def _takes_everything(match: dict[str, Any]) -> bool:
    return match.get("prefix") == "/" and not {"headers", "query_parameters"} & match.keys()


def _operation(route: dict[str, Any], otherwise: str) -> str:
    """The name that spans have: Istio's host, port and path."""
    match, cluster = route["match"], route.get("route", {}).get("cluster")
    if cluster is not None:
        _, port, _, host = cluster.split("|")
        otherwise = f"{host}:{port}"
    if "prefix" in match:
        return f"{otherwise}{match['prefix']}*"
    return f"{otherwise}{match['path'] if 'path' in match else match['safe_regex']['regex']}"


def _fit(pattern: str, host: str) -> int:
    if pattern == host:
        return 1 << 16
    if pattern == "*":
        return 1
    return len(pattern) if pattern.startswith("*.") and host.endswith(pattern[1:]) else 0


def _service_host(service: ServiceView, governing: Sequence[_VirtualService], view: View) -> dict[str, Any]:
    routes = _governing_routes(service, governing)
    if not routes:
        # No VirtualService, or none of its rules concerns this client: Istio then treats it as absent.
        default = {
            "name": "default",
            "match": dict(EVERYTHING),
            "route": forward(cluster_name(service.host, service.port)),
            "decorator": {"operation": f"{service.host}:{service.port}/*"},
        }
        routes = [default]
    return {
        "name": f"{service.host}:{service.port}",
        "domains": _domains(service, view),
        "include_request_attempt_count": True,
        "routes": routes,
    }


def _governing_routes(service: ServiceView, governing: Sequence[_VirtualService]) -> list[dict[str, Any]]:
    """Of the first that names the service, and has rules for this client and port; else of the nearest wildcard."""
    exact = [virtual for virtual in governing if service.host in virtual.hosts]
    nothing: list[dict[str, Any]] = []
    if exact:
        return next((routes for virtual in exact if (routes := virtual.routes(service.host, service.port))), nothing)
    best = max(governing, key=lambda virtual: virtual.fits(service.host), default=None)
    return best.routes(service.host, service.port) if best is not None and best.fits(service.host) else nothing


def _domains(service: ServiceView, view: View) -> list[str]:
    qualified = f"{service.name}.{service.namespace}"
    short = [service.name] if service.namespace == view.client.namespace else []
    address = [service.address] if service.address else []
    return [service.host, f"{service.host}.", *short, f"{qualified}.svc", qualified, *address]


def _pass_through() -> dict[str, Any]:
    """
    What no service is, and has a loopback address, goes where it wants to go, as with Istio's ALLOW_ANY.

    Loopback only: a test must not reach the world by mistake. And an address, not a name: nothing is looked up.
    """
    return {
        "name": "allow_any",
        "domains": ["127.0.0.1", "[::1]"],
        "include_request_attempt_count": True,
        "routes": [
            {
                "name": "allow_any",
                "match": dict(EVERYTHING),
                "route": {"cluster": "PassthroughCluster", "timeout": "0s", "max_grpc_timeout": "0s"},
            }
        ],
    }


def _block_all() -> dict[str, Any]:
    return {
        "name": "block_all",
        "domains": ["*"],
        "include_request_attempt_count": True,
        "routes": [{"name": "block_all", "match": dict(EVERYTHING), "direct_response": {"status": 502}}],
    }
