"""No mesh: a laptop, a plain cluster, a pod that is not injected. A normal state, not an error."""

from __future__ import annotations

from meshaware.flavours.flavour import Flavour

__all__ = ["NONE"]

NONE = Flavour(name="none", title="no mesh", drain=0.0)
