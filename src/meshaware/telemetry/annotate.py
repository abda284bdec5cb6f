"""
What meshaware knows of a call, on the client span that OpenTelemetry made of it.

The span ends when the headers come, so it tells what is known then. Only a span of kind client is written to: where a
client is not instrumented, the current span is the server's, and not about this call.
"""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry.trace import SpanKind, get_current_span

from meshaware.instrumentation import CallOutcome

__all__ = ["annotate_span", "span_attributes", "span_recorded"]


def span_recorded() -> bool:
    """Tell whether there is a span that an outcome could be written on."""
    return get_current_span().is_recording()


def annotate_span(outcome: CallOutcome) -> None:
    """Write a call's outcome on the current span, where that is the call's and recorded."""
    span = get_current_span()
    if span.is_recording() and getattr(span, "kind", None) is SpanKind.CLIENT:
        span.set_attributes(span_attributes(outcome))


def span_attributes(outcome: CallOutcome) -> Mapping[str, str | float]:
    """Return the attributes for a span; what is not known is left out."""
    named = {
        "meshaware.verdict": outcome.verdict,
        "meshaware.route.name": outcome.route,
        "meshaware.route.origin": outcome.origin,
        "meshaware.budget.seconds": outcome.budget,
        "meshaware.budget.source": outcome.source,
        "meshaware.deadline.left_seconds": outcome.left,
        "meshaware.answered_by": outcome.answered_by,
        "meshaware.reason": outcome.reason,
    }
    return {name: value for name, value in named.items() if value is not None}
