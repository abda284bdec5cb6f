"""`docs/budgets.md`: the run that it shows, the options, the exit codes and the JSON are those of the command."""

from __future__ import annotations

import argparse
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import cast

from meshaware.cli import budget, exits

Run = Callable[..., tuple[int, str, str]]

PAGE = (Path(__file__).parents[2] / "docs" / "budgets.md").read_text()
SECTION = PAGE.partition("## Asking from a shell\n")[2].partition("\n## ")[0]


def rows(head: str) -> dict[str, str]:
    """A table of the section, by the first column."""
    body = SECTION.partition(f"{head}\n|---|---|\n")[2].partition("\n\n")[0]
    return dict(line.strip("| ").split(" | ", 1) for line in body.splitlines())


def shown() -> tuple[list[str], str]:
    """The arguments of the run, and its output."""
    found = re.search(r"^```console\n\$ meshaware (.*?)\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)
    assert found is not None
    return shlex.split(found[1]), found[2]


def manifest() -> str:
    found = re.search(r'Path\("inventory.yaml"\).write_text\("""(.*?)"""\)', PAGE, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_run_is_what_the_command_prints(process: Run, directory: Path) -> None:
    """Word for word, with the manifest that the page has."""
    (directory / "inventory.yaml").write_text(manifest())
    arguments, output = shown()
    assert process(*arguments) == (0, output, "")


def test_every_option_stands_in_the_table() -> None:
    """And no other does."""
    parser = argparse.ArgumentParser()
    budget.add_arguments(parser)
    options = {option for action in parser._actions for option in action.option_strings} - {"-h", "--help"}
    assert set(re.findall(r"--[a-z-]+", " ".join(rows("| option | meaning |")))) == options


def test_every_exit_code_stands_in_the_table() -> None:
    """As the help has them, and as the module names them."""
    codes = {str(value) for name, value in vars(exits).items() if name.startswith("EX_")}
    documented = rows("| exit code | when |")
    assert set(documented) == codes
    parser = argparse.ArgumentParser()
    budget.add_arguments(parser)
    for code, meaning in documented.items():
        if code != str(exits.EX_IOERR):
            assert f"  {code:<3} {meaning}" in (parser.epilog or "")


def keys(value: object) -> set[str]:
    """Every key of a JSON value, however deep."""
    if isinstance(value, dict):
        pairs = cast("dict[str, object]", value)
        return set(pairs).union(*map(keys, pairs.values()))
    return set[str]().union(*map(keys, cast("list[object]", value))) if isinstance(value, list) else set()


def test_every_key_of_the_json_is_documented(run: Run) -> None:
    """Those of the object in the first column, what is in them in the second."""
    code, out, _ = run(
        "budget", "GET", "http://inventory/items/", "--manifests", "inventory.yaml", "--namespace", "shop", "--json"
    )
    assert code == 0
    found: dict[str, object] = json.loads(out)
    documented = rows("| key | value |")
    assert [key.strip("`") for key in documented if "[" not in key] == list(found)
    for key, value in found.items():
        said = " ".join(text for name, text in documented.items() if name.strip("`").partition("[")[0] == key)
        assert keys(value) <= set(re.findall(r"`([a-z_]+)`", said)), key
