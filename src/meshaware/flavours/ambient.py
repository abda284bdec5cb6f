"""Istio without a sidecar: ztunnel on the node, perhaps a waypoint in the namespace."""

from __future__ import annotations

import re

from meshaware.flavours.flavour import Flavour, Mark, Sign

__all__ = ["AMBIENT"]

# ztunnel's admin (15000) and readiness (15021) listen in its own pod on the node, so nothing here has a URL.
# It does not look into HTTP, so whoever calls the pod past a waypoint can write any header.
AMBIENT = Flavour(
    name="ambient",
    title="Istio ambient",
    marks=(
        Mark("annotation", "ambient.istio.io/redirection", re.compile(r"^(enabled|pending)$")),
        # Only what was asked for, not what came of it; either way there is nothing in the pod to wait for.
        Mark("label", "istio.io/dataplane-mode", re.compile(r"^ambient$")),
    ),
    # A sidecar listens on 15008 too, but never before it answers on the others.
    proofs=((Sign(15008), Sign(15021, closed=True), Sign(15020, closed=True)),),
)
