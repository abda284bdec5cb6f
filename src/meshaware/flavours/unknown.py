"""A pod of which nothing is known, and where no proxy answers: there may be none, or it may not have started yet."""

from __future__ import annotations

from meshaware.flavours.flavour import Flavour
from meshaware.flavours.quit import Quit

__all__ = ["UNKNOWN"]

# No setting has this name: it is what is found, not what is asked for.
UNKNOWN = Flavour(name="unknown", title="unknown mesh", quit=Quit(None, "no sidecar was found in the pod"))
