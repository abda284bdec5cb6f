"""What the error of a call whose time is up says, and where it survives."""

from __future__ import annotations

import multiprocessing
import pickle
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import httpx
import pytest

from meshaware import call_options, create_client
from meshaware.budgets import Budget, Route, RouteTable
from meshaware.client.allowance import Allowance, allow, default_allowances, from_budget
from meshaware.client.call import Call, Whole
from meshaware.client.httpx import (
    ConnectDeadlineExceeded,
    PoolDeadlineExceeded,
    ReadDeadlineExceeded,
    WriteDeadlineExceeded,
)
from meshaware.deadline import limit
from meshaware.errors import DeadlineExceeded
from meshaware.settings import MeshSettings

from .conftest import Conversation, Peer, Script

URL = "http://inventory/items"


def late(transport: httpx.BaseTransport, url: str = URL, **options: Any) -> DeadlineExceeded:
    """The error of a call through a transport of the caller's."""
    settings = MeshSettings(mesh="none", timeout=0.05, buffer=0.0)
    with create_client(settings, routes=RouteTable.empty(), transport=transport) as client:
        with pytest.raises(DeadlineExceeded) as caught:
            client.get(url, **options)
    return caught.value


class Slow(httpx.BaseTransport):
    """Takes its time, and then raises what it was made with."""

    def __init__(self, error: type[httpx.TimeoutException], seconds: float = 0.06) -> None:
        self._error = error
        self._seconds = seconds

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        time.sleep(self._seconds)  # a transport that is slow, and tells nothing
        raise self._error("too slow", request=request)


@pytest.mark.parametrize(
    ("raised", "ours", "phase"),
    [
        (httpx.PoolTimeout, PoolDeadlineExceeded, "pool"),
        (httpx.ConnectTimeout, ConnectDeadlineExceeded, "connect"),
        (httpx.WriteTimeout, WriteDeadlineExceeded, "send"),
        (httpx.ReadTimeout, ReadDeadlineExceeded, "wait"),
        (httpx.TimeoutException, ReadDeadlineExceeded, "wait"),
    ],
)
def test_a_transport_that_tells_no_phase_tells_it_by_its_error(
    raised: type[httpx.TimeoutException], ours: type[DeadlineExceeded], phase: str
) -> None:
    """What it raised is the cause."""
    error = late(Slow(raised))
    assert type(error) is ours
    assert error.phase == phase
    assert isinstance(error.__cause__, raised)


def test_a_timeout_that_comes_at_once_is_not_ours() -> None:
    """A mock's, in somebody's tests: nothing was waited for."""
    transport, settings = Slow(httpx.ReadTimeout, 0.0), MeshSettings(mesh="none")
    with create_client(settings, routes=RouteTable.empty(), transport=transport) as client:
        with pytest.raises(httpx.ReadTimeout) as caught:
            client.get(URL)
    assert type(caught.value) is httpx.ReadTimeout


def test_the_message_keeps_what_may_be_secret_to_itself() -> None:
    """Neither credentials nor a query; and it does not grow with the URL."""
    error = late(Slow(httpx.ReadTimeout), "http://user:secret@inventory:8080/items/42?token=secret")
    assert str(error).startswith("GET http://inventory:8080/items/42?...: no complete answer within 50ms")
    assert "secret" not in str(error)
    long = late(Slow(httpx.ReadTimeout), f"{URL}/{'x' * 1000}")
    assert len(str(long)) < 700


def test_the_message_names_the_deadline_that_passed() -> None:
    """That of the work in hand, the one given with the call, or one that had passed already."""
    with limit(0.03):
        assert "the deadline of the work in hand passed " in str(late(Slow(httpx.ReadTimeout)))
    given = call_options(deadline=time.monotonic() + 0.03)
    assert "the deadline given with call_options passed " in str(late(Slow(httpx.ReadTimeout), extensions=given))
    gone = call_options(deadline=time.monotonic() - 1)
    error = late(Slow(httpx.ReadTimeout), extensions=gone)
    assert "the deadline given with call_options had passed before the call" in str(error)
    assert "Spent: nothing yet" in str(error)
    assert error.seconds is None


