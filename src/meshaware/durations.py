"""
Durations as the mesh writes them.

Istio's resources carry Go durations (`1h30m`, `0.5s`, `250ms`), Envoy's JSON carries seconds (`2.500s`);
both are this grammar. Inside meshaware a duration is always a `float` of seconds.
"""

from __future__ import annotations

import math
import re

__all__ = ["format_duration", "parse_duration"]

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+", re.ASCII)
_MAX_LENGTH = 64


def parse_duration(text: str, *, bare_seconds: bool = False) -> float:
    """
    Read a Go duration such as `1h30m`, `0.5s` or `250ms` and return seconds.

    Args:
        text: The duration. A sign is not accepted: nothing in a mesh waits for less than no time.
        bare_seconds: Also accept a plain number, taken as seconds, as in `MESHAWARE_TIMEOUT=2.5`.

    Raises:
        ValueError: The text is not a duration; the message says what is accepted.

    Grammar: Go's `time.ParseDuration`, which is what Istio's JSON decoding uses for its resources.
    """
    stripped = text.strip()
    if stripped == "0":
        return 0.0
    if stripped and len(stripped) <= _MAX_LENGTH:
        if bare_seconds and _NUMBER.fullmatch(stripped):
            return float(stripped)
        seconds, end = 0.0, 0
        for part in _PART.finditer(stripped):
            if part.start() != end:
                break
            seconds += float(part[1]) * _UNITS[part[2]]
            end = part.end()
        if end == len(stripped) and math.isfinite(seconds):
            return seconds
    wanted = 'a duration such as "250ms", "1.5s" or "1h30m"' + (", or seconds" if bare_seconds else "")
    raise ValueError(f"{text[:_MAX_LENGTH]!r} is not {wanted}")


def format_duration(seconds: float) -> str:
    """
    Write seconds the shortest way a person would: `250ms`, `1.5s`, `1m30s`.

    Below a minute the result is rounded to the millisecond, from a minute on to the tenth of a second.
    """
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError(f"{seconds!r} is not a duration: it must be finite and not negative")
    if round(seconds, 3) < 1:
        return f"{_trim(seconds * 1000, 3 if seconds < 0.001 else 0)}ms" if seconds else "0s"
    if round(seconds, 3) < 60:
        return f"{_trim(seconds, 3)}s"
    minutes, rest = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes else "") + (f"{_trim(rest, 1)}s" if rest else "")


def _trim(number: float, digits: int) -> str:
    text = f"{number:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
