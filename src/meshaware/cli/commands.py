"""The table of sub-commands; each is a module of its own, loaded when it is asked for."""

from __future__ import annotations

import os
import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple

from meshaware.cli.exits import EX_IOERR, EX_OK, INTERRUPTED, CommandError, Parser
from meshaware.cli.terminal import say, write

__all__ = ["COMMANDS", "Command", "main"]

_PROGRAM = "meshaware"


class Command(NamedTuple):
    """
    A sub-command.

    Attributes:
        module: Where it is: `add_arguments(parser)` and `run(arguments)`, which returns the exit code.
        summary: What it does, on a line.
    """

    module: str
    summary: str


COMMANDS: dict[str, Command] = {
    "budget": Command("meshaware.cli.budget", "which route a call takes, why, and how long it may last"),
    "wait": Command("meshaware.cli.wait", "wait until the sidecar takes calls"),
    "run": Command("meshaware.cli.run", "run a command as the entry point of a container beside a sidecar"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the command `meshaware`; return its exit code.

    Args:
        arguments: Those of the command line, if none are given.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        code = _ended(given)
        sys.stdout.flush()
    except BrokenPipeError:
        # What is left in the buffer would be tried again at the end of the process, and fail loudly.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EX_IOERR
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def _ended(given: list[str]) -> int:
    try:
        return _run(given)
    except SystemExit as end:
        # argparse ends with 0 after `--help`, and with `Parser.error` otherwise.
        return end.code if isinstance(end.code, int) else EX_OK
    except CommandError as error:
        say(f"{_PROGRAM}: {error}")
        return error.code


def _run(given: list[str]) -> int:
    command = COMMANDS.get(given[0]) if given else None
    if command is None:
        return _general(given)
    module = import_module(command.module)
    parser = Parser(prog=f"{_PROGRAM} {given[0]}", allow_abbrev=False)
    module.add_arguments(parser)
    code: int = module.run(parser.parse_args(given[1:]))
    return code


def _general(given: list[str]) -> int:
    listed = "\n".join(f"  {name:<10} {command.summary}" for name, command in COMMANDS.items())
    parser = Parser(
        prog=_PROGRAM,
        usage=f"{_PROGRAM} [--help] [--version] COMMAND ...",
        description="The application side of a service mesh.",
        epilog=f"commands:\n{listed}\n\n`{_PROGRAM} COMMAND --help` tells more.",
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    parsed, rest = parser.parse_known_args(given)
    if rest or not parsed.version:
        unknown = f"there is no command {rest[0][:60]!r}" if rest else "a command is missing"
        parser.error(f"{unknown}; there are: {', '.join(COMMANDS)}")
    from importlib.metadata import version  # noqa: PLC0415 (slow, and asked for here only)

    write(f"{_PROGRAM} {version('meshaware')}")
    return EX_OK
