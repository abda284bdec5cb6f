"""What is printed: progress, and a table at the end. Colour only on a terminal, and not under NO_COLOR."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from textwrap import wrap
from time import monotonic

BOLD, DIM, GREEN, RED = "1", "2", "32", "31"

_started = monotonic()


def paint(text: str, *codes: str) -> str:
    """The text in a colour, where colours are wanted."""
    if not sys.stdout.isatty() or "NO_COLOR" in os.environ:
        return text
    return f"\x1b[{';'.join(codes)}m{text}\x1b[0m"


def width() -> int:
    """Columns that are there: 110 where nobody knows."""
    return max(min(shutil.get_terminal_size((110, 24)).columns, 140), 80)


def say(text: str = "", *codes: str) -> None:
    """Print one line at once."""
    print(paint(text, *codes), flush=True)


def clock() -> float:
    """Seconds since the begin."""
    return monotonic() - _started


def step(text: str) -> None:
    """Print what goes on now, or was seen, and when."""
    say(f"{paint(f'{clock():5.1f} s', DIM)}  {text}")


def table(head: Sequence[str], rows: Iterable[Sequence[str]], shares: Sequence[int]) -> list[str]:
    """
    Lay out rows of text; long cells are wrapped.

    Args:
        head: The names of the columns.
        rows: As many cells each.
        shares: How the width is divided among the columns.
    """
    room = width() - 2 * (len(shares) - 1)
    widths = [max(room * share // sum(shares), len(name)) for share, name in zip(shares, head, strict=True)]
    lines = ["  ".join(f"{name:<{size}}" for name, size in zip(head, widths, strict=True)).rstrip()]
    for row in rows:
        lines.append("-" * (sum(widths) + 2 * (len(widths) - 1)))
        cells = [
            [part for line in cell.splitlines() for part in wrap(line, size) or [""]]
            for cell, size in zip(row, widths, strict=True)
        ]
        for i in range(max(map(len, cells))):
            parts = [cell[i] if i < len(cell) else "" for cell in cells]
            lines.append("  ".join(f"{part:<{size}}" for part, size in zip(parts, widths, strict=True)).rstrip())
    return lines
