"""
What is said to a proxy that shall go, and how its answers are read: pure.

A proxy that stays keeps the pod of a job alive for ever, so what it answered is read closely, and said in words that a
person can act on. Nothing of the answer itself is repeated: whatever listens there may write anything into it.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import NamedTuple

from meshaware.errors import SidecarUnavailable
from meshaware.flavours import Flavour
from meshaware.sidecar.exchange import AdminReply

__all__ = ["Ask", "Dismissal", "Farewell", "farewell"]

_SUCCESS = range(200, 300)


class Dismissal(NamedTuple):
    """
    What came of telling a proxy to go.

    Attributes:
        told: Whether it was told, and goes.
        reason: For people: what comes next, why it stays, or why nothing was said.
        refused: Whether it stays though it should go, and the pod with it: worth a warning.
    """

    told: bool
    reason: str
    refused: bool = False


class Ask(NamedTuple):
    """One request to the proxy."""

    method: str
    url: str


Farewell = Generator[Ask, AdminReply | SidecarUnavailable, Dismissal]
"""What to ask goes out, what came of it comes in, what it all means is returned."""


def farewell(flavour: Flavour, url: str | None = None) -> Farewell:
    """
    Tell the proxy to go: yields what to ask, takes what came of it, returns what it means.

    An answer that breaks off may be that of a proxy that went in the middle of it, so it is asked once more: if nothing
    listens then, it has gone. Where nothing listens from the start, the proxy's readiness tells whether it has gone
    already or takes the word elsewhere.

    Args:
        flavour: The mesh.
        url: Where its proxy is told; by default where the mesh has it. Where the mesh tells its proxies nothing, an
            address changes nothing.
    """
    if flavour.quit.url is None:
        return Dismissal(told=False, reason=f"{flavour.title}: {flavour.quit.note}")
    post = Ask("POST", flavour.quit.url if url is None else url)
    answer = yield post
    if isinstance(answer, AdminReply):
        return _read(flavour, post.url, answer)
    if answer.cause == "refused":
        return (yield from _find(flavour, post.url))
    if answer.cause == "invalid":
        answer = yield post
        if isinstance(answer, AdminReply):
            return _read(flavour, post.url, answer)
        if answer.cause == "refused":
            return Dismissal(told=True, reason=f"the sidecar ({flavour.title}) was told to go, and has gone")
    return _stays(flavour, str(answer))


def _find(flavour: Flavour, url: str) -> Farewell:
    if flavour.ready_url is not None:
        answer = yield Ask("GET", flavour.ready_url)
        if isinstance(answer, AdminReply) or answer.cause != "refused":
            where = f"nothing listens at {url}, and at {flavour.ready_url} it answers"
            return _stays(flavour, f"{where}; MESHAWARE_QUIT_URL says where it is told")
    reason = f"nothing listens at {url}: the sidecar ({flavour.title}) has gone already, or was never there"
    return Dismissal(told=False, reason=reason)


def _read(flavour: Flavour, url: str, reply: AdminReply) -> Dismissal:
    if reply.status in _SUCCESS:
        return Dismissal(told=True, reason=f"the sidecar ({flavour.title}) was told to go: {flavour.quit.note}")
    body = reply.body.strip()
    for refusal in flavour.quit.refusals:
        if refusal.status == reply.status and refusal.body in {None, body}:
            return _stays(flavour, f"POST {url}: {reply.status}: {refusal.meaning}")
    return _stays(flavour, f"POST {url}: {reply.status}: is it the proxy that listens there? See MESHAWARE_QUIT_URL")


def _stays(flavour: Flavour, why: str) -> Dismissal:
    return Dismissal(told=False, reason=f"the sidecar ({flavour.title}) was not let go: {why}", refused=True)
