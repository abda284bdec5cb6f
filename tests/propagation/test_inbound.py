"""What can be asked about the request that is being served, and afterwards of an error that it ended with."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from meshaware.identity import Peer
from meshaware.propagation.context import Carried, bind, bind_headers, reset
from meshaware.propagation.hosts import HostPolicy
from meshaware.propagation.inbound import current_peer, mark, marked

PEER = Peer("spiffe://cluster.local/ns/shop/sa/orders")


def carried() -> Carried:
    return Carried([], HostPolicy(), (lambda _: PEER, []))


def test_nobody_called_where_there_is_no_request() -> None:
    assert current_peer() is None
    with bind_headers({"x-request-id": "1"}):
        assert current_peer() is None


def test_headers_bound_inside_a_request_leave_its_caller() -> None:
    token = bind(carried())
    try:
        assert current_peer() is PEER
        with bind_headers({"x-request-id": "1"}), bind_headers({"x-canary": "1"}):
            assert current_peer() is PEER
    finally:
        reset(token)
    assert current_peer() is None


class Frozen(Exception):
    """As a frozen dataclass is."""

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(name)


class Slotted(Exception):
    __slots__ = ()


@pytest.mark.parametrize("kind", [ValueError, Frozen, Slotted, OSError, lambda: ExceptionGroup("", [ValueError()])])
def test_any_error_can_be_marked_and_the_last_mark_holds(kind: Any) -> None:
    error = kind()
    assert marked(error) is None
    first, last = carried(), carried()
    mark(error, first)
    assert marked(error) is first
    mark(error, last)
    assert marked(error) is last


def test_a_mark_stays_in_its_process() -> None:
    """An error can be copied and pickled as before, although what a request carried cannot."""
    error = ValueError("text")
    mark(error, carried())
    for other in (copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        assert other.args == ("text",)
    assert marked(pickle.loads(pickle.dumps(error))) is None


def test_what_is_no_mark_is_none() -> None:
    class Forged(Exception):
        __meshaware__ = "x"

    assert marked(Forged()) is None
    assert marked(None) is None
