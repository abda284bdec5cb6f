"""Which mesh's proxy is on this host, by what was heard at its ports; pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from meshaware.flavours.detect import Detected
from meshaware.flavours.flavour import Heard
from meshaware.flavours.table import FLAVOURS

__all__ = ["PORTS", "recognise", "unrecognised"]


def _ports() -> dict[int, str | None]:
    ports: dict[int, str | None] = {}
    for flavour in FLAVOURS.values():
        for signs in flavour.proofs:
            for sign in signs:
                ports[sign.port] = ports.get(sign.port) or sign.path
    return ports


PORTS: Mapping[int, str | None] = MappingProxyType(_ports())
"""All that there is to listen for: ports of this host, and what to ask there; None: nothing, to connect is enough."""


def recognise(heard: Mapping[int, Heard]) -> Detected | None:
    """
    Tell which mesh this is; None if no proxy showed itself.

    The first flavour that is proved counts: several meshes use the ports 15001, 15006 and 15008, and Istio's sidecar is
    told by those that are its own.

    Args:
        heard: What was heard, by port; where nobody knocked, nobody was heard.
    """
    for flavour in FLAVOURS.values():
        if signs := flavour.proved(heard):
            sign = signs[0]
            said = heard[sign.port]
            answer = f"answers {said.status}" if said.said == "answered" else f"is {said.said}"
            reason = f"localhost:{sign.port}{sign.path or ''} {answer}, as with {flavour.title}"
            return Detected(flavour, reason, settled=True)
    return None


def unrecognised(heard: Mapping[int, Heard]) -> tuple[str, str]:
    """Where one has listened, and what was heard there, in a few words, where it was no mesh's proxy."""
    others = [
        f"{port} {said.said}{f' {said.status}' if said.status else ''}"
        for port, said in sorted(heard.items())
        if said.said != "refused"
    ]
    if others:
        return "no mesh's proxy on localhost", ", ".join(others)
    return f"no mesh's proxy on localhost ({', '.join(map(str, sorted(PORTS)))})", "refused"
