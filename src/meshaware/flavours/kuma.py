"""Kuma and Kong Mesh: Envoy, run by kuma-dp."""

from __future__ import annotations

import re

from meshaware.flavours.flavour import ENVOY_STATES, Flavour, Mark, Sign
from meshaware.flavours.quit import Quit

__all__ = ["KUMA"]

# kuma-dp's own words, or Envoy's where it passes the question on.
_READY = re.compile(rb"^(READY|NOT_READY|TERMINATING|LIVE|DRAINING|PRE_INITIALIZING|INITIALIZING)\n?$")

# Since 2.14 Envoy's admin is a Unix socket inside the sidecar, so an application cannot read routes there.
KUMA = Flavour(
    name="kuma",
    title="Kuma",
    ready_url="http://localhost:9902/ready",
    # Before 2.14, and later where the admin's Unix socket is switched off, readiness is Envoy's own.
    ready_fallback_url="http://localhost:9901/ready",
    # The MeshRetry that every new mesh is made with.
    retries=5,
    container="kuma-sidecar",
    # SANITIZE_SET: there is only the one element that the sidecar wrote.
    peer_header="x-forwarded-client-cert",
    # The own Envoy's, where its inbound route has a timeout.
    tells_timeout=True,
    marks=(
        Mark("annotation", "kuma.io/sidecar-injected", re.compile(r"^(true|enabled)$")),
        Mark("label", "kuma.io/mesh", re.compile(r".")),
    ),
    quit=Quit(None, "its control plane lets the sidecar go once the other containers have ended"),
    proofs=(
        (Sign(9902, "/ready", body=_READY, silent=True),),
        # 9901 is where any Envoy's admin is by custom; beside Kuma's, inbound connections are caught.
        (Sign(9901, "/ready", body=ENVOY_STATES), Sign(15006)),
    ),
)
