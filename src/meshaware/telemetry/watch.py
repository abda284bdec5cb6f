"""Notices that the mesh samples everything away, which looks like telemetry that does not work, and says so once."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

from meshaware.durations import format_duration

__all__ = ["SamplingWatch", "watch_of"]

# At Istio's default of 1 % four processes in 100 000 see so many requests in a row unsampled.
_REQUESTS = 1000
_SECONDS = 300.0
_STEP = 50

_log = logging.getLogger("meshaware.telemetry")


def _say(requests: int, seconds: float) -> None:
    _log.warning(
        "telemetry: all of the first %d requests that carry a trace, within %s, arrived unsampled: the mesh decided so,"
        " and that is why their spans are dropped here. To see them, raise what the mesh samples (Istio:"
        " randomSamplingPercentage in a Telemetry resource, or meshConfig.defaultConfig.tracing.sampling), or set"
        " MESHAWARE_SAMPLING=always to keep this service's spans whatever the mesh decides",
        requests,
        format_duration(round(seconds)),
    )


class SamplingWatch:
    """
    Told of each request that arrives with a trace; says once if the first of them are all unsampled.

    One that is sampled, and it stays silent for good. It takes no lock: threads that meet may lose a count or tell
    one twice, which is why the number of requests is only roughly kept.

    Args:
        tell: Called once with the number of requests and the seconds they took. Default: one line in the log.
        clock: Seconds of a clock that is never set back.
        requests: How many must have come.
        seconds: How long after the first of them the last must have come.
    """

    __slots__ = ("_began", "_clock", "_left", "_requests", "_sampled", "_seconds", "_seen", "_untold")

    def __init__(
        self,
        tell: Callable[[int, float], None] = _say,
        *,
        clock: Callable[[], float] = time.monotonic,
        requests: int = _REQUESTS,
        seconds: float = _SECONDS,
    ) -> None:
        self._clock = clock
        self._requests = requests
        self._seconds = seconds
        self._untold = [tell]
        self._sampled = False
        self._began: float | None = None
        self._seen = 0
        # Unsampled requests until it is worth to look closer; at the first one the clock is read.
        self._left: float = 1

    def saw(self, sampled: bool) -> None:  # noqa: FBT001 - called for every request
        """Count one request that arrived with a trace, by what the mesh decided of it."""
        if sampled:
            self._sampled = True
            return
        left = self._left - 1
        self._left = left
        if left <= 0:
            self._look()

    def _look(self) -> None:
        if self._sampled or not self._untold:
            self._left = math.inf
            return
        now = self._clock()
        if self._began is None:
            self._began = now
            self._seen = self._requests
            self._left = self._requests - 1
        elif now - self._began < self._seconds:
            self._seen += _STEP
            self._left = _STEP
        else:
            self._left = math.inf
            try:
                tell = self._untold.pop()
            except IndexError:
                return
            tell(self._seen, now - self._began)


def watch_of(provider: object) -> SamplingWatch | None:
    """
    Return the watch of a tracer provider, for whoever does not ask its sampler about each request.

    None where nobody watches: the provider is somebody else's, or keeps spans whatever the mesh decides.
    """
    watch = getattr(getattr(provider, "sampler", None), "watch", None)
    return watch if isinstance(watch, SamplingWatch) else None
