"""The live span as headers, read from the real OpenTelemetry packages."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context.context import Context, _RuntimeContext  # pyright: ignore[reportPrivateUsage]
from opentelemetry.instrumentation.utils import is_http_instrumentation_enabled
from opentelemetry.propagators.b3 import B3MultiFormat, B3SingleFormat
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, TraceFlags, TraceState
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from meshaware.propagation import spans as module
from meshaware.propagation.context import attach, bind_headers, outbound_headers
from meshaware.propagation.spans import (
    contexts,
    live_baggage,
    live_position,
    live_trace_headers,
    tracing_loaded,
    without_client_spans,
)

INBOUND = {
    "x-request-id": "4c7b9e2a-9a1d-9f9b-8c3e-5d1f2a3b4c5d",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "tracestate": "congo=t61rcWkgMzE",
    "x-b3-traceid": "0af7651916cd43dd8448eb211c80319c",
    "x-b3-spanid": "b7ad6b7169203331",
    "x-b3-parentspanid": "05e3ac9a4f6e3b90",
    "x-b3-sampled": "1",
    "x-b3-flags": "1",
    "b3": "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-d",
    "baggage": "user=alice;meta=1",
}
# Any: how OpenTelemetry types its getters and setters does not pass a strict check.
FORMATS: list[Any] = [TraceContextTextMapPropagator(), B3MultiFormat(), B3SingleFormat()]


@pytest.fixture(name="provider")
def _provider() -> Iterator[TracerProvider]:
    provider = TracerProvider(shutdown_on_exit=False)
    yield provider
    provider.shutdown()


def injected(*formats: Any) -> dict[bytes, bytes]:
    carrier: dict[str, str] = {}
    for each in formats:
        each.inject(carrier)
    return {name.encode(): value.encode() for name, value in carrier.items()}


def ids(headers: dict[str, str]) -> set[tuple[str, str]]:
    """Every (trace, span) that some header tells of."""
    told = set[tuple[str, str]]()
    if "traceparent" in headers:
        told.add(tuple(headers["traceparent"].split("-")[1:3]))  # type: ignore[arg-type]
    if "b3" in headers:
        told.add(tuple(headers["b3"].split("-")[:2]))  # type: ignore[arg-type]
    if "x-b3-traceid" in headers:
        told.add((headers["x-b3-traceid"], headers["x-b3-spanid"]))
    return told


def test_without_a_span_there_is_nothing_to_write() -> None:
    assert live_trace_headers() is None


def test_a_span_is_written_exactly_as_opentelemetry_writes_it(provider: TracerProvider) -> None:
    with provider.get_tracer("test").start_as_current_span("work"):
        assert live_trace_headers() == injected(*FORMATS)


def test_an_unsampled_span_is_written_as_unsampled() -> None:
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    with provider.get_tracer("test").start_as_current_span("work"):
        written = live_trace_headers()
        assert written == injected(*FORMATS)
        assert written is not None
        assert written[b"x-b3-sampled"] == b"0"


def test_small_identifiers_keep_their_zeros_and_a_tracestate_its_members() -> None:
    span = NonRecordingSpan(SpanContext(1, 2, False, TraceFlags(0x81), TraceState([("a", "1"), ("b", "2")])))
    with trace.use_span(span):
        assert live_trace_headers() == {
            b"traceparent": b"00-00000000000000000000000000000001-0000000000000002-81",
            b"tracestate": b"a=1,b=2",
            b"b3": b"00000000000000000000000000000001-0000000000000002-1",
            b"x-b3-traceid": b"00000000000000000000000000000001",
            b"x-b3-spanid": b"0000000000000002",
            b"x-b3-sampled": b"1",
        }


def test_a_live_span_tells_one_story_in_the_forms_that_came(provider: TracerProvider) -> None:
    with bind_headers(INBOUND), provider.get_tracer("test").start_as_current_span("work") as span:
        headers = outbound_headers("http://inventory:8080/")
        position = span.get_span_context()
    expected = (f"{position.trace_id:032x}", f"{position.span_id:016x}")
    assert ids(headers) == {expected}
    assert {"traceparent", "x-b3-traceid", "x-b3-spanid", "x-b3-sampled"} <= set(headers)
    assert not {"b3", "tracestate", "x-b3-parentspanid"} & set(headers)
    assert headers["x-request-id"] == INBOUND["x-request-id"]
    assert headers["baggage"] == INBOUND["baggage"]


def test_each_span_of_a_request_tells_of_itself(provider: TracerProvider) -> None:
    tracer = provider.get_tracer("test")
    with bind_headers(INBOUND), tracer.start_as_current_span("one"):
        first = outbound_headers("http://inventory/")
        with tracer.start_as_current_span("two"):
            second = outbound_headers("http://inventory/")
    assert first["x-b3-traceid"] == second["x-b3-traceid"]
    assert first["x-b3-spanid"] != second["x-b3-spanid"]
    assert len(ids(first)) == len(ids(second)) == 1


@pytest.mark.parametrize(
    ("came", "decision"),
    [({"b3": INBOUND["b3"]}, "d"), ({**INBOUND, "b3": INBOUND["b3"].replace("-d", "-0"), "x-b3-flags": "1"}, "1")],
)
def test_a_trace_that_is_being_debugged_stays_so(provider: TracerProvider, came: dict[str, str], decision: str) -> None:
    """B3's debug goes on with a span of the trace that came, and with no other."""
    with bind_headers(came):
        with trace.use_span(remote(INBOUND)), provider.get_tracer("test").start_as_current_span("child"):
            headers = outbound_headers("http://inventory/")
        with provider.get_tracer("test").start_as_current_span("of a trace of its own"):
            other = outbound_headers("http://inventory/")
    assert "x-b3-flags" not in other
    assert not other.get("b3", "").endswith("d")
    assert (headers["b3"][-1] if "b3" in headers else headers["x-b3-flags"]) == decision


