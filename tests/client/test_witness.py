"""What becomes of each call is told once, when it is certain."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import anyio
import httpx
import pytest

from meshaware import call_options, create_async_client, create_client
from meshaware.budgets import RouteTable
from meshaware.client import transport
from meshaware.client.witness import Witness
from meshaware.deadline import limit
from meshaware.errors import DeadlineExceeded, SidecarUnavailable
from meshaware.instrumentation import CallOutcome, on_call
from meshaware.settings import MeshSettings

from .conftest import Conversation, Peer, Script, answer

URL = "http://inventory/items"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"
SIDECARS = b"server: envoy\r\ncontent-type: text/plain\r\n"
PEERS = b"server: envoy\r\nx-envoy-upstream-service-time: 3\r\ncontent-type: text/plain\r\n"


class Heard(NamedTuple):
    """What was told, at either moment."""

    answers: list[CallOutcome]
    ends: list[CallOutcome]

    @property
    def verdicts(self) -> list[tuple[str, str | None]]:
        return [(outcome.verdict, outcome.reason) for outcome in self.ends]


@pytest.fixture(name="heard")
def _heard() -> Iterator[Heard]:
    heard = Heard([], [])
    stops = [on_call(heard.answers.append, at="answer"), on_call(heard.ends.append)]
    yield heard
    for stop in stops:
        stop()


@pytest.fixture(name="table")
def _table(routes: Callable[..., RouteTable]) -> RouteTable:
    """0.3 s in the mesh and 0.1 s of buffer: 0.4 s."""
    return routes(timeout="300ms", retries={"attempts": 0})


def settings_for(peer: Peer, **more: Any) -> MeshSettings:
    return MeshSettings(mesh="none", outbound_proxy=peer.url, buffer=0.1, **more)


def stall_head(conversation: Conversation) -> None:
    conversation.read_request()
    conversation.stay_silent()


def stall_body(conversation: Conversation) -> None:
    conversation.read_request()
    conversation.send(HEAD)
    conversation.stay_silent()


def hang_up_in_the_body(conversation: Conversation) -> None:
    conversation.read_request()
    conversation.send(HEAD + b"some")


def hang_up(conversation: Conversation) -> None:
    conversation.read_request()


def slow(conversation: Conversation) -> None:
    """Headers after 0.25 s, the end after 0.5 s."""
    while conversation.read_request():
        conversation.stay_silent(0.25)
        conversation.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n")
        conversation.stay_silent(0.25)
        conversation.send(b"ok")


Get = Callable[..., object]


@pytest.fixture(name="get", params=["asynchronous", "synchronous", "caller's transport"])
def _get(request: pytest.FixtureRequest) -> Get:
    """Make one call with a new client of each kind; what it raises is raised."""

    async def asynchronously(settings: MeshSettings, routes: RouteTable, **arguments: Any) -> httpx.Response:
        if request.param == "caller's transport":
            arguments["transport"] = httpx.AsyncHTTPTransport()
        async with create_async_client(settings, routes=routes, **arguments) as client:
            return await client.get(URL)

    def get(settings: MeshSettings, routes: RouteTable, **arguments: Any) -> httpx.Response:
        if request.param == "synchronous":
            with create_client(settings, routes=routes, **arguments) as client:
                return client.get(URL)
        return anyio.run(lambda: asynchronously(settings, routes, **arguments))

    return get


def test_an_answer_is_told_when_its_headers_come_and_when_it_is_closed(
    get: Get, peer: Callable[[Script], Peer], table: RouteTable, heard: Heard
) -> None:
    get(settings_for(peer(answer())), table)

    assert heard.answers == heard.ends
    (outcome,) = heard.ends
    assert outcome[:2] == ("answered", "items")
    assert (outcome.answered_by, outcome.reason) == ("application", None)
    assert outcome.budget == pytest.approx(0.4)
    assert outcome.source == "route"
    assert outcome.origin is not None
    assert "inventory.json" in outcome.origin
    assert outcome.left is not None
    assert 0.1 < outcome.left <= 0.4


def test_an_error_of_the_applications_is_an_answer(
    get: Get, peer: Callable[[Script], Peer], table: RouteTable, heard: Heard
) -> None:
    get(settings_for(peer(answer(b"{}", b"500 Internal Server Error"))), table)

    assert heard.verdicts == [("answered", None)]


def test_a_reply_of_the_sidecars_own_is_told_with_its_reason(
    get: Get, peer: Callable[[Script], Peer], table: RouteTable, heard: Heard
) -> None:
    get(settings_for(peer(answer(b"no healthy upstream", b"503 Service Unavailable", SIDECARS))), table)

    for outcome in (*heard.answers, *heard.ends):
        assert (outcome.verdict, outcome.answered_by) == ("replied", "sidecar")
        assert outcome.reason == "no healthy upstream"


def test_a_reply_of_the_peers_sidecar_shows_in_the_body_so_it_is_told_at_the_end(
    get: Get, peer: Callable[[Script], Peer], table: RouteTable, heard: Heard
) -> None:
    get(settings_for(peer(answer(b"RBAC: access denied", b"403 Forbidden", PEERS))), table)

    assert [outcome.answered_by for outcome in heard.answers] == ["application"]
    assert [outcome[0] for outcome in heard.ends] == ["replied"]
    assert (heard.ends[0].answered_by, heard.ends[0].reason) == ("peer-sidecar", "rbac")


def test_a_response_that_comes_whole_is_told_at_once(table: RouteTable, heard: Heard) -> None:
    """From a cache or a mock: its stream is never read."""

    def whole(request: httpx.Request) -> httpx.Response:
        headers = {"server": "envoy", "x-envoy-upstream-service-time": "3", "content-type": "text/plain"}
        return httpx.Response(403, content=b"RBAC: access denied", headers=headers)

    with create_client(MeshSettings(mesh="none"), routes=table, transport=httpx.MockTransport(whole)) as client:
        client.get(URL)

    assert heard.verdicts == [("replied", "rbac")]
    assert len(heard.answers) == 1


def test_an_error_with_a_long_body_is_the_applications(
    get: Get, peer: Callable[[Script], Peer], table: RouteTable, heard: Heard
) -> None:
    """No more of a body is kept than a sidecar's can have."""
    get(settings_for(peer(answer(b"RBAC: access denied" + b" " * 100_000, b"403 Forbidden", PEERS))), table)

    assert [(outcome.verdict, outcome.answered_by) for outcome in heard.ends] == [("answered", "application")]


