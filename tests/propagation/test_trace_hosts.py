"""Hosts outside the mesh that get the trace context, and nothing else."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace import TracerProvider

from meshaware.errors import SettingsError
from meshaware.propagation.context import attach_trace, bind_headers, outbound_headers
from meshaware.propagation.hosts import HostPolicy

TRACE, SPAN = "463ac35c9f6413ad48485a3953bb6124", "a2fb4a1d1a96d312"
W3C = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "a=1"}
MULTI = {"x-b3-traceid": TRACE, "x-b3-spanid": SPAN}
REST = {"x-request-id": "1", "x-user-type": "premium", "baggage": "user=alice"}
HOSTS = HostPolicy(trace_hosts=[".partner.example"])
PARTNER = "https://api.partner.example/orders"


@pytest.mark.parametrize(
    ("came", "goes"), [(W3C, W3C), (MULTI, MULTI), ({**W3C, **MULTI}, W3C), ({"b3": "0"}, {"b3": "0"}), ({}, {})]
)
def test_it_gets_the_trace_in_one_format_and_nothing_else(came: dict[str, str], goes: dict[str, str]) -> None:
    with bind_headers({**REST, **came}, hosts=HOSTS):
        assert outbound_headers(PARTNER) == goes
        assert outbound_headers("https://partner.example/") == {}
        assert outbound_headers("https://other.example/") == {}


def test_a_live_span_tells_of_itself_in_w3cs_format() -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    with bind_headers({**REST, **MULTI}, hosts=HOSTS), tracer.start_as_current_span("work") as span:
        sent = outbound_headers(PARTNER)
        live = f"{span.get_span_context().span_id:016x}"
        written = dict(attach_trace([(b"Host", b"api.partner.example"), (b"baggage", b"mine=1")]))
    assert set(sent) == {"traceparent"}
    assert live in sent["traceparent"]
    assert written == {
        b"Host": b"api.partner.example",
        b"baggage": b"mine=1",
        b"traceparent": sent["traceparent"].encode(),
    }


def test_a_trace_of_the_callers_own_stays() -> None:
    own = [(b"traceparent", f"00-{TRACE[::-1]}-{SPAN}-01".encode())]
    with bind_headers({**REST, **W3C}, hosts=HOSTS):
        assert attach_trace(own) == own
        assert outbound_headers(PARTNER, {"traceparent": own[0][1].decode()}) == {}


def test_both_the_url_and_the_host_header_must_be_named() -> None:
    with bind_headers({**REST, **W3C}, hosts=HOSTS):
        assert outbound_headers(PARTNER, {"Host": "evil.example"}) == {}
        assert outbound_headers("https://evil.example/", {"Host": "api.partner.example"}) == {}


def test_a_host_inside_gets_everything_though_it_is_named() -> None:
    with bind_headers({**REST, **W3C}, hosts=HostPolicy(trace_hosts=["orders"])):
        assert outbound_headers("http://orders/") == {**REST, **W3C}


def test_the_variable_names_them_outside_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHAWARE_TRACE_HOSTS", "api.partner.example")
    with bind_headers({**REST, **W3C}):
        assert outbound_headers(PARTNER) == W3C
    monkeypatch.setenv("MESHAWARE_TRACE_HOSTS", "https://api.partner.example")
    with pytest.raises(SettingsError, match="MESHAWARE_TRACE_HOSTS"):
        outbound_headers(PARTNER)


def test_policies_that_name_others_differ() -> None:
    assert HostPolicy(trace_hosts=[".partner.example"]) == HOSTS
    assert HostPolicy() != HOSTS
    assert "trace_hosts=['.partner.example']" in repr(HOSTS)


def test_what_tells_of_another_span_does_not_stay_beside_the_live_one() -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    with bind_headers({**REST, **W3C}, hosts=HOSTS), tracer.start_as_current_span("work"):
        sent = attach_trace([(b"tracestate", b"old=1"), (b"X-B3-ParentSpanId", SPAN.encode())])
    assert [name for name, _ in sent] == [b"traceparent"]
