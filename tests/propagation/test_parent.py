"""Where a request stands in its trace: each encoding of W3C and B3."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaware.propagation.fitness import fit
from meshaware.propagation.names import SETS
from meshaware.propagation.parent import Parent, read_parent

LONG, SHORT, SPAN, OTHER = "463ac35c9f6413ad48485a3953bb6124", "48485a3953bb6124", "a2fb4a1d1a96d312", "0020000000000001"
TRACE_ID, SHORT_ID, SPAN_ID = int(LONG, 16), int(SHORT, 16), int(SPAN, 16)
IDS = {"x-b3-traceid": LONG, "x-b3-spanid": SPAN}


def read(came: dict[str, str]) -> Parent | None:
    return read_parent(fit([(name.encode(), value.encode()) for name, value in came.items()]))


@pytest.mark.parametrize(
    ("came", "parent"),
    [
        ({"traceparent": f"00-{LONG}-{SPAN}-00"}, Parent(TRACE_ID, SPAN_ID, 0)),
        ({"traceparent": f"00-{LONG}-{SPAN}-03"}, Parent(TRACE_ID, SPAN_ID, 3)),
        ({"traceparent": f"cc-{LONG}-{SPAN}-01-later"}, Parent(TRACE_ID, SPAN_ID, 1)),
        ({"traceparent": f"00-{LONG}-{SPAN}-01", "tracestate": "a=1, b=2"}, Parent(TRACE_ID, SPAN_ID, 1, b"a=1, b=2")),
        # A tracestate that is none does not take the position along.
        ({"traceparent": f"00-{LONG}-{SPAN}-01", "tracestate": "a=1,a=2"}, Parent(TRACE_ID, SPAN_ID, 1)),
        ({"tracestate": "a=1"}, None),
        ({"traceparent": f"00-{LONG.upper()}-{SPAN}-01"}, None),
        # B3 in several headers; without a decision the receiver decides.
        (IDS, Parent(TRACE_ID, SPAN_ID, None)),
        ({**IDS, "x-b3-sampled": "1"}, Parent(TRACE_ID, SPAN_ID, 1)),
        ({**IDS, "x-b3-sampled": "true"}, Parent(TRACE_ID, SPAN_ID, 1)),
        ({**IDS, "x-b3-sampled": "0", "x-b3-parentspanid": OTHER}, Parent(TRACE_ID, SPAN_ID, 0)),
        ({**IDS, "x-b3-sampled": "false"}, Parent(TRACE_ID, SPAN_ID, 0)),
        ({**IDS, "x-b3-flags": "1"}, Parent(TRACE_ID, SPAN_ID, 1, debug=True)),
        ({**IDS, "x-b3-flags": "1", "x-b3-sampled": "0"}, Parent(TRACE_ID, SPAN_ID, 1, debug=True)),
        ({**IDS, "x-b3-flags": "0"}, Parent(TRACE_ID, SPAN_ID, None)),
        ({**IDS, "x-b3-traceid": SHORT}, Parent(SHORT_ID, SPAN_ID, None, short=True)),
        # B3 in one header.
        ({"b3": f"{LONG}-{SPAN}"}, Parent(TRACE_ID, SPAN_ID, None)),
        ({"b3": f"{LONG}-{SPAN}-1"}, Parent(TRACE_ID, SPAN_ID, 1)),
        ({"b3": f"{LONG}-{SPAN}-0-{OTHER}"}, Parent(TRACE_ID, SPAN_ID, 0)),
        ({"b3": f"{SHORT}-{SPAN}-d"}, Parent(SHORT_ID, SPAN_ID, 1, debug=True, short=True)),
        # An identifier that begins with a d is no debug.
        ({"b3": f"{LONG}-d{SPAN[1:]}-1"}, Parent(TRACE_ID, int(f"d{SPAN[1:]}", 16), 1)),
        # A decision alone.
        ({"b3": "0"}, Parent(0, 0, 0)),
        ({"b3": "1"}, Parent(0, 0, 1)),
        ({"b3": "d"}, Parent(0, 0, 1, debug=True)),
        ({"x-b3-sampled": "0"}, Parent(0, 0, 0)),
        ({"x-b3-flags": "1"}, Parent(0, 0, 1, debug=True)),
        ({"b3": f"{LONG}-{SPAN}", "x-b3-sampled": "0"}, Parent(TRACE_ID, SPAN_ID, 0)),
        # Of several, W3C's first, then the several.
        ({"b3": f"{LONG}-{OTHER}-0", **IDS}, Parent(TRACE_ID, SPAN_ID, None)),
        ({"traceparent": f"00-{LONG}-{OTHER}-00", **IDS, "x-b3-sampled": "1"}, Parent(TRACE_ID, int(OTHER, 16), 0)),
        ({"traceparent": "00-nonsense", **IDS}, Parent(TRACE_ID, SPAN_ID, None)),
        ({"x-b3-traceid": LONG, "x-b3-sampled": "1"}, Parent(0, 0, 1)),
        ({"b3": f"{LONG}-{SPAN}-2"}, None),
        ({}, None),
    ],
)
def test_a_position_is_what_its_specification_says(came: dict[str, str], parent: Parent | None) -> None:
    assert read(came) == parent


def test_a_decision_is_yes_no_or_left_to_the_receiver() -> None:
    assert [Parent(1, 1, flags).sampled for flags in (0, 1, 2, 3, None)] == [False, True, False, True, None]


TRACE_NAMES = sorted(name.decode() for name in SETS["w3c"] | SETS["b3"])
PIECES = st.lists(st.sampled_from([LONG, SHORT, SPAN, "0", "1", "d", "00", "true", "a=1", "-", ",", "=", " "]), max_size=6)


@given(st.dictionaries(st.sampled_from(TRACE_NAMES), PIECES.map("-".join) | PIECES.map("".join)))
def test_whatever_comes_is_read_or_not_but_never_raises(came: dict[str, str]) -> None:
    parent = read(came)
    assert parent is None or (parent.trace_id == 0) == (parent.span_id == 0)
