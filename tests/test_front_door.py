"""`import meshaware`: quick, light, and exactly the names that are promised."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

import meshaware

HEAVY = [
    "httpx",
    "httpx2",
    "httpcore",
    "h11",
    "pydantic",
    "pydantic_settings",
    "yaml",
    "opentelemetry",
    "fastapi",
    "starlette",
    "anyio",
    "asyncio",
    "logging",
    "importlib.metadata",
]


def test_the_front_door_loads_nothing_heavy() -> None:
    """A worker that imports meshaware for one name pays for that name only."""
    script = f"import sys, meshaware; print([name for name in {HEAVY!r} if name in sys.modules])"
    seen = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    assert seen.stdout.strip() == "[]"


def test_carrying_headers_loads_no_client_and_no_settings() -> None:
    """bind_headers and outbound_headers serve workers that use another client."""
    heavy = [name for name in HEAVY if name not in ("logging", "opentelemetry")]
    script = (
        "import sys, meshaware; meshaware.bind_headers, meshaware.outbound_headers, meshaware.HostPolicy;"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    seen = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    assert seen.stdout.strip() == "[]"


@pytest.mark.parametrize("name", meshaware.__all__)
def test_every_promised_name_is_there(name: str) -> None:
    """Each public name resolves, once, to an object with a docstring."""
    found = getattr(meshaware, name)
    assert found is vars(meshaware)[name]
    assert found.__doc__


def test_the_promised_names_are_these() -> None:
    """The list is the contract: a name that comes or goes must be meant."""
    assert set(meshaware.__all__) == {
        "Budget", "HostPolicy", "Mesh", "MeshMiddleware", "MeshSettings", "ReadinessGate", "RouteTable", "bind_headers",
        "call_options", "create_async_client", "create_client", "load_workload", "outbound_headers", "remaining",
        "report", "setup_telemetry",
    }  # fmt: skip
    assert set(meshaware.__all__) <= set(dir(meshaware))


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    """As with any module."""
    with pytest.raises(AttributeError, match="'nope'"):
        getattr(meshaware, "nope")  # noqa: B009 (what a type checker refuses is what is tried)


def test_the_version_is_the_package_s() -> None:
    """It is read from the installed metadata, when asked for."""
    assert meshaware.__version__ == version("meshaware")