def of(allowance: Allowance, route: Route | None = None, whole: Whole | None = None) -> DeadlineExceeded:
    """The error of a call that was given so much, just as its time is up."""
    call = Call(httpx.Request("GET", URL), route, allowance, None, whole)
    call.enter("wait", time.monotonic() - 100)
    transport = vars(create_client(MeshSettings(mesh="none"), routes=RouteTable.empty()))["_transport"]
    failure: DeadlineExceeded = transport._failure(type("Leaving", (), {"call": call}), httpx.ReadTimeout("late"))
    return failure


def test_the_message_says_whose_time_it_was(routes: Callable[..., RouteTable]) -> None:
    """And the error's attributes name the route."""
    table = routes(timeout="3s")
    route = table.match("GET", URL)
    assert route is not None
    budget = of(from_budget(3.25, "route"), route)
    assert "no complete answer within 3.25s (the budget of route 'items' (" in str(budget)
    assert (budget.route, budget.origin, budget.seconds) == ("items", route.origin, 3.25)
    declared, _ = default_allowances(Budget(timeout=2.0), 0.25, "ceiling")
    assert "within 2.25s (from MESHAWARE_TIMEOUT and its like)" in str(of(declared))
    assert "(set by the caller)" in str(
        of(allow(declared, dict.fromkeys(("connect", "read", "write", "pool"), 2.0), None))
    )
    default = of(from_budget(60.0, "default", streams=True))
    assert "no answer within 1m (meshaware's default for what the mesh does not bound)" in str(default)


def test_the_message_of_a_later_hop_tells_of_the_first(routes: Callable[..., RouteTable]) -> None:
    """Whose budget was used up, that is; with a total, or with a bound on the headers alone."""
    route = routes(timeout="3s").match("GET", URL)
    for streams, what in ((False, "complete answer"), (True, "answer")):
        whole = Whole()
        first = Call(httpx.Request("GET", URL), route, from_budget(3.25, "route", streams=streams), None, whole)
        first.enter("wait", time.monotonic() - 10)
        first.answered()
        error = of(from_budget(600.0, "default"), None, whole)
        assert f"no {what} within 3.25s of the first request, redirects and auth retries included (the" in str(error)
        assert (error.route, error.seconds) == ("items", 3.25)


LATE = """
import os
if os.environ.get("TESTS_CLIENT_LIBRARY") == "httpx2":
    import httpx2
    httpx2.alias_httpx()
from meshaware import create_client
from meshaware.budgets import RouteTable
from meshaware.settings import MeshSettings

with create_client(MeshSettings(mesh="none", timeout=0.1, buffer=0.0), routes=RouteTable.empty()) as client:
    client.get({url!r})
"""


def test_the_error_crosses_a_process_boundary(peer: Callable[[Script], Peer]) -> None:
    """As whatever runs work in a pool of processes would carry it: whole, with request, phase and what was spent."""

    def silent(conversation: Conversation) -> None:
        conversation.read_request()
        conversation.stay_silent()

    url = f"{peer(silent).url}/items"
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        with pytest.raises(ReadDeadlineExceeded, match="no complete answer within 100ms") as caught:
            pool.submit(exec, LATE.format(url=url), {}).result(60)
    error = caught.value
    assert (error.phase, error.seconds) == ("wait", 0.1)
    assert error.spent["wait"] > 0.05
    assert str(error.request.url) == url


@pytest.mark.parametrize(
    "kind", [PoolDeadlineExceeded, ConnectDeadlineExceeded, WriteDeadlineExceeded, ReadDeadlineExceeded]
)
def test_every_kind_of_it_survives_a_pickle(kind: type[DeadlineExceeded]) -> None:
    """Also one that nobody filled in."""
    back = pickle.loads(pickle.dumps(kind("late")))
    assert type(back) is kind
    assert (str(back), dict(back.spent)) == ("late", {})
