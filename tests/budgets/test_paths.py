"""Paths as a sidecar may rewrite them before it looks for a route."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaware.budgets.paths import variants, without_parameters


@pytest.mark.parametrize(
    "path", ["/", "/items/42", "/a//b", "*", "", "/a;v=1", "/~!@$&'()*+,;=:", "/a%20b", "/a%2Fb%5c", "/%", "/%zz"]
)
def test_a_path_that_normalisation_leaves_alone_is_one(path: str) -> None:
    """Slashes are not merged and not unescaped: that is more than Istio asks for by default."""
    assert variants(path) == (path,)


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        ("/a/../b", "/b"),
        ("/a/./b", "/a/b"),
        ("/a/..", "/"),
        ("/a/.", "/a/"),
        ("/../..", "/"),
        ("/a/b/../../../c", "/c"),
        ("/%41%7e%2D", "/A~-"),
        ("/%2e%2e/x", "/x"),
        ("/a/%2E%2E/b", "/b"),
        ("/a/%2e", "/a/"),
        ("/a\\b", "/a/b"),
        ("/a|b^`", "/a%7Cb%5E%60"),
        ('/{x}<"y">', "/%7Bx%7D%3C%22y%22%3E"),
        ("/a b", "/a%20b"),
        ("/é", "/%C3%A9"),
    ],
)
def test_a_path_that_normalisation_changes_is_two(path: str, normal: str) -> None:
    """As it is, and as Envoy 1.36 to 1.40 were seen to make it."""
    assert variants(path) == (path, normal)


@pytest.mark.parametrize(
    ("path", "ways"),
    [
        ("/a/..;v=1", ("/a/..;v=1", "/")),
        ("/a/.;/b", ("/a/.;/b", "/a/b")),
        ("/.;", ("/.;", "/")),
        ("/a/%2e%2E;v=1/b", ("/a/%2e%2E;v=1/b", "/a/..;v=1/b", "/b")),
        ("/a/...;v=1", ("/a/...;v=1",)),
        ("/a;v=1/.", ("/a;v=1/.", "/a;v=1/")),
    ],
)
def test_a_dot_segment_may_have_parameters(path: str, ways: tuple[str, ...]) -> None:
    """Envoys differ in whether it is one then."""
    assert variants(path) == ways


@pytest.mark.parametrize("path", ["/a/..x", "/...", "/.a", "/..a", "/a./b"])
def test_a_dot_is_only_a_segment_by_itself(path: str) -> None:
    """Names may have dots."""
    assert variants(path) == (path,)


@given(st.lists(st.sampled_from(["/", ".", "..", "a", "%2e", "%41", "%2F", "\\", "|", "b;c"]), max_size=8).map("".join))
def test_what_is_normal_stays_so(tail: str) -> None:
    """Normalising twice is normalising once, and no way out of the root."""
    normal = variants(f"/{tail}")[-1]
    assert variants(normal)[-1] == normal or "%" in normal
    assert normal.startswith("/")
    assert "/../" not in f"{normal}/"


@pytest.mark.parametrize(
    ("path", "ways"),
    [
        ("/a/b", ("/a/b",)),
        ("/a;v=1", ("/a",)),
        ("/a;v=1/b;w", ("/a", "/a/b")),
        (";/b", ("", "/b")),
    ],
)
def test_parameters_end_with_the_path_or_with_their_segment(path: str, ways: tuple[str, ...]) -> None:
    """The former up to Envoy 1.39.0."""
    assert without_parameters(path) == ways
