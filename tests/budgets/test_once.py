"""The sidecar's routes, read once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from meshaware.budgets.once import read_sidecar
from meshaware.errors import ConfigDumpError, SidecarUnavailable


def test_the_routes_are_those_of_the_sidecar(
    fake_admin: Any, one_host: Callable[..., Mapping[str, Any]], private_files: Path
) -> None:
    """Seen from the namespace that is told once it has answered; nothing is left for other processes."""
    fake_admin.put("8080", one_host("inventory", "2s"))
    fake_admin.put("inventory.shop.svc.cluster.local:9090", one_host("*", "3s"))
    asked: list[int] = []

    def namespace() -> str:
        asked.append(len(fake_admin.asked))
        return "shop"

    with fake_admin.serving():
        table, home = read_sidecar(fake_admin.url + "/", namespace=namespace)
    assert home == "shop"
    assert [count > 0 for count in asked] == [True]
    for port, seconds in ((8080, 2.0), (9090, 3.0)):
        route = table.match("GET", f"http://inventory:{port}/")
        assert route is not None
        assert route.budget.timeout == seconds
    assert list(private_files.iterdir()) == []


def test_a_sidecar_that_is_away_or_none_is_an_error(fake_admin: Any) -> None:
    """And its namespace is not asked for."""

    def never() -> str:
        raise AssertionError

    with fake_admin.serving():
        url = fake_admin.url
        fake_admin.fail = (200, b"<html>")
        with pytest.raises(ConfigDumpError):
            read_sidecar(url, namespace=never)
        fake_admin.fail = (503, b"")
        with pytest.raises(SidecarUnavailable, match="answered 503"):
            read_sidecar(url, namespace=never)
    with pytest.raises(SidecarUnavailable, match="nothing listens there"):
        read_sidecar(url, namespace=never)
    with pytest.raises(ValueError, match="127"):
        read_sidecar("http://10.0.0.1:15000", namespace=never)
