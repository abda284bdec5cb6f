"""What Istio and Kubernetes would say about a workload: labels, annotations, node, variables. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from meshaware.errors import LocalMeshError

__all__ = ["Pod", "podinfo"]

# What Kubernetes makes the suffixes of pods' names from.
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_NODE, _ADDRESS = "local-node", "127.0.0.1"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_NAME_RULE = "it takes lower-case letters, digits and hyphens, at most 63"
_VALUE_RULE = "it takes letters, digits and -_., at most 63"
_RULES = (
    ("service", _NAME, _NAME_RULE),
    ("namespace", _NAME, _NAME_RULE),
    ("service_account", _NAME, _NAME_RULE),
    ("version", _VALUE, _VALUE_RULE),
)
_CLUSTER, _MESH = "Kubernetes", "cluster.local"


@dataclass(frozen=True, slots=True)
class Pod:
    """One workload, as the control plane knows it."""

    service: str
    version: str
    namespace: str
    service_account: str
    cluster_domain: str
    ordinal: int
    more_labels: Mapping[str, str]
    address: str = _ADDRESS
    redirected: bool = False

    def __post_init__(self) -> None:
        for field, pattern, rule in _RULES:
            value = getattr(self, field)
            if not pattern.fullmatch(value):
                raise LocalMeshError(f"{field.replace('_', ' ')} {value!r} cannot be used: {rule}")

    @property
    def workload_name(self) -> str:
        """The Deployment, one for each version of a service."""
        return f"{self.service}-{self.version}"

    @property
    def name(self) -> str:
        """Deployment, template hash and a suffix, as Kubernetes names pods; the same in every run."""
        template = _letters(f"{self.namespace}/{self.workload_name}", 10)
        return f"{self.workload_name}-{template}-{_letters(f'{self.workload_name}/{self.ordinal}', 5)}"

    @property
    def labels(self) -> dict[str, str]:
        """The application's labels, and those that the injector adds."""
        return {
            "app": self.service,
            "version": self.version,
            "pod-template-hash": _letters(f"{self.namespace}/{self.workload_name}", 10),
            "security.istio.io/tlsMode": "istio",
            "service.istio.io/canonical-name": self.service,
            "service.istio.io/canonical-revision": self.version,
            **self.more_labels,
        }

    @property
    def annotations(self) -> dict[str, str]:
        """What the injector notes on the pod: here, a classic sidecar."""
        status = {
            "initContainers": ["istio-init"],
            "containers": ["istio-proxy"],
            "volumes": ["workload-socket", "istio-envoy", "istio-data", "istio-podinfo", "istio-token"],
            "imagePullSecrets": None,
            "revision": "default",
        }
        return {
            "istio.io/rev": "default",
            "sidecar.istio.io/status": json.dumps(status, separators=(",", ":")),
        }

    @property
    def tracing_name(self) -> str:
        """Istio's name of the proxy's cluster, which is also its spans' `service.name`."""
        return f"{self.service}.{self.namespace}"

    @property
    def node(self) -> dict[str, Any]:
        """Envoy's node as Istio's agent writes it; the odd types of the metadata are Istio's."""
        labels = {key: value for key, value in self.labels.items() if key != "pod-template-hash"}
        domain = f"{self.namespace}.svc.{self.cluster_domain}"
        owner = f"kubernetes://apis/apps/v1/namespaces/{self.namespace}/deployments/{self.workload_name}"
        return {
            "id": f"sidecar~{self.address}~{self.name}.{self.namespace}~{domain}",
            "cluster": self.tracing_name,
            "metadata": {
                "NAME": self.name,
                "NAMESPACE": self.namespace,
                "WORKLOAD_NAME": self.workload_name,
                "SERVICE_ACCOUNT": self.service_account,
                "OWNER": owner,
                "MESH_ID": _MESH,
                "CLUSTER_ID": _CLUSTER,
                "NODE_NAME": _NODE,
                "INSTANCE_IPS": self.address,
                "INTERCEPTION_MODE": "REDIRECT" if self.redirected else "NONE",
                "APP_CONTAINERS": self.service,
                "POD_PORTS": "[]",
                "LABELS": labels,
                "ANNOTATIONS": self.annotations,
            },
        }

    def variables(self) -> dict[str, str]:
        """What a good Deployment gives the application through the downward API."""
        return {
            "POD_NAME": self.name,
            "POD_NAMESPACE": self.namespace,
            "POD_IP": self.address,
            "NODE_NAME": _NODE,
            "SERVICE_ACCOUNT": self.service_account,
        }


def podinfo(pairs: Mapping[str, str]) -> str:
    """Labels or annotations as the kubelet writes them into a downward-API file."""
    return "".join(f"{key}={json.dumps(value, ensure_ascii=False)}\n" for key, value in sorted(pairs.items()))


def _letters(text: str, count: int) -> str:
    number = int.from_bytes(hashlib.sha256(text.encode()).digest())
    letters = ""
    for _ in range(count):
        number, digit = divmod(number, len(_ALPHABET))
        letters += _ALPHABET[digit]
    return letters
