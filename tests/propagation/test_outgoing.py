"""What a request gets: one story about its trace, told by one teller."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaware.propagation.names import POSITIONS, SETS, TRACE_NAMES
from meshaware.propagation.outgoing import changes, load, wanted_names

TRACE, SPAN, LIVE = b"80f198ee56343ba864fe8b2a57d3eff7", b"e457b5a2e4d86bd1", b"00f067aa0ba902b7"
PLAIN = {b"x-request-id": b"1", b"x-user-type": b"premium", b"baggage": b"a=1"}
W3C = {b"traceparent": b"00-%b-%b-01" % (TRACE, SPAN), b"tracestate": b"congo=1"}
B3 = {b"b3": b"%b-%b-1" % (TRACE, SPAN)}
MULTI = {
    b"x-b3-traceid": TRACE,
    b"x-b3-spanid": SPAN,
    b"x-b3-parentspanid": SPAN[::-1],
    b"x-b3-sampled": b"1",
    b"x-b3-flags": b"1",
}
VENDOR = {b"x-datadog-trace-id": b"123"}

LIVE_W3C = {b"traceparent": b"00-%b-%b-03" % (TRACE, LIVE)}
LIVE_B3 = {b"b3": b"%b-%b-1" % (TRACE, LIVE)}
LIVE_MULTI = {b"x-b3-traceid": TRACE, b"x-b3-spanid": LIVE, b"x-b3-sampled": b"1"}
LIVE_ALL = {**LIVE_W3C, **LIVE_B3, **LIVE_MULTI}


def test_without_a_tracer_what_came_goes_on_verbatim_and_in_order() -> None:
    came = {**PLAIN, **W3C, **MULTI, **VENDOR}
    added, dropped = changes(load(came), {b"host": b"inventory", b"accept": b"*/*"})
    assert list(added) == list(came.items())
    assert not dropped


@pytest.mark.parametrize("present", [{}, {b"x-user-type": b"mine"}])
def test_a_single_b3_stays_behind_beside_several(present: dict[bytes, bytes]) -> None:
    added, _ = changes(load({**B3, **MULTI}), present)
    assert dict(added) == MULTI
    assert dict(changes(load({**B3, b"x-b3-sampled": b"1"}), {}).add) == {**B3, b"x-b3-sampled": b"1"}


def test_a_single_b3_that_is_below_the_several_goes_in_their_place() -> None:
    """Envoy 1.40 advances it and leaves the others."""
    newer = {b"b3": b"%b-%b-1-%b" % (TRACE, LIVE, SPAN)}
    assert dict(load({**PLAIN, **newer, **MULTI}).goes) == {**PLAIN, **newer}


def test_what_the_request_has_is_never_added_again() -> None:
    present = {b"x-user-type": b"mine", b"baggage": b"", b"x-b3-sampled": b"1"}
    added, dropped = changes(load({**PLAIN, **MULTI}), present)
    assert dict(added) == {
        b"x-request-id": b"1",
        **{name: value for name, value in MULTI.items() if name != b"x-b3-sampled"},
    }
    assert not dropped


@pytest.mark.parametrize(
    "own",
    [{b"x-b3-sampled": b"0"}, {b"x-b3-flags": b"0"}, {b"tracestate": b"mine=1"}, {**W3C, b"tracestate": b"mine=1"}],
)
def test_a_decision_or_a_tracestate_of_the_calls_own_tells_the_whole_story(own: dict[bytes, bytes]) -> None:
    """Beside it what came would tell another one."""
    added, dropped = changes(load({**PLAIN, **W3C, **MULTI}), own)
    assert dict(added) == PLAIN
    assert not dropped


@pytest.mark.parametrize("name", sorted(POSITIONS))
@pytest.mark.parametrize("live", [None, LIVE_ALL])
def test_who_writes_a_position_of_their_own_tells_the_whole_story(name: bytes, live: dict[bytes, bytes] | None) -> None:
    """No other trace header comes beside it, and none of theirs goes; plain headers come as ever."""
    present = {name: b"theirs", b"tracestate": b"theirs=1"}
    added, dropped = changes(load({**PLAIN, **W3C, **B3, **MULTI, **VENDOR}), present, live)
    assert dict(added) == PLAIN
    assert not dropped


def test_who_hands_on_what_came_by_hand_gets_the_other_forms_of_it() -> None:
    added, dropped = changes(load({**PLAIN, **W3C, **MULTI}), {b"traceparent": W3C[b"traceparent"]})
    assert dict(added) == {**PLAIN, b"tracestate": b"congo=1", **MULTI}
    assert not dropped


@pytest.mark.parametrize(
    ("came", "written"),
    [
        (W3C, LIVE_W3C),
        (B3, {**LIVE_W3C, **LIVE_B3}),
        (MULTI, {**LIVE_W3C, **LIVE_MULTI}),
        ({b"x-b3-sampled": b"1"}, {**LIVE_W3C, **LIVE_MULTI}),
        ({**W3C, **B3}, {**LIVE_W3C, **LIVE_B3}),
        ({**W3C, **MULTI}, {**LIVE_W3C, **LIVE_MULTI}),
        # A single `b3` would be read first by the next proxy, and advanced by none before Envoy 1.40.
        ({**B3, **MULTI, **VENDOR}, {**LIVE_W3C, **LIVE_MULTI}),
        # A trace that begins here: the sidecar's tracer may read only one of the two.
        ({}, {**LIVE_W3C, **LIVE_MULTI}),
    ],
)
def test_a_live_span_replaces_every_trace_header_that_came_in_the_formats_that_came(
    came: dict[bytes, bytes], written: dict[bytes, bytes]
) -> None:
    added, dropped = changes(load({**PLAIN, **came}), {}, LIVE_ALL)
    assert dict(added) == {**PLAIN, **written}
    assert not dropped


@pytest.mark.parametrize(
    ("came", "written"),
    [
        ({}, LIVE_W3C),
        (W3C, LIVE_W3C),
        ({**W3C, **MULTI}, LIVE_W3C),
        (MULTI, LIVE_MULTI),
        # No proxy that wants one format reads this one.
        (B3, LIVE_W3C),
    ],
)
def test_where_the_mesh_wants_one_format_a_live_span_is_written_in_one(
    came: dict[bytes, bytes], written: dict[bytes, bytes]
) -> None:
    added, _ = changes(load({**PLAIN, **came}, one=True), {}, LIVE_ALL, one=True)
    assert dict(added) == {**PLAIN, **written}


def test_where_the_mesh_wants_one_format_what_came_goes_on_in_one() -> None:
    assert dict(load({**PLAIN, **W3C, **B3, **MULTI}, one=True).goes) == {**PLAIN, **W3C}
    assert dict(load({**PLAIN, **MULTI}, one=True).goes) == {**PLAIN, **MULTI}


@pytest.mark.parametrize("written", [LIVE_W3C, LIVE_MULTI, {**LIVE_W3C, **LIVE_MULTI}], ids=["w3c", "multi", "both"])
def test_what_the_tracer_wrote_stays_and_the_other_forms_come_from_the_same_span(written: dict[bytes, bytes]) -> None:
    added, dropped = changes(load({**PLAIN, **W3C, **B3, **MULTI}), written, LIVE_ALL)
    assert not dropped
    assert {**written, **dict(added)} == {**PLAIN, **LIVE_W3C, **LIVE_MULTI}
    assert not set(dict(added)) & set(written)


def test_a_single_b3_that_the_tracer_wrote_stays_unless_several_came() -> None:
    added, dropped = changes(load(PLAIN), LIVE_B3, LIVE_ALL)
    assert (dict(added), dropped) == ({**PLAIN, **LIVE_W3C}, frozenset())
    added, dropped = changes(load({**PLAIN, **MULTI}), LIVE_B3, LIVE_ALL)
    assert (dict(added), dropped) == ({**PLAIN, **LIVE_W3C, **LIVE_MULTI}, frozenset(B3))


def test_what_tells_of_another_span_beside_the_tracers_is_replaced() -> None:
    """A service that copies its request's headers by hand, and a tracer that writes over some of them."""
    present = {**W3C, **B3, **MULTI, **LIVE_W3C, b"accept": b"*/*"}
    added, dropped = changes(load({}), present, LIVE_ALL)
    kept = {name: value for name, value in present.items() if name not in dropped}
    assert {**kept, **dict(added)} == {**LIVE_W3C, **LIVE_MULTI, b"accept": b"*/*"}
    assert not set(kept) & set(dict(added))


