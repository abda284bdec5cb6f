"""Whether a request says plainly that it is not sampled."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaware.propagation.fitness import fit
from meshaware.propagation.glance import denied, denied_by
from meshaware.propagation.position import read_position

TRACE, SPAN = "463ac35c9f6413ad48485a3953bb6124", "a2fb4a1d1a96d312"
NO = ("traceparent", f"00-{TRACE}-{SPAN}-00")
MULTI = [("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN)]


@pytest.mark.parametrize(
    ("pairs", "verdict"),
    [
        ([NO], True),
        ([NO, ("tracestate", "a=1")], True),
        ([*MULTI, ("x-b3-sampled", "0")], True),
        ([("traceparent", f"00-{TRACE}-{SPAN}-01")], False),
        ([*MULTI, ("x-b3-sampled", "1")], False),
        (MULTI, False),
        # To be read: two of one, a version to come, both formats, baggage, a single b3, debug, what is malformed.
        ([NO, NO], None),
        ([("traceparent", f"cc-{TRACE}-{SPAN}-00-a")], None),
        ([("traceparent", f"00-{TRACE}-{SPAN}-00 ")], None),
        ([("traceparent", f"00-{'0' * 32}-{SPAN}-00")], None),
        ([NO, *MULTI], None),
        ([NO, ("baggage", "a=1")], None),
        ([("b3", f"{TRACE}-{SPAN}-0")], None),
        ([*MULTI, ("x-b3-sampled", "0"), ("x-b3-flags", "1")], None),
        ([("x-b3-sampled", "0")], None),
    ],
)
def test_a_glance_tells_or_does_not(pairs: list[tuple[str, str]], verdict: bool | None) -> None:
    assert denied([(name.encode(), value.encode()) for name, value in pairs]) is verdict


@pytest.mark.parametrize("more", [{}, {b"host": b"orders:8080", b"x-user-type": b"premium", b"cookie": b"b3=1"}])
def test_other_headers_beside_those_of_the_trace_change_nothing(more: dict[bytes, bytes]) -> None:
    line = NO[1].encode()
    assert denied_by({b"traceparent": line, **more}) is True
    assert denied_by({b"traceparent": line, b"baggage": b"a=1", **more}) is None
    assert denied_by({b"traceparent": line[:-1] + b"1", **more}) is False
    assert denied_by(more) is False


NAMES = ["traceparent", "tracestate", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-sampled", "x-b3-flags", "baggage"]
VALUES = [f"00-{TRACE}-{SPAN}-00", f"00-{TRACE}-{SPAN}-01", TRACE, SPAN, "0", "1", "a=1", f"{TRACE}-{SPAN}-0", "", "d"]


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES)), max_size=6))
def test_what_a_glance_tells_is_what_reading_tells(pairs: list[tuple[str, str]]) -> None:
    found = [(name.encode(), value.encode()) for name, value in pairs]
    verdict, position = denied(found), read_position(fit(found))
    if verdict:
        assert position is not None
        assert position.trace_id
        assert position.sampled is False
    elif verdict is False:
        assert position is None or position.sampled is not False