@pytest.mark.parametrize("phase", ["wait", "body"])
def test_a_deadline_is_told_once_before_the_headers_and_in_the_body(
    get: Get, phase: str, peer: Callable[[Script], Peer], table: RouteTable, heard: Heard
) -> None:
    with pytest.raises(DeadlineExceeded):
        get(settings_for(peer(stall_head if phase == "wait" else stall_body)), table)

    assert heard.verdicts == [("deadline", phase)]
    assert [outcome.verdict for outcome in heard.answers] == ["deadline" if phase == "wait" else "answered"]
    (outcome,) = heard.ends
    assert outcome.source == "route"
    assert outcome.answered_by == (None if phase == "wait" else "application")


def test_the_deadline_of_the_work_in_hand_is_told_from_the_budget(
    get: Get, peer: Callable[[Script], Peer], table: RouteTable, heard: Heard
) -> None:
    with limit(0.1), pytest.raises(DeadlineExceeded):
        get(settings_for(peer(stall_head)), table)

    assert [(outcome.verdict, outcome.source) for outcome in heard.ends] == [("deadline", "work")]
    assert heard.ends[0].budget == pytest.approx(0.4)


def test_a_call_that_has_no_time_left_is_told_though_nothing_is_sent(
    peer: Callable[[Script], Peer], table: RouteTable, heard: Heard
) -> None:
    upstream = peer(answer())
    with (
        create_client(settings_for(upstream), routes=table) as client,
        limit(0.0),
        pytest.raises(DeadlineExceeded),
    ):
        client.get(URL)

    assert upstream.requests == []
    assert heard.verdicts == [("deadline", "unsent")]


