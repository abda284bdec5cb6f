"""
How a deadline is told from one service to the next: as a number of milliseconds in one header.

A duration and no instant, for the clocks of two hosts differ. What comes in is hostile input: each reader returns None
for what is not exactly what it says.
"""

from __future__ import annotations

import re

__all__ = [
    "DEFAULT_NAME",
    "ENVOY_TIMEOUT",
    "GRPC_TIMEOUT",
    "MAX_SECONDS",
    "read_grpc_timeout",
    "read_milliseconds",
    "write_milliseconds",
]

DEFAULT_NAME = "x-mesh-deadline-ms"
"""The header, unless `MESHAWARE_DEADLINE_HEADER` names another."""

GRPC_TIMEOUT = b"grpc-timeout"
"""What a gRPC client says of its deadline: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md"""

ENVOY_TIMEOUT = b"x-envoy-expected-rq-timeout-ms"
"""What an Envoy says of the time it gives the next one for a try."""

MAX_SECONDS = 999_999.999
"""The most that is told or believed, in seconds: eleven days and a half."""

_DIGITS = 9
_grpc = re.compile(rb"([0-9]{1,8})([HMSmun])").fullmatch
_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


def read_milliseconds(value: bytes) -> float | None:
    """
    Return the seconds of a number of milliseconds: 1 to 9 ASCII digits and nothing else, and more than 0.

    0 is nothing, since it could mean "at once" as well as Envoy's "never".
    """
    if len(value) > _DIGITS or not value.isdigit():
        return None
    return int(value) / 1000 or None


def read_grpc_timeout(value: bytes) -> float | None:
    """Return the seconds of a `grpc-timeout`: 1 to 8 ASCII digits and one of `HMSmun`; not 0, at most `MAX_SECONDS`."""
    found = _grpc(value)
    if found is None:
        return None
    seconds = int(found[1]) * _UNITS[found[2]]
    return seconds if 0 < seconds <= MAX_SECONDS else None


def write_milliseconds(seconds: float) -> bytes | None:
    """
    Write seconds as what `read_milliseconds` reads: rounded down, but never to 0.

    Returns:
        None for more than `MAX_SECONDS`, which bounds nothing.
    """
    if seconds > MAX_SECONDS:
        return None
    return b"%d" % max(1, int(seconds * 1000))
