"""
What the tracers of real Envoys do with trace headers, and that meshaware makes one trace of it.

Headers are written with letters here: `T`, `S` and `P` are the caller's trace, span and its span's parent, `N` is
a trace and `n` a span that a sidecar began.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from opentelemetry.propagators.b3 import B3MultiFormat
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from meshaware import MeshMiddleware, MeshSettings, create_async_client, outbound_headers
from meshaware.testing import LocalMesh, LocalService

pytestmark = pytest.mark.envoy

Headers = dict[str, str]
ZIPKIN, ZIPKIN_W3C, OPENTELEMETRY = "zipkin", "zipkin with w3c", "opentelemetry"
MULTI = "x-b3-*"
# The forms that each tracer reads, the first that is there before the others.
READS = {ZIPKIN: ("b3", MULTI), ZIPKIN_W3C: ("b3", MULTI, "traceparent"), OPENTELEMETRY: ("traceparent",)}

ROOT = {"x-b3-traceid": "N", "x-b3-spanid": "n", "x-b3-sampled": "1"}
CHILD = {"x-b3-traceid": "T", "x-b3-spanid": "n", "x-b3-parentspanid": "S", "x-b3-sampled": "1"}
UNDECIDED = {"x-b3-traceid": "T", "x-b3-spanid": "S", "x-b3-parentspanid": "P"}
SENT = UNDECIDED | {"x-b3-sampled": "1"}
W3C = {"traceparent": "00-T-S-01", "tracestate": "a=1"}
NO = {"x-b3-sampled": "0"}


class Row(NamedTuple):
    """
    What a call has, and what is written into it by one sidecar that samples every request.

    Attributes:
        sent: What the call has.
        multi: What Zipkin's tracer writes.
        single: What it writes instead since Envoy 1.40.
        told: The `traceparent` that OpenTelemetry's tracer writes.
        fallback: What Zipkin's tracer writes where it knows W3C too, if that is something else.
    """

    sent: Headers
    multi: Headers
    single: Headers | None = None
    told: str = "00-N-n-01"
    fallback: Headers | None = None


ROWS = {
    "nothing": Row({}, ROOT),
    "traceparent": Row({"traceparent": "00-T-S-01"}, ROOT, None, "00-T-n-01", CHILD),
    "traceparent, tracestate": Row(W3C, ROOT, None, "00-T-n-01", CHILD),
    "traceparent, not sampled": Row({"traceparent": "00-T-S-00"}, ROOT, None, "00-T-n-00", CHILD | NO),
    "x-b3-*": Row(SENT, CHILD),
    "x-b3-*, not sampled": Row(SENT | NO, CHILD | NO),
    "x-b3-*, undecided": Row(UNDECIDED, CHILD),
    "x-b3-*, debug": Row(UNDECIDED | {"x-b3-flags": "1"}, CHILD),
    "x-b3-sampled: 0": Row(NO, ROOT | NO),
    "b3": Row({"b3": "T-S-1"}, CHILD, {"b3": "T-n-1-S"}),
    "b3 with parent": Row({"b3": "T-S-1-P"}, CHILD, {"b3": "T-n-1-S"}),
    "b3, not sampled": Row({"b3": "T-S-0"}, CHILD | NO, {"b3": "T-n-0-S"}),
    "b3, undecided": Row({"b3": "T-S"}, CHILD, {"b3": "T-n-1-S"}),
    "b3, debug": Row({"b3": "T-S-d"}, CHILD, {"b3": "T-n-1-S"}),
    "b3: 0": Row({"b3": "0"}, ROOT | NO, {"b3": "N-n-0"}),
    "b3 and x-b3-*": Row({"b3": "T-S-1"} | SENT, CHILD, {"b3": "T-n-1-S"}),
    "traceparent and x-b3-*": Row(W3C | SENT, CHILD, None, "00-T-n-01"),
    "traceparent and b3": Row(W3C | {"b3": "T-S-1"}, CHILD, {"b3": "T-n-1-S"}, "00-T-n-01"),
    "all": Row(W3C | {"b3": "T-S-1"} | SENT, CHILD, {"b3": "T-n-1-S"}, "00-T-n-01"),
}
DENIED = {"traceparent, not sampled", "x-b3-*, not sampled", "x-b3-sampled: 0", "b3, not sampled", "b3: 0"}
# As Envoy makes them, which keeps in the 15th character whether the request is traced.
UNDECIDED_ID = "4c7b9e2a-9a1d-4f9b-8c3e-5d1f2a3b4c5d"
SAMPLED_ID = "4c7b9e2a-9a1d-9f9b-8c3e-5d1f2a3b4c5d"
WAYS = ("carried", "sampled", "unsampled")
EVERY_WAY = [(way, name) for way in WAYS for name in ROWS]
EXPORTED = [("sampled", name) for name in ROWS] + [("carried", name) for name in ROWS if name not in DENIED]


class Letters:
    """One caller's identifiers, and the letters that stand for them."""

    def __init__(self) -> None:
        trace, parent = uuid4(), uuid4()
        self._of = {"T": trace.hex, "S": trace.hex[1:17], "P": parent.hex[1:17]}

    def spell(self, headers: Mapping[str, str]) -> Headers:
        return {
            name: "-".join(self._of.get(part, part) for part in value.split("-")) for name, value in headers.items()
        }

    def read(self, headers: Mapping[str, str]) -> Headers:
        """Write letters for identifiers; a sidecar begins at most one span, and one trace for it."""
        letters = {identifier: letter for letter, identifier in self._of.items()}
        found = {part for value in headers.values() for part in value.split("-")} - letters.keys()
        for letter, digits in (("N", 32), ("n", 16)):
            begun = [part for part in found if re.fullmatch(rf"[0-9a-f]{{{digits}}}", part)]
            assert len(begun) <= 1, begun
            letters |= dict.fromkeys(begun, letter)
        return {name: "-".join(letters.get(part, part) for part in value.split("-")) for name, value in headers.items()}