def test_the_callers_number_is_told_as_the_callers(
    peer: Callable[[Script], Peer], table: RouteTable, heard: Heard
) -> None:
    with (
        create_client(settings_for(peer(stall_head)), routes=table) as client,
        pytest.raises(DeadlineExceeded),
    ):
        client.get(URL, extensions=call_options(timeout=0.1))

    assert [(outcome.verdict, outcome.budget, outcome.source) for outcome in heard.ends] == [
        ("deadline", 0.1, "caller")
    ]


def test_a_sidecar_that_takes_no_connection_is_told(
    get: Get, peer: Callable[[Script], Peer], table: RouteTable, heard: Heard
) -> None:
    gone = peer(answer())
    gone.close()
    with pytest.raises(SidecarUnavailable):
        get(settings_for(gone), table)

    assert heard.verdicts == [("sidecar_unavailable", "refused")]
    assert heard.answers == heard.ends


def test_any_other_error_is_told_by_its_class(
    get: Get, peer: Callable[[Script], Peer], table: RouteTable, heard: Heard
) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        get(settings_for(peer(hang_up)), table)

    assert heard.verdicts == [("error", "RemoteProtocolError")]


@pytest.mark.parametrize("bounded", [True, False])
def test_an_error_in_the_body_is_told_though_the_headers_were_an_answer(
    get: Get, *, bounded: bool, peer: Callable[[Script], Peer], table: RouteTable, heard: Heard
) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        get(settings_for(peer(hang_up_in_the_body)), table if bounded else RouteTable.empty())

    assert heard.verdicts == [("error", "RemoteProtocolError")]
    assert [outcome.verdict for outcome in heard.answers] == ["answered"]


def test_a_body_that_is_asked_again_after_it_failed_is_told_once(
    peer: Callable[[Script], Peer], table: RouteTable, heard: Heard
) -> None:
    with create_client(settings_for(peer(stall_body)), routes=table) as client, client.stream("GET", URL) as response:
        assert isinstance(response.stream, httpx.SyncByteStream)
        for _ in range(2):
            with pytest.raises(DeadlineExceeded):
                list(response.stream)

    assert heard.verdicts == [("deadline", "body")]


@pytest.mark.anyio
@pytest.mark.parametrize("script", [stall_head, stall_body])
async def test_a_call_that_the_caller_gives_up_is_told(
    script: Script, peer: Callable[[Script], Peer], table: RouteTable, heard: Heard
) -> None:
    async with create_async_client(settings_for(peer(script)), routes=table) as client:
        with anyio.move_on_after(0.1) as scope:
            await client.get(URL)

    assert scope.cancelled_caught
    assert heard.verdicts == [("cancelled", None)]


@pytest.mark.anyio
async def test_a_stream_that_is_closed_early_is_an_answer(
    peer: Callable[[Script], Peer], table: RouteTable, heard: Heard
) -> None:
    """The caller has what he wanted."""
    async with create_async_client(settings_for(peer(stall_body)), routes=table) as client:
        async with client.stream("GET", URL):
            assert heard.ends == []

    assert heard.verdicts == [("answered", None)]


def test_a_synchronous_stream_that_is_closed_early_is_an_answer_too(
    peer: Callable[[Script], Peer], table: RouteTable, heard: Heard
) -> None:
    def some(conversation: Conversation) -> None:
        conversation.read_request()
        conversation.send(HEAD + b"some")
        conversation.stay_silent()

    with create_client(settings_for(peer(some)), routes=table) as client, client.stream("GET", URL) as response:
        chunks = response.iter_raw()
        assert next(chunks) == b"some"
        assert heard.ends == []

    assert heard.verdicts == [("answered", None)]


