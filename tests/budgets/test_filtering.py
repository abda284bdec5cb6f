"""Which virtual hosts are wanted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from meshaware.budgets.config_dump import read_config_dump
from meshaware.budgets.filtering import keep_hosts


def test_names_and_suffixes_are_kept_and_hosts_for_everything() -> None:
    """Ports of old domains and the dot at the end make no difference, nor does case."""
    keep = keep_hosts(["Inventory", ".stock.svc.cluster.local."])
    assert keep is not None
    wanted: list[tuple[str, ...]] = [
        ("inventory.shop.svc.cluster.local", "inventory"),
        ("inventory:8080",),
        ("INVENTORY.",),
        ("x.stock.svc.cluster.local",),
        ("*",),
        ("*.example.com",),
    ]
    assert all(map(keep, wanted))
    others: list[tuple[str, ...]] = [
        (),
        ("inventory.shop.svc.cluster.local",),
        ("stock.svc.cluster.local",),
        ("myinventory",),
    ]
    assert not any(map(keep, others))
    assert keep_hosts(None) is None
    nothing = keep_hosts([])
    assert nothing is not None
    assert not nothing(("inventory",))


@pytest.mark.parametrize("host", ["", ".", "*.example.com", "inventory:8080", "http://inventory", "a b"])
def test_anything_else_is_an_error(host: str) -> None:
    """It names the value, and what to write."""
    with pytest.raises(ValueError, match="must be a name such as") as raised:
        keep_hosts(["inventory", host])
    assert repr(host) in str(raised.value)


def test_one_text_is_not_several_letters() -> None:
    """A mistake that would otherwise keep almost nothing."""
    with pytest.raises(TypeError, match=r"write hosts=\['inventory'\]"):
        keep_hosts("inventory")


def test_what_is_not_wanted_is_counted(one_host: Callable[..., dict[str, Any]]) -> None:
    """And is not in the table."""
    import json

    config = {"name": "8080", "virtual_hosts": [one_host("a"), one_host("b"), one_host("*")]}
    read = read_config_dump(json.dumps([config]), keep=keep_hosts(["a"]))
    assert [host.domains for host in read.configs[0].hosts] == [("a",), ("*",)]
    assert read.skipped == {"virtual host that was not asked for": 1}
