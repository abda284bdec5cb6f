"""Which mesh this process is in, from settings and the pod's metadata."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaware.flavours import FLAVOURS, detect

NATIVE = '{"initContainers":["istio-init","istio-proxy"],"containers":null,"revision":"default"}'
CLASSIC = '{"initContainers":["istio-init"],"containers":["istio-proxy"],"revision":"default"}'
PROXYLESS = '{"initContainers":["grpc-bootstrap-init"],"containers":["traffic"],"revision":"default"}'

LABELS = [
    ("istio", {"security.istio.io/tlsMode": "istio"}),
    ("linkerd", {"linkerd.io/control-plane-ns": "linkerd"}),
    ("consul", {"consul.hashicorp.com/connect-inject-status": "injected"}),
    ("kuma", {"kuma.io/mesh": "default"}),
    ("ambient", {"istio.io/dataplane-mode": "ambient"}),
    ("none", {"istio.io/dataplane-mode": "none"}),
    ("none", {"security.istio.io/tlsMode": "disabled"}),
    ("none", {"app": "shop"}),
    # A sidecar wins over the wish for ambient: the node does not capture such a pod.
    ("istio", {"istio.io/dataplane-mode": "ambient", "security.istio.io/tlsMode": "istio"}),
]
ANNOTATIONS = [
    ("istio", {"sidecar.istio.io/status": NATIVE}),
    ("istio", {"sidecar.istio.io/status": CLASSIC}),
    # gRPC that speaks xDS itself: injected, but without any proxy.
    ("none", {"sidecar.istio.io/status": PROXYLESS}),
    ("linkerd", {"linkerd.io/proxy-version": "edge-25.11.3"}),
    # The wish, not the fact.
    ("none", {"linkerd.io/inject": "enabled"}),
    ("consul", {"consul.hashicorp.com/connect-inject-status": "injected"}),
    ("kuma", {"kuma.io/sidecar-injected": "true"}),
    ("none", {"kuma.io/sidecar-injected": "false"}),
    ("ambient", {"ambient.istio.io/redirection": "enabled"}),
    ("ambient", {"ambient.istio.io/redirection": "pending"}),
    ("istio", {"ambient.istio.io/redirection": "enabled", "sidecar.istio.io/status": NATIVE}),
]


@pytest.mark.parametrize(("name", "labels"), LABELS, ids=[str(row) for row in LABELS])
def test_labels_tell_the_mesh(name: str, labels: dict[str, str]) -> None:
    """What an injector wrote into the pod's labels settles the question, wherever the process runs."""
    for in_kubernetes in (True, False):
        detected = detect("auto", labels, {}, in_kubernetes)
        assert (detected.flavour.name, detected.settled) == (name, True)


@pytest.mark.parametrize(("name", "annotations"), ANNOTATIONS, ids=[str(row) for row in ANNOTATIONS])
def test_annotations_tell_the_mesh(name: str, annotations: dict[str, str]) -> None:
    """So do the pod's annotations."""
    detected = detect("auto", {}, annotations, True)
    assert (detected.flavour.name, detected.settled) == (name, True)


def test_a_label_does_not_count_as_an_annotation() -> None:
    """A mark counts where its mesh writes it, nowhere else."""
    assert detect("auto", {"sidecar.istio.io/status": NATIVE}, {}, True).flavour.name == "none"


@pytest.mark.parametrize("name", FLAVOURS)
def test_what_is_set_wins_over_everything(name: str) -> None:
    """A mesh that is set is believed, whatever labels say."""
    detected = detect(name, {"linkerd.io/control-plane-ns": "linkerd"}, {"sidecar.istio.io/status": NATIVE}, True)
    assert detected[:3] == (FLAVOURS[name], f"mesh={name} is set", True)


def test_a_pod_of_which_nothing_is_known_may_be_in_any_mesh() -> None:
    """In Kubernetes without labels and annotations only a proxy that answers tells."""
    flavour, reason, settled, native = detect("auto", {}, {}, True)
    assert (flavour.name, settled, native) == ("unknown", False, None)
    assert "not known" in reason


