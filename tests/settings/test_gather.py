"""The order of the sources."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from meshaware.settings.found import Found
from meshaware.settings.gather import FACTS, complete, gather

Write = Callable[[str, str | bytes], Path]


def test_the_first_source_that_knows_a_field_is_right(write: Write) -> None:
    """One after the other is taken away, and the next one is heard."""
    account = write("/var/run/secrets/kubernetes.io/serviceaccount/namespace", "service-account")
    podinfo = write("/etc/podinfo/namespace", "podinfo")
    environ = {
        "OTEL_RESOURCE_ATTRIBUTES": "k8s.namespace.name=otel",
        "MY_POD_NAMESPACE": "second-name",
        "POD_NAMESPACE": "first-name",
        "MESHAWARE_WORKLOAD__NAMESPACE": "own-name",
    }
    heard = [gather({"workload": {"namespace": "argument"}}, environ)["workload.namespace"]]
    while environ:
        heard.append(gather({}, environ)["workload.namespace"])
        environ.popitem()
    heard.append(gather({}, environ)["workload.namespace"])
    podinfo.unlink()
    heard.append(gather({}, environ)["workload.namespace"])
    assert heard == [
        Found("argument", "argument"),
        Found("own-name", "env MESHAWARE_WORKLOAD__NAMESPACE"),
        Found("first-name", "env POD_NAMESPACE"),
        Found("second-name", "env MY_POD_NAMESPACE"),
        Found("otel", "env OTEL_RESOURCE_ATTRIBUTES k8s.namespace.name"),
        Found("podinfo", f"file {podinfo}"),
        Found("service-account", f"file {account}"),
    ]
    account.unlink()
    account.parent.rmdir()
    assert gather({}, {}) == {}


def test_the_directory_of_the_files_can_come_from_any_source(write: Write) -> None:
    """Argument before variable; its files are below both in rank."""
    one, two = write("/one/name", "pod-one"), write("/two/name", "pod-two")
    environ = {"MESHAWARE_PODINFO": str(one.parent)}
    assert gather({}, environ)["workload.pod_name"] == Found("pod-one", f"file {one}")
    assert gather({"podinfo": two.parent}, environ)["workload.pod_name"] == Found("pod-two", f"file {two}")
    assert gather({}, environ | {"POD_NAME": "x"})["workload.pod_name"] == Found("x", "env POD_NAME")


def test_what_is_stated_is_not_computed() -> None:
    """What follows from other facts comes after all who know."""
    environ = {"OTEL_SERVICE_NAME": "stated", "MESHAWARE_WORKLOAD__LABELS": "app=labelled"}
    found = gather({}, environ)
    assert found["workload.service"] == Found("stated", "env OTEL_SERVICE_NAME")
    assert found["workload.version"] == Found("latest", "computed from labels without a version")


def test_completing_twice_changes_nothing() -> None:
    """What was computed stays."""
    found = gather({}, {"MESHAWARE_WORKLOAD__LABELS": "app=shop"})
    assert complete(found) == found


def test_the_facts_are_those_of_the_table() -> None:
    """Without their prefix."""
    assert "namespace" in FACTS
    assert not any(fact.startswith("workload.") for fact in FACTS)
