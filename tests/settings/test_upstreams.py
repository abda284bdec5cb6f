"""Upstreams by name: `host:port`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaware.errors import SettingsError
from meshaware.settings import MeshSettings
from meshaware.settings.upstreams import Upstream, parse_upstream


@pytest.mark.parametrize(
    ("text", "upstream"),
    [
        ("inventory:8080", ("inventory", 8080)),
        (" Inventory.Shop.svc.cluster.local.:80 ", ("inventory.shop.svc.cluster.local", 80)),
        ("a_b-c:65535", ("a_b-c", 65535)),
        ("10.0.0.1:80", ("10.0.0.1", 80)),
    ],
)
def test_a_host_and_a_port(text: str, upstream: tuple[str, int]) -> None:
    """In lower case, without the dot at the end."""
    assert parse_upstream(text) == upstream


@pytest.mark.parametrize(
    "text", ["inventory", "inventory:", ":80", "inventory:0", "inventory:65536", "inventory:8o", "http://a:80", "a b:1",
             "inventory:٣", "-a:1", "a:8080/x", ""],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    """With what is accepted."""
    with pytest.raises(ValueError, match="host:port, such as inventory:8080"):
        parse_upstream(text)


@given(st.text(max_size=300))
def test_any_text_is_an_upstream_or_refused(text: str) -> None:
    """And what is one reads the same again."""
    try:
        upstream = parse_upstream(text)
    except ValueError:
        return
    assert parse_upstream(str(upstream)) == upstream


def test_settings_take_several(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an argument or in a variable."""
    monkeypatch.setenv("MESHAWARE_WAIT_FOR", "inventory:8080, orders.shop:80")
    assert MeshSettings().wait_for == ("inventory:8080", "orders.shop:80")
    assert MeshSettings(wait_for=["a:1"]).wait_for == (str(Upstream("a", 1)),)
    with pytest.raises(SettingsError, match=r"argument wait_for is 'inventory'; accepted: upstreams as host:port"):
        MeshSettings(wait_for="inventory")
