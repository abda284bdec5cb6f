"""Of what came in, what may go out."""

from __future__ import annotations

from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaware.propagation import fitness
from meshaware.propagation.fitness import MAX_COUNT, MAX_LIST, MAX_TOTAL, MAX_VALUE, fit, is_fit, rule_of
from meshaware.propagation.names import SETS, Pair

TRACE, SPAN, PARENT = b"80f198ee56343ba864fe8b2a57d3eff7", b"e457b5a2e4d86bd1", b"05e3ac9a4f6e3b90"
TRACEPARENT = (b"traceparent", b"00-%b-%b-01" % (TRACE, SPAN))
TRACESTATE = (b"tracestate", b"congo=t61rcWkgMzE")
MULTI = [
    (b"x-b3-traceid", TRACE),
    (b"x-b3-spanid", SPAN),
    (b"x-b3-parentspanid", PARENT),
    (b"x-b3-sampled", b"1"),
]
FULL = [
    (b"x-request-id", b"4c7b9e2a-9a1d-9f9b-8c3e-5d1f2a3b4c5d"),
    TRACEPARENT,
    TRACESTATE,
    (b"baggage", b"userId=alice;meta=1, serverNode=DF%2028"),
    *MULTI,
    (b"b3", b"%b-%b-1" % (TRACE, SPAN)),
    (b"x-user-type", b"premium"),
]


def test_what_is_in_order_passes_verbatim_and_in_order() -> None:
    assert list(fit(FULL).items()) == FULL


@pytest.mark.parametrize("nibble", [b"4", b"9", b"a", b"b"])
def test_a_request_id_keeps_the_trace_reason_that_envoy_packs_into_it(nibble: bytes) -> None:
    value = b"4c7b9e2a-9a1d-%b1d2-8c3e-5d1f2a3b4c5d" % nibble
    assert fit([(b"x-request-id", value)]) == {b"x-request-id": value}


@pytest.mark.parametrize(
    "value",
    [
        b"not-a-uuid",
        b"Root=1-5759e988-bd862e3fe1be46a994272793",
        b"a b",
        b"a\tb",
        b'"quoted"',
        b"caf\xe9",
        b"\xff\x80",
    ],
)
def test_any_text_may_be_a_request_id(value: bytes) -> None:
    assert fit([(b"x-request-id", value)]) == {b"x-request-id": value}


@pytest.mark.parametrize("byte", [*range(0x20), 0x7F])
def test_a_value_with_a_control_character_is_dropped(byte: int) -> None:
    """All but the tab, which may stand between words."""
    value = b"a%cb" % byte
    assert bool(fit([(b"x-user-type", value)])) == (byte == 0x09)


@pytest.mark.parametrize("value", [b"", b" ", b"\t", b" \t "])
def test_an_empty_value_is_dropped(value: bytes) -> None:
    assert fit([(b"x-user-type", value), (b"x-b3-parentspanid", value), (b"tracestate", value)]) == {}


def test_blanks_around_a_value_are_not_part_of_it() -> None:
    name, value = TRACEPARENT
    assert fit([(name, b"\t " + value + b" \t")]) == {name: value}


def test_the_first_of_several_lines_counts() -> None:
    """B3 says so of its headers; for the others it is what servers show the application."""
    found = [
        (b"x-user-type", b""),
        (b"x-user-type", b"premium"),
        (b"x-user-type", b"admin"),
        *MULTI,
        (b"x-b3-traceid", TRACE[::-1]),
        (b"x-b3-sampled", b"0"),
    ]
    assert fit(found) == {b"x-user-type": b"premium", **dict(MULTI)}


def test_a_malformed_first_line_is_not_mended_by_a_second() -> None:
    assert fit([(b"x-b3-sampled", b"maybe"), (b"x-b3-sampled", b"1")]) == {}


@pytest.mark.parametrize("second", [TRACEPARENT[1], b"00-%b-%b-00" % (TRACE, PARENT), b"nonsense"])
def test_two_traceparents_are_none_and_take_the_tracestate_along(second: bytes) -> None:
    found = [TRACEPARENT, (b"traceparent", second), TRACESTATE, (b"baggage", b"a=1")]
    assert fit(found) == {b"baggage": b"a=1"}


def test_an_empty_line_beside_a_traceparent_is_nothing() -> None:
    assert fit([(b"traceparent", b""), TRACEPARENT]) == dict([TRACEPARENT])


def test_lines_of_a_list_are_joined_in_order() -> None:
    found = [
        TRACEPARENT,
        (b"tracestate", b"foo=1,bar=2"),
        (b"baggage", b"a=1"),
        (b"tracestate", b""),
        (b"tracestate", b" rojo=1 "),
        (b"baggage", b"b=2;p"),
    ]
    assert fit(found) == {
        TRACEPARENT[0]: TRACEPARENT[1],
        b"tracestate": b"foo=1,bar=2,rojo=1",
        b"baggage": b"a=1,b=2;p",
    }


