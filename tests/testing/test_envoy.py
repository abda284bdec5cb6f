"""Which Envoy runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from meshaware.errors import LocalMeshError
from meshaware.testing.envoy import find_envoy


@pytest.fixture(name="program")
def _program(tmp_path: Path) -> Path:
    """Something that can be executed."""
    program = tmp_path / "my-envoy"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return program


def test_the_argument_wins_over_the_variable_and_the_variable_over_the_package(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = program.with_name("other")
    program.rename(other)
    program.hardlink_to(other)
    monkeypatch.setenv("MESHAWARE_ENVOY", str(other))
    assert find_envoy(program) == program
    assert find_envoy() == other
    monkeypatch.setenv("MESHAWARE_ENVOY", "")
    assert find_envoy().name == "envoy"


def test_a_bare_name_is_looked_up_on_the_path(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(program.parent))
    assert find_envoy("my-envoy") == program


def test_what_is_no_program_is_named_with_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    with pytest.raises(
        LocalMeshError, match=r"the argument envoy names '.*plain' as the Envoy to run, but there is no"
    ):
        find_envoy(plain)
    monkeypatch.setenv("MESHAWARE_ENVOY", "no-such-program")
    with pytest.raises(LocalMeshError, match="the variable MESHAWARE_ENVOY names 'no-such-program'"):
        find_envoy()


def test_without_any_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "envoy", None)

    def nothing(name: str) -> None:
        """No package of any name."""

    monkeypatch.setattr("meshaware.testing.envoy.find_spec", nothing)
    with pytest.raises(LocalMeshError, match=r"install meshaware\[testing\]"):
        find_envoy()
