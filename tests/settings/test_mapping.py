"""A mapping that can be part of a frozen model."""

from __future__ import annotations

import copy
import pickle

import pytest

from meshaware.settings.mapping import FrozenMapping


def test_it_reads_as_a_dict_does() -> None:
    """All that `Mapping` promises."""
    labels = FrozenMapping({"app": "shop"})
    assert labels["app"] == "shop"
    assert labels.get("tier") is None
    assert dict(labels) == {"app": "shop"}
    assert len(labels) == 1
    assert repr(labels) == "{'app': 'shop'}"
    assert FrozenMapping() == {}


def test_it_cannot_be_changed_from_either_side() -> None:
    """Neither through the object nor through the dict that it was made from."""
    source = {"app": "shop"}
    labels = FrozenMapping(source)
    source["app"] = "other"
    assert labels["app"] == "shop"
    with pytest.raises(TypeError):
        labels["app"] = "other"  # type: ignore[index]  # pyright: ignore[reportIndexIssue]


def test_it_compares_by_content() -> None:
    """With any mapping; equal ones hash alike."""
    assert FrozenMapping({"a": "1", "b": "2"}) == {"b": "2", "a": "1"}
    assert FrozenMapping({"a": "1"}) != {"a": "2"}
    assert FrozenMapping({"a": "1"}) != "a"
    assert hash(FrozenMapping({"a": "1", "b": "2"})) == hash(FrozenMapping({"b": "2", "a": "1"}))


def test_it_copies_and_pickles() -> None:
    """Settings go to worker processes."""
    labels = FrozenMapping({"app": "shop"})
    assert pickle.loads(pickle.dumps(labels)) == labels
    assert copy.deepcopy(labels) == copy.copy(labels) == labels
