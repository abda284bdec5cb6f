"""Consul on Kubernetes: Envoy, run by consul-dataplane."""

from __future__ import annotations

import re

from meshaware.flavours.flavour import ENVOY_STATES, Flavour, Mark, Sign
from meshaware.flavours.quit import Quit, Refusal

__all__ = ["CONSUL"]

_AS_SIDECAR = "consul.hashicorp.com/enable-consul-dataplane-as-sidecar"
_INJECTED = re.compile(r"^injected$")

CONSUL = Flavour(
    name="consul",
    title="Consul",
    # Not `/graceful_startup` on 20600: that answers 200 whether the proxy is ready or not.
    # `localhost`, for on a dual-stack cluster consul-dataplane binds ::1 instead of 127.0.0.1.
    ready_url="http://localhost:19000/ready",
    admin_url="http://localhost:19000",
    has_routes=True,
    container="consul-dataplane",
    # As Istio's. Where the configuration sanitises it, or the protocol is gRPC, none arrives.
    peer_header="x-forwarded-client-cert",
    # The own Envoy's bound on the application, `local_request_timeout_ms`: 15 s unless that says otherwise.
    tells_timeout=True,
    marks=(
        Mark("label", "consul.hashicorp.com/connect-inject-status", _INJECTED),
        Mark("annotation", "consul.hashicorp.com/connect-inject-status", _INJECTED),
    ),
    # consul-dataplane, not Envoy's admin: it would take an Envoy that goes by itself for one that failed.
    quit=Quit(
        "http://localhost:20600/graceful_shutdown",
        "it goes after its grace period, 30 seconds unless annotated otherwise",
        (Refusal(404, None, "consul-dataplane has another path: see sidecar-proxy-lifecycle-graceful-shutdown-path"),),
    ),
    native_marks=(Mark("annotation", _AS_SIDECAR, re.compile(r"^true$")),),
    classic_marks=(Mark("annotation", _AS_SIDECAR, re.compile(r"^false$")),),
    # Any Envoy may have its admin there; 20600 is consul-dataplane's. Whatever is asked of it, it might do.
    proofs=((Sign(19000, "/ready", body=ENVOY_STATES), Sign(20600)),),
)
