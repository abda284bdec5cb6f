"""Linkerd, whose proxy is not Envoy."""

from __future__ import annotations

import re

from meshaware.flavours.flavour import Flavour, Mark, Sign
from meshaware.flavours.quit import Quit, Refusal

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
    quit=Quit(
        "http://localhost:4191/shutdown",
        "it drains, for 2 minutes at most unless config.linkerd.io/shutdown-grace-period says otherwise",
        (
            # Off by default. A path that the proxy does not know is 404 too, with nothing in it.
            Refusal(
                404,
                b"shutdown endpoint is not enabled",
                "the endpoint is not enabled; annotate the pod: config.linkerd.io/proxy-admin-shutdown: enabled",
            ),
            Refusal(404, b"", "it knows no such path; is it Linkerd's proxy that listens there?"),
            Refusal(403, None, "only loopback may ask, and the proxy does not see this connection as such"),
            Refusal(405, None, "it takes no POST; is it Linkerd's proxy that listens there?"),
            Refusal(500, None, "it has nobody left to tell: it is going already, or its shutdown is broken"),
        ),
    ),
    # Only where the pod itself says so: since 2.20 it is the default, and then nothing in the pod tells.
    native_marks=tuple(
        Mark("annotation", f"config.{stage}linkerd.io/proxy-enable-native-sidecar", re.compile(r"^true$"))
        for stage in ("", "beta.", "alpha.")
    ),
    classic_marks=(Mark("annotation", "config.linkerd.io/proxy-enable-native-sidecar", re.compile(r"^false$")),),
    proofs=((Sign(4191, "/live", statuses=(200,), body=re.compile(rb"^live\n?$"), silent=True),),),
)
