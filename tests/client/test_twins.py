"""httpx and httpx2: one logic, two files of declarations that stay alike, and no harm where both or one are there."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

CLIENT = Path(__file__).parents[2] / "src" / "meshaware" / "client"


def declarations(library: str) -> str:
    """A factory file without its docstrings, its library called `httpx`, one construct a line."""
    tree = ast.parse((CLIENT / f"{library}.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            node.body = node.body[1:]
    return ast.unparse(tree).replace(library, "httpx")


def test_the_two_factory_files_differ_in_the_library_s_name_only() -> None:
    """Types need both; whoever changes one changes the other."""
    assert declarations("httpx2") == declarations("httpx")


def test_the_factory_files_hold_no_logic() -> None:
    """They declare, and hand on: no loop, and no choice but to whom an error is told."""
    tree = ast.parse((CLIENT / "httpx.py").read_text())
    logic = (ast.For, ast.While, ast.AsyncFor, ast.With, ast.AsyncWith, ast.IfExp, ast.BoolOp)
    assert not [node.lineno for node in ast.walk(tree) if isinstance(node, logic)]
    choices = [ast.unparse(node.test) for node in ast.walk(tree) if isinstance(node, ast.If)]
    assert choices == ["TYPE_CHECKING"]


def run(script: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


ALIASED = """
import httpx2
httpx2.alias_httpx()
import httpx
from meshaware import Mesh, MeshSettings, RouteTable, create_client
from meshaware import httpx2 as ours
from meshaware.errors import SidecarUnavailable

assert httpx is httpx2
settings = MeshSettings(mesh="none", outbound_proxy="http://127.0.0.1:9")
for make in (create_client, ours.create_client, Mesh(settings, routes=RouteTable.empty()).client):
    arguments = {"routes": RouteTable.empty()} if make.__name__ == "create_client" else {}
    with make(*([settings] if arguments else []), **arguments) as client:
        assert isinstance(client, httpx2.Client)
        try:
            client.get("http://inventory/")
        except httpx2.ConnectError as error:
            assert isinstance(error, SidecarUnavailable)
        else:
            raise SystemExit("nothing listens there")
    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, text="ok"))
    with make(*([settings] if arguments else []), transport=transport, **arguments) as client:
        assert client.get("http://inventory/").text == "ok"
"""

HIDDEN = """
import sys
sys.modules["httpx"] = sys.modules["httpcore"] = None
import httpx2
from fastapi import FastAPI
from meshaware import Mesh, MeshMiddleware, MeshSettings, RouteTable, report
from meshaware.client.retries import DoubleRetryWarning
from meshaware.httpx2 import create_client

transport = httpx2.MockTransport(lambda request: httpx2.Response(200, text="ok"))
with create_client(MeshSettings(mesh="none"), routes=RouteTable.empty(), transport=transport) as client:
    response = client.get("http://inventory/")
assert response.text == "ok" and report(response).source == "default"
mesh = Mesh(MeshSettings(mesh="none"))
mesh.install(FastAPI())
try:
    mesh.client()
except ModuleNotFoundError as error:
    assert error.name == "httpx"
else:
    raise SystemExit("the mesh's own clients are httpx's")
"""


def test_aliasing_httpx_does_no_harm() -> None:
    """Then every client is httpx2's, the mesh's own too, and so is every error."""
    pytest.importorskip("httpx2")
    run(ALIASED)


def test_without_httpx_all_works_but_what_makes_its_clients() -> None:
    """The middleware, the mesh, and the clients of httpx2."""
    pytest.importorskip("httpx2")
    run(HIDDEN)


def test_without_httpx2_the_error_says_what_to_install() -> None:
    """The extra is named, not only the missing module."""
    script = "import sys; sys.modules['httpx2'] = None; import meshaware.httpx2"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert "ImportError: meshaware.httpx2 needs httpx2: pip install 'meshaware[httpx2]'" in done.stderr
