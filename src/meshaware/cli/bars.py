"""The course of a call as bars, a line for each part of it."""

from __future__ import annotations

from collections.abc import Sequence

from meshaware.budgets.timeline import Span
from meshaware.cli.terminal import Look
from meshaware.durations import format_duration

__all__ = ["draw"]

_LABEL = 12
_FRAME = 5
_BESIDE = 25
_DRAWN = {"delay": "░", "connect": "▒", "try": "█", "backoff": "·", "response": "▓", "more": "▒", "total": "─"}
_ASCII = {"delay": "~", "connect": "-", "try": "#", "backoff": ".", "response": "=", "more": "%", "total": "="}


def draw(spans: Sequence[Span], totals: Sequence[tuple[str, float]], look: Look) -> list[str]:
    """
    Draw a call.

    Args:
        spans: Its course.
        totals: Names and seconds of what is drawn below it, from the begin on.
        look: The terminal.
    """
    longest = max([span.end for span in spans] + [seconds for _, seconds in totals])
    columns = look.width - _LABEL - _FRAME - _BESIDE
    glyphs = _DRAWN if look.drawn else _ASCII

    def line(label: str, kind: str, start: float, end: float, beside: str) -> str:
        # What is too short to see still has a mark.
        first = min(int(start / longest * columns), columns - 1)
        last = max(first + 1, round(end / longest * columns))
        bar = (" " * first + glyphs[kind] * (last - first)).ljust(columns)
        return f"  {label:<{_LABEL}} |{bar}| {beside}"

    lines = [line(_label(span), span.kind, span.start, span.end, _beside(span)) for span in spans]
    return lines + [line(name, "total", 0.0, seconds, format_duration(seconds)) for name, seconds in totals]


def _label(span: Span) -> str:
    match span.kind:
        case "backoff":
            return "back-off"
        case "delay" | "response":
            return span.kind
        case "more":
            # Of those that the timeout cuts short, it cannot be told how many there are.
            label = "more" if span.cut else f"{span.number} more"
            return label if len(label) <= _LABEL else "more"
        case _:
            label = f"{span.kind} {span.number}"
            return label if len(label) <= _LABEL else f"last {span.kind}"


def _beside(span: Span) -> str:
    start, end = format_duration(span.start), format_duration(span.end)
    if start == end:
        return f"{start}, fails at once" if span.kind == "try" else start
    return f"{start} to {end}{', timeout' if span.cut else ''}"
