"""A span as trace headers, all formats in agreement."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshaware.propagation.fitness import fit, is_fit
from meshaware.propagation.position import Position, read_position
from meshaware.propagation.telling import tell

IDS = st.integers(1, (1 << 64) - 1)


@given(IDS | st.integers(1, (1 << 128) - 1), IDS, st.integers(0, 255), st.booleans(), st.booleans())
def test_each_format_alone_tells_the_same(trace_id: int, span_id: int, flags: int, debug: bool, short: bool) -> None:
    """Read again, each gives the position that was written."""
    written = tell(Position(trace_id, span_id, flags, debug=debug, short=short))
    assert all(is_fit(name, value) for name, value in written.items())
    w3c, single = ({name: written[name]} for name in (b"traceparent", b"b3"))
    multi = {name: value for name, value in written.items() if name.startswith(b"x-b3-")}
    for told in (w3c, single, multi):
        parent = read_position(fit(list(told.items())))
        assert parent is not None
        assert (parent.trace_id, parent.span_id, parent.sampled) == (trace_id, span_id, bool(flags & 1))
        assert parent.debug == (debug and parent.sampled and told is not w3c)
        assert not parent.short or (short and told is not w3c)


def test_a_short_identifier_goes_back_as_short_as_it_came() -> None:
    written = tell(Position(0x48485A3953BB6124, 2, 1, short=True))
    assert written[b"x-b3-traceid"] == b"48485a3953bb6124"
    assert written[b"b3"] == b"48485a3953bb6124-0000000000000002-1"
    assert written[b"traceparent"] == b"00-000000000000000048485a3953bb6124-0000000000000002-01"
    assert tell(Position(1 << 64, 2, 1, short=True))[b"x-b3-traceid"] == b"%032x" % (1 << 64)


def test_a_tracestate_goes_out_as_it_is_and_an_empty_one_not_at_all() -> None:
    assert tell(Position(1, 2, 1, b"a=1, b=2"))[b"tracestate"] == b"a=1, b=2"
    assert b"tracestate" not in tell(Position(1, 2, 1))
