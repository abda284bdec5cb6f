"""What the next service is told: the smallest of all that bounds the call, and only inside the mesh."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaware import call_options, create_async_client, create_client
from meshaware.budgets import Budget, RouteTable
from meshaware.client.promise import Teller, bound_of
from meshaware.deadline import detached, limit
from meshaware.deadline.work import Work, begin, end
from meshaware.settings import MeshSettings

NAME = b"x-mesh-deadline-ms"
tell = Teller(NAME).tell
URL = "http://inventory/items"
Pair = tuple[bytes, bytes]


@pytest.mark.parametrize(
    ("budget", "bound"),
    [
        (None, None),
        (Budget(), None),
        (Budget(attempts=3), None),
        (Budget(timeout=3.0), 3.0),
        (Budget(timeout=3.0, attempts=2, per_try_timeout=1.0), 1.0),
        # Envoy ignores a per-try timeout that is not under the timeout.
        (Budget(timeout=3.0, attempts=2, per_try_timeout=5.0), 3.0),
        (Budget(attempts=2, per_try_timeout=1.0, retry_on={"5xx"}), 1.0),
        # The delay is over when the request goes on.
        (Budget(timeout=3.0, delay=2.0), 3.0),
    ],
)
def test_the_mesh_waits_for_one_try(budget: Budget | None, bound: float | None) -> None:
    assert bound_of(budget) == bound


@pytest.mark.parametrize(
    ("raw", "promise", "value"),
    [
        ([], (3.0, None), b"3000"),
        ([], (None, 2.0), b"2000"),
        ([], (3.0, 2.0), b"2000"),
        ([], (1.0, 2.0), b"1000"),
        ([], (None, None), None),
        # The caller of the client may shorten it, and cannot lengthen it.
        ([(b"X-Mesh-Deadline-Ms", b"500")], (1.0, 2.0), b"500"),
        ([(NAME, b"9000")], (1.0, 2.0), b"1000"),
        ([(NAME, b"500")], (None, None), b"500"),
        # What cannot be read is none.
        ([(NAME, b"soon")], (1.0, None), b"1000"),
        ([(NAME, b"500"), (NAME, b"500")], (1.0, None), b"1000"),
        ([(NAME, b"soon")], (None, None), None),
        # Whose upload may take long has the mesh's whole time after it.
        ([(b"content-length", b"65536")], (1.0, 2.0), b"1000"),
        ([(b"content-length", b"65537")], (1.0, 2.0), b"2000"),
        ([(b"content-length", b"65537")], (1.0, None), None),
        ([(b"content-length", b"9" * 5000)], (1.0, None), None),
        ([(b"Transfer-Encoding", b"chunked")], (1.0, 2.0), b"2000"),
        # What an upgrade leads to outlives the request.
        ([(b"upgrade", b"websocket")], (1.0, 2.0), None),
        # Nobody outside the mesh is told, whatever the caller wrote.
        ([(NAME, b"500")], None, None),
        ([], None, None),
    ],
)
def test_the_smallest_is_told_once(
    raw: list[Pair], promise: tuple[float | None, float | None] | None, value: bytes | None
) -> None:
    answer, left = (1.0, 2.0) if promise is None else promise
    after = tell(raw, answer, left, inside=promise is not None)
    assert [each for name, each in after if name.lower() == NAME] == ([] if value is None else [value])
    assert [pair for pair in after if pair[0].lower() != NAME] == [pair for pair in raw if pair[0].lower() != NAME]


def test_where_there_is_nothing_to_change_nothing_is_copied() -> None:
    raw = [(b"host", b"inventory")]
    assert tell(raw, None, None, inside=True) is raw
    assert tell(raw, 1.0, 1.0, inside=False) is raw
    assert tell(raw, 2_000_000.0, None, inside=True) is raw


@given(
    st.lists(
        st.tuples(st.sampled_from([NAME, b"content-length", b"transfer-encoding", b"x-other"]), st.binary(max_size=12)),
        max_size=5,
    ),
    st.one_of(st.none(), st.floats(0.001, 100)),
    st.one_of(st.none(), st.floats(0.001, 100)),
)
def test_it_is_never_longer_than_what_bounds_the_call(
    raw: list[Pair], answer: float | None, left: float | None
) -> None:
    after = [value for name, value in tell(raw, answer, left, inside=True) if name == NAME]
    assert len(after) <= 1
    if after and left is not None:
        assert int(after[0]) <= max(1, left * 1000)


# Through a client


class Wire:
    """What left, as the sidecar would get it."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        to = request.url.params.get("to")
        return httpx.Response(200) if to is None else httpx.Response(302, headers={"location": to})

    @property
    def told(self) -> list[str | None]:
        return [request.headers.get("x-mesh-deadline-ms") for request in self.requests]


@pytest.fixture(name="wire")
def _wire() -> Wire:
    return Wire()


@pytest.fixture(name="table")
def _table(routes: Callable[..., RouteTable]) -> RouteTable:
    return routes(timeout="3s", retries={"attempts": 2, "perTryTimeout": "2s"})


Make = Callable[..., httpx.Client]


@pytest.fixture(name="make")
def _make(wire: Wire, table: RouteTable) -> Iterator[Make]:
    clients: list[httpx.Client] = []

    def make(*, routes: RouteTable = table, follow_redirects: bool = False, **settings: Any) -> httpx.Client:
        made = create_client(
            MeshSettings(mesh="none", **settings),
            routes=routes,
            transport=httpx.MockTransport(wire),
            follow_redirects=follow_redirects,
        )
        clients.append(made)
        return made

    yield make
    for each in clients:
        each.close()


