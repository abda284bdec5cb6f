"""What spans say about the workload they come from."""

from __future__ import annotations

import importlib

import pytest

from meshaware.settings import MeshSettings, Workload
from meshaware.telemetry.resource import mesh_name, resource_attributes

GROUPS = ("k8s", "service")
POD = Workload(
    pod_name="inventory-v1-7d4b9c6f5-x2x3x",
    pod_uid="0f0c3b5e-6b7c-4b8e-9d51-3a0d5d2a9d11",
    namespace="shop",
    service_account="inventory",
    workload_name="inventory-v1",
    service="inventory",
    version="v1",
    node_name="node-3",
    pod_ip="10.4.0.7",
    cluster_id="europe",
    mesh_id="mesh1",
    trust_domain="cluster.local",
    labels={"pod-template-hash": "7d4b9c6f5"},
)


def test_what_is_known_stands_under_the_names_of_the_semantic_conventions() -> None:
    assert resource_attributes(POD, mesh="istio") == {
        "service.name": "inventory",
        "service.namespace": "shop",
        "service.version": "v1",
        "service.instance.id": "shop.inventory-v1-7d4b9c6f5-x2x3x",
        "k8s.namespace.name": "shop",
        "k8s.pod.name": "inventory-v1-7d4b9c6f5-x2x3x",
        "k8s.pod.uid": "0f0c3b5e-6b7c-4b8e-9d51-3a0d5d2a9d11",
        "k8s.pod.ip": "10.4.0.7",
        "k8s.node.name": "node-3",
        "k8s.replicaset.name": "inventory-v1-7d4b9c6f5",
        "k8s.deployment.name": "inventory-v1",
        "k8s.cluster.name": "europe",
        "meshaware.mesh.name": "istio",
        "meshaware.mesh.id": "mesh1",
        "meshaware.mesh.trust_domain": "cluster.local",
        "meshaware.workload.name": "inventory-v1",
        "meshaware.workload.service_account": "inventory",
    }


def test_names_that_are_not_meshawares_own_are_stable_ones() -> None:
    """Of the semantic conventions that are installed."""
    modules = [importlib.import_module(f"opentelemetry.semconv.attributes.{group}_attributes") for group in GROUPS]
    stable = {value for module in modules for name, value in vars(module).items() if name.isupper()}
    labels = {
        "deployment": {"pod-template-hash": "7d4b9c6f5"},
        "statefulset": {"statefulset.kubernetes.io/pod-name": "inventory-0"},
        "daemonset": {"pod-template-generation": "1"},
        "job": {"batch.kubernetes.io/job-name": "inventory"},
    }
    names: set[str] = set()
    for kind, pod in zip(labels, ("a-7d4b9c6f5-x2x3x", "inventory-0", "a-x2x3x", "a-x2x3x"), strict=True):
        attributes = resource_attributes(POD.model_copy(update={"pod_name": pod, "labels": labels[kind]}), mesh="istio")
        assert f"k8s.{kind}.name" in attributes
        names |= set(attributes)
    assert {name for name in names if not name.startswith("meshaware.")} <= stable


@pytest.mark.parametrize(
    ("settings", "workload", "name"),
    [
        (MeshSettings(mesh="linkerd"), Workload(), "linkerd"),
        (MeshSettings(), Workload(labels={"security.istio.io/tlsMode": "istio"}), "istio"),
        (MeshSettings(mesh="none"), Workload(labels={"security.istio.io/tlsMode": "istio"}), None),
        (MeshSettings(), Workload(labels={"app": "inventory"}), None),
        # It may be Istio's, and nothing proves it.
        (MeshSettings(in_kubernetes=True), Workload(), None),
        (MeshSettings(in_kubernetes=False), Workload(), None),
    ],
)
def test_a_mesh_is_named_where_something_proves_it(
    settings: MeshSettings, workload: Workload, name: str | None
) -> None:
    assert mesh_name(settings, workload) == name


def test_what_is_not_known_is_left_out() -> None:
    assert resource_attributes(Workload()) == {}


def test_a_cluster_that_nobody_named_has_no_name() -> None:
    """Istio calls it "Kubernetes" then."""
    assert resource_attributes(Workload(cluster_id="Kubernetes")) == {}


def test_the_instance_is_named_as_istio_names_it() -> None:
    pod = Workload(pod_name="web-0", namespace="shop")
    container = {"k8s.container.name": "app"}

    assert resource_attributes(pod)["service.instance.id"] == "shop.web-0"
    assert resource_attributes(pod, container)["service.instance.id"] == "shop.web-0.app"
    assert resource_attributes(Workload(pod_name="web-0"), container)["service.instance.id"] == "web-0"
    assert resource_attributes(pod, {"service.instance.id": "mine"})["service.instance.id"] == "mine"


def test_declared_attributes_win_over_annotations_and_those_over_the_workload() -> None:
    workload = Workload(
        service="a",
        version="1",
        namespace="shop",
        annotations={
            "resource.opentelemetry.io/service.name": "b",
            "resource.opentelemetry.io/service.version": "2",
            "resource.opentelemetry.io/team": "stock",
            "resource.opentelemetry.io/": "nothing",
            "resource.opentelemetry.io/empty": "",
            "resource.opentelemetry.io/long": "x" * 5000,
            "sidecar.istio.io/status": "injected",
        },
    )

    attributes = resource_attributes(workload, {"service.name": "c"})

    assert attributes == {
        "service.name": "c",
        "service.version": "2",
        "service.namespace": "shop",
        "k8s.namespace.name": "shop",
        "team": "stock",
    }


def owner(pod: str, **labels: str) -> dict[str, str]:
    attributes = resource_attributes(
        Workload(
            pod_name=pod,
            labels={name.replace("__", "/").replace("_", "-"): value for name, value in labels.items()},
        )
    )
    return {name: value for name, value in attributes.items() if name not in ("k8s.pod.name", "service.instance.id")}


def test_an_owner_is_named_where_a_label_of_its_controller_proves_it() -> None:
    index = {"statefulset.kubernetes.io__pod_name": "web-12"}

    assert owner("web-12", **index) == {"k8s.statefulset.name": "web"}
    assert owner("logs-x2x3x", pod_template_generation="1", controller_revision_hash="7d4b9c6f5") == {
        "k8s.daemonset.name": "logs"
    }
    assert owner("count-x2x3x", job_name="count") == {"k8s.job.name": "count"}
    assert owner("count-x2x3x", batch__kubernetes="", **{"batch.kubernetes.io__job_name": "count"}) == {
        "k8s.job.name": "count"
    }


def test_no_owner_is_guessed_from_a_name_alone() -> None:
    # A hash that is not in the name: the name was shortened, or somebody else set the label.
    assert owner("a-very-long-name-x2x3x", pod_template_hash="7d4b9c6f5") == {}
    assert owner("web-7d4b9c6f5-x2x3x") == {}
    assert owner("web-x2x3x", controller_revision_hash="7d4b9c6f5") == {}
    assert owner("w" * 57 + "-x2x3x", pod_template_generation="1") == {}
    assert owner("web", pod_template_generation="1") == {}
    assert owner("web-x", **{"statefulset.kubernetes.io__pod_name": "web-x"}) == {}
    assert owner("web-0", **{"statefulset.kubernetes.io__pod_name": "web-1"}) == {}
    assert resource_attributes(Workload(labels={"job-name": "count"})) == {}
