"""Upstreams by name: a host and its port, as calls have them."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["Upstream", "parse_upstream"]

_NAME = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]{0,251}[a-z0-9_])?", re.ASCII)
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
_MAX_PORT = 65_535


class Upstream(NamedTuple):
    """A host and its port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def parse_upstream(text: str) -> Upstream:
    """
    Read `host:port`.

    Raises:
        ValueError: It is none; the message says what is accepted.
    """
    host, _, port = text.strip().rpartition(":")
    name = host.lower().rstrip(".")
    if not _NAME.fullmatch(name) or not _PORT.fullmatch(port) or not 0 < int(port) <= _MAX_PORT:
        raise ValueError("host:port, such as inventory:8080")
    return Upstream(name, int(port))