def told(headers: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return of which trace and span each form tells; a form that tells of none is left out."""
    positions: dict[str, tuple[str, str]] = {}
    for form, parts in (
        ("traceparent", headers.get("traceparent", "").split("-")[1:3]),
        ("b3", headers.get("b3", "").split("-")[:2]),
        (MULTI, [headers[name] for name in ("x-b3-traceid", "x-b3-spanid") if name in headers]),
    ):
        if len(parts) == 2:
            positions[form] = (parts[0], parts[1])
    return positions


def trace_headers(pairs: Iterable[tuple[str, str]]) -> Headers:
    """Pick the trace headers, of which none may be there twice."""
    ours = [pair for pair in pairs if pair[0] in ("b3", "traceparent", "tracestate") or pair[0].startswith("x-b3-")]
    assert len(dict(ours)) == len(ours), ours
    return dict(ours)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """The last application: it answers with the headers that arrived."""
    await answer(send, arrived(scope))


def arrived(scope: Any) -> list[tuple[str, str]]:
    return [(name.decode(), value.decode()) for name, value in scope["headers"]]


async def answer(send: Any, what: object) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(what).encode()})


class Relay:
    """An application that calls the next one: as it is, or in a span that continues what came."""

    def __init__(self, settings: MeshSettings) -> None:
        self._settings = settings
        self._formats = CompositePropagator([B3MultiFormat(), TraceContextTextMapPropagator()])
        self._tracers = {
            way: TracerProvider(sampler=sampler, shutdown_on_exit=False).get_tracer("tests")
            for way, sampler in (("sampled", ALWAYS_ON), ("unsampled", ALWAYS_OFF))
        }

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        came, span_id = arrived(scope), None
        with ExitStack() as stack:
            tracer = self._tracers.get(scope["path"].strip("/"))
            if tracer is not None:
                context = self._formats.extract(dict(came))
                span = stack.enter_context(tracer.start_as_current_span("work", context=context))
                span_id = f"{span.get_span_context().span_id:016x}"
            async with create_async_client(self._settings, base_url="http://next:8080") as client:
                response = await client.get("/")
        await answer(send, {"came": came, "span": span_id, "went": response.json()})


class Exchange(NamedTuple):
    """One request through two sidecars, an application, and two more."""

    came: Headers
    span: str | None
    went: Headers


class Line(NamedTuple):
    """A tester, an application that relays, and the next one; each behind a sidecar with the same tracer."""

    tracer: str
    release: tuple[int, int]
    tester: LocalService
    relay: LocalService
    next: LocalService
    get: Any
    done: dict[tuple[str, str], Exchange]

    def through_one(self, sent: Mapping[str, str]) -> Headers:
        """Send through the tester's sidecar alone: loopback addresses go through."""
        response = self.get(self.tester.sidecar.outbound_url, self.next.app_address, headers=sent)
        return trace_headers(response.seen)

    def exchange(self, way: str, name: str) -> Exchange:
        """Send through the whole line, once for each way and row."""
        if (way, name) not in self.done:
            sent = Letters().spell(ROWS[name].sent)
            seen = self.get(self.tester.sidecar.outbound_url, "relay:8080", f"/{way}", sent).seen
            self.done[way, name] = Exchange(trace_headers(seen["came"]), seen["span"], trace_headers(seen["went"]))
        return self.done[way, name]

    def written(self, row: Row) -> Headers:
        """What this tracer writes into a call."""
        if self.tracer == OPENTELEMETRY:
            state = row.sent.get("tracestate", "") if "traceparent" in row.sent else ""
            return {"traceparent": row.told, "tracestate": state}
        multi = (self.tracer == ZIPKIN_W3C and row.fallback) or row.multi
        single = row.single if self.release >= (1, 40) else None
        if self.tracer == ZIPKIN:
            return single or multi
        (trace, span), sampled = told(multi)[MULTI], multi["x-b3-sampled"]
        return (single or multi) | {"traceparent": f"00-{trace}-{span}-0{sampled}"}


@pytest.fixture(name="line", scope="module", params=[ZIPKIN, ZIPKIN_W3C, OPENTELEMETRY])
def _line(request: pytest.FixtureRequest, envoy: str | None, collector: Any, get: Any) -> Iterator[Line]:
    tracers: dict[str, dict[str, Any]] = {
        ZIPKIN: {"zipkin": collector.url},
        ZIPKIN_W3C: {"zipkin": collector.url, "trace_context": "b3-and-w3c"},
        OPENTELEMETRY: {"otlp": collector.url},
    }
    mesh = LocalMesh(envoy=envoy, **tracers[request.param])
    tester, relay, last = mesh.add("tester", app=False), mesh.add("relay"), mesh.add("next")
    with mesh:
        settings = relay.settings()
        relay.serve(MeshMiddleware(Relay(settings), settings), lifespan="off")
        last.serve(echo, lifespan="off")
        version = json.loads(tester.sidecar.admin("/server_info"))["version"].split("/")[1].split(".")
        yield Line(request.param, (int(version[0]), int(version[1])), tester, relay, last, get, {})


@pytest.mark.parametrize("name", ROWS)
def test_a_sidecar_writes_what_its_tracer_knows_and_passes_on_the_rest(line: Line, name: str) -> None:
    """What is not written again stays as it came, to the byte, and nothing is taken away."""
    letters, row = Letters(), ROWS[name]
    assert letters.read(line.through_one(letters.spell(row.sent))) == row.sent | line.written(row)


def test_what_one_proxy_leaves_stale(line: Line) -> None:
    """Zipkin's tracer writes one form of B3: the several, and since 1.40 the single one where that came."""
    letters = Letters()
    after = letters.read(line.through_one(letters.spell(ROWS["all"].sent)))
    stale = {form for form, (_, span) in told(after).items() if span != "n"}
    other = MULTI if line.release >= (1, 40) else "b3"
    expected = {ZIPKIN: {"traceparent", other}, ZIPKIN_W3C: {other}, OPENTELEMETRY: {"b3", MULTI}}
    assert stale == expected[line.tracer]


@pytest.mark.parametrize("line", [ZIPKIN, ZIPKIN_W3C], indirect=True)
def test_before_1_40_a_second_proxy_overlooks_the_first_where_there_is_a_b3(line: Line) -> None:
    """It reads the stale `b3` before what the first one wrote; since 1.40 the first writes `b3` and nothing else."""
    once = line.through_one(Letters().spell({"b3": "T-S-1"}))
    twice = line.through_one(once)
    parent = twice["x-b3-parentspanid"] if line.release < (1, 40) else twice["b3"].split("-")[3]
    (_, span), first = told(once)["b3"], once["b3"]
    assert parent == span
    assert (twice["b3"] == first) == (line.release < (1, 40))


@pytest.mark.parametrize(("way", "name"), EVERY_WAY)
def test_all_that_arrives_at_the_next_hop_tells_of_one_trace(line: Line, way: str, name: str) -> None:
    """
    Whatever the first caller sent, and whatever its sidecar's tracer and its own wrote of it.

    Where that tracer reads no form of what the caller sent, it begins a trace beside it. Without a span of its own the
    application hands both on: each is whole for those who read it.
    """
    exchange = line.exchange(way, name)
    traces = {form: trace for form, (trace, _) in told(exchange.went).items()}
    sent = told(ROWS[name].sent)
    if way == "carried" and sent and not set(sent) & set(READS[line.tracer]):
        read = {trace for form, trace in traces.items() if form in READS[line.tracer]}
        assert len(read) == 1, exchange
        assert {trace for form, trace in traces.items() if form in sent} == {
            told(exchange.came)[form][0] for form in sent
        }
    else:
        assert len(set(traces.values())) == 1, exchange


@pytest.mark.parametrize(("way", "name"), EVERY_WAY)
def test_what_a_tracer_reads_tells_of_the_last_sidecars_span(line: Line, way: str, name: str) -> None:
    """So the next application's calls, or its spans, come below that and below nothing older."""
    exchange = line.exchange(way, name)
    spans = {span for form, (_, span) in told(exchange.went).items() if form in READS[line.tracer]}
    assert len(spans) == 1, exchange
    assert spans.isdisjoint(span for _, span in told(exchange.came).values())
    assert exchange.span not in spans


@pytest.mark.parametrize(("way", "name"), EXPORTED)
def test_no_sidecar_falls_out_of_the_trace(line: Line, way: str, name: str, collector: Any, wait_for: Any) -> None:
    """Below the span of the application's own sidecar, or of the application, comes that of its call."""
    exchange = line.exchange(way, name)
    trace = next(told(exchange.went)[form][0] for form in READS[line.tracer] if form in told(exchange.went))
    (out,) = wait_for(lambda: [s for s in collector.spans(trace, "relay.default") if s.kind == "client"])
    (inside,) = wait_for(lambda: collector.spans(trace, "next.default"))
    assert inside.parent_id == out.span_id
    if exchange.span is not None:
        assert out.parent_id == exchange.span
    else:
        (before,) = wait_for(lambda: [s for s in collector.spans(trace, "relay.default") if s.kind == "server"])
        assert out.parent_id == before.span_id


@pytest.mark.parametrize("way", ["sampled", "unsampled"])
def test_the_next_hop_is_told_what_the_span_decided(line: Line, way: str) -> None:
    """In every form."""
    went = line.exchange(way, "all").went
    sampled = "1" if way == "sampled" else "0"
    assert went["traceparent"][-1] == sampled
    assert went.get("x-b3-sampled", sampled) == sampled


def test_a_worker_that_begins_a_trace_begins_one(line: Line) -> None:
    """Nothing came from which to learn what the sidecar's tracer reads, so it is told in both formats."""
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("tests")
    with tracer.start_as_current_span("job") as span:
        sent = outbound_headers("http://next:8080/")
    trace = f"{span.get_span_context().trace_id:032x}"
    assert {each for each, _ in told(line.through_one(sent)).values()} == {trace}


@pytest.fixture(name="seldom", scope="module")
def _seldom(line: Line, envoy: str | None, collector: Any) -> Iterator[Line]:
    """A tester whose sidecar samples nothing, as Istio's does 99 times of 100."""
    argument = "otlp" if line.tracer == OPENTELEMETRY else "zipkin"
    with LocalMesh(envoy=envoy, sampling=0, **{argument: collector.url}) as mesh:
        yield line._replace(tester=mesh.add("tester", app=False))


def test_opentelemetrys_tracer_takes_a_sampled_traceparent_back_since_1_39(seldom: Line) -> None:
    """Before, the caller's word counted; Zipkin's does not look at it."""
    after = seldom.through_one(Letters().spell({"traceparent": "00-T-S-01"}))
    taken_back = seldom.tracer == OPENTELEMETRY and seldom.release >= (1, 39)
    assert after["traceparent"][-2:] == ("00" if taken_back else "01")


def test_a_request_id_that_says_sampled_keeps_a_traceparent_sampled(seldom: Line) -> None:
    """With every Envoy: another reason never to lose the id, and never to rewrite it."""
    sent = Letters().spell({"traceparent": "00-T-S-01"}) | {"x-request-id": SAMPLED_ID}
    assert seldom.through_one(sent)["traceparent"][-2:] == "01"


@pytest.mark.parametrize(("request_id", "sampled"), [(UNDECIDED_ID, "0"), (SAMPLED_ID, "1")])
def test_the_request_id_decides_where_nobody_has(seldom: Line, request_id: str, sampled: str) -> None:
    """Envoy keeps its decision in the 15th character, so whoever loses the id decides again."""
    after = seldom.through_one({"x-request-id": request_id})
    said = after["traceparent"][-1] if seldom.tracer == OPENTELEMETRY else after["x-b3-sampled"]
    assert said == sampled


@pytest.mark.parametrize("line", [ZIPKIN, ZIPKIN_W3C], indirect=True)
@pytest.mark.parametrize(("sent", "sampled"), [({"x-b3-sampled": "1"}, "1"), ({"x-b3-flags": "1"}, "0"), ({}, "0")])
def test_zipkins_tracer_takes_the_callers_word_but_no_debug_flag(seldom: Line, sent: Headers, sampled: str) -> None:
    """`x-b3-flags: 1` goes on beside the denial."""
    after = seldom.through_one(Letters().spell(UNDECIDED) | sent)
    assert (after["x-b3-sampled"], after.get("x-b3-flags")) == (sampled, sent.get("x-b3-flags"))
