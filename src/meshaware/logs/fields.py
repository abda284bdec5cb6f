"""
What a log line says of the moment in which it is written.

Part of it came in with a request, so it is hostile: a value shows visible ASCII only, nothing in it ends a line or
looks like a field of its own, and it is cut where it grows long.
"""

from __future__ import annotations

import re

from meshaware.propagation.inbound import served
from meshaware.propagation.names import REQUEST_ID
from meshaware.propagation.position import read_position
from meshaware.propagation.spans import live_position
from meshaware.settings import Workload

__all__ = ["FIELDS", "MAX_SHOWN", "MeshFields"]

FIELDS = ("trace_id", "span_id", "trace_sampled", "request_id", "workload", "namespace", "pod", "peer")
"""The names of all fields."""

MAX_SHOWN = 256
"""Characters of one value; a longer one is cut and ends in three dots."""

# Without what would end a text in JSON, or stand for something else in it: formats are also written by hand.
_is_fit = re.compile(rf"[!#-\[\]-~]{{1,{MAX_SHOWN}}}").fullmatch
_UNFIT = re.compile(r"[^!#-\[\]-~]")


class MeshFields:
    """
    Tells, whenever it is called, the fields of a log line: those of `FIELDS` that are known.

    - `trace_id`, `span_id`, `trace_sampled`: OpenTelemetry's live span, or else the caller's by the headers that came
      in (`traceparent`, `x-b3-*`, `b3`). `trace_sampled` is a bool, and missing where the decision is the receiver's.
    - `request_id`: the `x-request-id` that this request, or the block of `bind_headers`, carries.
    - `workload`, `namespace`, `pod`: this workload, as settings know it.
    - `peer`: who called, by the word of the proxy (`meshaware.propagation.inbound.current_peer`).

    Args:
        workload: What is known of this workload, looked at once.
    """

    __slots__ = ("_own",)

    def __init__(self, workload: Workload) -> None:
        self._own = _own(workload)

    def __call__(self, error: object = None) -> dict[str, str | bool]:
        """
        Return the fields that are known now.

        Args:
            error: The exception that is logged. Outside a request it may tell which one it came from.
        """
        told = dict(self._own)
        came, peer = served(error)
        if peer is not None:
            told["peer"] = _shown(peer.name)
        if (request_id := came.get(REQUEST_ID)) is not None:
            told["request_id"] = _shown(request_id.decode("latin-1"))
        span = live_position(came) or read_position(came)
        if span is not None and span.trace_id:
            told["trace_id"] = f"{span.trace_id:032x}"
            told["span_id"] = f"{span.span_id:016x}"
            if span.sampled is not None:
                told["trace_sampled"] = span.sampled
        return told


def _own(workload: Workload) -> dict[str, str | bool]:
    known = {
        "workload": workload.service or workload.workload_name,
        "namespace": workload.namespace,
        "pod": workload.pod_name,
    }
    return {name: _shown(value) for name, value in known.items() if value}


def _shown(text: str) -> str:
    if _is_fit(text):
        return text
    text = _UNFIT.sub(_escape, text[: MAX_SHOWN + 1])
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


def _escape(found: re.Match[str]) -> str:
    text = found[0]
    return f"\\x{ord(text):02x}" if text in ' "\\' else ascii(text)[1:-1]
