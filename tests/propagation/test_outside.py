"""A request to a host outside the mesh: nothing of the live span goes along, whoever wrote it there."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.propagators.b3 import B3MultiFormat, B3SingleFormat
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from meshaware.propagation.names import Pair
from meshaware.propagation.outside import detach

LIVE = SpanContext(
    trace_id=0x0AF7651916CD43DD8448EB211C80319C,
    span_id=0xB7AD6B7169203331,
    is_remote=False,
    trace_flags=TraceFlags(1),
    trace_state=TraceState([("vendor", "1")]),
)
OWN: list[Pair] = [(b"Host", b"api.example.com"), (b"Accept", b"*/*"), (b"X-Datadog-Trace-Id", b"7")]


def written() -> list[Pair]:
    """What OpenTelemetry's propagators write of the live span, in every form they have."""
    propagator: Any = CompositePropagator([TraceContextTextMapPropagator(), B3MultiFormat(), B3SingleFormat()])
    carrier: dict[str, str] = {}
    propagator.inject(carrier)
    return [(name.encode(), value.encode()) for name, value in carrier.items()]


def test_what_a_tracer_wrote_of_the_live_span_is_taken_off() -> None:
    """In each form; what the caller set stays, in its order."""
    with trace.use_span(NonRecordingSpan(LIVE)):
        injected = written()
        assert {name.lower() for name, _ in injected} >= {b"traceparent", b"tracestate", b"b3", b"x-b3-spanid"}
        assert detach([*OWN, *injected]) == OWN


def test_a_trace_that_the_caller_set_stays() -> None:
    """It tells of another span: somebody wanted it there."""
    raw = [*OWN, (b"traceparent", b"00-11111111111111111111111111111111-2222222222222222-01")]
    with trace.use_span(NonRecordingSpan(LIVE)):
        assert detach(raw) is raw


def test_without_a_live_span_there_is_nothing_to_take_off() -> None:
    """The headers are passed on as they are."""
    raw = [*OWN, (b"baggage", b"a=1")]
    assert detach(raw) is raw


@pytest.mark.parametrize(("value", "stays"), [(b"user=42", False), (b"user=43", True)])
def test_baggage_of_the_tracer_is_taken_off_and_the_caller_s_stays(value: bytes, *, stays: bool) -> None:
    """Baggage often names customers; it is the last thing to send to a third party unasked. A span need not be live."""
    token = context.attach(baggage.set_baggage("user", "42"))
    try:
        kept = detach([*OWN, (b"baggage", value)])
    finally:
        context.detach(token)
    assert (b"baggage" in dict(kept)) is stays
