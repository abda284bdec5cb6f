"""What Kubernetes gives every pod."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from meshaware.settings.found import Found, Unusable
from meshaware.settings.sources.kubernetes import find_kubernetes

Write = Callable[[str, str | bytes], Path]
_NAMESPACE = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"


def test_a_process_outside_kubernetes_knows_nothing() -> None:
    """A laptop."""
    assert find_kubernetes({}) == {}


def test_the_variable_of_the_api_server_says_that_this_is_a_pod() -> None:
    """Kubernetes sets it in every container."""
    found = find_kubernetes({"KUBERNETES_SERVICE_HOST": "10.96.0.1"})
    assert found == {"in_kubernetes": Found(value=True, origin="env KUBERNETES_SERVICE_HOST")}


def test_the_service_account_names_the_namespace(write: Write) -> None:
    """And its directory says that this is a pod."""
    path = write(_NAMESPACE, "shop\n")
    assert find_kubernetes({}) == {
        "in_kubernetes": Found(value=True, origin=f"directory {path.parent}"),
        "workload.namespace": Found("shop", f"file {path}"),
    }


def test_an_empty_namespace_file_says_nothing(write: Write) -> None:
    """As an empty variable."""
    write(_NAMESPACE, "\n")
    assert set(find_kubernetes({})) == {"in_kubernetes"}


def test_a_namespace_file_that_cannot_be_read_is_a_problem(write: Write) -> None:
    """Said where the namespace would stand, so it counts only if no other source knows the namespace."""
    write(f"{_NAMESPACE}/x", "")
    assert isinstance(find_kubernetes({})["workload.namespace"].value, Unusable)
