"""
The meshes: what each does differently, as data, and which of them this process is in.

    flavour     the shape: addresses, abilities, marks, how its proxy is let go
    istio, ambient, linkerd, consul, kuma, none     one mesh a file
    table       all of them by name
    detect      which one, from settings and the pod's metadata: pure

Nothing outside this room asks for a mesh by name; it asks the flavour what it can do.
"""

from __future__ import annotations

from meshaware.flavours.detect import Detected, detect
from meshaware.flavours.flavour import Flavour, Mark, Quit, Refusal
from meshaware.flavours.table import FLAVOURS

__all__ = ["FLAVOURS", "Detected", "Flavour", "Mark", "Quit", "Refusal", "detect"]
