"""How the proxy of a job is let go, as data: the shape that a file of this room fills in where there is one."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["NO_SIDECAR", "Quit", "Refusal"]


class Refusal(NamedTuple):
    """
    An answer of a proxy that does not go.

    Attributes:
        status: The HTTP status.
        body: The complete body, but for white space around it; None: whatever the body.
        meaning: What it means, and what to do about it.
    """

    status: int
    body: bytes | None
    meaning: str


class Quit(NamedTuple):
    """
    How the proxy of a job is let go, so that the pod can end.

    Attributes:
        url: Where it takes a POST that makes it go; None: nothing is to be said to it.
        note: What comes after that; without a URL, why there is nothing to say.
        refusals: What its other answers mean; the first that fits counts.
    """

    url: str | None
    note: str
    refusals: tuple[Refusal, ...] = ()


NO_SIDECAR = Quit(None, "there is no sidecar in the pod")
"""Nobody to be let go."""
