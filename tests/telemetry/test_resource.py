"""What spans say about the workload they come from."""

from __future__ import annotations

from meshaware.settings import Workload
from meshaware.telemetry.resource import resource_attributes


def test_what_is_known_stands_under_the_names_of_the_semantic_conventions() -> None:
    workload = Workload(
        pod_name="inventory-v1-7d4b9c6f5-x2x3x",
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

    assert resource_attributes(workload) == {
        "service.name": "inventory",
        "service.namespace": "shop",
        "service.version": "v1",
        "service.instance.id": "shop.inventory-v1-7d4b9c6f5-x2x3x",
        "k8s.namespace.name": "shop",
        "k8s.pod.name": "inventory-v1-7d4b9c6f5-x2x3x",
        "k8s.pod.ip": "10.4.0.7",
        "k8s.node.name": "node-3",
        "k8s.replicaset.name": "inventory-v1-7d4b9c6f5",
        "k8s.deployment.name": "inventory-v1",
        "k8s.cluster.name": "europe",
        "meshaware.mesh.id": "mesh1",
        "meshaware.mesh.trust_domain": "cluster.local",
        "meshaware.workload.name": "inventory-v1",
        "meshaware.workload.service_account": "inventory",
    }


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
    assert owner("count-x2x3x", job_name="count") == {"k8s.job.name": "count"}
    assert owner("count-x2x3x", batch__kubernetes="", **{"batch.kubernetes.io__job_name": "count"}) == {
        "k8s.job.name": "count"
    }


def test_no_owner_is_guessed_from_a_name_alone() -> None:
    # A hash that is not in the name: the name was shortened, or somebody else set the label.
    assert owner("a-very-long-name-x2x3x", pod_template_hash="7d4b9c6f5") == {}
    assert owner("web-7d4b9c6f5-x2x3x") == {}
    assert owner("web-x", **{"statefulset.kubernetes.io__pod_name": "web-x"}) == {}
    assert owner("web-0", **{"statefulset.kubernetes.io__pod_name": "web-1"}) == {}
    assert resource_attributes(Workload(labels={"job-name": "count"})) == {}
