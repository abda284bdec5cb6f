"""Calls made again after they failed are seen, whoever makes them, and told from all that only looks alike."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Generator, Iterator
from contextvars import ContextVar
from itertools import count
from typing import Any

import anyio
import httpx
import pytest

from meshaware import create_async_client, create_client
from meshaware.budgets import RouteTable
from meshaware.client import repeats, retries
from meshaware.client.retries import DoubleRetryWarning
from meshaware.settings import MeshSettings

ISTIO = MeshSettings(mesh="istio")
URL = "http://inventory/items"
Routes = Callable[..., RouteTable]
Heard = list[warnings.WarningMessage]


@pytest.fixture(autouse=True)
def _unsaid(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(retries, "_said", set[object]())
    run: ContextVar[object] = vars(repeats)["_run"]
    token = run.set(None)
    yield
    run.reset(token)


@pytest.fixture(name="heard")
def _heard() -> Iterator[Heard]:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        yield heard


def said(heard: Heard) -> list[str]:
    return [str(each.message) for each in heard if each.category is DoubleRetryWarning]


def failing(status: int = 503, until: int = 1000) -> httpx.MockTransport:
    """Answers with an error, and from some try on with 200."""
    tries = count(1)
    return httpx.MockTransport(lambda request: httpx.Response(status if next(tries) < until else 200))


def refuse(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused")


def client_of(
    transport: httpx.BaseTransport, table: RouteTable | None = None, settings: MeshSettings = ISTIO
) -> httpx.Client:
    return create_client(settings, routes=RouteTable.empty() if table is None else table, transport=transport)


def test_a_loop_that_tries_again_is_seen_at_its_third_try(routes: Routes, heard: Heard) -> None:
    """With the sum, the route's origin, and the line of the application that called."""
    with client_of(failing(), routes(retries={"attempts": 2})) as client:
        for _ in range(2):
            client.post(URL, json={"pay": 3})
        assert said(heard) == []
        for _ in range(4):
            client.post(URL, json={"pay": 3})
    [message] = said(heard)
    assert message.startswith("POST http://inventory/items was made again each time it failed")
    assert "3 x 3 = 9 tries of a POST" in message
    assert "route 'items' (" in message
    assert heard[0].filename == __file__


def test_the_try_that_succeeds_is_counted(heard: Heard) -> None:
    """Two that failed and one that did not are three."""
    with client_of(failing(until=3)) as client:
        assert [client.get(URL).status_code for _ in range(3)] == [503, 503, 200]
    assert "3 x 3 = 9 tries of a GET" in said(heard)[0]


def test_errors_of_the_transport_are_counted_and_raised_as_they_are(heard: Heard) -> None:
    """Also for the same request object, sent again."""
    with client_of(httpx.MockTransport(refuse)) as client:
        request = client.build_request("GET", URL)
        for _ in range(3):
            with pytest.raises(httpx.ConnectError, match="refused"):
                client.send(request)
    assert len(said(heard)) == 1


@pytest.mark.anyio
async def test_an_asynchronous_loop_is_seen_too(heard: Heard) -> None:
    """In one task, on both loops."""
    async with create_async_client(ISTIO, routes=RouteTable.empty(), transport=failing()) as client:
        for _ in range(3):
            await client.get(URL)
    assert "3 x 3 = 9 tries of a GET" in said(heard)[0]


@pytest.mark.anyio
async def test_tasks_are_told_apart(heard: Heard) -> None:
    """Many callers of an upstream that is down make no retry."""
    async with create_async_client(ISTIO, routes=RouteTable.empty(), transport=failing()) as client:
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(client.get, URL)
    assert said(heard) == []


def test_other_calls_are_no_retry(heard: Heard) -> None:
    """Another URL, another method, another body."""
    with client_of(failing()) as client:
        for number in range(4):
            client.get(URL, params={"page": number})
            client.post(URL, json={"pay": number})
            client.put(URL)
            client.delete(URL)
    assert said(heard) == []


def test_uploads_that_are_streamed_are_told_apart(heard: Heard) -> None:
    """One file after the other goes to the same URL."""
    with client_of(failing()) as client:
        requests = [client.build_request("POST", URL, content=iter([b"part"])) for _ in range(4)]
        for request in requests:
            client.send(request)
    assert said(heard) == []


def test_another_client_begins_anew(heard: Heard) -> None:
    """As each test of an application does that makes its own."""
    for _ in range(5):
        with client_of(failing()) as client:
            client.get(URL)
    assert said(heard) == []


def test_calls_that_succeed_in_between_make_it_no_retry(heard: Heard) -> None:
    """An upstream that fails now and then, asked again and again by one that needs it anew each time."""
    tries = count()
    unsteady = httpx.MockTransport(lambda request: httpx.Response(503 if next(tries) % 2 else 200))
    with client_of(unsteady) as client:
        for _ in range(10):
            client.get(URL)
    assert said(heard) == []


