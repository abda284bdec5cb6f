"""W3C Trace Context, by its text: https://www.w3.org/TR/trace-context-2/."""

from __future__ import annotations

import re
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaware.propagation.w3c import match_denial, match_traceparent, tracestate_members, valid_tracestate

TRACE, SPAN = b"0af7651916cd43dd8448eb211c80319c", b"b7ad6b7169203331"


@pytest.mark.parametrize(
    "value",
    [
        b"00-%b-%b-01" % (TRACE, SPAN),
        b"00-%b-%b-00" % (TRACE, SPAN),
        # Flags of level 2 (random trace id), and some that nobody has defined.
        b"00-%b-%b-03" % (TRACE, SPAN),
        b"00-%b-%b-ff" % (TRACE, SPAN),
        # Almost zero.
        b"00-%b-%b-01" % (b"0" * 31 + b"1", b"0" * 15 + b"1"),
        # Versions to come, with and without what they may add.
        b"cc-%b-%b-01" % (TRACE, SPAN),
        b"cc-%b-%b-01-what-the-future-will-be-like" % (TRACE, SPAN),
        b"fe-%b-%b-01-" % (TRACE, SPAN),
    ],
)
def test_a_traceparent_of_this_or_a_later_version_is_valid(value: bytes) -> None:
    assert match_traceparent(value)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"00",
        b"00-%b-%b" % (TRACE, SPAN),
        b"00-%b-%b-" % (TRACE, SPAN),
        b"00-%b-%b-1" % (TRACE, SPAN),
        b"00-%b-%b-001" % (TRACE, SPAN),
        b"00-%b-%b-.0" % (TRACE, SPAN),
        b"00-%b-%b-01." % (TRACE, SPAN),
        b"00-%b-%b-01-what-the-future-will-be-like" % (TRACE, SPAN),
        b"cc-%b-%b-01.what-the-future-will-be-like" % (TRACE, SPAN),
        b"cc-%b-%b-01-\x00" % (TRACE, SPAN),
        b"cc-%b-%b" % (TRACE, SPAN),
        b"ff-%b-%b-01" % (TRACE, SPAN),
        b"0-%b-%b-01" % (TRACE, SPAN),
        b"000-%b-%b-01" % (TRACE, SPAN),
        b".0-%b-%b-01" % (TRACE, SPAN),
        b"00-%b-%b-01" % (b"0" * 32, SPAN),
        b"00-%b-%b-01" % (TRACE, b"0" * 16),
        b"00-%b-%b-01" % (TRACE.upper(), SPAN),
        b"00-%b-%b-01" % (TRACE, SPAN.upper()),
        b"00-%b-%b-01" % (TRACE + b"0", SPAN),
        b"00-%b-%b-01" % (TRACE[1:], SPAN),
        b"00-%b-%b-01" % (TRACE, SPAN + b"0"),
        b"00-%b-%b-01" % (TRACE, SPAN[1:]),
        b"00_%b_%b_01" % (TRACE, SPAN),
        b"00-%b-%b-01\n" % (TRACE, SPAN),
        b"00-%b-%b-01, 00-%b-%b-01" % (TRACE, SPAN, TRACE, SPAN),
    ],
)
def test_anything_else_is_no_traceparent(value: bytes) -> None:
    assert not match_traceparent(value)


@given(st.binary(max_size=80) | st.text("0123456789abcdefABCDEF-.", max_size=60).map(str.encode))
def test_a_traceparent_is_never_valid_by_accident(value: bytes) -> None:
    """Compared with a slow reading of the same text."""
    fields = value.split(b"-")
    lengths = [len(field) for field in fields[:4]]
    expected = (
        lengths == [2, 32, 16, 2]
        and all(re.fullmatch(rb"[0-9a-f]*", field) for field in fields[:4])
        and fields[0] != b"ff"
        and (len(fields) == 4 or fields[0] != b"00")
        and bool(fields[1].strip(b"0"))
        and bool(fields[2].strip(b"0"))
        and not re.search(rb"[^!-~]", value)
    )
    assert bool(match_traceparent(value)) == expected


