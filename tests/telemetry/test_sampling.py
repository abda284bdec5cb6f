"""Which spans are kept, by mode; and who may say so."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Decision, Sampler, TraceIdRatioBased
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    TraceFlags,
    TraceState,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from meshaware.errors import SettingsError
from meshaware.settings import MeshSettings
from meshaware.telemetry.sampling import Sampling, choose_sampling, make_sampler
from meshaware.telemetry.server import instrument_app
from meshaware.telemetry.watch import SamplingWatch

TRACE = "0af7651916cd43dd8448eb211c80319c"
UNSAMPLED = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-00", "tracestate": "vendor=1"}
SAMPLED = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "tracestate": "vendor=1"}
LOW, HIGH = 1, (1 << 64) - 1


def sampler(mode: Any, watch: SamplingWatch | None = None) -> Sampler:
    made = make_sampler(Sampling(mode), watch)
    assert made is not None
    return made


def below(*, sampled: bool, remote: bool) -> Context:
    position = SpanContext(LOW, 2, remote, TraceFlags(int(sampled)), TraceState([("vendor", "1")]))
    return set_span_in_context(NonRecordingSpan(position), Context())


@pytest.mark.parametrize("remote", [True, False])
@pytest.mark.parametrize("sampled", [True, False])
@pytest.mark.parametrize("mode", ["mesh", 0.0, 0.5, 1.0])
def test_the_meshs_decision_holds_where_there_is_one(mode: Any, sampled: bool, remote: bool) -> None:
    """For the span that a request begins with, and for all below it."""
    result = sampler(mode).should_sample(below(sampled=sampled, remote=remote), LOW, "GET", SpanKind.SERVER, {"a": "b"})
    assert result.decision is (Decision.RECORD_AND_SAMPLE if sampled else Decision.DROP)
    assert result.trace_state == TraceState([("vendor", "1")])
    attributes: Any = getattr(result, "attributes")  # noqa: B009 (the SDK's type is incomplete)
    assert dict(attributes) == ({"a": "b"} if sampled else {})


@pytest.mark.parametrize("remote", [True, False])
@pytest.mark.parametrize("sampled", [True, False])
def test_always_keeps_every_span_whatever_the_mesh_decided(sampled: bool, remote: bool) -> None:
    result = sampler("always").should_sample(below(sampled=sampled, remote=remote), LOW, "GET", SpanKind.SERVER)
    assert result.decision is Decision.RECORD_AND_SAMPLE
    assert result.trace_state == TraceState([("vendor", "1")])


@pytest.mark.parametrize(
    ("mode", "trace_id", "kept"),
    [
        ("mesh", HIGH, True),
        ("always", HIGH, True),
        (0.0, LOW, False),
        (0.5, LOW, True),
        (0.5, HIGH, False),
        (1.0, HIGH, True),
    ],
)
def test_of_traces_that_begin_here_the_share_is_kept_that_was_asked_for(mode: Any, trace_id: int, kept: bool) -> None:
    """By the trace's id, so that all who keep the same share keep the same traces."""
    decision = sampler(mode).should_sample(Context(), trace_id, "work", SpanKind.INTERNAL).decision
    assert decision is (Decision.RECORD_AND_SAMPLE if kept else Decision.DROP)


@given(st.floats(0, 1), st.integers(1, (1 << 128) - 1))
def test_the_share_is_measured_as_opentelemetry_does(ratio: float, trace_id: int) -> None:
    theirs = TraceIdRatioBased(ratio).should_sample(Context(), trace_id, "work").decision
    assert sampler(ratio).should_sample(Context(), trace_id, "work").decision is theirs


def test_always_leaves_the_meshs_decision_where_a_propagator_finds_it() -> None:
    """In the context that was extracted, and as the parent of the span that begins there."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler("always"), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    context = TraceContextTextMapPropagator().extract(UNSAMPLED, Context())

    with provider.get_tracer("test").start_as_current_span("GET /items", context, SpanKind.SERVER):
        pass

    (span,) = exporter.get_finished_spans()
    assert span.parent is not None
    assert (span.parent.is_remote, span.parent.trace_flags.sampled) == (True, False)
    assert get_current_span(context).get_span_context() == span.parent
    assert span.context is not None
    assert (span.context.trace_flags.sampled, f"{span.context.trace_id:032x}") == (True, TRACE)
    assert span.context.trace_state.to_header() == "vendor=1"


class Watch(SamplingWatch):
    """Keeps what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[bool] = []

    def saw(self, sampled: bool) -> None:
        self.seen.append(sampled)


