"""
The meshes: what each does differently, as data, and which of them this process is in.

    flavour     the shape: addresses, abilities, marks
    quit        the shape of how a job's proxy is let go
    istio, ambient, linkerd, consul, kuma, none, unknown     one mesh a file
    table       all of them by name
    detect      which one, from settings and the pod's metadata: pure
    recognise   which one, from what was heard at the ports of this host: pure

Nothing outside this room asks for a mesh by name; it asks the flavour what it can do.
"""

from __future__ import annotations

from meshaware.flavours.detect import Detected, detect
from meshaware.flavours.flavour import Flavour, Heard, Mark, Sign
from meshaware.flavours.quit import Quit, Refusal
from meshaware.flavours.recognise import PORTS, recognise
from meshaware.flavours.table import FLAVOURS, USUAL

__all__ = [
    "FLAVOURS",
    "PORTS",
    "USUAL",
    "Detected",
    "Flavour",
    "Heard",
    "Mark",
    "Quit",
    "Refusal",
    "Sign",
    "detect",
    "recognise",
]
