"""The way to a sub-command: what is loaded, what help says, and how a command ends."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

from meshaware.cli import commands, main
from meshaware.cli.commands import COMMANDS, Command

Run = Callable[..., tuple[int, str, str]]

HEAVY = ["httpx", "httpx2", "httpcore", "opentelemetry", "fastapi", "starlette", "anyio"]
SETTINGS = ["pydantic", "pydantic_settings", "yaml", "asyncio", "socket", "h11", "logging"]
KNOWN = ", ".join(COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "code", "unwanted"),
    [
        (["--help"], 0, HEAVY + SETTINGS),
        (["budget", "--help"], 0, HEAVY + SETTINGS),
        (["nothing"], 64, HEAVY + SETTINGS),
        (["budget", "GET", "/items/42"], 64, HEAVY + SETTINGS),
        (["budget", "GET", "http://inventory/", "--manifests", "inventory.yaml"], 0, [*HEAVY, "h11"]),
        (["budget", "GET", "http://inventory/", "--manifests", "inventory.yaml", "--json"], 0, [*HEAVY, "h11"]),
        (["budget", "GET", "http://inventory/", "--sidecar", "--admin-url", "http://127.0.0.1:1"], 69, HEAVY[:-1]),
    ],
    ids=["help", "help of budget", "no command", "no URL", "manifests", "JSON", "sidecar"],
)
def test_the_command_loads_only_what_it_needs(
    directory: Path, arguments: list[str], code: int, unwanted: list[str]
) -> None:
    """Settings, and pydantic with them, where an answer needs them; sockets for the sidecar; a client never."""
    script = (
        "import sys; from meshaware.cli import main;"
        f"code = main({arguments!r}); loaded = [name for name in {unwanted!r} if name in sys.modules];"
        "print('LOADED', code, loaded, file=sys.stderr)"
    )
    seen = subprocess.run(
        [sys.executable, "-c", script], cwd=directory, capture_output=True, text=True, check=True, timeout=30
    )
    assert seen.stderr.splitlines()[-1] == f"LOADED {code} []"


def test_the_script_of_the_package_is_this_command() -> None:
    """As `pip` will install it."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    module, _, name = project["scripts"]["meshaware"].partition(":")
    assert getattr(import_module(module), name) is main


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_table_has_help(process: Run, name: str) -> None:
    """And stands in the general one with what it does."""
    code, general, _ = process("--help")
    assert code == 0
    assert f"  {name:<10} {COMMANDS[name].summary}\n" in general
    code, out, err = process(name, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: meshaware {name} ")


def test_the_version_is_that_of_the_package(run: Run) -> None:
    """Asked for by name."""
    assert run("--version") == (0, f"meshaware {version('meshaware')}\n", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], f"meshaware: a command is missing; there are: {KNOWN}\n"),
        (["budgte"], f"meshaware: there is no command 'budgte'; there are: {KNOWN}\n"),
        (["--version", "\x1b[31m"], f"meshaware: there is no command '\\x1b[31m'; there are: {KNOWN}\n"),
        (["budget", "GET"], "meshaware budget: the following arguments are required: URL\n"),
        (["budget", "GET", "http://a/", "--\x1b]0;"], "meshaware budget: unrecognized arguments: --\\x1b]0;\n"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_64(run: Run, arguments: list[str], said: str) -> None:
    """With the usage, and without the control characters that it may have."""
    code, out, err = run(*arguments)
    assert (code, out) == (64, "")
    assert err.startswith("usage: meshaware ")
    assert err.endswith(said)
    assert "\x1b" not in err


def test_ctrl_c_ends_it_without_a_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As shells expect."""

    def interrupt(_: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "_run", interrupt)
    assert run("budget") == (130, "", "")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["budget", "GET", "http://inventory/", "--manifests", "inventory.yaml"]]
)
def test_output_that_nobody_takes_is_no_traceback(directory: Path, arguments: list[str]) -> None:
    """As when it is piped into `head`."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        seen = subprocess.run(
            [sys.executable, "-W", "error", "-m", "meshaware", *arguments],
            cwd=directory,
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
            check=False,
        )
    finally:
        os.close(writing)
    assert (seen.returncode, seen.stderr) == (74, "")


def test_another_command_is_a_row_of_the_table(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module with `add_arguments` and `run`; its exit code is the command's."""
    monkeypatch.setitem(COMMANDS, "other", Command("tests.cli.other", "something else"))
    assert run("other", "--code", "7") == (7, "", "")
