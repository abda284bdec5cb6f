"""
Real Envoys on loopback, for the tests of your service: a sidecar a workload, routed by your VirtualServices.

    local_mesh   LocalMesh: the services, and what they share
    service      LocalService: an application's address and environment, and its sidecar
    sidecar      Sidecar: one Envoy process; processes, ports, envoy: what it takes to run it
    places       where a workload is: on loopback, or in a pod
    namespaces   pods that are Linux namespaces; redirect: the rules in them, pure; agent: the process that holds one
    roster       what each sidecar is told about the others
    routes, matches, actions, retries, headers, clusters, view   VirtualService and DestinationRule -> Envoy; pure
    bootstrap, tracers, pod   what Istio's injector, agent and tracing providers would say; pure
    manifests, fields   reading YAML so that an unsupported field is refused by name
    discovery    new configuration for a running Envoy, through files
    serving      an ASGI application in a thread
"""

from __future__ import annotations

from meshaware.testing.local_mesh import LocalMesh
from meshaware.testing.namespaces import why_no_redirect
from meshaware.testing.service import LocalService
from meshaware.testing.sidecar import Sidecar

__all__ = ["LocalMesh", "LocalService", "Sidecar", "why_no_redirect"]
