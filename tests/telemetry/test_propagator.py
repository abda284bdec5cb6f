"""The propagator that plain OpenTelemetry finds by its name, beside those that stand before it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Any

import httpx
import pytest
from opentelemetry import context as otel
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.propagators.b3 import B3MultiFormat
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from meshaware.errors import SettingsError
from meshaware.propagation.context import bind_headers
from meshaware.telemetry.propagator import MeshPropagator

TRACE, SPAN = "463ac35c9f6413ad48485a3953bb6124", "a2fb4a1d1a96d312"
W3C = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
MULTI = {"x-b3-traceid": TRACE, "x-b3-spanid": SPAN}
MESH = {"x-request-id": "4c7b9e2a-9a1d-9f9b-8c3e-5d1f2a3b4c5d", "x-client-trace-id": "c-1"}
ROUTING = {"x-user-type": "premium"}
INSIDE, OUTSIDE = {"host": "inventory:8080"}, {"host": "api.example.com"}


def formats() -> CompositePropagator:
    """`OTEL_PROPAGATORS=tracecontext,baggage,b3multi,meshaware`."""
    others: list[Any] = [TraceContextTextMapPropagator(), W3CBaggagePropagator(), B3MultiFormat()]
    return CompositePropagator([*others, MeshPropagator()])


@pytest.fixture(name="provider")
def _provider() -> Iterator[TracerProvider]:
    provider = TracerProvider(shutdown_on_exit=False)
    yield provider
    provider.shutdown()


def passed_on(came: dict[str, Any], carrier: Any, provider: TracerProvider | None = None) -> Any:
    """What an instrumented call out of an instrumented request gets, with a tracer or without."""
    propagator = formats()
    token = otel.attach(propagator.extract(came))
    try:
        if provider is None:
            propagator.inject(carrier)
        else:
            with provider.get_tracer("test").start_as_current_span("call"):
                propagator.inject(carrier)
    finally:
        otel.detach(token)
    return carrier


def test_opentelemetry_finds_it_by_its_name() -> None:
    (found,) = entry_points(group="opentelemetry_propagator", name="meshaware")
    assert found.load() is MeshPropagator


@pytest.mark.parametrize("traced", [True, False])
def test_a_host_inside_gets_all_that_came(provider: TracerProvider, traced: bool) -> None:
    sent = passed_on({**MESH, **ROUTING, **W3C}, dict(INSIDE), provider if traced else None)
    assert sent.items() >= {**MESH, **ROUTING, **INSIDE}.items()
    assert sent["traceparent"].split("-")[1] == TRACE
    assert "x-b3-traceid" not in sent


@pytest.mark.parametrize("traced", [True, False])
@pytest.mark.parametrize("host", [OUTSIDE, {"Host": "10.0.0.7"}, {"host": "localhost:8080"}])
def test_a_host_outside_gets_nothing(provider: TracerProvider, host: dict[str, str], traced: bool) -> None:
    """Nor what the propagators before it wrote, that know no mesh."""
    came = {**MESH, **ROUTING, **W3C, **MULTI, "baggage": "user=alice"}
    assert passed_on(came, dict(host), provider if traced else None) == host
    alone = MeshPropagator()
    carrier = dict(host)
    alone.inject(carrier, alone.extract(came))
    assert carrier == host


def test_a_trace_host_gets_the_trace_alone(monkeypatch: pytest.MonkeyPatch, provider: TracerProvider) -> None:
    monkeypatch.setenv("MESHAWARE_TRACE_HOSTS", "api.example.com")
    sent = passed_on({**MESH, **ROUTING, **MULTI, "baggage": "user=alice"}, dict(OUTSIDE), provider)
    assert set(sent) == {*OUTSIDE, "traceparent"}


def test_where_no_host_is_shown_only_what_names_nobody_goes() -> None:
    """Such as a message of a queue, and the headers of a client that adds the host later."""
    assert passed_on({**MESH, **ROUTING}, {}) == MESH


def test_a_redirect_takes_nothing_along() -> None:
    """httpx copies the headers of a request to the one that follows a redirect."""
    came = {**MESH, **ROUTING}
    first = passed_on(came, httpx.Headers(INSIDE))
    assert first["x-user-type"] == "premium"
    second = passed_on(came, httpx.Headers({**first, **OUTSIDE}))
    assert dict(second) == OUTSIDE
    # What the caller wrote himself is his.
    assert passed_on(came, httpx.Headers({**OUTSIDE, "x-user-type": "mine"}))["x-user-type"] == "mine"


def test_what_the_call_has_already_stays() -> None:
    assert passed_on({**MESH, **ROUTING}, {**INSIDE, "x-user-type": "basic"})["x-user-type"] == "basic"


def test_further_headers_and_hosts_come_from_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHAWARE_HEADERS", "x-tenant,x-shop-*")
    monkeypatch.setenv("MESHAWARE_MESH_HOSTS", ".corp.example")
    came = {"x-tenant": "t1", "X-Shop-Cart": "7", "x-other": "no"}
    sent = passed_on(came, {"host": "api.corp.example"})
    assert sent == {"host": "api.corp.example", "x-tenant": "t1", "x-shop-cart": "7"}


@pytest.mark.parametrize(
    ("name", "value"),
    [("MESHAWARE_HEADERS", "x-*"), ("MESHAWARE_MESH_HOSTS", "http://inventory"), ("MESHAWARE_MESH", "istoi")],
)
def test_a_variable_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name):
        MeshPropagator()


def test_what_others_read_wrongly_is_corrected(provider: TracerProvider) -> None:
    """OpenTelemetry believes the first of two, and drops spans where B3 leaves the decision to the receiver."""
    two = {"traceparent": [W3C["traceparent"], f"00-{TRACE}-{SPAN[::-1]}-01"]}
    assert passed_on(two, dict(INSIDE), provider)["traceparent"].split("-")[1] != TRACE
    propagator = MeshPropagator()
    token = otel.attach(CompositePropagator([B3MultiFormat(), propagator]).extract(MULTI))
    try:
        from opentelemetry import trace

        trace.set_tracer_provider(provider)
        token_again = otel.attach(CompositePropagator([B3MultiFormat(), propagator]).extract(MULTI))
        with provider.get_tracer("test").start_as_current_span("work") as span:
            assert span.is_recording()
        otel.detach(token_again)
    finally:
        otel.detach(token)


def test_what_others_wrote_that_did_not_come_is_taken_off() -> None:
    """Without a tracer B3's missing decision stays missing."""
    assert passed_on(MULTI, dict(INSIDE)) == {**INSIDE, **MULTI}
    assert passed_on(MULTI, httpx.Headers(INSIDE)) == httpx.Headers({**INSIDE, **MULTI})