def test_a_tracestate_of_another_story_never_stays_beside_a_live_span() -> None:
    added, dropped = changes(load(W3C), {b"tracestate": b"old=1"}, LIVE_W3C)
    assert dict(added) == LIVE_W3C
    assert dropped == frozenset({b"tracestate"})
    live = {**LIVE_W3C, b"tracestate": b"new=1"}
    added, dropped = changes(load({}), {**LIVE_W3C, b"tracestate": b"old=1"}, live)
    assert dict(added) == {b"tracestate": b"new=1"}
    assert dropped == frozenset({b"tracestate"})
    added, dropped = changes(load({}), {**live}, live)
    assert dict(added) == {}
    assert dropped == frozenset()


def test_other_baggage_goes_in_the_place_of_what_came_but_not_of_the_requests_own() -> None:
    cargo = load(PLAIN)
    assert dict(changes(cargo, {}, None, b"b=2").add) == {**PLAIN, b"baggage": b"b=2"}
    assert dict(changes(load({}), {}, None, b"b=2").add) == {b"baggage": b"b=2"}
    assert b"baggage" not in dict(changes(cargo, {b"baggage": b"c=3"}, None, b"b=2").add)


@pytest.mark.parametrize(
    ("present", "names"),
    [({}, {*LIVE_W3C, *LIVE_MULTI}), (B3, {*LIVE_W3C, *B3}), (MULTI, {*LIVE_W3C, *LIVE_MULTI}), (W3C, LIVE_W3C)],
)
def test_a_form_that_is_there_is_written_too(present: dict[bytes, bytes], names: set[bytes]) -> None:
    assert wanted_names(load({}), present) & set(LIVE_ALL) == set(names)


NAMES = sorted(TRACE_NAMES | SETS["envoy"] | SETS["routing"] | {b"baggage", b"accept"})
WRITTEN = sorted(TRACE_NAMES & (SETS["w3c"] | SETS["b3"]))
VALUES = st.sampled_from([b"a", b"b", b"c"])
HEADERS = st.dictionaries(st.sampled_from(NAMES), VALUES)


@given(HEADERS, HEADERS, st.none() | st.dictionaries(st.sampled_from(WRITTEN), VALUES))
def test_whatever_meets_nothing_comes_twice_and_only_traces_go(
    came: dict[bytes, bytes], present: dict[bytes, bytes], live: dict[bytes, bytes] | None
) -> None:
    added, dropped = changes(load(came), present, live)
    names = [name for name, _ in added]
    assert len(names) == len(set(names))
    assert not set(names) & (set(present) - dropped)
    assert dropped <= SETS["w3c"] | SETS["b3"]
    assert dropped <= set(present)
    if live is None:
        assert not dropped
        assert set(added) <= set(came.items())