@pytest.mark.parametrize("traceparent", [None, b"", b"00-zz", b"ff-%b-%b-01" % (TRACE, SPAN)])
def test_a_tracestate_without_a_traceparent_is_dropped(traceparent: bytes | None) -> None:
    found = [TRACESTATE] if traceparent is None else [(b"traceparent", traceparent), TRACESTATE]
    assert fit(found) == {}


@pytest.mark.parametrize("tracestate", [b"nonsense", b"a=1," * 40 + b"FOO=1"])
def test_a_malformed_tracestate_leaves_the_traceparent_alone(tracestate: bytes) -> None:
    assert fit([TRACEPARENT, (b"tracestate", tracestate)]) == dict([TRACEPARENT])


def test_too_many_members_on_several_lines_are_too_many() -> None:
    lines = [(b"tracestate", b"a%d=1,b%d=1" % (n, n)) for n in range(17)]
    assert fit([TRACEPARENT, *lines]) == dict([TRACEPARENT])


@pytest.mark.parametrize("missing", [b"x-b3-traceid", b"x-b3-spanid"])
@pytest.mark.parametrize("broken", [b"", b"xyz"])
def test_one_b3_identifier_without_the_other_is_dropped_but_not_the_decision(missing: bytes, broken: bytes) -> None:
    found = [(name, broken if name == missing else value) for name, value in MULTI]
    assert fit(found) == {b"x-b3-sampled": b"1"}


def test_a_decision_alone_is_a_whole_b3() -> None:
    for pair in [(b"x-b3-sampled", b"0"), (b"x-b3-flags", b"1"), (b"b3", b"0")]:
        assert fit([pair]) == dict([pair])


def test_a_malformed_parent_is_dropped_alone() -> None:
    found = [(name, b"nope" if name == b"x-b3-parentspanid" else value) for name, value in MULTI]
    assert fit(found) == {name: value for name, value in MULTI if name != b"x-b3-parentspanid"}


@pytest.mark.parametrize(
    ("name", "limit"), [(b"x-user-type", MAX_VALUE), (b"x-request-id", MAX_VALUE), (b"baggage", MAX_LIST)]
)
def test_an_over_long_value_is_dropped(name: bytes, limit: int) -> None:
    assert fit([(name, b"a" * limit)])
    assert not fit([(name, b"a" * (limit + 1))])
    assert is_fit(name, b"a" * limit)
    assert not is_fit(name, b"a" * (limit + 1))


def test_lines_that_are_too_long_together_are_dropped() -> None:
    lines = [(b"baggage", b"k%d=" % n + b"v" * 1000) for n in range(9)]
    assert fit(lines) == {}
    assert list(fit(lines[:8])) == [b"baggage"]


def test_no_more_headers_than_the_bound() -> None:
    found = [(b"x-shop-%d" % n, b"1") for n in range(MAX_COUNT + 5)]
    assert list(fit(found).items()) == found[:MAX_COUNT]


def test_what_does_not_fit_stays_behind_and_what_does_goes_on() -> None:
    found = [*((b"x-shop-%d" % n, b"v" * MAX_VALUE) for n in range(5)), (b"x-request-id", b"1")]
    fitting = fit(found)
    assert list(fitting) == [b"x-shop-0", b"x-shop-1", b"x-shop-2", b"x-shop-3"]
    found[0] = (b"x-shop-0", b"v")
    fitting = fit(found)
    assert list(fitting) == [b"x-shop-0", b"x-shop-1", b"x-shop-2", b"x-shop-3", b"x-request-id"]
    assert sum(map(len, fitting.values())) <= MAX_TOTAL


def test_a_thousand_lines_cost_no_million_copies() -> None:
    begin = perf_counter()
    assert fit([(b"baggage", b"a=1")] * 100_000) == {}
    assert perf_counter() - begin < 1


def test_every_rule_can_be_said() -> None:
    assert {rule_of(name).says for name in SETS["w3c"] | SETS["b3"]} > {rule_of(b"x-tenant").says}


NAMES = st.sampled_from(sorted(SETS["w3c"] | SETS["b3"] | SETS["envoy"] | SETS["routing"]))
VALUES = (
    st.binary(max_size=60)
    | st.sampled_from([value for _, value in FULL])
    | st.sampled_from([b"", b" ", b"0", b"1", b"d", b"x" * 5000])
)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=20))
def test_whatever_comes_in_what_goes_out_is_in_order(found: list[Pair]) -> None:
    """Each name once; each value one of the lines, or lines joined; valid; nothing that means nothing alone."""
    fitting = fit(found)
    for name, value in fitting.items():
        lines = [line.strip(b" \t") for other, line in found if other == name]
        joined = b",".join(line for line in lines if line)
        assert value in lines or (name in (b"tracestate", b"baggage") and value == joined)
        assert is_fit(name, value)
        assert not {0, 10, 13} & set(value)
    if b"tracestate" in fitting:
        assert b"traceparent" in fitting
    assert (b"x-b3-traceid" in fitting) == (b"x-b3-spanid" in fitting)
    if b"x-b3-parentspanid" in fitting:
        assert b"x-b3-traceid" in fitting
    assert fit(list(fitting.items())) == fitting
    assert set(fitness.__all__) >= {"fit"}
