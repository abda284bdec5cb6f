"""The rooms of the house: which may import which, read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "meshaware"

# One row a storey, from the ground up; a room may import from its own storey only what is its own, and all below.
STOREYS = [
    {"errors", "durations"},
    {"deadline", "identity", "flavours", "instrumentation", "request_copy"},
    {"settings", "propagation"},
    {"budgets", "sidecar"},
    {"client", "asgi", "jobs", "telemetry", "logs"},
    {"mesh"},
    {"httpx2", "testing", "cli"},
    {"__main__"},
]
LEVEL = {room: level for level, rooms in enumerate(STOREYS) for room in rooms}
# The one sideways door: live routes are read through the only socket to the proxy.
SIDEWAYS = {("budgets/driving.py", "sidecar")}

ONLY_IN = {
    "httpx": ("client/httpx.py", "mesh.py"),
    "httpx2": ("client/httpx2.py",),
    "opentelemetry": ("propagation/spans.py", "telemetry/"),
    "yaml": ("budgets/", "testing/"),
    "pydantic": ("settings/",),
    "fastapi": ("telemetry/",),
    "starlette": (),
    "uvicorn": ("testing/",),
    "structlog": (),
    "argparse": ("cli/",),
    "socket": ("sidecar/blocking.py", "sidecar/knocking.py", "testing/"),
}


def modules() -> list[tuple[str, ast.Module]]:
    return [(path.relative_to(SOURCE).as_posix(), ast.parse(path.read_text())) for path in sorted(SOURCE.rglob("*.py"))]


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every imported name, wherever it stands: at the top, in a function, under TYPE_CHECKING."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are written in full"
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno


def room_of(module: str) -> str:
    return module.partition("/")[0].removesuffix(".py")


@pytest.mark.parametrize(("module", "tree"), modules(), ids=lambda value: value if isinstance(value, str) else "")
def test_imports_point_down(module: str, tree: ast.Module) -> None:
    """A room imports itself and what lies below it, function-level imports included."""
    room = room_of(module)
    if room == "__init__":
        return
    for name, line in imports(tree):
        parts = name.split(".")
        if parts[0] != "meshaware":
            continue
        target = parts[1]
        assert target in LEVEL, (
            f"{module}:{line} imports {name}: no such room; import from the room, not the front door"
        )
        if target == room or (module, target) in SIDEWAYS:
            continue
        assert LEVEL[target] < LEVEL[room], f"{module}:{line}: {room} (storey {LEVEL[room]}) must not import {name}"


@pytest.mark.parametrize(("module", "tree"), modules(), ids=lambda value: value if isinstance(value, str) else "")
def test_a_library_is_imported_only_where_it_belongs(module: str, tree: ast.Module) -> None:
    """Each foreign library has its rooms; elsewhere the code stays free of it."""
    for name, line in imports(tree):
        allowed = ONLY_IN.get(name.split(".")[0])
        if allowed is not None:
            assert module.startswith(allowed), f"{module}:{line} imports {name}, which belongs to {allowed}"


@pytest.mark.parametrize(("module", "tree"), modules(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_module_says_what_it_is_and_what_is_public(module: str, tree: ast.Module) -> None:
    """Each module has a docstring, and so has what it exports; what it does not export has an underscore."""
    assert ast.get_docstring(tree), f"{module} has no docstring"
    exported = next(
        (
            ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets)
        ),
        None,
    )
    if exported is None:
        return
    assert not [name for name in exported if name.startswith("_")], f"{module} exports a private name"
    documented = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for node in tree.body:
        if isinstance(node, documented):
            assert (node.name in exported) != node.name.startswith("_"), f"{module}: is {node.name} public or not?"
            if not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{module}: {node.name} has no docstring"


@pytest.mark.parametrize(("module", "tree"), modules(), ids=lambda value: value if isinstance(value, str) else "")
def test_no_check_disappears_under_optimisation(module: str, tree: ast.Module) -> None:
    """The source holds no assert: bad input is answered by an error that has a name."""
    assert not [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)], module


@pytest.mark.parametrize(("module", "tree"), modules(), ids=lambda value: value if isinstance(value, str) else "")
def test_a_module_can_be_read_in_one_sitting(module: str, tree: ast.Module) -> None:
    """No module grows over 400 lines."""
    length = max((node.end_lineno or 0 for node in ast.walk(tree) if isinstance(node, ast.stmt)), default=0)
    assert length <= 400, f"{module} has {length} lines: divide the room"
