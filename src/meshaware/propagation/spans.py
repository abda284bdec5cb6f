"""
The trace headers of OpenTelemetry's live span.

The one file of this room that touches OpenTelemetry, and only when somebody else has loaded it: a process without
tracing does not pay for the import.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

from meshaware.propagation.names import (
    B3,
    BAGGAGE,
    TRACEPARENT,
    TRACESTATE,
    X_B3_SAMPLED,
    X_B3_SPANID,
    X_B3_TRACEID,
)

__all__ = ["live_baggage", "live_position", "without_client_spans", "write_position"]

_MAX_BAGGAGE = 8192


@cache
def _api() -> tuple[Any, Any, Any]:
    from opentelemetry import baggage, trace  # noqa: PLC0415
    from opentelemetry.baggage.propagation import W3CBaggagePropagator  # noqa: PLC0415

    return trace, baggage, W3CBaggagePropagator()


def _loaded() -> bool:
    return "opentelemetry.trace" in sys.modules
