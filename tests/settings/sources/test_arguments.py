"""What the caller gave."""

from __future__ import annotations

from meshaware.settings.found import Found, Unusable
from meshaware.settings.sources.arguments import find_arguments

_FACTS = ("namespace", "pod_name")


def test_arguments_are_fields_and_those_of_the_workload_too() -> None:
    """Each with the origin `argument`."""
    assert find_arguments({"timeout": 2, "workload": {"namespace": "shop"}}, _FACTS) == {
        "timeout": Found(2, "argument"),
        "workload.namespace": Found("shop", "argument"),
    }


def test_an_empty_string_is_not_given_but_none_is() -> None:
    """An empty string is what a variable without a value leaves behind; nobody writes `None` by accident."""
    found = find_arguments({"admin_url": "", "timeout": None, "workload": {"namespace": "", "pod_name": None}}, _FACTS)
    assert found == {"timeout": Found(None, "argument"), "workload.pod_name": Found(None, "argument")}


def test_a_fact_that_brings_its_origin_keeps_it() -> None:
    """A workload that `load_workload` returned can be an argument."""
    found = Found("shop", "sidecar /server_info node.metadata.NAMESPACE")
    assert find_arguments({"workload": {"namespace": found}}, _FACTS) == {"workload.namespace": found}


def test_a_fact_that_does_not_exist_is_a_problem() -> None:
    """With the nearest one that does."""
    found = find_arguments({"workload": {"namspace": "shop", "zzz": 1, 5: 1}}, _FACTS)
    assert [each.value for each in found.values()] == [
        Unusable(
            ("argument workload has 'namspace'; accepted: namespace, pod_name (did you mean namespace?)",),
        ),
        Unusable(("argument workload has 'zzz'; accepted: namespace, pod_name",)),
        Unusable(("argument workload has 5; accepted: namespace, pod_name",)),
    ]


def test_a_workload_that_is_none_is_a_problem() -> None:
    """Of the wrong type, that is."""
    (found,) = find_arguments({"workload": 5}, _FACTS).values()
    assert found.value == Unusable(("argument workload is 5; accepted: a Workload, or a mapping of its facts",))
