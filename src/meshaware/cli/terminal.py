r"""
Text that is safe to print: what manifests, sidecars and URLs say is hostile to a terminal.

Control characters, invisible ones and those that turn the direction of text are written as escapes (`\x1b`); what the
terminal's encoding has not is written so too.
"""

from __future__ import annotations

import sys
from typing import NamedTuple, TextIO

__all__ = ["Look", "look_of", "plain", "say", "write"]

_NARROWEST, _WIDEST = 60, 100
_LONGEST = 200
_DRAWN = "█▒░▓·─"


class Look(NamedTuple):
    """
    What a terminal can show.

    Attributes:
        width: Columns to fill.
        drawn: Whether its encoding has block characters; else there is ASCII.
    """

    width: int = 80
    drawn: bool = True


def look_of(stream: TextIO) -> Look:
    """What can be shown where this stream ends; `COLUMNS` says how wide it is."""
    import shutil  # noqa: PLC0415 (it loads every compression there is, and messages need no width)

    width = min(max(shutil.get_terminal_size().columns, _NARROWEST), _WIDEST)
    return Look(width, _fits(_DRAWN, stream) == _DRAWN)


def plain(text: str, longest: int = _LONGEST) -> str:
    """The text on one line, with escapes for what does not print, and cut where it is very long."""
    cut = text if len(text) <= longest else f"{text[:longest]}..."
    return "".join(char if char.isprintable() else _escape(char) for char in cut)


def write(text: str) -> None:
    """Write to standard output; the text is safe already."""
    sys.stdout.write(f"{_fits(text, sys.stdout)}\n")
    sys.stdout.flush()


def say(message: str) -> None:
    """Write a message to standard error, made safe line by line."""
    lines = [plain(line, 2000) for line in message.split("\n")]
    sys.stderr.write(_fits("\n".join(lines), sys.stderr) + "\n")
    sys.stderr.flush()


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def _fits(text: str, stream: TextIO) -> str:
    encoding = stream.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
