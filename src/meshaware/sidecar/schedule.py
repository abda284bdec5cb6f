"""
When to ask a proxy again: pure arithmetic.

What it is made for: whoever waits learns of a ready proxy late by at most a tenth of the time waited and
10 ms more, never by more than 250 ms; and a proxy that is still starting is asked at most once a step.
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["ATTEMPT", "GRACE", "again", "look", "step"]

ATTEMPT = 1.0
"""Seconds that one attempt may take at most."""

GRACE = 3.0
"""Seconds after which nobody waits any longer for a merely possible proxy, of which nothing has been heard."""

# A little under 10 ms and 250 ms: the rest is for the attempt itself and for the one who looks on.
_SHORTEST = 0.008
_LONGEST = 0.225
_SHARE = 0.1
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0


def step(waited: float, *, refused: bool = False) -> float:
    """
    Seconds from the start of one attempt to the start of the next.

    Args:
        waited: Seconds since the wait began.
        refused: Whether the last attempt was refused. That costs the proxy nothing, and Istio's readiness
            port refuses until Envoy's workers run, so such an attempt is repeated after half a step.
    """
    whole = min(max(waited * _SHARE, _SHORTEST), _LONGEST)
    return whole / 2 if refused else whole


def look(waited: float) -> float:
    """Seconds after which one who waits looks again at what another has on the way; it makes no request."""
    return min(step(waited) / 4, 0.01)


def again() -> Iterator[float]:
    """Seconds between the looks for a proxy that nobody waits for any longer: a second, then doubled up to a minute."""
    pause = _FIRST_PAUSE
    while True:
        yield pause
        pause = min(2 * pause, _LONGEST_PAUSE)