def test_each_hop_of_a_redirect_is_a_call(peer: Callable[[Script], Peer], heard: Heard) -> None:
    script = answer(b"", b"302 Found", b"location: http://inventory/elsewhere\r\n")
    with (
        create_client(
            settings_for(peer(script)), routes=RouteTable.empty(), follow_redirects=True, max_redirects=2
        ) as client,
        pytest.raises(httpx.TooManyRedirects),
    ):
        client.get(URL)

    assert [outcome.verdict for outcome in heard.ends] == ["answered"] * 3
    assert {(outcome.route, outcome.budget, outcome.source) for outcome in heard.ends} == {(None, None, "default")}


def test_where_deadlines_are_observed_a_late_call_is_told_as_one_that_would_have_been_cut(
    get: Get, peer: Callable[[Script], Peer], table: RouteTable, heard: Heard
) -> None:
    get(settings_for(peer(slow), deadlines="observe"), table)

    (at_the_answer,), (at_the_end,) = heard
    assert (at_the_answer.verdict, at_the_answer.answered_by) == ("answered", "application")
    assert (at_the_end.verdict, at_the_end.answered_by) == ("overdue", "application")
    assert at_the_end.budget == pytest.approx(0.4)
    assert at_the_end.source == "route"
    assert at_the_end.left is not None
    assert 0 < at_the_end.left < 0.4


def test_where_deadlines_are_observed_a_late_error_would_have_been_cut_too(
    get: Get, peer: Callable[[Script], Peer], table: RouteTable, heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    def late_end(conversation: Conversation) -> None:
        conversation.read_request()
        conversation.stay_silent(0.5)

    with pytest.raises(httpx.RemoteProtocolError):
        get(settings_for(peer(late_end), deadlines="observe"), table)

    assert heard.verdicts == [("overdue", "RemoteProtocolError")]
    assert heard.ends[0].left is not None
    assert heard.ends[0].left < 0
    assert "would have been cut" in caplog.text


def test_where_deadlines_are_observed_a_call_in_time_is_just_answered(
    get: Get, peer: Callable[[Script], Peer], table: RouteTable, heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    get(settings_for(peer(answer()), deadlines="observe"), table)

    assert heard.verdicts == [("answered", None)]
    assert not caplog.records


def test_who_fails_to_listen_harms_no_call(
    peer: Callable[[Script], Peer], table: RouteTable, heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once."""

    def fail(outcome: CallOutcome) -> None:
        raise LookupError("no such metric")

    stop = on_call(fail)
    try:
        with create_client(settings_for(peer(answer())), routes=table) as client:
            for _ in range(3):
                assert client.get(URL).text == "ok"
    finally:
        stop()

    assert len(heard.ends) == 3
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("meshaware.instrumentation", logging.ERROR)


def test_of_a_call_that_concerns_nobody_nothing_is_made(
    get: Get, peer: Callable[[Script], Peer], table: RouteTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a witness was called")

    monkeypatch.setattr(transport, "Witness", never)
    stops = [on_call(print, at=moment, when=lambda: False) for moment in ("answer", "end")]
    try:
        get(settings_for(peer(answer())), table)
    finally:
        for stop in stops:
            stop()


def test_where_only_the_answer_concerns_anybody_the_body_is_read_past_the_witness(
    get: Get, peer: Callable[[Script], Peer], table: RouteTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("an end outcome was made")

    for name in ("read", "whole", "closed", "_end"):
        monkeypatch.setattr(Witness, name, never)
    answers: list[CallOutcome] = []
    stop = on_call(answers.append, at="answer")
    try:
        get(settings_for(peer(answer(b"RBAC: access denied", b"403 Forbidden", PEERS))), table)
    finally:
        stop()

    assert [outcome.verdict for outcome in answers] == ["answered"]


def test_calls_of_many_threads_are_each_told_once(
    peer: Callable[[Script], Peer], table: RouteTable, heard: Heard
) -> None:
    settings = settings_for(peer(answer()))
    with create_client(settings, routes=table) as client:
        threads = [threading.Thread(target=lambda: [client.get(URL) for _ in range(20)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)

    assert heard.verdicts == [("answered", None)] * 80
