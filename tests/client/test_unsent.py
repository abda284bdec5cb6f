"""With too little left of the work in hand a call is not begun, and no socket is touched."""

from __future__ import annotations

import logging
import pickle
import time
from collections.abc import Callable

import httpx
import pytest

from meshaware import call_options, create_async_client, create_client
from meshaware.budgets import RouteTable
from meshaware.deadline import detached, limit
from meshaware.deadline.work import Work, begin, end
from meshaware.errors import DeadlineExceeded
from meshaware.instrumentation import CallOutcome, on_call
from meshaware.settings import MeshSettings

from .conftest import Peer, Script, answer

URL = "http://inventory/items"


@pytest.fixture(name="table")
def _table(routes: Callable[..., RouteTable]) -> RouteTable:
    return routes(timeout="3s")


@pytest.fixture(name="upstream")
def _upstream(peer: Callable[[Script], Peer]) -> Peer:
    return peer(answer())


def settings_for(upstream: Peer, **more: object) -> MeshSettings:
    return MeshSettings(mesh="none", outbound_proxy=upstream.url, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(("left", "told"), [(0.0, "nothing left"), (0.05, "ms left")])
def test_it_fails_at_once_and_says_why(upstream: Peer, table: RouteTable, left: float, told: str) -> None:
    with (
        create_client(settings_for(upstream, deadline_floor="100ms"), routes=table) as client,
        limit(left),
        pytest.raises(DeadlineExceeded) as caught,
    ):
        client.get(URL)
    assert upstream.connections == 0
    assert isinstance(caught.value, httpx.TimeoutException)
    message = str(caught.value)
    assert message.startswith(f"GET {URL}: not begun, with ")
    assert told in message
    assert "100ms wanted (MESHAWARE_DEADLINE_FLOOR)" in message
    assert (caught.value.phase, caught.value.seconds, caught.value.spent) == ("unsent", None, {})
    assert caught.value.route == "items"
    assert caught.value.request.url == URL
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.phase) == (message, "unsent")


@pytest.mark.anyio
async def test_an_asynchronous_call_too(upstream: Peer) -> None:
    """Where no route governs it, and where the deadline has passed."""
    async with create_async_client(settings_for(upstream), routes=RouteTable.empty()) as client:
        token = begin(Work(time.monotonic() - 1))
        with pytest.raises(DeadlineExceeded, match="nothing left") as caught:
            await client.get(URL)
        end(token)
    assert upstream.connections == 0
    assert caught.value.route is None


def test_above_the_floor_it_is_begun(upstream: Peer, table: RouteTable) -> None:
    with create_client(settings_for(upstream, deadline_floor="100ms"), routes=table) as client:
        with limit(2):
            assert client.get(URL).status_code == 200
        with limit(0), detached():
            assert client.get(URL).status_code == 200
        with limit(0):
            assert client.get(URL, extensions=call_options(detached=True)).status_code == 200


def test_a_deadline_of_one_call_is_the_caller_s_choice(upstream: Peer, table: RouteTable) -> None:
    """The floor is for what is left over, not for what is asked for."""
    with create_client(settings_for(upstream, deadline_floor=5), routes=table) as client:
        assert client.get(URL, extensions=call_options(deadline=time.monotonic() + 2)).status_code == 200


def test_observed_it_is_sent_and_counted(upstream: Peer, table: RouteTable, caplog: pytest.LogCaptureFixture) -> None:
    """One line a route, however many calls there are."""
    with create_client(settings_for(upstream, deadlines="observe"), routes=table) as client:
        heard: list[CallOutcome] = []
        stop = on_call(heard.append)
        for seconds in (-1, 0.001, 2):
            token = begin(Work(time.monotonic() + seconds, held=False))
            assert client.get(URL).status_code == 200
            end(token)
    assert len(upstream.requests) == 3
    stop()
    assert [outcome.verdict for outcome in heard] == ["overdue", "overdue", "answered"]
    lines = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(lines) == 1
    assert "outlasted the deadline of its request" in lines[0]