def remote(headers: dict[str, str]) -> Span:
    return trace.get_current_span(FORMATS[0].extract(headers, context.Context()))


def test_a_span_that_only_stands_for_the_callers_leaves_what_came_as_it_is() -> None:
    """As under instrumentation without a provider: the request says more than the span that was read from it."""
    came = {
        "traceparent": INBOUND["traceparent"],
        "tracestate": "congo=t61rcWkgMzE",
        # Deferred: a span knows only yes and no.
        "x-b3-traceid": INBOUND["x-b3-traceid"],
        "x-b3-spanid": INBOUND["x-b3-spanid"],
    }
    with bind_headers(came), trace.use_span(remote(came)):
        assert outbound_headers("http://inventory/") == came


def test_the_live_span_has_a_position_under_the_conditions_under_which_it_goes_out(provider: TracerProvider) -> None:
    came = {name.encode(): value.encode() for name, value in INBOUND.items()}
    assert live_position(came) is None
    with provider.get_tracer("test").start_as_current_span("work") as span:
        live = span.get_span_context()
        told = live_position(came)
        assert told is not None
        assert (told.trace_id, told.span_id, told.sampled) == (live.trace_id, live.span_id, True)
    with trace.use_span(remote(INBOUND)):
        assert live_position(came) is None
        told = live_position()
        assert told is not None
        assert f"{told.span_id:016x}" in INBOUND["traceparent"]
    unsampled = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False).get_tracer("test")
    with unsampled.start_as_current_span("work"):
        told = live_position()
        assert told is not None
        assert told.sampled is False


def test_a_callers_span_that_did_not_come_with_the_headers_is_written() -> None:
    """As in a worker that read a position out of a message and attached it."""
    with bind_headers({"x-request-id": "1"}), trace.use_span(remote(INBOUND)):
        assert outbound_headers("http://inventory/") == {
            "x-request-id": "1",
            "traceparent": INBOUND["traceparent"],
            "tracestate": INBOUND["tracestate"],
            "x-b3-traceid": INBOUND["x-b3-traceid"],
            "x-b3-spanid": INBOUND["x-b3-spanid"],
            "x-b3-sampled": "1",
        }


def test_a_live_span_goes_out_where_nothing_else_is_carried(provider: TracerProvider) -> None:
    with provider.get_tracer("test").start_as_current_span("work"):
        assert set(outbound_headers("http://inventory/")) == {
            "traceparent",
            "x-b3-traceid",
            "x-b3-spanid",
            "x-b3-sampled",
        }
        assert outbound_headers("http://example.com/") == {}


