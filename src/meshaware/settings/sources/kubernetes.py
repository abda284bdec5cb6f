"""What Kubernetes gives every pod without being asked: the service account's files, and one variable."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from meshaware.settings.found import Found
from meshaware.settings.sources.files import read_small

__all__ = ["SERVICE_ACCOUNT_DIRECTORY", "find_kubernetes"]

# https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/
# Absent where automountServiceAccountToken is false.
SERVICE_ACCOUNT_DIRECTORY = "/var/run/secrets/kubernetes.io/serviceaccount"

_API_VARIABLE = "KUBERNETES_SERVICE_HOST"


def find_kubernetes(environ: Mapping[str, str]) -> dict[str, Found]:
    """Whether this is a pod, and the namespace that its service account is of."""
    found: dict[str, Found] = {}
    directory = Path(SERVICE_ACCOUNT_DIRECTORY)
    if environ.get(_API_VARIABLE):
        found["in_kubernetes"] = Found(value=True, origin=f"env {_API_VARIABLE}")
    elif directory.is_dir():
        found["in_kubernetes"] = Found(value=True, origin=f"directory {directory}")
    path = directory / "namespace"
    content = read_small(path)
    namespace = content.strip() if isinstance(content, str) else content
    if namespace:
        found["workload.namespace"] = Found(namespace, f"file {path}")
    return found
