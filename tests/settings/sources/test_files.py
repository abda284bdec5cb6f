"""Reading a small file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from meshaware.settings.found import Unusable
from meshaware.settings.sources.files import read_small


def test_a_file_that_is_not_there_is_none(tmp_path: Path) -> None:
    """Also where its directory is none."""
    (tmp_path / "file").write_text("x")
    assert read_small(tmp_path / "absent") is None
    assert read_small(tmp_path / "file" / "labels") is None


def test_a_file_is_read_whatever_its_bytes(write: Callable[[str, str | bytes], Path]) -> None:
    """What is not UTF-8 comes as surrogates, which say in the message what the byte was."""
    assert read_small(write("good", "ä")) == "ä"
    assert read_small(write("odd", b"\xff")) == "\udcff"


def test_a_file_that_is_too_large_is_a_problem(write: Callable[[str, str | bytes], Path]) -> None:
    """No more than the limit is read."""
    path = write("large", b"x" * ((1 << 20) + 1))
    assert read_small(path) == Unusable((f"file {path} is too large; accepted: at most 1048576 bytes",))


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    """A directory in its place, or no permission."""
    found = read_small(tmp_path)
    assert found == Unusable((f"file {tmp_path} cannot be read: Is a directory; accepted: a text file",))
