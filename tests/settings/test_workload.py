"""What is known about the pod."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from meshaware.identity import SpiffeId
from meshaware.settings import MeshSettings, Workload
from meshaware.settings.found import Found

_SIDECAR = "sidecar /server_info"


def test_the_spiffe_id_is_known_when_its_three_parts_are() -> None:
    """And only then."""
    whole = Workload(trust_domain="cluster.local", namespace="shop", service_account="inventory")
    assert whole.spiffe_id == SpiffeId("cluster.local", "shop", "inventory")
    assert str(whole.spiffe_id) == "spiffe://cluster.local/ns/shop/sa/inventory"
    for part in ("trust_domain", "namespace", "service_account"):
        assert whole.model_copy(update={part: None}).spiffe_id is None


@given(st.text(), st.text(), st.text())
def test_a_spiffe_id_can_always_be_read_back(trust_domain: str, namespace: str, account: str) -> None:
    """What could not stand in one is refused before."""
    try:
        workload = Workload(trust_domain=trust_domain, namespace=namespace, service_account=account)
    except ValidationError:
        return
    assert SpiffeId.parse(str(workload.spiffe_id)) == workload.spiffe_id


def test_a_workload_is_a_value() -> None:
    """It compares, hashes, copies, pickles, and cannot be changed."""
    workload = Workload(namespace="shop", labels={"app": "shop"})
    for other in (pickle.loads(pickle.dumps(workload)), copy.deepcopy(workload), copy.copy(workload)):
        assert other == workload
        assert hash(other) == hash(workload)
        assert other.labels == {"app": "shop"}
    with pytest.raises(ValidationError):
        workload.namespace = "other"  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(TypeError):
        workload.labels["app"] = "other"  # type: ignore[index]  # pyright: ignore[reportIndexIssue]


def test_the_repr_shows_what_is_known() -> None:
    """Without annotations, which can be long, and origins."""
    workload = Workload(
        namespace="shop", labels={"app": "x"}, annotations={"a": "b"}, origins={"namespace": "argument"}
    )
    assert repr(workload) == "Workload(namespace='shop', labels={'app': 'x'})"
    assert repr(Workload()) == "Workload()"


def test_it_dumps_to_plain_data() -> None:
    """For a log line, or JSON."""
    workload = Workload(namespace="shop", labels={"app": "x"})
    assert workload.model_dump(exclude_defaults=True) == {"namespace": "shop", "labels": {"app": "x"}}
    assert Workload.model_validate_json(workload.model_dump_json()) == workload


def test_a_fact_that_does_not_exist_is_refused() -> None:
    """A misspelled one is never silently ignored."""
    with pytest.raises(ValidationError, match="namspace"):
        Workload(namspace="shop")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def test_what_is_declared_stays_and_what_is_missing_is_added() -> None:
    """Each with its origin."""
    known = MeshSettings(workload={"namespace": "shop"}).workload
    more = known.with_facts({"namespace": Found("other", _SIDECAR), "mesh_id": Found("mesh1", _SIDECAR)})
    assert (more.namespace, more.mesh_id) == ("shop", "mesh1")
    assert more.origins == {"namespace": "argument", "mesh_id": _SIDECAR}
    assert known.mesh_id is None


def test_what_was_computed_is_computed_again() -> None:
    """From the better facts; a fact that somebody states beats a computed one."""
    known = MeshSettings(workload={"workload_name": "inventory-v2"}).workload
    assert known.service == "inventory-v2"
    more = known.with_facts({"labels": Found({"app": "inventory", "version": "v2"}, _SIDECAR)})
    assert (more.service, more.version) == ("inventory", "v2")
    assert more.origins["service"] == "computed from label app"
    most = more.with_facts({"version": Found("v3", _SIDECAR)})
    assert (most.version, most.origins["version"]) == ("v3", _SIDECAR)


def test_a_declared_none_stays_none() -> None:
    """Who says that there is no trust domain means it."""
    known = MeshSettings(workload={"trust_domain": None}).workload
    assert known.with_facts({"trust_domain": Found("cluster.local", _SIDECAR)}).trust_domain is None


def test_a_workload_made_by_hand_is_declared_by_argument() -> None:
    """It has no origins of its own."""
    assert Workload(namespace="shop").declared() == {"namespace": Found("shop", "argument")}