def test_what_is_bound_in_a_worker_goes_with_every_instrumented_client() -> None:
    carrier = dict(INSIDE)
    with bind_headers({**MESH, **ROUTING}):
        formats().inject(carrier)
    assert carrier == {**INSIDE, **MESH, **ROUTING}


def test_baggage_is_left_to_its_own_propagator() -> None:
    sent = passed_on({"baggage": "user=alice", **MESH}, dict(INSIDE))
    assert sent["baggage"] == "user=alice"
    alone = MeshPropagator()
    carrier = dict(INSIDE)
    alone.inject(carrier, alone.extract({"baggage": "user=alice", **MESH}))
    assert "baggage" not in carrier


def test_where_the_mesh_wants_one_format_one_goes(monkeypatch: pytest.MonkeyPatch, provider: TracerProvider) -> None:
    monkeypatch.setenv("MESHAWARE_MESH", "linkerd")
    sent = passed_on({**W3C, **MULTI}, dict(INSIDE), provider)
    assert "x-b3-traceid" not in sent
    assert sent["traceparent"].split("-")[1] == TRACE


class Lines(list[tuple[str, str]]):
    """Such as the headers of a message of Kafka: each line stays."""


class Opaque:
    """Such as the metadata of some other library."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []


class Setter:
    def set(self, carrier: Any, key: str, value: str) -> None:
        (carrier.lines if isinstance(carrier, Opaque) else carrier).append((key, value))


@pytest.mark.parametrize("kind", [Lines, Opaque])
@pytest.mark.parametrize("came", [W3C, MULTI, {**W3C, **MULTI}])
def test_a_carrier_that_keeps_every_line_gets_each_header_once(
    monkeypatch: pytest.MonkeyPatch, provider: TracerProvider, kind: type[Any], came: dict[str, str]
) -> None:
    monkeypatch.setenv("OTEL_PROPAGATORS", "tracecontext,baggage,b3multi,meshaware")
    propagator, setter, carrier = formats(), Setter(), kind()
    token = otel.attach(propagator.extract({**MESH, **ROUTING, **came}))
    try:
        with provider.get_tracer("test").start_as_current_span("send"):
            propagator.inject(carrier, setter=setter)  # type: ignore[arg-type]
    finally:
        otel.detach(token)
    lines: list[tuple[str, str]] = carrier.lines if isinstance(carrier, Opaque) else carrier
    assert len(dict(lines)) == len(lines)
    assert dict(lines).items() >= MESH.items()
    assert dict(lines)["traceparent"].split("-")[1] == TRACE


def test_alone_it_writes_the_trace_wherever_it_can() -> None:
    carrier, setter, propagator = Opaque(), Setter(), MeshPropagator()
    propagator.inject(carrier, propagator.extract({**MESH, **ROUTING, **W3C}), setter)
    assert dict(carrier.lines) == {**MESH, **W3C}


def test_a_getter_that_repeats_a_name_gives_each_line_once() -> None:
    """Such as those of dictionaries with several values a key."""

    class Getter:
        def get(self, carrier: list[tuple[str, str]], key: str) -> list[str]:
            return [value for name, value in carrier if name == key]

        def keys(self, carrier: list[tuple[str, str]]) -> list[str]:
            return [name for name, _ in carrier]

    came = [*W3C.items(), ("tracestate", "a=1"), ("tracestate", "b=2")]
    getter: Any = Getter()
    carrier: dict[str, str] = {}
    propagator = MeshPropagator()
    propagator.inject(carrier, propagator.extract(came, None, getter))
    assert carrier == {**W3C, "tracestate": "a=1,b=2"}


def test_fields_name_what_may_be_written() -> None:
    assert MeshPropagator().fields >= {"x-request-id", "x-user-type", "traceparent", "x-b3-traceid"}
    assert "baggage" not in MeshPropagator().fields


def test_a_deadline_under_a_name_of_its_own_is_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it was when it came is not what is left, though a prefix means it."""
    monkeypatch.setenv("MESHAWARE_HEADERS", "x-shop-*")
    monkeypatch.setenv("MESHAWARE_DEADLINE_HEADER", "X-Shop-Deadline")
    sent = passed_on({"x-shop-deadline": "900", "x-shop-cart": "7"}, dict(INSIDE))
    assert sent == {**INSIDE, "x-shop-cart": "7"}
