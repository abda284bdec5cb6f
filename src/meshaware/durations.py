"""
Durations as the mesh writes them.

Istio's resources carry Go durations (`1h30m`, `0.5s`, `250ms`), Envoy's JSON carries seconds (`2.500s`);
both are this grammar. Inside meshaware a duration is always a `float` of seconds.
"""

from __future__ import annotations

import math
import re

__all__ = ["format_duration", "parse_duration"]

_SECOND = 10**9
_UNITS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": _SECOND,
    "m": 60 * _SECOND,
    "h": 3600 * _SECOND,
}
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
        nanoseconds, end = 0, 0
        for part in _PART.finditer(stripped):
            if part.start() != end:
                break
            nanoseconds += _nanoseconds(part[1], _UNITS[part[2]])
            end = part.end()
        if end == len(stripped):
            return nanoseconds / _SECOND
    wanted = 'a duration such as "250ms", "1.5s" or "1h30m"' + (", or seconds" if bare_seconds else "")
    raise ValueError(f"{text[:_MAX_LENGTH]!r} is not {wanted}")


def _nanoseconds(number: str, unit: int) -> int:
    # Whole numbers as Go has them: summed as floats, "9ms" would not be 0.009.
    whole, _, fraction = number.partition(".")
    rest: int = int(fraction or "0") * unit // 10 ** len(fraction)
    return int(whole or "0") * unit + rest


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
