"""The table of `timeout=` in docs/clients.md, cell by cell: what a client or a call is given, and what holds then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import anyio
import httpx
import pytest

from meshaware import call_options, create_async_client, create_client, report
from meshaware.budgets import RouteTable
from meshaware.client.report import CallReport
from meshaware.settings import MeshSettings

URL = "http://inventory/items"
MESH = 5.25
SETTINGS = MeshSettings(mesh="none", buffer=0.25)

Phases = dict[str, float | None]


class Held(NamedTuple):
    """What held for a call: the phases that its transport saw, and what the report says."""

    phases: Phases
    told: CallReport


class Row(NamedTuple):
    """One row of the table, where the mesh may take 5.25 s."""

    given: dict[str, Any]
    phases: Phases
    total: float
    source: str
    warns: bool


def phases(connect: float | None, others: float | None) -> Phases:
    return {"connect": connect, "read": others, "write": others, "pool": others}


ROWS = {
    "not given": Row({}, phases(MESH, MESH), MESH, "route", warns=False),
    "a number under the mesh's": Row({"timeout": 2.0}, phases(2.0, 2.0), 2.0, "caller", warns=True),
    "a number over the mesh's": Row({"timeout": 7.0}, phases(7.0, 7.0), 7.0, "caller", warns=False),
    "the largest phase": Row({"timeout": httpx.Timeout(3.0, connect=1.0)}, phases(1.0, 3.0), 3.0, "caller", warns=True),
    "a phase without bound": Row(
        {"timeout": httpx.Timeout(None, connect=1.0)}, phases(1.0, None), MESH, "route", warns=False
    ),
    "None": Row({"timeout": None}, phases(None, None), MESH, "route", warns=False),
}


@pytest.fixture(name="row", params=ROWS)
def _row(request: pytest.FixtureRequest) -> Row:
    return ROWS[request.param]


@pytest.fixture(name="table")
def _table(routes: Callable[..., RouteTable]) -> RouteTable:
    return routes(timeout="3s", retries={"attempts": 2, "perTryTimeout": "1s"})


Get = Callable[..., list[Held]]


@pytest.fixture(name="get", params=["client", "call", "async client", "async call"])
def _get(request: pytest.FixtureRequest, table: RouteTable) -> Get:
    """Make two calls, with `timeout=` at the level and with the kind of client that the name says."""
    seen: list[Phases] = []

    def answer(arrived: httpx.Request) -> httpx.Response:
        seen.append(dict(arrived.extensions["timeout"]))
        return httpx.Response(200)

    def get(given: dict[str, Any], **options: Any) -> list[Held]:
        at_client, at_call = (given, {}) if "client" in request.param else ({}, given)
        arguments: dict[str, Any] = {"routes": table, "transport": httpx.MockTransport(answer), **at_client}
        responses: list[httpx.Response] = []

        async def asynchronously() -> None:
            async with create_async_client(SETTINGS, **arguments) as client:
                responses.extend([await client.get(URL, **at_call, **options) for _ in range(2)])

        if request.param.startswith("async"):
            anyio.run(asynchronously)
        else:
            with create_client(SETTINGS, **arguments) as client:
                responses.extend([client.get(URL, **at_call, **options) for _ in range(2)])
        return [Held(*each) for each in zip(seen, map(report, responses), strict=True)]

    return get


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name == "meshaware.client"]


def test_a_row_of_the_table(get: Get, row: Row, caplog: pytest.LogCaptureFixture) -> None:
    """The same on a client and on a call; one warning for both calls, where the caller's number is under the mesh's."""
    for held in get(row.given):
        assert held.phases == row.phases
        assert (held.told.total, held.told.source) == (row.total, row.source)
        assert held.told.deadline is not None
    assert len(warnings(caplog)) == row.warns
    assert all(f"timeout {row.total:g}s is under the 5.25s" in said for said in warnings(caplog))


def test_a_detached_call_has_the_phases_of_its_row_and_no_total(
    get: Get, row: Row, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever asks for it need not be warned."""
    for held in get(row.given, extensions=call_options(detached=True)):
        assert held.phases == row.phases
        assert (held.told.total, held.told.deadline) == (None, None)
    assert warnings(caplog) == []


def test_an_option_replaces_the_total_of_its_row(get: Get, row: Row, caplog: pytest.LogCaptureFixture) -> None:
    """And warns as a number does; phases that came from the budget come from it."""
    for held in get(row.given, extensions=call_options(timeout=1.5)):
        assert held.phases == (row.phases if row.given else phases(1.5, 1.5))
        assert (held.told.total, held.told.source) == (1.5, "caller")
    assert len(warnings(caplog)) == 1
    assert "timeout 1.5s is under the 5.25s" in warnings(caplog)[0]


def test_what_a_call_is_given_goes_over_what_its_client_was_given(table: RouteTable) -> None:
    """As in httpx; and None on the call is not the same as nothing."""
    transport = httpx.MockTransport(lambda _: httpx.Response(200))
    with create_client(SETTINGS, routes=table, transport=transport, timeout=2.0) as client:
        assert report(client.get(URL)).total == 2.0
        assert report(client.get(URL, timeout=7.0)).total == 7.0
        assert report(client.get(URL, timeout=None)).total == MESH
