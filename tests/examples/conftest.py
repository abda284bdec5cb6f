"""The examples are programs, not packages: a test imports one as Python itself would run it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def examples() -> Path:
    """The directory of the examples."""
    return EXAMPLES


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Import a module of an example by its path, such as `bookshop/waterfall`."""

    def import_from(path: str) -> ModuleType:
        directory, _, name = path.rpartition("/")
        monkeypatch.syspath_prepend(str(EXAMPLES / directory))
        monkeypatch.delitem(sys.modules, name, raising=False)
        module = importlib.import_module(name)
        monkeypatch.delitem(sys.modules, name)
        return module

    return import_from
