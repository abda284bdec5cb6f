"""Virtual hosts as bytes: what is made of them is what was put in, once, and only when it is asked for."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from meshaware.budgets import Budget, Route
from meshaware.budgets.folded import FoldedHosts, Kind, domains_of
from meshaware.budgets.route import Entry, RouteMatch, TextMatch, VirtualHost

_KINDS = [
    Kind(RouteMatch(TextMatch("prefix", "/a")), Budget(timeout=1.0)),
    Kind(RouteMatch(doubt="who knows"), Budget(), "redirect", "who knows"),
]
_INVENTORY = VirtualHost(
    "inventory:8080",
    ("inventory", "*.inventory"),
    (
        Entry(_KINDS[0].match, Route("first", Budget(timeout=1.0), "sidecar", "inventory:8080")),
        Entry(_KINDS[1].match, Route("é", Budget(), "there", "inventory:8080", "redirect", "who knows")),
    ),
)
_NOTHING = VirtualHost("nothing", (), ())


def _folded() -> FoldedHosts:
    hosts = FoldedHosts(_KINDS)
    hosts.add("inventory:8080", ("inventory", "*.inventory"), (0, "first", "sidecar", 1, "é", "there"))
    hosts.add("nothing", (), ())
    return hosts


def test_a_host_says_what_was_put_in() -> None:
    """By its number, from the end too, in a slice, and one after the other."""
    hosts = _folded()
    assert (hosts[0], hosts[1], hosts[-1]) == (_INVENTORY, _NOTHING, _NOTHING)
    assert hosts[:] == (_INVENTORY, _NOTHING)
    assert list(hosts) == [_INVENTORY, _NOTHING]
    assert (len(hosts), hosts.routes) == (2, 2)
    with pytest.raises(IndexError):
        hosts[2]


def test_a_host_is_made_once() -> None:
    """Whoever asks for it by its number, in whichever thread, has the same routes in hand."""
    hosts = _folded()
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(hosts.__getitem__, [0] * 100))
    assert {id(each) for each in made} == {id(hosts[0])}
    assert next(iter(hosts)) is hosts[0]


def test_they_are_compared_by_what_they_say() -> None:
    """With others of their kind, whatever numbers those have for it, and with a tuple of hosts."""
    hosts, others = _folded(), FoldedHosts(_KINDS[::-1])
    others.add("inventory:8080", ("inventory", "*.inventory"), (1, "first", "sidecar", 0, "é", "there"))
    assert hosts != others
    others.add("nothing", (), ())
    assert hosts == others == _folded()
    assert hosts == (_INVENTORY, _NOTHING)
    plain: object = (_INVENTORY, _NOTHING)
    assert plain == hosts
    assert hosts != (_NOTHING, _INVENTORY)
    assert hosts != [_INVENTORY, _NOTHING]
    assert hash(hosts) == hash(others) == hash((_INVENTORY, _NOTHING))
    assert repr(hosts) == repr((_INVENTORY, _NOTHING))


def test_domains_are_told_without_making_hosts() -> None:
    """Of these as of hosts that are there already."""
    told = [("inventory", "*.inventory"), ()]
    assert list(domains_of(_folded())) == list(domains_of((_INVENTORY, _NOTHING))) == told
