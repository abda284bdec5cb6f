"""What the routes of one sidecar are made from: the services of the mesh, and who is asking. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["DEFAULT_PORT", "Client", "Endpoint", "ServiceView", "View", "cluster_name", "full_name"]

# Istio takes the listener's port where a destination that it does not know names none; ours is for all ports.
DEFAULT_PORT = 80


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One workload of a service: where its inbound listener is, and its labels."""

    address: str
    port: int
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ServiceView:
    """A service as Kubernetes would know it, and the workloads behind it."""

    name: str
    namespace: str
    host: str
    port: int
    endpoints: Sequence[Endpoint]
    address: str | None = None


@dataclass(frozen=True, slots=True)
class Client:
    """The workload whose outbound routes are wanted."""

    namespace: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class View:
    """The mesh as one workload sees it."""

    services: Sequence[ServiceView]
    client: Client
    cluster_domain: str = "cluster.local"

    def service(self, host: str) -> ServiceView | None:
        """The service of this fully qualified name."""
        return next((service for service in self.services if service.host == host), None)

    def resolve(self, host: str, namespace: str) -> str:
        """Istio's rule: a name without a dot is a service of that namespace, any other stands as it is."""
        return host if "." in host or host == "*" else full_name(host, namespace, self.cluster_domain)


def full_name(name: str, namespace: str, cluster_domain: str) -> str:
    """The DNS name of a Kubernetes service."""
    return f"{name}.{namespace}.svc.{cluster_domain}"


def cluster_name(host: str, port: int, subset: str = "") -> str:
    """Istio's name of an outbound cluster, such as `outbound|8080|v1|inventory.shop.svc.cluster.local`."""
    return f"outbound|{port}|{subset}|{host}"
