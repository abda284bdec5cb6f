"""Which headers are carried, by name."""

from __future__ import annotations

import re
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaware.errors import SettingsError
from meshaware.propagation.headers import DangerousHeaderWarning, HeaderSet
from meshaware.propagation.names import danger, obstacle

DEFAULT = [
    b"traceparent", b"tracestate", b"baggage",
    b"b3", b"x-b3-traceid", b"x-b3-spanid", b"x-b3-parentspanid", b"x-b3-sampled", b"x-b3-flags",
    b"x-request-id", b"x-client-trace-id",
    b"x-user-type", b"x-canary",
]  # fmt: skip


@pytest.mark.parametrize("name", DEFAULT)
def test_what_istio_asks_for_and_the_routing_headers_are_carried_by_default(name: bytes) -> None:
    assert name in HeaderSet.DEFAULT
    assert HeaderSet.DEFAULT.select([(name, b"1")]) == [(name, b"1")]


@pytest.mark.parametrize(
    "name",
    [
        b"authorization",
        b"cookie",
        b"user-agent",
        b"host",
        b"content-type",
        b"x-forwarded-for",
        b"x-envoy-attempt-count",
    ],
)
def test_nothing_else_is(name: bytes) -> None:
    assert name not in HeaderSet.DEFAULT
    assert HeaderSet.DEFAULT.select([(name, b"1")]) == []


@pytest.mark.parametrize(
    ("names", "inside", "outside"),
    [
        (["x-tenant"], [b"x-tenant"], [b"x-tenant-2", b"x-request-id"]),
        (["X-Tenant ", ""], [b"x-tenant"], [b""]),
        (["envoy", "b3"], [b"x-request-id", b"b3", b"x-b3-flags"], [b"traceparent"]),
        (["W3C"], [b"traceparent", b"tracestate", b"baggage"], [b"b3"]),
        (["routing"], [b"x-user-type", b"x-canary"], []),
        (
            ["vendors"],
            [b"x-datadog-trace-id", b"x-cloud-trace-context", b"grpc-trace-bin", b"sw8"],
            [b"x-request-id"],
        ),
        (["x-shop-*"], [b"x-shop-", b"x-shop-cart"], [b"x-shop", b"x-shoe"]),
        ("x-tenant, x-shop-*", [b"x-tenant", b"x-shop-cart"], [b"x"]),
        ([], [], DEFAULT),
    ],
)
def test_sets_names_and_prefixes_can_be_named(
    names: list[str] | str, inside: list[bytes], outside: list[bytes]
) -> None:
    headers = HeaderSet.parse(names)
    raw = [(name, b"1") for name in inside + outside]
    assert [name for name, _ in headers.select(raw)] == inside
    assert all(name in headers for name in inside)
    assert not any(name in headers for name in outside)


def test_two_sets_join() -> None:
    both = HeaderSet.DEFAULT | HeaderSet.parse(["x-tenant", "x-shop-*"])
    assert both.select([(b"x-canary", b"1"), (b"x-tenant", b"2"), (b"x-shop-a", b"3"), (b"te", b"4")]) == [
        (b"x-canary", b"1"),
        (b"x-tenant", b"2"),
        (b"x-shop-a", b"3"),
    ]


def test_capture_is_verbatim_valid_and_bounded() -> None:
    raw = [(b"host", b"a"), (b"x-canary", b"True"), (b"x-user-type", b"a\r\nb"), (b"tracestate", b"a=1")]
    assert HeaderSet.DEFAULT.capture(raw) == ((b"x-canary", b"True"),)
    assert HeaderSet.DEFAULT.capture([]) == ()


def test_sets_compare_hash_and_show_their_names() -> None:
    one, other = HeaderSet.parse(["x-b", "x-a", "x-c-*"]), HeaderSet.parse(["x-c-*", "X-A", "x-b"])
    assert one == other
    assert hash(one) == hash(other)
    assert one != HeaderSet.DEFAULT
    assert one != "x-a"
    assert repr(one) == "<HeaderSet x-a, x-b, x-c-*>"


@pytest.mark.parametrize(
    "name",
    [
        *("host", "Connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "proxy-authorization"),
        *("expect", "content-length", "content-type", "content-*", "if-none-match", "range", "accept-encoding"),
        *("set-cookie", "sec-websocket-key", "sec-websocket-*"),
    ],
)
def test_a_header_of_one_connection_or_message_cannot_be_named(name: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(f"MESHAWARE_HEADERS names '{name}', which cannot")):
        HeaderSet.parse(["x-tenant", name])


@pytest.mark.parametrize(
    "name", ["x tenant", "x:y", "*", "x-*y", "*-x", "x-shop*", "x\ny", "ä", ":path", "a" * 200, "a b-*"]
)
def test_what_is_no_header_name_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="MESHAWARE_HEADERS names") as caught:
        HeaderSet.parse([f"x-{name}" if name == "*" else name])
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", ["x-*", "-*"])
def test_a_prefix_that_means_nearly_everything_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="Name more of it"):
        HeaderSet.parse([name])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("authorization", "act as your caller"),
        ("Cookie", "session"),
        ("x-forwarded-client-cert", "identity"),
        ("x-envoy-upstream-rq-timeout-ms", "steers"),
        ("l5d-dst-override", "steers"),
        ("x-forwarded-for", "address"),
        ("forwarded", "address"),
    ],
)
def test_naming_a_dangerous_header_warns_once_and_carries_it(name: str, reason: str) -> None:
    with pytest.warns(DangerousHeaderWarning, match=f"MESHAWARE_HEADERS carries {name.lower()}: .*{reason}") as caught:
        headers = HeaderSet.parse([name])
    assert [warning.filename for warning in caught] == [__file__]
    assert name.lower().encode() in headers
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        HeaderSet.parse([name])


@pytest.mark.parametrize("name", ["x-envoy-*", "x-envoy-retry-*", "l5d-*", "x-forwarded-*"])
def test_dangerous_headers_cannot_be_named_by_a_prefix(name: str) -> None:
    with pytest.raises(SettingsError, match="Name each of such headers in full"):
        HeaderSet.parse([name])


@given(
    st.binary(max_size=12).map(lambda rest: b"a-" + rest.lower()) | st.sampled_from([b"cookie", b"x-envoy-a", b"l5d-b"])
)
def test_a_prefix_never_means_what_it_must_not(name: bytes) -> None:
    """Dangerous names, names of one message, and what is no name at all."""
    headers = HeaderSet((), [b"a-", b"x-", b"c", b"l5d", b"f"])
    refused = bool(danger(name) or obstacle(name) or re.search(rb"[^!#$%&'*+.^_`|~0-9a-z-]", name))
    assert (headers.select([(name, b"1")]) == []) == refused
    assert (name not in headers) == refused
