"""Istio with a sidecar in the pod."""

from __future__ import annotations

import re

from meshaware.flavours.flavour import Flavour, Mark, Sign
from meshaware.flavours.quit import Quit, Refusal

__all__ = ["ISTIO"]

_STATUS = "sidecar.istio.io/status"

ISTIO = Flavour(
    name="istio",
    title="Istio",
    # Through Envoy itself: what `pilot-agent wait` and the kubelet ask. Envoy's own admin says LIVE earlier.
    ready_url="http://localhost:15021/healthz/ready",
    # The agent, which stands behind 15021, is all there is where gRPC speaks xDS itself and no Envoy runs.
    ready_fallback_url="http://localhost:15020/healthz/ready",
    admin_url="http://localhost:15000",
    has_routes=True,
    # For connect failures and refused streams; also where there is no VirtualService.
    retries=2,
    tells_hosts=True,
    container="istio-proxy",
    # APPEND_FORWARD by default: what came is kept over mTLS and removed otherwise; the own element is the last.
    peer_header="x-forwarded-client-cert",
    # Not `tells_timeout`: the sidecar takes away what the caller's one said, and says nothing for lack of a timeout.
    marks=(
        # Every template writes it; the one for gRPC without any proxy (`grpc-simple`) lists no istio-proxy.
        Mark("annotation", _STATUS, re.compile(r'"istio-proxy"')),
        Mark("label", "security.istio.io/tlsMode", re.compile(r"^istio$")),
    ),
    # The agent, not Envoy's own `/quitquitquit`: the agent would log that its Envoy has gone.
    quit=Quit(
        "http://localhost:15020/quitquitquit",
        "it exits at once, without draining",
        (
            Refusal(403, None, "only loopback may ask, and the agent does not see this connection as such"),
            Refusal(405, None, "it takes no POST; is it Istio's agent that listens there?"),
        ),
    ),
    native_marks=(Mark("annotation", _STATUS, re.compile(r'"initContainers"\s*:\s*\[[^\]]*"istio-proxy"')),),
    classic_marks=(Mark("annotation", _STATUS, re.compile(r'"containers"\s*:\s*\[[^\]]*"istio-proxy"')),),
    proofs=(
        (Sign(15021, "/healthz/ready", silent=True),),
        # The agent is there first, and says 503 with an empty body; an application on this port says something.
        (Sign(15020, "/healthz/ready", body=re.compile(rb"^$"), silent=True),),
    ),
)
