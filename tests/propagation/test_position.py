"""Where a request stands in its trace: each encoding of W3C and B3."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaware.propagation.fitness import fit
from meshaware.propagation.names import SETS
from meshaware.propagation.position import Position, read_position

LONG, SHORT, SPAN, OTHER = (
    "463ac35c9f6413ad48485a3953bb6124",
    "48485a3953bb6124",
    "a2fb4a1d1a96d312",
    "0020000000000001",
)
TRACE_ID, SHORT_ID, SPAN_ID = int(LONG, 16), int(SHORT, 16), int(SPAN, 16)
NO = {"x-b3-sampled": "0"}
IDS = {"x-b3-traceid": LONG, "x-b3-spanid": SPAN}


def read(came: dict[str, str]) -> Position | None:
    return read_position(fit([(name.encode(), value.encode()) for name, value in came.items()]))


@pytest.mark.parametrize(
    ("came", "parent"),
    [
        ({"traceparent": f"00-{LONG}-{SPAN}-00"}, Position(TRACE_ID, SPAN_ID, 0)),
        ({"traceparent": f"00-{LONG}-{SPAN}-03"}, Position(TRACE_ID, SPAN_ID, 3)),
        ({"traceparent": f"cc-{LONG}-{SPAN}-01-later"}, Position(TRACE_ID, SPAN_ID, 1)),
        (
            {"traceparent": f"00-{LONG}-{SPAN}-01", "tracestate": "a=1, b=2"},
            Position(TRACE_ID, SPAN_ID, 1, b"a=1, b=2"),
        ),
        # A tracestate that is none does not take the position along.
        ({"traceparent": f"00-{LONG}-{SPAN}-01", "tracestate": "a=1,a=2"}, Position(TRACE_ID, SPAN_ID, 1)),
        ({"tracestate": "a=1"}, None),
        ({"traceparent": f"00-{LONG.upper()}-{SPAN}-01"}, None),
        # B3 in several headers; without a decision the receiver decides.
        (IDS, Position(TRACE_ID, SPAN_ID, None)),
        ({**IDS, "x-b3-sampled": "1"}, Position(TRACE_ID, SPAN_ID, 1)),
        ({**IDS, "x-b3-sampled": "true"}, Position(TRACE_ID, SPAN_ID, 1)),
        ({**IDS, "x-b3-sampled": "0", "x-b3-parentspanid": OTHER}, Position(TRACE_ID, SPAN_ID, 0)),
        ({**IDS, "x-b3-sampled": "false"}, Position(TRACE_ID, SPAN_ID, 0)),
        ({**IDS, "x-b3-flags": "1"}, Position(TRACE_ID, SPAN_ID, 1, debug=True)),
        ({**IDS, "x-b3-flags": "1", "x-b3-sampled": "0"}, Position(TRACE_ID, SPAN_ID, 1, debug=True)),
        ({**IDS, "x-b3-flags": "0"}, Position(TRACE_ID, SPAN_ID, None)),
        ({**IDS, "x-b3-traceid": SHORT}, Position(SHORT_ID, SPAN_ID, None, short=True)),
        # B3 in one header.
        ({"b3": f"{LONG}-{SPAN}"}, Position(TRACE_ID, SPAN_ID, None)),
        ({"b3": f"{LONG}-{SPAN}-1"}, Position(TRACE_ID, SPAN_ID, 1)),
        ({"b3": f"{LONG}-{SPAN}-0-{OTHER}"}, Position(TRACE_ID, SPAN_ID, 0)),
        ({"b3": f"{SHORT}-{SPAN}-d"}, Position(SHORT_ID, SPAN_ID, 1, debug=True, short=True)),
        # An identifier that begins with a d is no debug.
        ({"b3": f"{LONG}-d{SPAN[1:]}-1"}, Position(TRACE_ID, int(f"d{SPAN[1:]}", 16), 1)),
        # A decision alone.
        ({"b3": "0"}, Position(0, 0, 0)),
        ({"b3": "1"}, Position(0, 0, 1)),
        ({"b3": "d"}, Position(0, 0, 1, debug=True)),
        ({"x-b3-sampled": "0"}, Position(0, 0, 0)),
        ({"x-b3-flags": "1"}, Position(0, 0, 1, debug=True)),
        ({"b3": f"{LONG}-{SPAN}", "x-b3-sampled": "0"}, Position(TRACE_ID, SPAN_ID, 0)),
        # Of several, W3C's first, then the several.
        ({"b3": f"{LONG}-{OTHER}-0", **IDS}, Position(TRACE_ID, SPAN_ID, None)),
        ({"traceparent": f"00-{LONG}-{OTHER}-00", **IDS, "x-b3-sampled": "1"}, Position(TRACE_ID, int(OTHER, 16), 0)),
        # But a span below that of another form is newer: Zipkin's tracer advances one form and leaves the others.
        (
            {"traceparent": f"00-{LONG}-{OTHER}-01", "tracestate": "a=1", **IDS, "x-b3-parentspanid": OTHER, **NO},
            Position(TRACE_ID, SPAN_ID, 0, b"a=1"),
        ),
        (
            {"traceparent": f"00-{LONG}-{OTHER}-01", "b3": f"{LONG}-{SPAN}-1-{OTHER}"},
            Position(TRACE_ID, SPAN_ID, 1),
        ),
        (
            {"x-b3-traceid": LONG, "x-b3-spanid": OTHER, "b3": f"{LONG}-{SPAN}-0-{OTHER}"},
            Position(TRACE_ID, SPAN_ID, 0),
        ),
        (
            {**IDS, "b3": f"{LONG}-{OTHER}-0-{OTHER[::-1]}"},
            Position(TRACE_ID, int(OTHER, 16), 0),
        ),
        # Not so where it names the span above, or another trace.
        (
            {**IDS, "x-b3-parentspanid": OTHER, "b3": f"{LONG}-{OTHER}-0-{OTHER[::-1]}"},
            Position(TRACE_ID, SPAN_ID, None),
        ),
        (
            {**IDS, "b3": f"{LONG[::-1]}-{OTHER}-0-{SPAN}"},
            Position(TRACE_ID, SPAN_ID, None),
        ),
        (
            {"traceparent": f"00-{LONG[::-1]}-{OTHER}-01", **IDS, "x-b3-parentspanid": OTHER, **NO},
            Position(int(LONG[::-1], 16), int(OTHER, 16), 1),
        ),
        ({"traceparent": "00-nonsense", **IDS}, Position(TRACE_ID, SPAN_ID, None)),
        ({"x-b3-traceid": LONG, "x-b3-sampled": "1"}, Position(0, 0, 1)),
        ({"b3": f"{LONG}-{SPAN}-2"}, None),
        ({}, None),
    ],
)
def test_a_position_is_what_its_specification_says(came: dict[str, str], parent: Position | None) -> None:
    assert read(came) == parent


def test_a_decision_is_yes_no_or_left_to_the_receiver() -> None:
    assert [Position(1, 1, flags).sampled for flags in (0, 1, 2, 3, None)] == [False, True, False, True, None]


TRACE_NAMES = sorted(name.decode() for name in SETS["w3c"] | SETS["b3"])
PIECES = st.lists(
    st.sampled_from([LONG, SHORT, SPAN, "0", "1", "d", "00", "true", "a=1", "-", ",", "=", " "]), max_size=6
)


@given(st.dictionaries(st.sampled_from(TRACE_NAMES), PIECES.map("-".join) | PIECES.map("".join)))
def test_whatever_comes_is_read_or_not_but_never_raises(came: dict[str, str]) -> None:
    parent = read(came)
    assert parent is None or (parent.trace_id == 0) == (parent.span_id == 0)
