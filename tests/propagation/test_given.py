"""Headers that code gives: refused with a reason where they cannot go out as they are."""

from __future__ import annotations

import re
import warnings
from typing import Any

import pytest

from meshaware.propagation.context import bind_headers
from meshaware.propagation.fitness import MAX_COUNT, MAX_LIST, MAX_VALUE
from meshaware.propagation.given import merge, read_given
from meshaware.propagation.headers import DangerousHeaderWarning

TRACE, SPAN, PARENT = "80f198ee56343ba864fe8b2a57d3eff7", "e457b5a2e4d86bd1", "05e3ac9a4f6e3b90"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"


def read(headers: Any) -> tuple[tuple[bytes, bytes], ...]:
    return read_given(headers, stacklevel=1)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-User-Type": "premium", "x-request-id": "a b"},
        [("X-User-Type", "premium"), ("x-request-id", "a b")],
        (("X-User-Type", b"premium"), (b"X-Request-ID", b"a b")),
        iter([(b"x-user-type", "premium"), ("x-request-id", "a b")]),
    ],
)
def test_a_mapping_or_pairs_of_text_or_bytes(headers: Any) -> None:
    assert read(headers) == ((b"x-user-type", b"premium"), (b"x-request-id", b"a b"))


def test_nothing_is_something_to_give() -> None:
    assert read({}) == ()


@pytest.mark.parametrize("name", ["", "x y", "x:y", "x\n", "ä", b"\xff", "a" * 129, "x(y)"])
def test_a_name_that_is_none_is_refused(name: str | bytes) -> None:
    with pytest.raises(ValueError, match="is no header name"):
        read([(name, "1")])


@pytest.mark.parametrize("name", ["Host", "content-length", "Connection", "transfer-encoding", "if-match"])
def test_a_header_of_one_message_or_connection_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"header '{name}' cannot be carried: .*Leave it out"):
        read({name: "1"})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("x-tenant", "", "header x-tenant has no value: leave it out"),
        ("x-tenant", " a", "' a' begins or ends with a blank: strip it"),
        ("x-tenant", "a\t", "begins or ends with a blank"),
        ("x-tenant", "caf\xe9", "is not ASCII: encode it first"),
        ("x-tenant", "a\r\nx-evil: 1", "must be text without control characters"),
        ("x-tenant", b"a\x00", "must be text without control characters"),
        ("x-tenant", "a" * (MAX_VALUE + 1), f"{MAX_VALUE + 1} bytes are too many: at most {MAX_VALUE}"),
        ("baggage", "a" * (MAX_LIST + 1), f"at most {MAX_LIST}"),
        ("traceparent", "00-1-2-3", "'00-1-2-3' must be 00-<32 hex digits>-"),
        ("traceparent", TRACEPARENT.upper(), "lower-case"),
        ("b3", f"{TRACE}", "must be <16 or 32 hex digits>-<16 hex digits>"),
        ("x-b3-sampled", "yes", "'yes' must be 0 or 1"),
        ("x-b3-traceid", "0" * 32, "not all zero"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_go_out_as_it_is_is_refused(name: str, value: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read([(name, value)])
    assert name in str(caught.value)
    assert len(str(caught.value)) < 300


def test_bytes_over_127_are_taken_as_they_are() -> None:
    assert read([("x-tenant", b"caf\xe9")]) == ((b"x-tenant", b"caf\xe9"),)


@pytest.mark.parametrize("name", ["x-mesh-deadline-ms", "X-Mesh-Deadline-Ms", b"x-mesh-deadline-ms"])
def test_a_deadline_in_a_message_holds_no_job(name: str | bytes) -> None:
    """`outbound_headers` gave it to whoever wrote the message; by now it says nothing."""
    assert read([(name, "250"), ("x-tenant", "1")]) == ((b"x-tenant", b"1"),)


def test_a_name_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="header 'X-Tenant' is given twice"):
        read([("x-tenant", "1"), ("X-Tenant", "1")])


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"tracestate": "a=1"}, "tracestate means nothing without traceparent"),
        ({"x-b3-traceid": TRACE}, "x-b3-traceid means nothing without x-b3-spanid"),
        ({"x-b3-spanid": SPAN}, "x-b3-spanid means nothing without x-b3-traceid"),
        ({"x-b3-parentspanid": PARENT}, "x-b3-parentspanid means nothing without x-b3-traceid"),
    ],
)
def test_half_a_position_in_a_trace_is_refused(headers: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(headers)


def test_too_much_is_refused() -> None:
    with pytest.raises(ValueError, match=f"{MAX_COUNT + 1} headers of .* are too many: at most {MAX_COUNT}"):
        read({f"x-{number}": "1" for number in range(MAX_COUNT + 1)})
    with pytest.raises(ValueError, match="5 headers of 20495 bytes are too many"):
        read({f"x-{number}": "a" * MAX_VALUE for number in range(5)})


def test_a_dangerous_header_is_taken_with_a_warning_and_never_shown() -> None:
    with pytest.warns(DangerousHeaderWarning, match="bind_headers carries authorization: whoever") as caught:
        bind_headers({"Authorization": "Bearer secret"})
    assert [warning.filename for warning in caught] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bind_headers({"authorization": "Bearer other"})
    with pytest.raises(ValueError, match="authorization: a value must be") as refused:
        bind_headers({"authorization": "Bearer secret\n"})
    assert "secret" not in str(refused.value)


OUTER = (
    (b"x-request-id", b"1"),
    (b"traceparent", b"outer"),
    (b"tracestate", b"outer"),
    (b"b3", b"outer"),
    (b"sw8", b"outer"),
    (b"baggage", b"outer"),
)


def test_inner_headers_go_over_outer_ones() -> None:
    assert merge(OUTER[:1], ((b"x-request-id", b"2"), (b"x-tenant", b"3"))) == (
        (b"x-request-id", b"2"),
        (b"x-tenant", b"3"),
    )


@pytest.mark.parametrize("name", [b"traceparent", b"b3", b"x-b3-traceid"])
def test_an_inner_position_in_a_trace_replaces_every_outer_trace_header(name: bytes) -> None:
    assert merge(OUTER, ((name, b"inner"),)) == (OUTER[0], OUTER[-1], (name, b"inner"))


def test_a_decision_alone_changes_only_the_decision() -> None:
    assert merge(OUTER, ((b"x-b3-sampled", b"1"),)) == (*OUTER, (b"x-b3-sampled", b"1"))
