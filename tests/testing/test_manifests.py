"""Reading YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaware.errors import LocalMeshError
from meshaware.testing.manifests import Manifest, Manifests, read_manifests
from meshaware.testing.roster import check

HEAD = "apiVersion: networking.istio.io/v1\nkind: {}\nmetadata: {{name: {}}}\nspec: {{}}\n"


def names(manifests: Manifests) -> list[str]:
    """What was read, in its order."""
    return [manifest.name for manifest in read_manifests(manifests, namespace="shop")]


def test_a_directory_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    """Files below it too; other suffixes are no manifests."""
    (tmp_path / "sub").mkdir()
    for file, name in (("b.yml", "b"), ("a.yaml", "a"), ("sub/c.json", "c"), ("d.txt", "d")):
        (tmp_path / file).write_text(HEAD.format("VirtualService", name))
    assert names(tmp_path) == ["a", "b", "c"]
    assert names(str(tmp_path / "b.yml")) == ["b"]
    assert names([tmp_path / "b.yml", HEAD.format("DestinationRule", "text"), str(tmp_path / "a.yaml")]) == [
        "b",
        "text",
        "a",
    ]
    assert names(()) == []


def test_a_document_keeps_its_own_namespace_and_says_where_it_stands() -> None:
    """For the messages."""
    text = HEAD.format("VirtualService", "a") + "---\n---\n" + HEAD.format("VirtualService", "b, namespace: own")
    first, second = read_manifests(text, namespace="shop")
    assert (first.namespace, second.namespace) == ("shop", "own")
    assert second.where == "the given YAML, document 3 (VirtualService own/b)"


def test_a_list_is_as_its_items() -> None:
    """As kubectl get -o yaml writes it."""
    item = "{apiVersion: networking.istio.io/v1beta1, kind: VirtualService, metadata: {name: a}, spec: {}}"
    text = f"apiVersion: v1\nkind: List\nitems: [{item}]\n"
    assert names(text) == ["a"]
    assert names("apiVersion: v1\nkind: List\n") == []


@pytest.mark.parametrize(
    ("version", "kind"),
    [("apps/v1", "Deployment"), ("v1", "Service"), ("networking.istio.io/v1", "Gateway")],
)
def test_what_routes_nothing_inside_the_mesh_is_skipped(version: str, kind: str) -> None:
    assert names(f"apiVersion: {version}\nkind: {kind}\nspec: 1\n") == []


@pytest.mark.parametrize(
    ("version", "kind"),
    [
        ("networking.istio.io/v1", "ServiceEntry"),
        ("security.istio.io/v1", "AuthorizationPolicy"),
        ("gateway.networking.k8s.io/v1", "HTTPRoute"),
    ],
)
def test_what_would_route_and_is_not_supported_is_refused(version: str, kind: str) -> None:
    with pytest.raises(LocalMeshError, match=f"document 1: LocalMesh does not support the kind {kind} of {version}"):
        names(f"apiVersion: {version}\nkind: {kind}\n")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [\n", "the given YAML: not YAML: while parsing"),
        ("a: 2001-99-99\n", "the given YAML: not YAML: month must be in 1..12"),
        ("- a\n", r"document 1: the document: \['a'\] is no mapping"),
        ("kind: 1\n", "document 1: kind: 1 is no text: put it in quotes"),
        (HEAD.format("VirtualService", ""), r"metadata\.name: a VirtualService needs a name"),
        (
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\n",
            r"metadata\.name: a VirtualService needs a name",
        ),
    ],
)
def test_what_cannot_be_read_is_said_with_its_place(text: str, problem: str) -> None:
    with pytest.raises(LocalMeshError, match=problem):
        names(text)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Because it is not there, or is no text."""
    with pytest.raises(LocalMeshError, match=r"missing\.yaml: cannot be read: .*No such file"):
        names(tmp_path / "missing.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LocalMeshError, match=r"binary\.yaml: cannot be read"):
        names(tmp_path / "binary.yaml")


WORDS = """
hosts http match uri prefix regex headers name route destination host subset port number weight timeout retries
attempts perTryTimeout retryOn fault delay fixedDelay abort httpStatus percentage value redirect redirectCode
directResponse status rewrite mirror mirrors gateways exportTo subsets labels trafficPolicy connectionPool tcp
maxConnections withoutHeaders queryParams sourceLabels
"""
KEYS = st.sampled_from(WORDS.split())
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "*", "1s", "a", "5xx", "v1"])
TREES: st.SearchStrategy[Any] = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=25
)


@given(spec=st.dictionaries(KEYS, TREES, max_size=6), kind=st.sampled_from(["VirtualService", "DestinationRule"]))
def test_whatever_a_spec_holds_it_is_translated_or_refused(spec: dict[str, Any], kind: str) -> None:
    """With the error that says where, and no other."""
    problem = "here: spec"
    try:
        check([Manifest(kind, "shop", "it", spec, "here")], "shop", "cluster.local")
    except LocalMeshError as error:
        problem = str(error)
    assert problem.startswith("here: spec")
