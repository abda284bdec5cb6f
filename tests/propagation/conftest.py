"""Each test of this room starts as a process does: nothing carried, no warning given yet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from meshaware.propagation import headers
from meshaware.propagation.context import current


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(headers, "_warned", set[bytes]())
    assert current() is None
    yield
    assert current() is None, "a test left something behind in its context"
