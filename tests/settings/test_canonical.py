"""Istio's rules for the names of services, versions and workloads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaware.settings.canonical import Derived, canonical_name, canonical_revision, workload_name

_POD = "inventory-7d4b9c6f5b-x2x9q"
_HASH = {"pod-template-hash": "7d4b9c6f5b"}


@pytest.mark.parametrize(
    ("labels", "workload", "name"),
    [
        (
            {"service.istio.io/canonical-name": "a", "app.kubernetes.io/name": "b", "app": "c"},
            "d",
            Derived("a", "label service.istio.io/canonical-name"),
        ),
        ({"app.kubernetes.io/name": "b", "app": "c"}, "d", Derived("b", "label app.kubernetes.io/name")),
        ({"app": "c"}, "d", Derived("c", "label app")),
        ({}, "d", Derived("d", "workload_name")),
        ({}, None, None),
        ({"app": ""}, "d", Derived("d", "workload_name")),  # the injector passes empty labels over
        ({}, "d" * 80, Derived("d" * 63, "workload_name")),  # as long as a label may be
        ({}, "d" * 62 + "-d", Derived("d" * 62, "workload_name")),  # which may not end so
        ({"app": "-_."}, None, None),
    ],
)
def test_the_name_of_a_service_is_the_canonical_one(
    labels: dict[str, str], workload: str | None, name: Derived | None
) -> None:
    """First of three labels, else the workload."""
    assert canonical_name(labels, workload) == name


@pytest.mark.parametrize(
    ("labels", "revision"),
    [
        (
            {"service.istio.io/canonical-revision": "a", "app.kubernetes.io/version": "b", "version": "c"},
            Derived("a", "label service.istio.io/canonical-revision"),
        ),
        ({"app.kubernetes.io/version": "b", "version": "c"}, Derived("b", "label app.kubernetes.io/version")),
        ({"version": "c"}, Derived("c", "label version")),
        ({"version": ""}, Derived("latest", "labels without a version")),
        ({}, Derived("latest", "labels without a version")),
    ],
)
def test_the_version_of_a_service_is_the_canonical_revision(labels: dict[str, str], revision: Derived) -> None:
    """First of three labels, else `latest`."""
    assert canonical_revision(labels) == revision


@pytest.mark.parametrize(
    ("labels", "pod_name", "workload"),
    [
        (_HASH | {"service.istio.io/workload-name": "w"}, _POD, "w"),
        (_HASH, _POD, "inventory"),  # Deployment
        ({"rollouts-pod-template-hash": "7d4b9c6f5b"}, _POD, "inventory"),  # Argo Rollout
        ({"statefulset.kubernetes.io/pod-name": "db-main-10"}, "db-main-10", "db-main"),  # StatefulSet
        (
            {"batch.kubernetes.io/job-name": "migrate", "job-name": "migrate"},
            "migrate-abcde",
            "migrate",
        ),  # Job
        ({"job-name": "report-29384720"}, "report-29384720-abcde", "report"),  # CronJob
        ({"job-name": "report-2938"}, "report-2938-abcde", "report-2938"),  # no time, but a number
        (_HASH, "something-else", None),
        (_HASH, "-7d4b9c6f5b-x2x9q", None),
        (_HASH, f"{_POD}x", None),  # six characters are not what a generated name ends with
        (_HASH, None, None),
        ({"pod-template-hash": ""}, _POD, None),
        ({"app": "inventory"}, _POD, None),
        ({}, None, None),
    ],
)
def test_the_workload_is_found_from_labels_and_the_pods_name(
    labels: dict[str, str], pod_name: str | None, workload: str | None
) -> None:
    """What made the pod, or nothing if that cannot be told."""
    derived = workload_name(labels, pod_name)
    assert (derived and derived.value) == workload


@given(st.dictionaries(st.text(), st.text()), st.text())
def test_any_labels_will_do(labels: dict[str, str], workload: str) -> None:
    """A name is never empty and never longer than a label may be."""
    name = canonical_name(labels, workload)
    assert name is None or 1 <= len(name.value) <= 63
