"""
What is known about the workload, in OpenTelemetry's words.

Pure: a workload goes in, attributes come out. Names are those of the semantic conventions for services and
Kubernetes, 1.44 (https://opentelemetry.io/docs/specs/semconv/resource/); what they have no word for stands under
`meshaware.`.

No schema URL is stated: the SDK throws a resource away that is merged with one of another schema.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshaware.settings import MeshSettings, Workload

__all__ = ["mesh_name", "resource_attributes"]

_ANNOTATION = "resource.opentelemetry.io/"
_UNNAMED_CLUSTER = "Kubernetes"
_LONGEST_ANNOTATION = 1024
# The five characters at the end of a generated name: k8s.io/apimachinery/pkg/util/rand leaves out vowels.
_GENERATED = re.compile(r"(.+)-[a-z0-9]{5}", re.ASCII)
_LONGEST_POD_NAME = 63


def mesh_name(settings: MeshSettings, workload: Workload) -> str | None:
    """
    Return the mesh's name as `MESHAWARE_MESH` has it; None where there is none, or where nothing proves which.

    Args:
        settings: What was said of the mesh.
        workload: Whose labels and annotations show the mesh; it may know more than the settings do.
    """
    detected = settings.with_workload(workload).detected
    return detected.flavour.name if detected.flavour.is_mesh else None


def resource_attributes(
    workload: Workload, declared: Mapping[str, str] | None = None, mesh: str | None = None
) -> dict[str, str]:
    """
    Return the resource attributes of a workload; what is not known is left out.

    The pod's annotations `resource.opentelemetry.io/<attribute>` win over what is derived, and `declared`
    over both. The annotations are those that OpenTelemetry's operator and Istio (1.30 and newer, with
    `serviceAttributeEnrichment`) read for the same purpose, so that the service and its sidecar carry one
    name.

    Args:
        workload: Of the settings, with or without what the sidecar added.
        declared: What `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME` say.
        mesh: Which mesh it is in, as `mesh_name` has it.
    """
    namespace, pod = workload.namespace, workload.pod_name
    known: dict[str, str | None] = {
        "service.name": workload.service,
        "service.namespace": namespace,
        "service.version": workload.version,
        "k8s.namespace.name": namespace,
        "k8s.pod.name": pod,
        "k8s.pod.uid": workload.pod_uid,
        "k8s.pod.ip": workload.pod_ip,
        "k8s.node.name": workload.node_name,
        # Istio calls a cluster that nobody named "Kubernetes": that is no name.
        "k8s.cluster.name": None if workload.cluster_id == _UNNAMED_CLUSTER else workload.cluster_id,
        **_owner(pod, workload.labels),
        "meshaware.mesh.name": mesh,
        "meshaware.mesh.id": workload.mesh_id,
        "meshaware.mesh.trust_domain": workload.trust_domain,
        "meshaware.workload.name": workload.workload_name,
        "meshaware.workload.service_account": workload.service_account,
        **_annotated(workload.annotations),
        **(declared or {}),
    }
    if pod:
        parts = (namespace, pod, known.get("k8s.container.name")) if namespace else (pod,)
        known.setdefault("service.instance.id", ".".join(part for part in parts if part))
    return {name: value for name, value in known.items() if value}


def _owner(pod: str | None, labels: Mapping[str, str]) -> dict[str, str]:
    """
    The controller that owns the pod, where labels that only that controller sets prove it.

    A pod's name is its owner's plus a suffix, unless it had to be shortened; then nothing is claimed.
    """
    if not pod:
        return {}
    name, _, suffix = pod.rpartition("-")
    template = labels.get("pod-template-hash")
    if template:
        deployment = name.removesuffix(f"-{template}")
        return {} if deployment == name else {"k8s.replicaset.name": name, "k8s.deployment.name": deployment}
    if labels.get("statefulset.kubernetes.io/pod-name") == pod and suffix.isdecimal():
        return {"k8s.statefulset.name": name}
    # Only the controller of DaemonSets sets this one, beside the hash that StatefulSets have too.
    if labels.get("pod-template-generation") and len(pod) < _LONGEST_POD_NAME and (match := _GENERATED.fullmatch(pod)):
        return {"k8s.daemonset.name": match[1]}
    if job := labels.get("batch.kubernetes.io/job-name") or labels.get("job-name"):
        return {"k8s.job.name": job}
    return {}


def _annotated(annotations: Mapping[str, str]) -> dict[str, str]:
    return {
        name.removeprefix(_ANNOTATION): value
        for name, value in annotations.items()
        if name.startswith(_ANNOTATION) and len(name) > len(_ANNOTATION) and 0 < len(value) <= _LONGEST_ANNOTATION
    }
