"""B3, by its text: https://github.com/openzipkin/b3-propagation."""

from __future__ import annotations

import pytest

from meshaware.propagation.b3 import FLAGS, SAMPLED, match_b3, match_span_id, match_trace_id

TRACE, SPAN, PARENT = b"80f198ee56343ba864fe8b2a57d3eff7", b"e457b5a2e4d86bd1", b"05e3ac9a4f6e3b90"


@pytest.mark.parametrize(
    "value",
    [
        b"%b-%b-1-%b" % (TRACE, SPAN, PARENT),
        b"%b-%b-0" % (TRACE, SPAN),
        b"%b-%b-d" % (TRACE, SPAN),
        # The decision is left to the receiver.
        b"%b-%b" % (TRACE, SPAN),
        # 64 bits.
        b"%b-%b-1" % (TRACE[:16], SPAN),
        # 64 bits, padded.
        b"%b%b-%b-1" % (b"0" * 16, TRACE[:16], SPAN),
        # A decision alone.
        b"0",
        b"1",
        b"d",
    ],
)
def test_every_encoding_of_the_specification_is_valid(value: bytes) -> None:
    assert match_b3(value)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"-",
        b"2",
        b"true",
        b"00",
        TRACE,
        b"%b-" % TRACE,
        b"%b-%b-" % (TRACE, SPAN),
        b"%b-%b-2" % (TRACE, SPAN),
        b"%b-%b-01" % (TRACE, SPAN),
        b"%b-%b-1-" % (TRACE, SPAN),
        b"%b-%b-1-%b-1" % (TRACE, SPAN, PARENT),
        b"%b-%b-%b" % (TRACE, SPAN, PARENT),
        b"%b-%b-1" % (TRACE.upper(), SPAN),
        b"%b-%b-1" % (TRACE[:31], SPAN),
        b"%b-%b-1" % (TRACE[:24], SPAN),
        b"%b-%b-1" % (TRACE + TRACE[:16], SPAN),
        b"%b-%b-1" % (TRACE, SPAN[:15]),
        b"%b-%b-1" % (b"0" * 32, SPAN),
        b"%b-%b-1" % (b"0" * 16, SPAN),
        b"%b-%b-1" % (TRACE, b"0" * 16),
        b" 0",
        b"0\n",
    ],
)
def test_anything_else_is_no_b3(value: bytes) -> None:
    assert not match_b3(value)


def test_identifiers_are_lower_case_hexadecimal_and_not_zero() -> None:
    assert match_trace_id(TRACE)
    assert match_trace_id(TRACE[:16])
    assert match_trace_id(b"0" * 31 + b"1")
    assert match_span_id(SPAN)
    for value in (TRACE.upper(), TRACE[:20], b"0" * 32, b"0" * 16, b"", b"g" * 32):
        assert not match_trace_id(value)
    for value in (SPAN.upper(), SPAN[:8], TRACE, b"0" * 16, b"", SPAN + b"\n"):
        assert not match_span_id(value)


def test_a_decision_is_yes_or_no_and_so_is_the_debug_flag() -> None:
    assert {b"0", b"1", b"true", b"false"} == SAMPLED
    assert {b"0", b"1"} == FLAGS