def test_outside_kubernetes_there_is_no_mesh() -> None:
    """On a laptop nothing is asked and nothing is waited for."""
    flavour, reason, settled, _ = detect("auto", {}, {}, False)
    assert (flavour.name, settled) == ("none", True)
    assert "not in Kubernetes" in reason


@pytest.mark.parametrize("in_kubernetes", [True, False])
def test_the_address_of_a_proxy_says_that_there_is_one(in_kubernetes: bool) -> None:
    """A virtual machine has no labels, but whoever sets a proxy's address has a proxy."""
    detected = detect("auto", {}, {}, in_kubernetes, proxy_declared=True)
    assert (detected.flavour.name, detected.settled) == ("istio", True)


def test_the_address_of_a_proxy_says_nothing_about_which_mesh_it_is() -> None:
    """Labels still tell that."""
    labels = {"linkerd.io/control-plane-ns": "linkerd"}
    assert detect("auto", labels, {}, True, proxy_declared=True).flavour.name == "linkerd"


def test_a_mesh_that_does_not_exist_is_named() -> None:
    """The error says what was written, cut short, and what may be written."""
    with pytest.raises(ValueError, match=r"mesh='osm' is no mesh .* write one of auto, istio, linkerd, "):
        detect("osm", {}, {}, False)
    with pytest.raises(ValueError) as caught:
        detect("x" * 10_000, {}, {}, False)
    assert len(str(caught.value)) < 300


NATIVES: list[tuple[str, dict[str, str], bool | None]] = [
    ("istio", {"sidecar.istio.io/status": NATIVE}, True),
    ("istio", {"sidecar.istio.io/status": CLASSIC}, False),
    ("istio", {"sidecar.istio.io/status": '{"containers": ["istio-proxy"], "initContainers": null}'}, False),
    ("istio", {"sidecar.istio.io/status": '{ "initContainers" : [ "istio-proxy" ] }'}, True),
    ("istio", {"sidecar.istio.io/status": "not JSON"}, None),
    ("istio", {}, None),
    ("linkerd", {"config.linkerd.io/proxy-enable-native-sidecar": "true"}, True),
    ("linkerd", {"config.beta.linkerd.io/proxy-enable-native-sidecar": "true"}, True),
    ("linkerd", {"config.linkerd.io/proxy-enable-native-sidecar": "false"}, False),
    ("linkerd", {"linkerd.io/proxy-version": "stable-2.20"}, None),
    ("consul", {"consul.hashicorp.com/enable-consul-dataplane-as-sidecar": "true"}, True),
    ("consul", {"consul.hashicorp.com/enable-consul-dataplane-as-sidecar": "false"}, False),
    ("kuma", {"kuma.io/sidecar-injected": "true"}, None),
    ("ambient", {"ambient.istio.io/redirection": "enabled"}, None),
    ("none", {"sidecar.istio.io/status": NATIVE}, None),
]


@pytest.mark.parametrize(("name", "annotations", "native"), NATIVES, ids=[str(row) for row in NATIVES])
def test_annotations_tell_a_native_sidecar_from_a_classic_one(
    name: str, annotations: dict[str, str], native: bool | None
) -> None:
    """Where they do not, nobody guesses: a native one ends by itself, a classic one keeps a job's pod running."""
    assert detect(name, {}, annotations, True).native is native


def test_a_mesh_that_its_marks_tell_is_told_native_too() -> None:
    """With `auto` as well."""
    assert detect("auto", {}, {"sidecar.istio.io/status": NATIVE}, True).native is True
    assert detect("auto", {"security.istio.io/tlsMode": "istio"}, {}, True).native is None


@given(
    labels=st.dictionaries(st.text(max_size=40), st.text(max_size=40), max_size=5),
    annotations=st.dictionaries(st.text(max_size=40), st.text(max_size=200), max_size=5),
    in_kubernetes=st.booleans(),
)
def test_any_metadata_gives_an_answer(labels: dict[str, str], annotations: dict[str, str], in_kubernetes: bool) -> None:
    """Detection never raises for what a pod bears, and is unsettled only where nothing is known."""
    detected = detect("auto", labels, annotations, in_kubernetes)
    assert detected.settled is not (in_kubernetes and not labels and not annotations)
    assert detected.reason
