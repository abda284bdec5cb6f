"""A pod of the tests' own: no file of this machine counts; files are written as the kubelet writes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from meshaware.settings.sources import kubernetes, podinfo

_NAMED = {"\a": r"\a", "\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\v": r"\v"}


def _quote(text: str) -> str:
    """What Go's `strconv.Quote`, and so `%q`, makes of a string."""
    pieces = [_quote_one(character) for character in text]
    return f'"{"".join(pieces)}"'


def _quote_one(character: str) -> str:
    code = ord(character)
    if character in '"\\':
        return f"\\{character}"
    if character.isprintable():
        return character
    if character in _NAMED:
        return _NAMED[character]
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


@pytest.fixture(scope="session")
def go_quote() -> Callable[[str], str]:
    """Quotes a string as Go does."""
    return _quote


@pytest.fixture(scope="session")
def kubelet_lines() -> Callable[[Mapping[str, str]], str]:
    """Writes a map as the kubelet does: sorted, one `key="value"` a line, no newline at the end."""
    return lambda pairs: "\n".join(f"{key}={_quote(pairs[key])}" for key in sorted(pairs))


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that stands for `/`: the usual places of the files are looked for below it."""
    root = tmp_path / "root"
    below = tuple(f"{root}{place}" for place in podinfo.USUAL_PLACES)
    monkeypatch.setattr(podinfo, "USUAL_PLACES", below)
    monkeypatch.setattr(kubernetes, "SERVICE_ACCOUNT_DIRECTORY", f"{root}{kubernetes.SERVICE_ACCOUNT_DIRECTORY}")
    return root


@pytest.fixture
def write(root: Path) -> Callable[[str, str | bytes], Path]:
    """Writes a file below `root`, by the path it has in a pod."""

    def write(path: str, content: str | bytes) -> Path:
        file = root / path.removeprefix("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file

    return write
