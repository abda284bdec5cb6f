"""Linkerd, whose proxy is not Envoy."""

from __future__ import annotations

import re

from meshaware.flavours.flavour import Flavour, Mark, Sign

__all__ = ["LINKERD"]

LINKERD = Flavour(
    name="linkerd",
    title="Linkerd",
    # 200 once the proxy has its certificate, and for ever after: no use as a sign of health later on.
    ready_url="http://localhost:4191/ready",
    # It looks for W3C's first, then for the several `x-b3-*`, and writes its span into the one it found.
    one_trace_format=True,
    container="linkerd-proxy",
    # On every request over HTTP: set to the client's identity, or removed.
    peer_header="l5d-client-id",
    marks=(
        Mark("label", "linkerd.io/control-plane-ns", re.compile(r".")),
        # `linkerd.io/inject` is only the wish, and is often the namespace's.
        Mark("annotation", "linkerd.io/proxy-version", re.compile(r".")),
    ),
    # Only where the pod itself says so: since 2.20 it is the default, and then nothing in the pod tells.
    native_marks=tuple(
        Mark("annotation", f"config.{stage}linkerd.io/proxy-enable-native-sidecar", re.compile(r"^true$"))
        for stage in ("", "beta.", "alpha.")
    ),
    classic_marks=(Mark("annotation", "config.linkerd.io/proxy-enable-native-sidecar", re.compile(r"^false$")),),
    proofs=((Sign(4191, "/live", statuses=(200,), body=re.compile(rb"^live\n?$"), silent=True),),),
)