@pytest.mark.parametrize("mode", ["mesh", 0.5])
def test_requests_that_arrive_with_a_trace_are_counted_and_nothing_else_is(mode: Any) -> None:
    """Neither those without one, whose spans begin here, nor messages, nor the spans below."""
    watch = Watch()
    provider = TracerProvider(sampler(mode, watch), shutdown_on_exit=False)
    tracer = provider.get_tracer("test")
    app = FastAPI()

    @app.get("/items")
    def items() -> None:  # pyright: ignore[reportUnusedFunction]
        with tracer.start_as_current_span("work"), tracer.start_as_current_span("GET", kind=SpanKind.CLIENT):
            pass

    instrument_app(app, provider)
    with TestClient(app) as browser:
        for headers in (UNSAMPLED, SAMPLED, {}, UNSAMPLED):
            browser.get("/items", headers=headers)
    tracer.start_span("message", below(sampled=False, remote=True), SpanKind.CONSUMER).end()

    assert watch.seen == [False, True, False]


def test_a_mesh_that_samples_nothing_is_pointed_out(caplog: pytest.LogCaptureFixture) -> None:
    """By the sampler of an ordinary provider."""
    now = [0.0]
    watch = SamplingWatch(clock=lambda: now[0])
    tracer = TracerProvider(sampler("mesh", watch), shutdown_on_exit=False).get_tracer("test")
    context = below(sampled=False, remote=True)
    for _ in range(1000):
        now[0] += 1
        tracer.start_span("GET /items", context, SpanKind.SERVER).end()
    (record,) = caplog.records
    assert "all of the first 1000 requests" in record.getMessage()


@pytest.mark.parametrize(
    ("variables", "arguments", "chosen", "words"),
    [
        ({}, {}, ("mesh", "default"), "kept where the mesh samples, and where a trace begins here (default)"),
        (
            {"MESHAWARE_SAMPLING": "always"},
            {},
            ("always", "env MESHAWARE_SAMPLING"),
            "all kept, whatever the mesh decides (env MESHAWARE_SAMPLING)",
        ),
        (
            {"MESHAWARE_SAMPLING": "always"},
            {"sampling": 0.01},
            (0.01, "argument sampling"),
            "kept where the mesh samples, and of 0.01 of the traces that begin here (argument sampling)",
        ),
        (
            {"OTEL_TRACES_SAMPLER": "always_off"},
            {},
            (None, "env OTEL_TRACES_SAMPLER"),
            "kept as the sampler says (env OTEL_TRACES_SAMPLER)",
        ),
        ({"OTEL_TRACES_SAMPLER": " "}, {"sampling": 1}, (1.0, "argument sampling"), "kept where the mesh samples, and"),
    ],
)
def test_who_decides_and_what(
    variables: dict[str, str],
    arguments: dict[str, Any],
    chosen: tuple[object, str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """OpenTelemetry's variable where it is the only one that says anything."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    sampling = choose_sampling(MeshSettings(**arguments), variables)
    assert sampling == chosen
    assert str(sampling).startswith(words)


def test_what_the_sdk_reads_itself_is_left_to_it() -> None:
    assert make_sampler(Sampling(None, "env OTEL_TRACES_SAMPLER")) is None
    assert sampler("always") is ALWAYS_ON


@pytest.mark.parametrize(("arguments", "own"), [({}, "MESHAWARE_SAMPLING='mesh'"), ({"sampling": 0.5}, "sampling=0.5")])
def test_two_who_decide_are_one_too_many(arguments: dict[str, Any], own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where they say the same: one of them would be changed some day, in vain."""
    monkeypatch.setenv("MESHAWARE_SAMPLING", "mesh")
    with pytest.raises(SettingsError) as refused:
        choose_sampling(MeshSettings(**arguments), {"OTEL_TRACES_SAMPLER": "parentbased_always_on" + "x" * 200})
    message = str(refused.value)
    assert message.startswith(f"{own} and OTEL_TRACES_SAMPLER='parentbased_always_onxxx")
    assert message.endswith(
        f" both say which spans are kept. Remove {own.partition('=')[0]} to have OpenTelemetry's own sampler,"
        " or OTEL_TRACES_SAMPLER to have meshaware's"
    )
    assert len(message) < 300
