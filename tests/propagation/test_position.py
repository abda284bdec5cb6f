"""The caller's span, as the headers name it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaware.propagation.fitness import fit
from meshaware.propagation.position import Position, came_from

TRACE = "0af7651916cd43dd8448eb211c80319c"
SHORT = "8448eb211c80319c"
SPAN = "b7ad6b7169203331"
OTHER = {"x-b3-traceid": "1" * 32, "x-b3-spanid": "2" * 16, "x-b3-sampled": "0"}


@pytest.mark.parametrize(
    ("headers", "position"),
    [
        ({"traceparent": f"00-{TRACE}-{SPAN}-01"}, (TRACE, SPAN, True)),
        ({"traceparent": f"00-{TRACE}-{SPAN}-00"}, (TRACE, SPAN, False)),
        # The random flag says nothing about sampling.
        ({"traceparent": f"00-{TRACE}-{SPAN}-03"}, (TRACE, SPAN, True)),
        ({"traceparent": f"00-{TRACE}-{SPAN}-02"}, (TRACE, SPAN, False)),
        # A later version may say more behind it.
        ({"traceparent": f"cc-{TRACE}-{SPAN}-01-what"}, (TRACE, SPAN, True)),
        # W3C over B3, several over single: what proxies advance.
        ({"traceparent": f"00-{TRACE}-{SPAN}-01", **OTHER}, (TRACE, SPAN, True)),
        ({"b3": f"{TRACE}-{SPAN}-1", **OTHER}, ("1" * 32, "2" * 16, False)),
        ({"x-b3-traceid": TRACE, "x-b3-spanid": SPAN, "x-b3-sampled": "1"}, (TRACE, SPAN, True)),
        ({"x-b3-traceid": TRACE, "x-b3-spanid": SPAN, "x-b3-sampled": "true"}, (TRACE, SPAN, True)),
        ({"x-b3-traceid": TRACE, "x-b3-spanid": SPAN, "x-b3-sampled": "false"}, (TRACE, SPAN, False)),
        # Debug means sampled; nothing means that the receiver decides.
        ({"x-b3-traceid": TRACE, "x-b3-spanid": SPAN, "x-b3-flags": "1"}, (TRACE, SPAN, True)),
        ({"x-b3-traceid": TRACE, "x-b3-spanid": SPAN, "x-b3-flags": "0"}, (TRACE, SPAN, None)),
        ({"x-b3-traceid": SHORT, "x-b3-spanid": SPAN}, (SHORT, SPAN, None)),
        ({"b3": f"{SHORT}-{SPAN}"}, (SHORT, SPAN, None)),
        ({"b3": f"{TRACE}-{SPAN}-0"}, (TRACE, SPAN, False)),
        ({"b3": f"{TRACE}-{SPAN}-d-{SPAN}"}, (TRACE, SPAN, True)),
        # A decision alone is no position.
        ({"b3": "0"}, None),
        ({"x-b3-sampled": "0"}, None),
        ({"x-request-id": "1"}, None),
        ({}, None),
    ],
)
def test_the_headers_name_the_callers_span(
    headers: dict[str, str], position: tuple[str, str, bool | None] | None
) -> None:
    came = {name.encode(): value.encode() for name, value in headers.items()}
    assert fit(list(came.items())) == came
    assert came_from(came) == (None if position is None else Position(*position))


_NAMES = ["traceparent", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-sampled", "x-b3-flags"]
_VALUES = st.one_of(
    st.binary(max_size=80),
    st.from_regex(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-x)?", fullmatch=True),
    st.from_regex(rb"[0-9a-f]{32}-[0-9a-f]{16}(-[01d])?", fullmatch=True),
    st.from_regex(rb"[0-9a-f]{16}", fullmatch=True),
    st.sampled_from([b"0", b"1", b"d"]),
)


@given(st.lists(st.tuples(st.sampled_from(_NAMES).map(str.encode), _VALUES), max_size=6))
def test_of_whatever_came_only_identifiers_are_read(found: list[tuple[bytes, bytes]]) -> None:
    position = came_from(fit(found))
    if position is not None:
        assert len(position.trace_id) in (16, 32)
        assert len(position.span_id) == 16
        assert not set(position.trace_id + position.span_id) - set("0123456789abcdef")
