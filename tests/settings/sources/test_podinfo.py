"""The app's own downward-API files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from meshaware.settings.found import Found, Unusable
from meshaware.settings.sources.podinfo import find_podinfo

Write = Callable[[str, str | bytes], Path]


def test_the_usual_places_are_read(write: Write) -> None:
    """All four files, from `/etc/podinfo` first; what is only at the second place is taken from there."""
    labels = write("/etc/podinfo/labels", 'app="shop"')
    name = write("/etc/podinfo/name", "inventory-0\n")
    annotations = write("/etc/istio/pod/annotations", 'istio.io/rev="default"')
    write("/etc/istio/pod/labels", 'app="other"')
    namespace = write("/etc/istio/pod/namespace", "shop")
    assert find_podinfo(None) == {
        "workload.labels": Found({"app": "shop"}, f"file {labels}"),
        "workload.pod_name": Found("inventory-0", f"file {name}"),
        "workload.annotations": Found({"istio.io/rev": "default"}, f"file {annotations}"),
        "workload.namespace": Found("shop", f"file {namespace}"),
    }


def test_where_there_are_no_files_nothing_is_known() -> None:
    """A laptop, or a pod without such a volume."""
    assert find_podinfo(None) == {}
    assert find_podinfo(Found(None, "argument")) == {}


def test_a_pod_without_labels_has_labels_that_are_known_to_be_none(write: Write) -> None:
    """An empty file of labels is knowledge; an empty file with a name is none."""
    path = write("/etc/podinfo/labels", "")
    write("/etc/podinfo/name", "\n")
    assert find_podinfo(None) == {"workload.labels": Found({}, f"file {path}")}


@pytest.mark.parametrize("kind", [str, Path])
def test_a_declared_directory_is_read_instead(write: Write, kind: Callable[[Path], object]) -> None:
    """The usual places are not looked at then."""
    write("/etc/podinfo/name", "inventory-0")
    labels = write("/elsewhere/labels", 'app="shop"')
    assert find_podinfo(Found(kind(labels.parent), "argument")) == {
        "workload.labels": Found({"app": "shop"}, f"file {labels}")
    }


@pytest.mark.parametrize("value", ["/nowhere/at/all", 5])
def test_a_declared_directory_must_be_there(value: object) -> None:
    """Who names one has mounted it, or mistyped it."""
    (found,) = find_podinfo(Found(value, "env MESHAWARE_PODINFO")).values()
    accepted = "a directory with at least one of the files labels, annotations, name, namespace"
    assert found.value == Unusable((f"env MESHAWARE_PODINFO is {value!r}; accepted: {accepted}",))


def test_bad_lines_are_named_with_file_and_line(write: Write) -> None:
    """Some of them, for a file may have many."""
    path = write("/etc/podinfo/labels", 'app="shop"\n' + "\n".join(f"bad{number}" for number in range(2, 10)))
    (found,) = find_podinfo(None).values()
    accepted = 'accepted: key="value", the value quoted as Go does'
    assert found.value == Unusable(
        (
            *(f"file {path}:{number} is 'bad{number}'; {accepted}" for number in range(2, 7)),
            f"file {path} has 3 more such lines",
        )
    )


def test_a_file_that_cannot_be_read_is_a_problem(write: Write) -> None:
    """It is there, so somebody wanted it read."""
    path = write("/etc/podinfo/labels/x", "").parent
    (found,) = find_podinfo(None).values()
    assert found.value == Unusable((f"file {path} cannot be read: Is a directory; accepted: a text file",))