@given(
    st.sampled_from([b"00", b"01", b"cc", b"ff"]),
    st.sampled_from([TRACE, TRACE.upper(), b"0" * 32, TRACE[1:]]),
    st.sampled_from([SPAN, b"0" * 16, SPAN + b"0"]),
    st.binary(max_size=3) | st.integers(0, 255).map(lambda flags: b"%02x" % flags),
)
def test_a_denial_is_a_traceparent_of_version_00_whose_flags_do_not_sample(
    version: bytes, trace: bytes, span: bytes, flags: bytes
) -> None:
    value = b"-".join((version, trace, span, flags))
    expected = version == b"00" and bool(match_traceparent(value)) and not int(flags, 16) & 1
    assert bool(match_denial(value)) == expected


KEY = b"abcdefghijklmnopqrstuvwxyz0123456789_-*/"
VALUE = bytes(byte for byte in range(0x20, 0x7F) if byte not in b",=")


@pytest.mark.parametrize(
    "value",
    [
        b"foo=1",
        b"foo=1,bar=2",
        b"foo=1,",
        b",foo=1",
        b"foo=1, ,bar=2",
        b"foo=1 \t , \t bar=2, \t baz=3",
        b"foo=1\t \t,\t \tbar=2,\t \tbaz=3",
        # Blanks before the value belong to it.
        b"foo=  1",
        b"1a-2f@foo=bar1,foo/_-*/bar=bar4",
        b"fw529a3039@dt=FfffFFFf;1",
        KEY + b"=" + VALUE,
        KEY + b"@a-z0-9_-*/=" + VALUE,
        b"z" * 256 + b"=1",
        b"t" * 241 + b"@" + b"v" * 14 + b"=1",
        b"foo=" + b"x" * 256,
        b",".join(b"bar%02d=%02d" % (n, n) for n in range(1, 33)),
        # 32 members and an empty one.
        b",".join(b"bar%02d=%02d" % (n, n) for n in range(1, 33)) + b",",
        # Legal since level 2.
        b"1a=1",
    ],
)
def test_a_list_of_members_is_a_tracestate(value: bytes) -> None:
    assert valid_tracestate(value)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b" ",
        b",",
        b" , \t,",
        b"foo",
        b"foo=",
        b"=1",
        b"foo=,bar=3",
        b"foo=bar=baz",
        b"foo =1",
        b"FOO=1",
        b"foo.bar=1",
        # A key twice, wherever it stands.
        b"foo=1,foo=1",
        b"foo=1,foo=2",
        b"foo=1,bar=2, foo=3",
        # Legal in level 2 alone: a service that knows level 1 throws the whole list away.
        b"foo@=1,bar=2",
        b"foo@@bar=1,bar=2",
        b"foo@bar@baz=1,bar=2",
        b"t@" + b"v" * 15 + b"=1",
        b"t" * 242 + b"@v=1",
        b"@foo=1,bar=2",
        b"_foo=1",
        b"foo=1;bar=2,baz",
        b"foo=\xc3\xa4",
        b"foo=1\x00",
        b"foo=a\tb",
        b"foo=1\n",
        b"z" * 257 + b"=1",
        b"foo=" + b"x" * 257,
        b",".join(b"bar%02d=%02d" % (n, n) for n in range(1, 34)),
    ],
)
def test_anything_else_is_no_tracestate(value: bytes) -> None:
    assert not valid_tracestate(value)


@pytest.mark.parametrize(
    "value",
    [
        b"a=1," + b" " * 8000 + b"!",
        b"a=b" + b" " * 8000 + b"!",
        b"a=b" + b" \t" * 4000 + b"=",
        b"," * 8000 + b"!",
        b"a=" + b"x " * 4000,
        b"a" * 8000,
        b",".join([b"a=" + b"x" * 256] * 31) + b"!=",
    ],
)
def test_a_tracestate_made_to_cost_time_costs_none(value: bytes) -> None:
    begin = perf_counter()
    valid_tracestate(value)
    assert perf_counter() - begin < 0.1


def test_members_are_read_in_order_without_the_blanks_around_them() -> None:
    assert tracestate_members(b" foo= 1 ,, \tbar=a=b".replace(b"a=b", b"ab")) == [(b"foo", b" 1"), (b"bar", b"ab")]
