"""The static configuration of one sidecar: listeners, admin, tracer, and where its routes come from. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meshaware.testing.clusters import static_cluster
from meshaware.testing.discovery import routes_of_port
from meshaware.testing.matches import EVERYTHING
from meshaware.testing.ports import LOOPBACK
from meshaware.testing.redirect import Exemption
from meshaware.testing.routes import ROUTES
from meshaware.testing.tracers import RUNTIME, Tracing, collector_cluster, tracer

__all__ = ["READY_PATH", "Ports", "bootstrap", "port_listener"]

READY_PATH = "/healthz/ready"
_TYPE = "type.googleapis.com/"
_HTTP = "envoy.extensions.filters.http"
_NETWORK = "envoy.extensions.filters.network"
_EVERYWHERE = "0.0.0.0"  # noqa: S104 (of a pod that nothing but the mesh reaches)
_MANAGER = f"{_TYPE}{_NETWORK}.http_connection_manager.v3.HttpConnectionManager"


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of one sidecar; `app` is None where there is no application."""

    outbound: int
    inbound: int
    admin: int
    ready: int
    app: int | None = None


def bootstrap(
    node: Mapping[str, Any],
    ports: Ports,
    directory: Path,
    service_port: int,
    tracing: Tracing | None,
    *,
    exemption: Exemption | None = None,
    app: str = LOOPBACK,
) -> dict[str, Any]:
    """
    Return the configuration that Envoy is started with.

    Args:
        node: Id, cluster and metadata, as Istio would give them.
        ports: Where to listen.
        directory: Holds `routes.json` and `clusters.json`, and takes `access.log`.
        service_port: The port of the service, which Istio puts into names.
        tracing: None for no tracer.
        exemption: In a pod with redirection, how its rules tell the sidecar's own connections; None where there is no
            redirection, and everything is on 127.0.0.1.
        app: The address of the application.
    """
    hcm = _Connections(directory, tracing)
    inbound = f"inbound|{service_port}||"
    where = LOOPBACK if exemption is None else _EVERYWHERE
    names = ("outbound", "inbound") if exemption is None else ("virtualOutbound", "virtualInbound")
    listeners = [
        _listener(names[0], where, ports.outbound, "OUTBOUND", hcm.outbound(directory / "routes.json")),
        _listener("ready", where, ports.ready, "UNSPECIFIED", hcm.ready()),
    ]
    clusters = [static_cluster("admin", [(LOOPBACK, ports.admin)])]
    if ports.app is not None:
        listeners.append(_listener(names[1], where, ports.inbound, "INBOUND", hcm.inbound(inbound, service_port)))
        clusters.append(static_cluster(inbound, [(app, ports.app)]))
    if tracing is not None:
        clusters.append(collector_cluster(tracing))
    if exemption is not None:
        # Where the connection was meant to go, before the kernel sent it here: outbound it is handed to that listener;
        # inbound it must not be, for the outbound listener of the same port would take it.
        listeners[0]["use_original_dst"] = True
        for listener in listeners[2:]:
            listener["listener_filters"] = [_ORIGINAL_DST]
        # What comes for a port that no service has finds no listener of its own; what was sent here, the test has.
        listeners[0]["filter_chains"][0]["filter_chain_match"] = {"destination_port": ports.outbound}
        listeners[0]["default_filter_chain"] = {"filters": [_BLACK_HOLE]}
    return {
        "node": node,
        "admin": {"address": _address(LOOPBACK, ports.admin)},
        "dynamic_resources": {
            "cds_config": _file(directory / "clusters.json"),
            **({"lds_config": _file(directory / "listeners.json")} if exemption is not None else {}),
        },
        "static_resources": {"listeners": listeners, "clusters": clusters},
        "layered_runtime": {"layers": [{"name": "local mesh", "static_layer": RUNTIME}]},
        **({"cluster_manager": _MARKING} if exemption == "mark" else {}),
    }


def port_listener(directory: Path, port: int) -> dict[str, Any]:
    """
    Return the listener that redirected connections to one port are handed to, such as Istio's `0.0.0.0_8080`.

    Args:
        directory: That of `bootstrap`; holds the routes of each port.
        port: The port that the connections were meant for.
    """
    manager = _Connections(directory, None).outbound(directory / routes_of_port(port).file, str(port))
    return _listener(f"{_EVERYWHERE}_{port}", _EVERYWHERE, port, "OUTBOUND", manager) | {"bind_to_port": False}


