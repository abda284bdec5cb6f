"""OpenTelemetry's resource attributes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshaware.settings.found import Found
from meshaware.settings.sources.resource_attributes import find_resource_attributes


def test_the_attributes_of_a_pod_are_facts() -> None:
    """Percent-encoded values are decoded; others' attributes are passed over."""
    text = "service.name=shop%20api, service.version=1.4.2,team=x,"
    text += "k8s.pod.name=p,k8s.namespace.name=n,k8s.node.name=m"
    assert find_resource_attributes({"OTEL_RESOURCE_ATTRIBUTES": text}) == {
        "workload.service": Found("shop api", "env OTEL_RESOURCE_ATTRIBUTES service.name"),
        "workload.version": Found("1.4.2", "env OTEL_RESOURCE_ATTRIBUTES service.version"),
        "workload.pod_name": Found("p", "env OTEL_RESOURCE_ATTRIBUTES k8s.pod.name"),
        "workload.namespace": Found("n", "env OTEL_RESOURCE_ATTRIBUTES k8s.namespace.name"),
        "workload.node_name": Found("m", "env OTEL_RESOURCE_ATTRIBUTES k8s.node.name"),
    }


def test_parts_that_are_no_pairs_and_empty_values_are_passed_over() -> None:
    """OpenTelemetry's SDK reports them."""
    text = "service.name,service.version=,=x,,k8s.pod.name=p"
    assert set(find_resource_attributes({"OTEL_RESOURCE_ATTRIBUTES": text})) == {"workload.pod_name"}
    assert find_resource_attributes({}) == {}


@given(st.text())
def test_any_text_will_do(text: str) -> None:
    """Nothing is raised."""
    find_resource_attributes({"OTEL_RESOURCE_ATTRIBUTES": text})
