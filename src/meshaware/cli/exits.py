"""Exit codes, by the names that BSD's sysexits gives them, and errors that end a command with one."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, NoReturn

from meshaware.cli.terminal import plain, say, write

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

__all__ = [
    "CANNOT_EXECUTE",
    "EX_CONFIG",
    "EX_DATAERR",
    "EX_IOERR",
    "EX_OK",
    "EX_UNAVAILABLE",
    "EX_USAGE",
    "INTERRUPTED",
    "NOT_FOUND",
    "CommandError",
    "Parser",
]

EX_OK = 0
EX_USAGE = 64
"""The command line cannot be understood."""
EX_DATAERR = 65
"""A document cannot be used."""
EX_UNAVAILABLE = 69
"""The sidecar cannot be asked."""
EX_IOERR = 74
"""Nobody takes the output."""
EX_CONFIG = 78
"""A variable or file of the settings cannot be used."""
CANNOT_EXECUTE = 126
"""A program is there and cannot be executed, as shells tell it."""
NOT_FOUND = 127
"""There is no such program, as shells tell it."""
INTERRUPTED = 130
"""Ctrl-C, as shells tell it."""


class CommandError(Exception):
    """Ends a command: a message for people, and an exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Parser(argparse.ArgumentParser):
    """argparse's, with the exit code of sysexits and without control characters in what it repeats."""

    def print_help(self, file: SupportsWrite[str] | None = None) -> None:
        """Print the help; unlike argparse, not without a word where nobody takes it."""
        if file is None:
            write(self.format_help().rstrip())
        else:
            super().print_help(file)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and end."""
        say(f"{self.format_usage()}{self.prog}: {plain(message)}")
        raise SystemExit(EX_USAGE)
