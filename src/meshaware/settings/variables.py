"""
The table of variables: which field each one fills, in the order in which they are asked.

A plain table without any logic of reading, so that documentation, error messages and the hint for a
misspelled name all come from one place.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["ELSEWHERE", "PREFIX", "RESOURCE_ATTRIBUTES", "VARIABLES", "Variable"]

PREFIX = "MESHAWARE_"


class Variable(NamedTuple):
    """
    One field of the settings and the variables that fill it.

    `field` is the name of the argument, `workload.<fact>` for what is known about the pod. `conventional`
    are names that people and tools already use for the same; they are asked in this order, after `name`.
    """

    field: str
    meaning: str
    conventional: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The `MESHAWARE_` variable: the field's name in capitals, `__` where the field has a dot."""
        return PREFIX + self.field.upper().replace(".", "__")


# MY_... are the names in the Kubernetes documentation's own example of the downward API.
VARIABLES: tuple[Variable, ...] = (
    Variable("mesh", "which mesh: `auto`, `istio`, `ambient`, `linkerd`, `consul`, `kuma` or `none`"),
    Variable("routes", "manifests of routes, files or directories; `sidecar` for the live routes"),
    Variable("timeout", "timeout of a call that no route governs"),
    Variable("attempts", "retries that the mesh makes of a call that no route governs"),
    Variable("per_try_timeout", "timeout of one try of a call that no route governs"),
    Variable("buffer", "how much longer than the mesh the client waits"),
    Variable("budget_policy", "`ceiling` or `tight`: how a budget is made of timeout and retries"),
    Variable("deadlines", "`enforce`, `observe` (count and log what would have been cut) or `off`"),
    Variable("deadline_header", "header in which the next service is told how long its answer is waited for"),
    Variable("deadline_floor", "with less than this left of a request's deadline no further call is begun"),
    Variable("deadline_cancel", "whether a request whose time is up is answered 504, and its handler cancelled"),
    Variable("mesh_hosts", "further hosts, suffixes (`.corp.example`), addresses or networks inside the mesh"),
    Variable(
        "trace_hosts",
        "hosts, suffixes, addresses or networks outside the mesh that get the trace context, and nothing else",
    ),
    Variable("headers", "further header sets and names to pass on"),
    Variable(
        "sampling", "which spans are kept: `mesh`, `always`, or a ratio from 0 to 1 of the traces that begin here"
    ),
    Variable("cluster_domain", "DNS domain of the cluster"),
    Variable("admin_url", "where the proxy's admin answers; unset: by mesh"),
    Variable("ready_url", "where the proxy says that it is ready; unset: by mesh"),
    Variable("outbound_proxy", "send in-mesh plain-HTTP calls through this address"),
    Variable("podinfo", "directory of the downward-API files; unset: the usual places"),
    Variable("ready_timeout", "how long to wait for the proxy"),
    Variable("ready_fatal", "whether a proxy that is not ready in time is an error"),
    Variable("wait_for", "upstreams whose routes the proxy has to know as well, as `host:port`"),
    Variable("wait_disabled", "a reason not to wait for the proxy at all; also `LINKERD_AWAIT_DISABLED`"),
    Variable("livez_path", "path of the liveness endpoint"),
    Variable("readyz_path", "path of the readiness endpoint"),
    Variable("drain", "how long to go on serving after SIGTERM; unset: by mesh"),
    Variable("quit", "when a job lets its sidecar go: `success`, `always` (after a failure too) or `never`"),
    Variable("quit_shared", "whether it does so where the pod has other containers of the application"),
    Variable("quit_url", "where the proxy is told to go; unset: by mesh"),
    Variable("in_kubernetes", "whether this process runs in a pod; found out by itself"),
    Variable("workload.pod_name", "name of the pod", ("POD_NAME", "MY_POD_NAME")),
    Variable("workload.pod_uid", "unique id of the pod", ("POD_UID", "MY_POD_UID")),
    Variable("workload.namespace", "namespace of the pod", ("POD_NAMESPACE", "MY_POD_NAMESPACE")),
    Variable(
        "workload.service_account",
        "service account of the pod",
        ("SERVICE_ACCOUNT", "POD_SERVICE_ACCOUNT", "MY_POD_SERVICE_ACCOUNT"),
    ),
    Variable(
        "workload.workload_name",
        "name of the Deployment, StatefulSet, Job or the like",
        ("ISTIO_META_WORKLOAD_NAME",),
    ),
    Variable("workload.service", "canonical name of the service", ("OTEL_SERVICE_NAME",)),
    Variable("workload.version", "canonical revision of the service"),
    Variable("workload.node_name", "name of the node", ("NODE_NAME", "MY_NODE_NAME", "ISTIO_META_NODE_NAME")),
    Variable("workload.pod_ip", "address of the pod", ("POD_IP", "INSTANCE_IP", "MY_POD_IP")),
    Variable("workload.cluster_id", "name of the cluster in the mesh", ("ISTIO_META_CLUSTER_ID",)),
    Variable("workload.mesh_id", "name of the mesh", ("ISTIO_META_MESH_ID",)),
    Variable("workload.trust_domain", "trust domain of the mesh", ("TRUST_DOMAIN",)),
    Variable("workload.labels", "labels of the pod"),
    Variable("workload.annotations", "annotations of the pod"),
    Variable("workload.app_containers", "containers of the pod besides the proxy's"),
)

# Right names that fill no field: the Envoy that meshaware.testing runs.
ELSEWHERE: tuple[str, ...] = ("MESHAWARE_ENVOY",)

# What OTEL_RESOURCE_ATTRIBUTES may say about a pod: https://opentelemetry.io/docs/specs/semconv/resource/
RESOURCE_ATTRIBUTES: tuple[tuple[str, str], ...] = (
    ("service.name", "workload.service"),
    ("service.version", "workload.version"),
    ("k8s.pod.name", "workload.pod_name"),
    ("k8s.pod.uid", "workload.pod_uid"),
    ("k8s.namespace.name", "workload.namespace"),
    ("k8s.node.name", "workload.node_name"),
)
