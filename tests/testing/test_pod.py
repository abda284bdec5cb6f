"""What Istio and Kubernetes would say about a workload."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaware.errors import LocalMeshError
from meshaware.settings.podinfo import parse_pairs
from meshaware.testing.pod import Pod, podinfo


def pod(version: str = "v1", ordinal: int = 0) -> Pod:
    """A pod of `inventory`."""
    return Pod("inventory", version, "shop", "clerk", "cluster.local", ordinal, {"team": "books"})


def test_labels_are_the_applications_and_the_injectors() -> None:
    """Those that an application's own downward API shows."""
    labels = pod().labels
    assert labels["app"] == labels["service.istio.io/canonical-name"] == "inventory"
    assert labels["version"] == labels["service.istio.io/canonical-revision"] == "v1"
    assert (labels["security.istio.io/tlsMode"], labels["team"]) == ("istio", "books")
    status = json.loads(pod().annotations["sidecar.istio.io/status"])
    assert (status["containers"], status["initContainers"]) == (["istio-proxy"], ["istio-init"])


def test_names_tell_replicas_apart_and_stay_the_same() -> None:
    """Deployment, template, suffix."""
    first, second, newer = pod().name, pod(ordinal=1).name, pod("v2").name
    assert first == pod().name
    assert len({first, second, newer}) == 3
    assert first.rpartition("-")[0] == second.rpartition("-")[0]
    assert f"inventory-v1-{pod().labels['pod-template-hash']}-" in first


def test_the_node_leaves_the_template_hash_out() -> None:
    """As Istio's agent does."""
    node = pod().node
    assert "pod-template-hash" not in node["metadata"]["LABELS"]
    assert node["id"].startswith("sidecar~127.0.0.1~inventory-v1-")
    assert (node["cluster"], node["metadata"]["MESH_ID"]) == ("inventory.shop", "cluster.local")


def test_versions_may_have_dots_and_services_may_not() -> None:
    """The one is a label's value, the other a name in DNS."""
    assert pod("1.2.3").labels["version"] == "1.2.3"
    with pytest.raises(LocalMeshError, match=r"service 'a\.b' cannot be used"):
        Pod("a.b", "v1", "shop", "clerk", "cluster.local", 0, {})
    with pytest.raises(LocalMeshError, match="service account '' cannot be used"):
        Pod("a", "v1", "shop", "", "cluster.local", 0, {})


@given(pairs=st.dictionaries(st.from_regex(r"[a-z./]{1,20}", fullmatch=True), st.text(), max_size=4))
def test_podinfo_is_read_back_as_it_was(pairs: dict[str, str]) -> None:
    """By the reader that reads what the kubelet writes."""
    assert parse_pairs(podinfo(pairs)) == (pairs, [])
