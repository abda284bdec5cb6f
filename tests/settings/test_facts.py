"""How the facts of a workload read their values."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaware.settings import facts

_READERS: dict[str, Callable[[object], object]] = {name: getattr(facts, name) for name in facts.__all__}
_WILD = (
    st.none()
    | st.integers()
    | st.text()
    | st.binary()
    | st.dictionaries(st.text() | st.integers(), st.text() | st.none())
)


@pytest.mark.parametrize(
    ("reader", "value", "result"),
    [
        ("read_namespace", " shop ", "shop"),
        ("read_service_account", "inventory.v2", "inventory.v2"),
        ("read_trust_domain", "cluster.local", "cluster.local"),
        ("read_address", "10.1.2.3", "10.1.2.3"),
        ("read_address", "fd00::1", "fd00::1"),
        ("read_address", "10.1.2.3,fd00::1", "10.1.2.3"),  # status.podIPs, and Istio's INSTANCE_IPS
        ("read_pairs", {"app": "shop", "empty": ""}, {"app": "shop", "empty": ""}),
        ("read_pairs", "app=shop, version=v1,", {"app": "shop", "version": "v1"}),
        ("read_pairs", "app=", {"app": ""}),
        ("read_pairs", {}, {}),
        ("read_containers", "app, logger", ("app", "logger")),  # Istio's APP_CONTAINERS
        ("read_containers", ["app"], ("app",)),
        ("read_containers", (), ()),
    ],
)
def test_a_good_value_is_read(reader: str, value: object, result: object) -> None:
    """As an argument, a variable, a file or the sidecar gives it."""
    assert _READERS[reader](value) == result


@pytest.mark.parametrize(
    ("reader", "value", "accepted"),
    [
        ("read_namespace", "Shop", "the name of a namespace"),
        (
            "read_namespace",
            "$(POD_NAMESPACE)",
            "the name of a namespace",
        ),  # a reference that nothing resolved
        ("read_namespace", "shop/sa/admin", "the name of a namespace"),
        ("read_namespace", "n" * 64, "the name of a namespace"),
        ("read_namespace", 5, "the name of a namespace"),
        ("read_service_account", "a/b", "the name of a service account"),
        ("read_trust_domain", "spiffe://cluster.local", "a trust domain such as cluster.local"),
        ("read_trust_domain", "cluster.local/ns/x", "a trust domain such as cluster.local"),
        ("read_address", "inventory-0", "an IP address"),
        ("read_address", "", "an IP address"),
        ("read_containers", "app,,logger", "the names of containers"),
        ("read_containers", "", "the names of containers"),
        ("read_containers", "App", "the names of containers"),
        ("read_containers", ["a" * 64], "the names of containers"),
        ("read_containers", ["app", 5], "the names of containers"),
        ("read_containers", 5, "the names of containers"),
        ("read_containers", ["a"] * 257, "the names of containers"),
        ("read_address", 16909060, "an IP address"),
        ("read_pairs", "app", "key=value"),
        ("read_pairs", {"app": 5}, "a mapping of strings"),
        ("read_pairs", {5: "app"}, "a mapping of strings"),
        ("read_pairs", {"": "app"}, "a mapping of strings"),
        ("read_pairs", ["app=shop"], "a mapping of strings"),
        ("read_pairs", {f"k{i}": "v" for i in range(5000)}, "at most 4096"),
    ],
)
def test_a_bad_value_is_answered_with_what_is_accepted(reader: str, value: object, accepted: str) -> None:
    """Nothing passes that could not stand in a SPIFFE id."""
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
