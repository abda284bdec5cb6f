"""URLs of the proxy: loopback only."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaware.settings.addresses import LoopbackUrl, parse_loopback


@pytest.mark.parametrize(
    ("url", "parsed"),
    [
        ("http://127.0.0.1:15000", LoopbackUrl(("127.0.0.1",), 15000, "127.0.0.1:15000", "/")),
        ("http://127.0.0.1:15000/", LoopbackUrl(("127.0.0.1",), 15000, "127.0.0.1:15000", "/")),
        (
            "http://localhost:15021/healthz/ready",
            LoopbackUrl(("127.0.0.1", "::1"), 15021, "localhost:15021", "/healthz/ready"),
        ),
        ("http://[::1]:15000/certs", LoopbackUrl(("::1",), 15000, "[::1]:15000", "/certs")),
        ("http://127.8.9.10", LoopbackUrl(("127.8.9.10",), 80, "127.8.9.10", "/")),
        (
            "http://127.0.0.1:1/config_dump?resource=x&mask=y",
            LoopbackUrl(("127.0.0.1",), 1, "127.0.0.1:1", "/config_dump?resource=x&mask=y"),
        ),
        ("http://LOCALHOST:1?x", LoopbackUrl(("127.0.0.1", "::1"), 1, "LOCALHOST:1", "/?x")),
    ],
)
def test_a_url_on_loopback_is_taken_apart(url: str, parsed: LoopbackUrl) -> None:
    """Without asking any name server."""
    assert parse_loopback(url) == parsed


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:15000",
        "//127.0.0.1:15000",
        "https://127.0.0.1:15000",
        "file:///etc/passwd",
        "http://",
        "http://:15000",
        "http://example.com",
        "http://localhost.example.com",
        "http://example.com#@localhost",
        "http://localhost@example.com",
        "http://example.com@localhost",  # who writes that means something else
        "http://localhost.",
        "http://10.0.0.1:15000",
        "http://0.0.0.0:15000",
        "http://169.254.169.254/latest/meta-data",
        "http://127.1:15000",  # 127.0.0.1 for some, but not for all
        "http://2130706433:15000",
        "http://0x7f.0.0.1",
        "http://127.0.0.1.example.com",
        "http://[::]:15000",
        "http://[::ffff:127.0.0.1]:15000",
        "http://[fe80::1]:15000",
        "http://[::1%25lo]:15000",
        "http://[::1:15000",
        "http://127.0.0.1:99999",
        "http://127.0.0.1:0",
        "http://127.0.0.1:x",
        "http://127.0.0.1:15000/a b",
        "http://127.0.0.1:15000/\r\nx: y",
        "http://127.0.0.1:15000/#x",
        "http://127.0.0.1\t:15000",
        "http://127.0.0.1:15000/ä",
        "http://127.0.0.1:15000/" + "a" * 2048,
    ],
)
def test_any_other_url_is_refused(url: str) -> None:
    """The message says what is accepted."""
    with pytest.raises(ValueError, match=r"^a URL such as http://127\.0\.0\.1:15000: http, and the host localhost"):
        parse_loopback(url)


@given(st.text() | st.text().map(lambda text: f"http://{text}") | st.text().map(lambda text: f"http://127.0.0.1{text}"))
def test_no_text_leads_anywhere_but_to_loopback(url: str) -> None:
    """Whatever is written, the addresses are loopback and nothing is injected into the request."""
    try:
        parsed = parse_loopback(url)
    except ValueError:
        return
    assert all(address.startswith("127.") or address == "::1" for address in parsed.addresses)
    assert parsed.target.startswith("/")
    assert (parsed.authority + parsed.target).isprintable()
