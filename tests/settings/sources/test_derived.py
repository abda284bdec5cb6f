"""What follows from other facts."""

from __future__ import annotations

from meshaware.settings.found import Found
from meshaware.settings.sources.derived import find_derived


def test_service_version_and_workload_follow_from_labels_and_name() -> None:
    """Each says from what."""
    known = {
        "workload.labels": Found({"app": "shop", "version": "v2", "pod-template-hash": "5d4"}, "file labels"),
        "workload.pod_name": Found("inventory-5d4-abcde", "env POD_NAME"),
    }
    assert find_derived(known) == {
        "workload.workload_name": Found("inventory", "computed from label pod-template-hash and pod_name"),
        "workload.service": Found("shop", "computed from label app"),
        "workload.version": Found("v2", "computed from label version"),
    }


def test_without_labels_the_stated_workload_names_the_service() -> None:
    """But nothing is said of a version: whether a label names one is not known."""
    known = {"workload.workload_name": Found("inventory", "env ISTIO_META_WORKLOAD_NAME")}
    assert find_derived(known) == {"workload.service": Found("inventory", "computed from workload_name")}


def test_a_derived_workload_names_the_service_too() -> None:
    """Where no label does."""
    known = {"workload.labels": Found({"job-name": "migrate"}, "file labels")}
    assert find_derived(known)["workload.service"] == Found("migrate", "computed from workload_name")


def test_labels_in_a_variable_count_too() -> None:
    """They are text there."""
    known = {"workload.labels": Found("app=shop", "env MESHAWARE_WORKLOAD__LABELS")}
    assert find_derived(known)["workload.service"].value == "shop"


def test_values_of_a_wrong_type_are_passed_over() -> None:
    """They are refused later, in their own words."""
    assert (
        find_derived({"workload.pod_name": Found(5, "argument"), "workload.workload_name": Found(5, "argument")}) == {}
    )
    assert set(find_derived({"workload.labels": Found(5, "argument")})) == {"workload.version"}
