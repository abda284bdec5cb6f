"""Whether the proxy is let go when a job is over: a table."""

from __future__ import annotations

from typing import Any

import pytest

from meshaware.flavours import FLAVOURS
from meshaware.sidecar.parting import Outcome, QuitPolicy, objection

CLASSIC = {"sidecar.istio.io/status": '{"initContainers":["istio-init"],"containers":["istio-proxy"]}'}
NATIVE = {"sidecar.istio.io/status": '{"initContainers":["istio-init","istio-proxy"],"containers":null}'}


def why(mesh: str = "istio", policy: QuitPolicy = "success", outcome: Outcome = "success", **known: Any) -> Any:
    facts: dict[str, Any] = {"labels": {}, "annotations": CLASSIC, **known}
    return objection(FLAVOURS[mesh], policy, outcome, **facts)


@pytest.mark.parametrize(
    ("policy", "outcome", "goes"),
    [
        ("success", "success", True),
        ("success", "failure", False),
        ("success", "terminated", True),
        ("always", "success", True),
        ("always", "failure", True),
        ("always", "terminated", True),
        ("never", "success", False),
        ("never", "failure", False),
        ("never", "terminated", False),
    ],
)
@pytest.mark.parametrize("mesh", ["istio", "linkerd", "consul"])
def test_it_goes_as_it_was_asked_for(mesh: str, policy: QuitPolicy, outcome: Outcome, goes: bool) -> None:
    """SIGTERM comes to the whole pod, so a job that it ended is not started again beside its sidecar."""
    assert (why(mesh, policy, outcome) is None) is goes


def test_a_failure_says_that_the_sidecar_stays_and_how_it_would_not() -> None:
    """The pod of a job that is not started again waits for it."""
    stays = why(outcome="failure")
    assert stays.refused
    assert stays.reason == (
        "the sidecar (Istio) was not let go: the job failed, and may be started again beside it; "
        "MESHAWARE_QUIT=always lets it go all the same"
    )
    assert not why(policy="never").refused


@pytest.mark.parametrize("mesh", ["kuma", "ambient", "none"])
def test_where_nobody_has_to_be_told_that_is_the_reason(mesh: str) -> None:
    """Before all others; nothing to warn of."""
    for policy, outcome in (("success", "success"), ("always", "failure"), ("never", "success")):
        stays = why(mesh, policy, outcome, containers=("a", "b"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        assert not stays.refused
        assert stays.reason == f"{FLAVOURS[mesh].title}: {FLAVOURS[mesh].quit.note}"


@pytest.mark.parametrize(
    ("mesh", "annotations"),
    [
        ("istio", NATIVE),
        ("linkerd", {"config.linkerd.io/proxy-enable-native-sidecar": "true"}),
        ("consul", {"consul.hashicorp.com/enable-consul-dataplane-as-sidecar": "true"}),
    ],
)
def test_a_native_sidecar_is_left_to_the_kubelet(mesh: str, annotations: dict[str, str]) -> None:
    """Told to go, it would be started again."""
    stays = why(mesh, "always", "failure", annotations=annotations)
    assert not stays.refused
    assert stays.reason == f"the sidecar ({FLAVOURS[mesh].title}) is a native one: the kubelet ends it"


def test_other_containers_of_the_application_keep_it() -> None:
    """Nobody can see from here whether they have ended."""
    for policy, outcome in (("success", "success"), ("always", "failure")):
        stays = why("istio", policy, outcome, containers=("app", "logger"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        assert stays.refused
        assert stays.reason == (
            "the sidecar (Istio) was not let go: the pod has the containers app, logger, and another of them may need "
            "it; MESHAWARE_QUIT_SHARED=true lets it go all the same"
        )
    assert why(containers=("app", "logger"), shared=True) is None
    assert why(containers=("app",)) is None
