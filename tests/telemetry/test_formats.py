"""Trace headers as OpenTelemetry's propagator: what is read from a request, and what a span of it is written as."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import default_getter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, DEFAULT_ON, ParentBased, Sampler
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState
from starlette.datastructures import Headers

from meshaware.propagation.context import bind_headers
from meshaware.telemetry.formats import TraceFormat

TRACE, SHORT, SPAN, OTHER = (
    "463ac35c9f6413ad48485a3953bb6124",
    "48485a3953bb6124",
    "a2fb4a1d1a96d312",
    "0020000000000001",
)
W3C = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
MULTI = {"x-b3-traceid": TRACE, "x-b3-spanid": SPAN}
Pairs = list[tuple[str, str]]


def scope(pairs: Pairs) -> dict[str, object]:
    return {"type": "http", "headers": [(name.encode(), value.encode()) for name, value in pairs]}


def lines(pairs: Pairs) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return found


# How instrumentation hands over what came: ASGI's, httpx's, FastAPI's own, a dictionary's.
CARRIERS: dict[str, tuple[Callable[[Pairs], object], Any]] = {
    "asgi": (scope, import_module("opentelemetry.instrumentation.asgi").asgi_getter),
    "httpx": (lambda pairs: httpx.Headers(pairs), default_getter),
    "starlette": (lambda pairs: Headers(scope=scope(pairs)), default_getter),
    "dict": (lines, default_getter),
}


@pytest.fixture(name="read", params=CARRIERS)
def _read(request: pytest.FixtureRequest) -> Callable[..., SpanContext]:
    make, getter = CARRIERS[request.param]

    def read(*pairs: tuple[str, str], propagator: TraceFormat | None = None) -> SpanContext:
        context = (propagator or TraceFormat()).extract(make(list(pairs)), None, getter)
        return trace.get_current_span(context).get_span_context()

    return read


def position(context: SpanContext) -> tuple[str, str, int]:
    return f"{context.trace_id:032x}", f"{context.span_id:016x}", context.trace_flags


Read = Callable[..., SpanContext]


def test_a_position_is_read_from_every_kind_of_carrier(read: Read) -> None:
    assert position(read(*W3C.items())) == (TRACE, SPAN, 1)
    assert position(read(*MULTI.items(), ("x-b3-sampled", "1"))) == (TRACE, SPAN, 1)
    assert position(read(("b3", f"{TRACE}-{SPAN}-0"))) == (TRACE, SPAN, 0)
    assert read(*W3C.items()).is_remote
    assert not read(("accept", "*/*")).is_valid
    assert not read().is_valid


def test_two_of_traceparent_are_none(read: Read) -> None:
    assert not read(*W3C.items(), ("traceparent", f"00-{TRACE}-{OTHER}-01")).is_valid


def test_a_tracestate_is_read_whole_in_order_or_not_at_all(read: Read) -> None:
    state = read(*W3C.items(), ("tracestate", "foo=1,bar=2"), ("tracestate", "rojo=1"), ("tracestate", "")).trace_state
    assert list(state.items()) == [("foo", "1"), ("bar", "2"), ("rojo", "1")]
    for bad in ("foo=1,foo=2", "foo@=1,bar=2", "foo=1," + "z" * 257 + "=1", "foo=1,bar"):
        assert not read(*W3C.items(), ("tracestate", bad)).trace_state
        assert read(*W3C.items(), ("tracestate", bad)).is_valid
    assert not read(*W3C.items(), ("tracestate", "foo=1"), ("tracestate", "foo=1")).trace_state


def test_what_is_malformed_takes_away_what_another_propagator_believed() -> None:
    believed = trace.set_span_in_context(NonRecordingSpan(SpanContext(1, 2, is_remote=True)))
    read = TraceFormat().extract({"traceparent": f"00-{TRACE}-{SPAN}-01-no"}, believed)
    assert not trace.get_current_span(read).get_span_context().is_valid
    kept = TraceFormat().extract({"accept": "*/*"}, believed)
    assert trace.get_current_span(kept).get_span_context().trace_id == 1


@pytest.mark.parametrize(
    ("sampler", "flags"), [(ALWAYS_OFF, 0), (ALWAYS_ON, 1), (DEFAULT_ON, 1), (ParentBased(ALWAYS_OFF), 0)]
)
def test_where_b3_leaves_the_decision_to_the_receiver_the_own_sampler_decides(sampler: Sampler, flags: int) -> None:
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    context = TraceFormat(provider).extract(MULTI)
    assert position(trace.get_current_span(context).get_span_context()) == (TRACE, SPAN, flags)
    trace.set_tracer_provider(provider)
    context = TraceFormat().extract({"b3": f"{TRACE}-{SPAN}"})
    assert position(trace.get_current_span(context).get_span_context()) == (TRACE, SPAN, flags)
    with provider.get_tracer("test").start_as_current_span("child", context) as span:
        assert span.is_recording() == bool(flags)


@pytest.mark.parametrize("came", [{"b3": "0"}, {"x-b3-sampled": "0"}, {"x-b3-sampled": "false"}])
def test_a_decision_against_sampling_holds_though_it_came_alone(came: dict[str, str]) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    context = TraceFormat(provider).extract(came)
    with provider.get_tracer("test").start_as_current_span("work", context) as span:
        assert not span.is_recording()
        carrier: dict[str, str] = {}
        TraceFormat().inject(carrier)
    assert not int(carrier["traceparent"][-2:], 16) & 1
    assert carrier.get("x-b3-sampled", carrier.get("b3", "")[-1:]) == "0"


@pytest.mark.parametrize("came", [{"b3": "1"}, {"x-b3-sampled": "1"}])
def test_a_decision_for_sampling_that_came_alone_begins_a_trace_without_a_parent(came: dict[str, str]) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    context = TraceFormat(provider).extract(came)
    with provider.get_tracer("test").start_as_current_span("work", context) as span:
        assert span.is_recording()
        assert getattr(span, "parent") is None  # noqa: B009 - the SDK's, not the API's


def child(came: dict[str, str], propagator: TraceFormat | None = None, sampler: Sampler = DEFAULT_ON) -> dict[str, str]:
    """What a span of this process, below what came, is written as."""
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    propagator = TraceFormat(provider) if propagator is None else propagator
    carrier: dict[str, str] = {}
    token = otel.attach(propagator.extract(came))
    try:
        with provider.get_tracer("test").start_as_current_span("child") as span:
            propagator.inject(carrier)
            live = f"{span.get_span_context().span_id:016x}"
    finally:
        otel.detach(token)
    return {name: value.replace(live, "LIVE") for name, value in carrier.items()}


@pytest.mark.parametrize(
    ("came", "written"),
    [
        (W3C, {"traceparent": f"00-{TRACE}-LIVE-01"}),
        ({**W3C, "tracestate": "1a=1, b=2"}, {"traceparent": f"00-{TRACE}-LIVE-01", "tracestate": "1a=1, b=2"}),
        ({"traceparent": f"00-{TRACE}-{SPAN}-03"}, {"traceparent": f"00-{TRACE}-LIVE-03"}),
        (
            {**MULTI, "x-b3-sampled": "1", "x-b3-parentspanid": OTHER},
            {
                "traceparent": f"00-{TRACE}-LIVE-01",
                "x-b3-traceid": TRACE,
                "x-b3-spanid": "LIVE",
                "x-b3-sampled": "1",
            },
        ),
        ({"b3": f"{TRACE}-{SPAN}-0"}, {"traceparent": f"00-{TRACE}-LIVE-00", "b3": f"{TRACE}-LIVE-0"}),
        ({"b3": f"{TRACE}-{SPAN}"}, {"traceparent": f"00-{TRACE}-LIVE-01", "b3": f"{TRACE}-LIVE-1"}),
        (
            {"b3": f"{SHORT}-{SPAN}-d"},
            {"traceparent": f"00-{SHORT.zfill(32)}-LIVE-01", "b3": f"{SHORT}-LIVE-d"},
        ),
    ],
)
def test_a_span_is_written_in_the_format_that_came(came: dict[str, str], written: dict[str, str]) -> None:
    assert child(came) == written


def test_a_trace_that_begins_here_is_written_in_both_formats_and_in_one_where_the_mesh_wants_one() -> None:
    assert set(child({})) == {"traceparent", "x-b3-traceid", "x-b3-spanid", "x-b3-sampled"}
    assert set(child({}, TraceFormat(one=True))) == {"traceparent"}
    assert set(child({**W3C, **MULTI}, TraceFormat(one=True))) == {"traceparent"}


def test_a_service_that_records_by_itself_tells_the_decision_of_the_mesh_on() -> None:
    for came in ({"traceparent": f"00-{TRACE}-{SPAN}-00"}, {**MULTI, "x-b3-sampled": "0"}, {"b3": "0"}):
        written = child(came, TraceFormat(local=True), ALWAYS_ON)
        assert not int(written["traceparent"][-2:], 16) & 1
        assert written.get("x-b3-sampled", written.get("b3", "0")[-1:]) == "0"
    for came in (W3C, {}):
        assert int(child(came, TraceFormat(local=True), ALWAYS_ON)["traceparent"][-2:], 16) & 1


@pytest.mark.parametrize(
    "came",
    [
        {"traceparent": f"cc-{TRACE}-{SPAN}-01-later", "tracestate": "foo=1,, bar=2"},
        {**MULTI, "x-b3-parentspanid": OTHER},
        {"b3": f"{SHORT}-{SPAN}"},
        {"b3": "0"},
        {"x-b3-flags": "1"},
    ],
)
def test_without_a_tracer_what_came_goes_out_byte_for_byte(came: dict[str, str]) -> None:
    """As with instrumentation and no provider: OpenTelemetry's span only stands for the caller's."""
    carrier: dict[str, str] = {}
    TraceFormat().inject(carrier, TraceFormat().extract(came))
    assert carrier == came


def test_a_tracestate_that_the_application_changed_goes_out_changed() -> None:
    context = TraceFormat().extract({**W3C, "tracestate": "a=1"})
    changed = SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(1), trace_state=TraceState([("b", "2")]))
    carrier: dict[str, str] = {}
    TraceFormat().inject(carrier, trace.set_span_in_context(NonRecordingSpan(changed), context))
    assert carrier["tracestate"] == "b=2"


def test_in_a_worker_the_formats_are_those_of_what_is_bound() -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    carrier: dict[str, str] = {}
    with bind_headers({"b3": f"{TRACE}-{SPAN}-1"}), provider.get_tracer("test").start_as_current_span("job"):
        TraceFormat().inject(carrier)
    assert set(carrier) == {"traceparent", "b3"}


def test_headers_bound_inside_a_request_go_beside_its_trace() -> None:
    """Where no middleware captured, what the propagator read is what the block is laid over."""
    from meshaware.propagation.context import outbound_headers

    token = otel.attach(TraceFormat().extract({**W3C, "tracestate": "a=1"}))
    try:
        with bind_headers({"x-user-type": "premium"}):
            assert outbound_headers("http://inventory/") == {**W3C, "tracestate": "a=1", "x-user-type": "premium"}
    finally:
        otel.detach(token)


def test_fields_name_every_header_that_may_be_written() -> None:
    assert TraceFormat().fields >= set(child({})) | set(child({"b3": f"{TRACE}-{SPAN}-d"})) | {"tracestate"}


NAMES = ["traceparent", "tracestate", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-sampled", "x-b3-flags", "x-other"]
PIECES = [TRACE, SHORT, SPAN, "00", "01", "0", "1", "d", "a=1", "foo@=1", "é", ""]
VALUES = st.lists(st.sampled_from(PIECES), max_size=5).map("-".join)


@given(st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=8))
def test_whatever_comes_a_child_tells_one_trace(pairs: Pairs) -> None:
    context = TraceFormat().extract(lines(pairs), Context())
    provider = TracerProvider(shutdown_on_exit=False)
    carrier: dict[str, str] = {}
    with provider.get_tracer("test").start_as_current_span("child", context):
        TraceFormat().inject(carrier)
    told = {carrier["traceparent"].split("-")[1].lstrip("0")}
    told |= {carrier[name].split("-")[0].lstrip("0") for name in ("b3", "x-b3-traceid") if name in carrier}
    assert len(told) == 1
