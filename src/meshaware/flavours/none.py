"""No mesh: a laptop, a plain cluster, a pod that is not injected. A normal state, not an error."""

from __future__ import annotations

from meshaware.flavours.flavour import Flavour

__all__ = ["NONE"]

# Whoever calls from inside a mesh has a sidecar that says how long it waits, and none here takes it away.
NONE = Flavour(name="none", title="no mesh", tells_timeout=True, drain=0.0)