def as_raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.title().encode(), value.encode()) for name, value in headers.items()]


@pytest.mark.parametrize(
    "formats", [FORMATS[:1], FORMATS[1:2], FORMATS[2:], FORMATS[:2]], ids=["w3c", "multi", "b3", "both"]
)
def test_what_an_instrumented_client_wrote_stays_and_the_rest_agrees(
    provider: TracerProvider, formats: list[Any]
) -> None:
    with bind_headers(INBOUND), provider.get_tracer("test").start_as_current_span("call"):
        mine = [(b"Host", b"inventory"), *injected(*formats).items()]
        sent = attach(mine)
        named = {name.decode().lower(): value.decode() for name, value in sent}
        assert len(named) == len(sent)
        assert {name.encode(): value.encode() for name, value in named.items()}.items() >= injected(
            *FORMATS[:2]
        ).items()
    assert len(ids(named)) == 1
    assert not {"b3", "tracestate", "x-b3-parentspanid"} & set(named)


def test_trace_headers_copied_by_hand_are_replaced_beside_an_instrumented_client(provider: TracerProvider) -> None:
    with bind_headers(INBOUND), provider.get_tracer("test").start_as_current_span("call"):
        carrier = {**INBOUND, "accept": "*/*"}
        FORMATS[0].inject(carrier)
        sent = attach(as_raw(carrier))
    named = {name.decode().lower(): value.decode() for name, value in sent}
    assert len(named) == len(sent)
    assert len(ids(named)) == 1
    assert named["traceparent"] == carrier["traceparent"]
    assert named["accept"] == "*/*"
    assert not {"b3", "tracestate", "x-b3-parentspanid"} & set(named)


def test_a_position_written_by_hand_is_left_to_its_writer(provider: TracerProvider) -> None:
    mine = as_raw({"traceparent": "00-11111111111111111111111111111111-2222222222222222-01", "tracestate": "x=y"})
    with bind_headers(INBOUND), provider.get_tracer("test").start_as_current_span("call"):
        sent = attach(mine)
    assert sent[:2] == mine
    assert {name for name, _ in sent[2:]} == {b"x-request-id", b"baggage"}


def test_baggage_that_only_came_goes_on_verbatim() -> None:
    """OpenTelemetry would lose the property and the value with a blank."""
    came = "user=alice;meta=1,city=New York,n=1"
    token = context.attach(W3CBaggagePropagator().extract({"baggage": came}))
    try:
        assert baggage.get_all()
        assert live_baggage(came.encode()) is None
        with bind_headers({"baggage": came}):
            assert outbound_headers("http://inventory/") == {"baggage": came}
    finally:
        context.detach(token)


def test_baggage_that_an_instrumented_client_wrote_again_is_mended(provider: TracerProvider) -> None:
    came = "user=alice;meta=1,city=New York,n=1"
    token = context.attach(W3CBaggagePropagator().extract({"baggage": came}))
    try:
        with bind_headers({**INBOUND, "baggage": came}), provider.get_tracer("test").start_as_current_span("call"):
            carrier = {"accept": "*/*"}
            propagate.inject(carrier)
            assert carrier["baggage"] != came
            sent = attach(as_raw(carrier))
            by_hand = attach(as_raw({**carrier, "baggage": "mine=1"}))
    finally:
        context.detach(token)
    named = {name.lower(): value for name, value in sent}
    assert len(named) == len(sent)
    assert named[b"baggage"] == came.encode()
    assert named[b"traceparent"] == carrier["traceparent"].encode()
    assert dict(by_hand)[b"Baggage"] == b"mine=1"


@pytest.mark.parametrize("came", [None, "user=alice", "user=bob,n=1"])
def test_baggage_that_the_application_set_goes_out(came: str | None) -> None:
    before = context.Context() if came is None else W3CBaggagePropagator().extract({"baggage": came})
    token = context.attach(baggage.set_baggage("user", "carol", before))
    try:
        with bind_headers({} if came is None else {"baggage": came}):
            sent = outbound_headers("http://inventory/")["baggage"]
        assert "user=carol" in sent
        assert sent.count("user=") == 1
        with bind_headers({"baggage": "x=1"}):
            assert "baggage" not in outbound_headers("http://inventory/", {"Baggage": "mine=1"})
    finally:
        context.detach(token)


