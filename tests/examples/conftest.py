"""The examples are programs, not packages: a test loads one from its file."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="session")
def examples() -> Path:
    """The directory of the examples."""
    return EXAMPLES


@pytest.fixture(scope="session")
def load() -> Callable[[str], ModuleType]:
    """Load a file of the examples that needs no other, such as `bookshop/waterfall.py`."""

    def load_from(path: str) -> ModuleType:
        found = spec_from_file_location(f"example_{Path(path).stem}", EXAMPLES / path)
        assert found is not None
        assert found.loader is not None
        module = module_from_spec(found)
        found.loader.exec_module(module)
        return module

    return load_from
