"""How a field reads its value."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaware.settings import readers

_READERS: dict[str, Callable[[object], object]] = {
    name: getattr(readers, name) for name in readers.__all__ if name not in {"read_choice", "unpath"}
}
_WILD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.sets(st.integers()),
    max_leaves=5,
)


@pytest.mark.parametrize(
    ("reader", "value", "result"),
    [
        ("read_seconds", "250ms", 0.25),
        ("read_seconds", " 1m30s ", 90.0),
        ("read_seconds", "2.5", 2.5),
        ("read_seconds", 3, 3.0),
        ("read_seconds", 0, 0.0),
        ("read_positive_seconds", "0.001", 0.001),
        ("read_count", 3, 3),
        ("read_count", " 10 ", 10),
        ("read_count", 0, 0),
        ("read_flag", True, True),
        ("read_flag", "Yes", True),
        ("read_flag", "0", False),
        ("read_flag", " off ", False),
        ("read_text", " a name ", "a name"),
        ("read_routes", "routes/, more.yaml ,", ("routes/", "more.yaml")),
        ("read_routes", Path("routes"), ("routes",)),
        ("read_routes", [Path("a"), "b,c"], ("a", "b,c")),  # a list is not divided at commas
        ("read_routes", "sidecar", ("sidecar",)),
        ("read_routes", (), ()),
        (
            "read_hosts",
            "payments, .corp.example,10.1.2.3,[fd00::1]",
            ("payments", ".corp.example", "10.1.2.3", "[fd00::1]"),
        ),
        ("read_hosts", {"payments"}, ("payments",)),
        ("read_hosts", "10.0.0.0/8,fd00::/8", ("10.0.0.0/8", "fd00::/8")),
        ("read_headers", "x-tenant,x-shop-*,w3c", ("x-tenant", "x-shop-*", "w3c")),
        ("read_sampling", " Mesh ", "mesh"),
        ("read_sampling", "always", "always"),
        ("read_sampling", "0", 0.0),
        ("read_sampling", "1", 1.0),
        ("read_sampling", ".25", 0.25),
        ("read_sampling", "1e-3", 0.001),
        ("read_sampling", 1, 1.0),
        ("read_sampling", 0.5, 0.5),
        ("read_deadline_header", " X-Shop-Deadline ", "x-shop-deadline"),
        ("read_deadline_header", "deadline-budget", "deadline-budget"),
        ("read_domain", "Cluster.Local.", "cluster.local"),
        ("read_path", "/health/live", "/health/live"),
        ("read_loopback_url", "http://localhost:15021/healthz/ready", "http://localhost:15021/healthz/ready"),
        ("read_loopback_origin", "http://127.0.0.1:15000/", "http://127.0.0.1:15000"),
        ("read_proxy_url", "http://127.0.0.1:15001/", "http://127.0.0.1:15001"),
        ("read_proxy_url", "http://[::1]:15001", "http://[::1]:15001"),
    ],
)
def test_a_good_value_is_read(reader: str, value: object, result: object) -> None:
    """As an argument gives it, or as a variable does."""
    read = _READERS[reader](value)
    assert (read, type(read)) == (result, type(result))


@pytest.mark.parametrize(
    ("reader", "value", "accepted"),
    [
        ("read_seconds", "15 seconds", 'a duration such as "250ms"'),
        ("read_seconds", "-1s", 'a duration such as "250ms"'),
        ("read_seconds", -1, 'a duration such as "250ms"'),
        ("read_seconds", math.nan, 'a duration such as "250ms"'),
        ("read_seconds", math.inf, 'a duration such as "250ms"'),
        ("read_seconds", 10**400, "at most a year"),
        ("read_seconds", "9000h", "at most a year"),
        ("read_seconds", True, 'a duration such as "250ms"'),
        ("read_seconds", None, 'a duration such as "250ms"'),
        ("read_positive_seconds", 0, "more than 0"),
        ("read_positive_seconds", "0s", "leave it out for the built-in default"),
        ("read_count", -1, "a whole number from 0 to 1000"),
        ("read_count", "1001", "a whole number from 0 to 1000"),
        (
            "read_count",
            "9" * 5000,
            "a whole number from 0 to 1000",
        ),  # int() would refuse that in its own words
        ("read_count", "²", "a whole number from 0 to 1000"),
        ("read_count", "2.0", "a whole number from 0 to 1000"),
        ("read_count", 2.0, "a whole number from 0 to 1000"),
        ("read_count", True, "a whole number from 0 to 1000"),
        ("read_flag", "maybe", "true or false"),
        ("read_flag", 1, "true or false"),
        ("read_text", "   ", "printable text"),
        ("read_text", "a\nb", "printable text"),
        ("read_text", "x" * 2000, "at most 1024 characters"),
        ("read_text", 5, "printable text"),
        ("read_routes", 5, "files or directories"),
        ("read_routes", ["a", 5], "files or directories"),
        ("read_routes", ["a", " "], "files or directories"),
        ("read_routes", b"routes", "files or directories"),
        ("read_routes", {"a": "b"}, "files or directories"),
        ("read_hosts", "http://payments", "without scheme or path"),
        ("read_hosts", "payments/api", "without scheme or path"),
        ("read_hosts", "two words", "without scheme or path"),
        ("read_headers", "x tenant", "names of headers"),
        ("read_headers", ["x-tenant: 5"], "names of headers"),
        ("read_sampling", "never", "mesh, always, or a ratio from 0 to 1"),
        ("read_sampling", "1.01", "a ratio from 0 to 1"),
        ("read_sampling", -0.1, "a ratio from 0 to 1"),
        ("read_sampling", math.nan, "a ratio from 0 to 1"),
        ("read_sampling", "nan", "a ratio from 0 to 1"),
        ("read_sampling", "0_1", "a ratio from 0 to 1"),
        ("read_sampling", "\u0661", "a ratio from 0 to 1"),
        ("read_sampling", "9" * 5000, "a ratio from 0 to 1"),
        ("read_sampling", True, "a ratio from 0 to 1"),
        ("read_deadline_header", "x deadline", "a header that means nothing else yet"),
        ("read_deadline_header", "x-request-id", "a header that means nothing else yet"),
        ("read_deadline_header", "Content-Length", "a header that means nothing else yet"),
        ("read_deadline_header", "x-envoy-upstream-rq-timeout-ms", "a header that means nothing else yet"),
        ("read_deadline_header", "grpc-timeout", "a header that means nothing else yet"),
        ("read_deadline_header", "", "a header that means nothing else yet"),
        ("read_deadline_header", 5, "a header that means nothing else yet"),
        ("read_domain", "cluster..local", "a DNS domain"),
        ("read_domain", "", "a DNS domain"),
        ("read_domain", 5, "a DNS domain"),
        ("read_path", "livez", "a path such as /livez"),
        ("read_path", "/", "a path such as /livez"),
        ("read_path", "/livez?x", "a path such as /livez"),
        ("read_path", None, "a path such as /livez"),
        ("read_loopback_url", "http://example.com", "a URL such as"),
        ("read_loopback_url", 15021, "a URL such as"),
        ("read_loopback_origin", "http://127.0.0.1:15000/ready", "without a path"),
        ("read_loopback_origin", "http://127.0.0.1:15000?", "without a path"),
        ("read_proxy_url", "https://proxy:3128", "http://host:port"),
        ("read_proxy_url", "http://proxy", "http://host:port"),
        ("read_proxy_url", "http://user:secret@proxy:3128", "without a user"),
        ("read_proxy_url", "http://proxy:x", "http://host:port"),
        ("read_proxy_url", "http://proxy:1/path", "http://host:port"),
        ("read_proxy_url", 3128, "http://host:port"),
    ],
)
def test_a_bad_value_is_answered_with_what_is_accepted(reader: str, value: object, accepted: str) -> None:
    """The message is the second half of the sentence in `SettingsError`."""
    with pytest.raises(ValueError) as refused:
        _READERS[reader](value)
    assert accepted in str(refused.value)


@pytest.mark.parametrize("reader", _READERS)
@given(_WILD)
def test_no_value_does_more_than_be_refused(reader: str, value: object) -> None:
    """`ValueError` or a result; nothing else comes out."""
    try:
        _READERS[reader](value)
    except ValueError as refused:
        message = str(refused)
    else:
        message = "none"
    assert 0 < len(message) < 300


def test_a_choice_is_taken_in_any_case() -> None:
    """And without the spaces around it."""
    assert readers.read_choice("ceiling", "tight")(" Tight ") == "tight"


@pytest.mark.parametrize(
    ("value", "accepted"),
    [
        ("tigth", "ceiling or tight (did you mean tight?)"),
        ("zzz", "ceiling or tight"),
        (5, "ceiling or tight"),
    ],
)
def test_a_choice_that_does_not_exist_is_answered_with_all(value: object, accepted: str) -> None:
    """And with the nearest, if one is near."""
    with pytest.raises(ValueError) as refused:
        readers.read_choice("ceiling", "tight")(value)
    assert str(refused.value) == accepted


def test_a_path_becomes_text_and_all_else_stays() -> None:
    """For arguments that may be `pathlib.Path`."""
    assert readers.unpath(Path("/etc/podinfo")) == "/etc/podinfo"
    assert readers.unpath(5) == 5