class _Connections:
    """The HTTP connection managers of the three listeners."""

    def __init__(self, directory: Path, tracing: Tracing | None) -> None:
        self._access_log, self._tracing = directory / "access.log", tracing

    def outbound(self, routes: Path, name: str = ROUTES) -> dict[str, Any]:
        return self._manager("outbound") | {
            "rds": {"route_config_name": name, "config_source": _file(routes)},
            # Applications say where to with the Host header or with an absolute request target; both work.
            "http_filters": [
                _filter("fault", "fault.v3.HTTPFault"),
                _filter("router", "router.v3.Router"),
            ],
        }

    def inbound(self, cluster: str, port: int) -> dict[str, Any]:
        # Since Istio 1.23: the application may have closed an idle connection that was just about to be used.
        retry = {"retry_on": "reset-before-request", "num_retries": 2}
        action = {"cluster": cluster, "timeout": "0s", "max_grpc_timeout": "0s", "retry_policy": retry}
        operation = {"operation": f":{port}/*"}
        return self._manager("inbound") | {
            "server_name": "istio-envoy",
            "route_config": {
                "name": cluster,
                "virtual_hosts": [
                    {
                        "name": f"inbound|http|{port}",
                        "domains": ["*"],
                        "routes": [{"name": "default", "match": EVERYTHING, "route": action, "decorator": operation}],
                    }
                ],
                "validate_clusters": False,
            },
            "forward_client_cert_details": "APPEND_FORWARD",
            "set_current_client_cert_details": {"subject": True, "uri": True, "dns": True},
            "http_filters": [_filter("router", "router.v3.Router")],
        }

    def ready(self) -> dict[str, Any]:
        """
        What Istio has on 15021.

        A static listener opens when the first clusters and routes are loaded and the workers run, and Istio's
        agent says ready when just that has happened. Until then the port refuses, as there.
        """
        action = {"cluster": "admin", "prefix_rewrite": "/ready"}
        host = {
            "name": "ready",
            "domains": ["*"],
            "routes": [{"match": {"prefix": READY_PATH}, "route": action}],
        }
        return {
            "@type": _MANAGER,
            "stat_prefix": "ready",
            "route_config": {"virtual_hosts": [host]},
            "http_filters": [_filter("router", "router.v3.Router")],
        }

    def _manager(self, direction: str) -> dict[str, Any]:
        """What Istio sets for both directions."""
        manager: dict[str, Any] = {
            "@type": _MANAGER,
            "stat_prefix": direction,
            "use_remote_address": False,
            "generate_request_id": True,
            "normalize_path": True,
            "stream_idle_timeout": "0s",
            "upgrade_configs": [{"upgrade_type": "websocket"}],
            "access_log": [self._log(direction)],
        }
        if self._tracing is not None:
            manager["tracing"] = tracer(self._tracing)
        return manager

    def _log(self, direction: str) -> dict[str, Any]:
        return {
            "name": "envoy.access_loggers.file",
            "typed_config": {
                "@type": f"{_TYPE}envoy.extensions.access_loggers.file.v3.FileAccessLog",
                "path": str(self._access_log),
                "log_format": {"json_format": {"direction": direction, **_ACCESS_LOG}},
            },
        }


_ORIGINAL_DST = {
    "name": "envoy.filters.listener.original_dst",
    "typed_config": {"@type": f"{_TYPE}envoy.extensions.filters.listener.original_dst.v3.OriginalDst"},
}
_TCP_PROXY = {
    "@type": f"{_TYPE}{_NETWORK}.tcp_proxy.v3.TcpProxy",
    "stat_prefix": "BlackHoleCluster",
    "cluster": "BlackHoleCluster",
}
_BLACK_HOLE = {"name": "envoy.filters.network.tcp_proxy", "typed_config": _TCP_PROXY}
# SOL_SOCKET, SO_MARK: what the rules look for.
_MARK = {"description": "the sidecar's", "level": 1, "name": 36, "int_value": 1337, "state": "STATE_PREBIND"}
_MARKING = {"upstream_bind_config": {"socket_options": [_MARK]}}

_ACCESS_LOG = {
    "method": "%REQ(:METHOD)%",
    "authority": "%REQ(:AUTHORITY)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "status": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "route": "%ROUTE_NAME%",
    "cluster": "%UPSTREAM_CLUSTER_RAW%",
    "destination": "%DOWNSTREAM_LOCAL_ADDRESS%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "milliseconds": "%DURATION%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "traceparent": "%REQ(TRACEPARENT)%",
}


def _filter(name: str, message: str) -> dict[str, Any]:
    return {"name": f"envoy.filters.http.{name}", "typed_config": {"@type": f"{_TYPE}{_HTTP}.{message}"}}


def _listener(name: str, where: str, port: int, direction: str, manager: dict[str, Any]) -> dict[str, Any]:
    network = {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
    return {
        "name": name,
        "address": _address(where, port),
        "traffic_direction": direction,
        "filter_chains": [{"filters": [network]}],
    }


def _address(where: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": where, "port_value": port}}


def _file(path: Path) -> dict[str, Any]:
    return {
        "path_config_source": {"path": str(path)},
        "resource_api_version": "V3",
        "initial_fetch_timeout": "0s",
    }