def test_baggage_that_cannot_be_written_stays_behind() -> None:
    token = context.attach(baggage.set_baggage("big", "x" * 9000))
    try:
        assert live_baggage(None) is None
    finally:
        context.detach(token)


def test_client_spans_are_off_inside_the_block_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_http_instrumentation_enabled()
    with without_client_spans():
        assert not is_http_instrumentation_enabled()
    assert is_http_instrumentation_enabled()
    monkeypatch.delitem(sys.modules, "opentelemetry.instrumentation.utils")
    with without_client_spans():
        assert is_http_instrumentation_enabled()


def test_a_process_without_opentelemetry_does_not_load_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "opentelemetry.trace")
    assert not tracing_loaded()
    assert live_trace_headers() is None
    assert live_baggage(None) is None
    assert live_position({}) is None
    raw = [(b"Host", b"inventory")]
    assert attach(raw) is raw
    with bind_headers(INBOUND):
        verbatim = {name: value for name, value in INBOUND.items() if name != "b3"}
        assert outbound_headers("http://inventory/") == verbatim
    assert "opentelemetry.trace" not in sys.modules


def test_the_global_formats_are_not_asked() -> None:
    """What goes out depends on what came in, not on OTEL_PROPAGATORS of this process."""
    assert propagate.get_global_textmap().fields


def test_a_header_that_tells_of_another_span_comes_back_to_be_written_over(provider: TracerProvider) -> None:
    """In the spelling that it has, so that the call has it once."""
    mine = {"TraceState": "old=1", "x-user-type": "mine"}
    span = NonRecordingSpan(SpanContext(1, 2, False, TraceFlags(1), TraceState([("a", "1")])))
    with bind_headers({"x-user-type": "premium"}), trace.use_span(span):
        sent = {**mine, **outbound_headers("http://inventory/", mine)}
    assert sent["TraceState"] == "a=1"
    assert sent["x-user-type"] == "mine"
    assert [name.lower() for name in sent].count("tracestate") == 1


def test_baggage_that_the_application_removed_does_not_go_out() -> None:
    from meshaware.telemetry.formats import BaggageFormat

    came = "user=alice,tenant=a;p=1"
    token = context.attach(BaggageFormat().extract({"baggage": came}))
    try:
        with bind_headers({"baggage": came}):
            assert outbound_headers("http://inventory/") == {"baggage": came}
            inner = context.attach(baggage.remove_baggage("user"))
            assert "alice" not in outbound_headers("http://inventory/")["baggage"]
            context.attach(baggage.clear())
            assert outbound_headers("http://inventory/") == {}
            context.detach(inner)
    finally:
        context.detach(token)


class OtherContexts(_RuntimeContext):
    """Keeps OpenTelemetry's contexts where OTEL_PYTHON_CONTEXT may have them kept."""

    def __init__(self) -> None:
        self.all = [Context()]

    def attach(self, context: Context) -> Any:
        self.all.append(context)
        return len(self.all)

    def get_current(self) -> Context:
        return self.all[-1]

    def detach(self, token: Any) -> None:
        del self.all[token - 1 :]


@pytest.mark.parametrize("kept", [None, OtherContexts()])
def test_the_current_context_is_the_one_that_opentelemetry_tells(
    monkeypatch: pytest.MonkeyPatch, kept: OtherContexts | None
) -> None:
    """Wherever it is kept."""
    if kept is not None:
        monkeypatch.setattr(context, "_RUNTIME_CONTEXT", kept)
    loaded: Any = getattr(module, "_loaded_contexts")  # noqa: B009 (pyright minds the other way)
    loaded.cache_clear()
    try:
        get_current, attach_context, detach_context = contexts()
        assert get_current() is context.get_current()
        other = Context({"a": 1})
        token = attach_context(other)
        assert context.get_current() is get_current() is other
        detach_context(token)
        assert context.get_current() is get_current() is not other
    finally:
        loaded.cache_clear()


def test_where_nobody_has_loaded_opentelemetry_there_is_one_context(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "opentelemetry.trace")
    assert contexts().get_current() is None