def test_who_waits_long_polls(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    """A retry follows soon after the failure."""
    monkeypatch.setattr(repeats, "_SOON", -1.0)
    with client_of(failing()) as client:
        for _ in range(5):
            client.get(URL)
    assert said(heard) == []


def test_what_failed_long_ago_is_forgotten(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is on the stack."""
    monkeypatch.setattr(repeats, "_FORGOTTEN", -1.0)
    with client_of(failing()) as client:
        for _ in range(5):
            client.get(URL)
    assert said(heard) == []


@pytest.mark.parametrize("status", [400, 404, 409])
def test_answers_that_no_retry_would_better_are_not_counted(status: int, heard: Heard) -> None:
    """429 and 5xx are."""
    with client_of(failing(status)) as client:
        for _ in range(5):
            client.get(URL)
    assert said(heard) == []


def test_redirects_are_no_retry(heard: Heard) -> None:
    """Not even one that leads back to where it came from, and fails in the end."""
    tries = count(1)

    def around(request: httpx.Request) -> httpx.Response:
        return httpx.Response(302, headers={"location": URL}) if next(tries) % 5 else httpx.Response(503)

    with client_of(httpx.MockTransport(around)) as client:
        for _ in range(2):
            assert client.get(URL, follow_redirects=True).status_code == 503
    assert said(heard) == []


class Insistent(httpx.Auth):
    """Asks for a challenge four times before it gives in."""

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        for _ in range(4):
            yield request


def test_auth_flows_are_no_retry(heard: Heard) -> None:
    """They send one request several times within one call."""
    with client_of(failing(401)) as client:
        for _ in range(5):
            client.get(URL, auth=Insistent())
    assert said(heard) == []


@pytest.mark.parametrize("settings", [MeshSettings(mesh="none"), MeshSettings(mesh="linkerd")])
def test_where_the_mesh_makes_no_call_again_nothing_multiplies(settings: MeshSettings, heard: Heard) -> None:
    """Nor for hosts outside it, or inside TLS."""
    with client_of(failing(), settings=settings) as client:
        for _ in range(4):
            client.get(URL)
    with client_of(failing()) as client:
        for url in ("http://api.example.com/", "https://inventory/"):
            for _ in range(4):
                client.get(url)
    assert said(heard) == []


def test_a_route_without_retries_leaves_them_to_the_application(routes: Routes, heard: Heard) -> None:
    """One owner, and it may be the other one."""
    with client_of(failing(), routes(retries={"attempts": 0})) as client:
        for _ in range(4):
            client.get(URL)
    assert said(heard) == []


def test_a_url_without_a_host_fails_as_httpx_has_it() -> None:
    """There is no route to ask for."""
    with create_client(ISTIO, routes=RouteTable.empty()) as client:
        for _ in range(4):
            with pytest.raises(httpx.UnsupportedProtocol):
                client.get("/items")


def decorated(library: str, call: Callable[[], Any]) -> Callable[[], Any]:
    """The call in the hands of a library that makes it twice, at once."""
    module = pytest.importorskip(library)
    if library == "tenacity":
        return module.retry(stop=module.stop_after_attempt(2), reraise=True)(call)  # type: ignore[no-any-return]
    if library == "stamina":
        return module.retry(on=httpx.HTTPError, attempts=2, wait_initial=0)(call)  # type: ignore[no-any-return]
    return module.on_exception(module.constant, httpx.HTTPError, max_tries=2, interval=0)(call)  # type: ignore[no-any-return]


@pytest.mark.parametrize("library", ["tenacity", "stamina", "backoff"])
def test_a_known_library_is_seen_at_its_second_try_and_named(library: str, heard: Heard) -> None:
    """Its frame is on the stack: that is proof enough."""
    with client_of(failing()) as client:
        with pytest.raises(httpx.HTTPStatusError):
            decorated(library, lambda: client.get(URL).raise_for_status())()
    assert f"GET {URL} was made again by {library} as it failed" in said(heard)[0]
    assert "2 x 3 = 6 tries of a GET so far" in said(heard)[0]


@pytest.mark.parametrize("library", ["tenacity", "stamina", "backoff"])
def test_a_known_library_is_seen_around_a_coroutine(library: str, heard: Heard) -> None:
    """What awaits is on the stack too."""

    async def run() -> None:
        async with create_async_client(ISTIO, routes=RouteTable.empty(), transport=failing()) as client:

            async def call() -> None:
                (await client.get(URL)).raise_for_status()

            with pytest.raises(httpx.HTTPStatusError):
                await decorated(library, call)()

    asyncio.run(run())
    assert f"GET {URL} was made again by {library} as it failed" in said(heard)[0]


def test_a_query_is_not_repeated_in_the_warning(heard: Heard) -> None:
    """It may hold a secret."""
    with client_of(failing()) as client:
        for _ in range(3):
            client.get(URL, params={"token": "s3cret"})
    assert "s3cret" not in said(heard)[0]


def test_a_deep_stack_is_searched_within_bounds(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands too far up is not found, and the third try still is."""
    monkeypatch.setattr(repeats, "_DEPTH", 1)
    with client_of(failing()) as client:
        for _ in range(3):
            client.get(URL)
    assert "was made again each time it failed" in said(heard)[0]


@pytest.mark.anyio
async def test_asynchronous_errors_of_the_transport_are_counted(heard: Heard) -> None:
    """And raised as they are."""
    async with create_async_client(ISTIO, routes=RouteTable.empty(), transport=httpx.MockTransport(refuse)) as client:
        for _ in range(3):
            with pytest.raises(httpx.ConnectError, match="refused"):
                await client.get(URL)
    assert len(said(heard)) == 1