def test_the_per_try_timeout_is_told_where_it_is_less(make: Make, wire: Wire) -> None:
    make().get(URL)
    assert wire.told == ["2000"]


def test_what_is_left_of_the_work_is_told_where_it_is_less(make: Make, wire: Wire) -> None:
    with limit(1):
        make().get(URL)
    assert 900 < int(wire.told[0] or 0) <= 1000


def test_the_caller_s_own_numbers_are_told_where_they_are_less(make: Make, wire: Wire) -> None:
    client = make()
    client.get(URL, timeout=0.7)
    client.get(URL, timeout=60)
    client.get(URL, timeout=None)
    client.get(URL, extensions=call_options(timeout=0.6))
    client.get(URL, extensions=call_options(deadline=time.monotonic() + 0.5))
    client.get(URL, headers={"x-mesh-deadline-ms": "400"})
    assert wire.told[:4] == ["700", "2000", "2000", "600"]
    assert 400 < int(wire.told[4] or 0) <= 500
    assert wire.told[5] == "400"


def test_where_the_mesh_bounds_nothing_only_the_work_does(
    make: Make, wire: Wire, routes: Callable[..., RouteTable]
) -> None:
    """The default holds the headers and each silence, and says nothing of a stream."""
    for table in (RouteTable.empty(), routes()):
        client = make(routes=table)
        client.get(URL)
        with limit(1):
            client.get(URL)
    assert wire.told[::2] == [None, None]
    assert all(900 < int(value or 0) <= 1000 for value in wire.told[1::2])


def test_a_declared_timeout_is_the_mesh_s(make: Make, wire: Wire, routes: Callable[..., RouteTable]) -> None:
    """Where no route governs the call; where one does and bounds nothing, it does not."""
    make(routes=RouteTable.empty(), timeout=5, per_try_timeout=4).get(URL)
    make(routes=routes(), timeout=5).get(URL)
    assert wire.told == ["4000", None]


def test_what_is_detached_is_told_nothing_of_the_work(make: Make, wire: Wire) -> None:
    """A block keeps the budget of its calls; a detached call has none."""
    client = make()
    with limit(1), detached():
        client.get(URL)
    with limit(1):
        client.get(URL, extensions=call_options(detached=True))
    assert wire.told == ["2000", None]


def test_outside_the_mesh_nobody_is_told(make: Make, wire: Wire) -> None:
    """By name, by `Host`, and whatever the caller wrote."""
    client = make(trace_hosts="partner.example")
    with limit(1):
        client.get("http://api.example.com/")
        client.get("https://partner.example/", headers={"x-mesh-deadline-ms": "500"})
        client.get(URL, headers={"host": "api.example.com"})
        client.get("http://api.example.com/", headers={"X-Mesh-Deadline-Ms": "500"})
    assert wire.told == [None] * 4


def test_a_redirect_out_of_the_mesh_takes_nothing_along_and_one_inside_is_told_anew(make: Make, wire: Wire) -> None:
    client = make(follow_redirects=True)
    for target in ("http://api.example.com/", "http://inventory/other"):
        client.get(URL, params={"to": target}, headers={"x-mesh-deadline-ms": "800"})
        client.get(URL, params={"to": target})
    assert wire.told == ["800", None, "2000", None, "800", "800", "2000", "2000"]
    wire.requests.clear()
    with limit(1):
        client.get("http://api.example.com/", params={"to": URL})
    first, second = wire.told
    assert first is None
    assert 900 < int(second or 0) <= 1000


def test_the_request_stays_as_the_caller_made_it(make: Make, wire: Wire) -> None:
    client = make()
    request = client.build_request("GET", URL)
    before = list(request.headers.raw)
    answer = client.send(request)
    assert request.headers.raw == before
    assert answer.request.headers.raw == before
    assert wire.told == ["2000"]


def test_the_header_has_the_name_that_settings_give_it(make: Make, wire: Wire) -> None:
    make(deadline_header="deadline-budget").get(URL)
    assert wire.told == [None]
    assert wire.requests[0].headers["deadline-budget"] == "2000"


def test_observed_deadlines_are_told(make: Make, wire: Wire) -> None:
    """And cut nothing."""
    client = make(deadlines="observe")
    client.get(URL)
    token = begin(Work(time.monotonic() + 1, held=False))
    client.get(URL)
    end(token)
    token = begin(Work(time.monotonic() - 1, held=False))
    client.get(URL)
    end(token)
    assert wire.told[0] == "2000"
    assert 900 < int(wire.told[1] or 0) <= 1000
    assert wire.told[2] == "1"


def test_with_deadlines_off_nobody_is_told(make: Make, wire: Wire) -> None:
    """And what the caller wrote is the caller's."""
    client = make(deadlines="off")
    with limit(1):
        client.get(URL)
        client.get(URL, headers={"x-mesh-deadline-ms": "500"})
    assert wire.told == [None, "500"]


@pytest.mark.anyio
async def test_asynchronous_calls_are_told_alike(wire: Wire, table: RouteTable) -> None:
    transport = httpx.MockTransport(wire)
    async with create_async_client(MeshSettings(mesh="none"), routes=table, transport=transport) as client:
        with limit(1):
            await client.get(URL)
        await client.post(URL, content=b"x" * 100)
        await client.post(URL, content=b"x" * 100_000)
    assert 900 < int(wire.told[0] or 0) <= 1000
    assert wire.told[1:] == ["2000", None]
