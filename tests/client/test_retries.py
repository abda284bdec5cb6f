"""One owner of retries: what is handed to the factories and makes calls again is warned of, once, with the sum."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from meshaware import create_async_client, create_client
from meshaware.budgets import RouteTable
from meshaware.client import retries
from meshaware.client.retries import DoubleRetryWarning, MeshTries, say_once
from meshaware.settings import MeshSettings

ISTIO = MeshSettings(mesh="istio")
NOWHERE = MeshSettings(mesh="none")
EMPTY = RouteTable.empty()
Routes = Callable[..., RouteTable]
OK = httpx.MockTransport(lambda request: httpx.Response(200))


@pytest.fixture(autouse=True)
def _unsaid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "_said", set[object]())


def forget() -> None:
    vars(retries)["_said"].clear()


@pytest.fixture(name="heard")
def _heard() -> Iterator[list[warnings.WarningMessage]]:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        yield heard


class RetryTransport(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Somebody's own, with a number under a name that is known."""

    def __init__(self, max_retries: int | None = 2) -> None:
        self.max_retries = max_retries
        self.wrapped = OK

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self.wrapped.handle_request(request)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self.wrapped.handle_async_request(request)


class Plain(httpx.BaseTransport):
    """A wrapper that makes no call again."""

    def __init__(self, wrapped: httpx.BaseTransport) -> None:
        self.wrapped = wrapped

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self.wrapped.handle_request(request)


class Source:
    """Routes that may change."""

    current = EMPTY


def said(heard: list[warnings.WarningMessage]) -> list[str]:
    assert {each.category for each in heard} <= {DoubleRetryWarning}
    return [str(each.message) for each in heard]


def test_the_warning_does_the_sum_of_the_base_url_s_route(routes: Routes, heard: list[warnings.WarningMessage]) -> None:
    """Three tries here, three there; and it points at the line that made the client."""
    table = routes(retries={"attempts": 2})
    create_client(ISTIO, routes=table, base_url="http://inventory.shop/", transport=RetryTransport())
    [message] = said(heard)
    assert "3 x 3 = 9 tries of a POST" in message
    assert "route 'items' (" in message
    assert heard[0].filename == __file__


def test_it_is_said_once(heard: list[warnings.WarningMessage]) -> None:
    """For any number of clients with the like of it."""
    for _ in range(3):
        create_client(ISTIO, routes=EMPTY, transport=RetryTransport())
    assert len(said(heard)) == 1


def test_mounts_and_what_is_wrapped_are_looked_at(heard: list[warnings.WarningMessage]) -> None:
    """Wherever it stands."""
    create_client(ISTIO, routes=EMPTY, mounts={"http://": Plain(Plain(RetryTransport())), "https://": None})
    assert "RetryTransport makes a call up to 3 times" in said(heard)[0]


def test_an_asynchronous_client_too(heard: list[warnings.WarningMessage]) -> None:
    """The same factory's business."""
    create_async_client(ISTIO, routes=EMPTY, transport=RetryTransport(4))
    assert "5 x 3 = 15 tries of a POST" in said(heard)[0]


def test_a_number_that_cannot_be_told_is_left_open(heard: list[warnings.WarningMessage]) -> None:
    """Rather than invented."""
    create_client(ISTIO, routes=EMPTY, transport=RetryTransport(None))
    assert "again and again, and so does the mesh, 3 times: n x 3 tries of a POST" in said(heard)[0]


@pytest.mark.parametrize("settings", [NOWHERE, MeshSettings(mesh="linkerd"), MeshSettings(mesh="ambient")])
def test_where_the_mesh_makes_no_call_again_there_is_nothing_to_say(settings: MeshSettings) -> None:
    """Warnings are errors in this suite."""
    create_client(settings, routes=EMPTY, transport=RetryTransport())
    create_client(settings, routes=EMPTY, transport=httpx.HTTPTransport(retries=3)).close()


def test_a_route_that_switches_retries_off_leaves_them_to_the_application(routes: Routes) -> None:
    """One owner, and it may be the other one."""
    table = routes(retries={"attempts": 0})
    create_client(ISTIO, routes=table, base_url="http://inventory.shop/", transport=RetryTransport())


def test_one_try_multiplies_nothing() -> None:
    """A retrying transport that was told not to."""
    create_client(ISTIO, routes=EMPTY, transport=RetryTransport(0))


def test_retries_of_a_connect_are_told_from_retries_of_a_request(heard: list[warnings.WarningMessage]) -> None:
    """httpx's own `retries=` multiplies nothing, and is of no use."""
    create_client(ISTIO, routes=EMPTY, transport=httpx.HTTPTransport(retries=3)).close()
    [message] = said(heard)
    assert "HTTPTransport(retries=3) tries to connect again, never a request that was sent" in message


@pytest.mark.parametrize("make", [create_client, create_async_client])
def test_retries_as_an_argument_is_an_error(make: Callable[..., object]) -> None:
    """httpx has none either; the message says where retries belong."""
    with pytest.raises(TypeError, match=r"retries=3: .*the mesh does; .*VirtualService"):
        make(NOWHERE, routes=EMPTY, retries=3)


def test_it_can_be_silenced_and_made_an_error() -> None:
    """As any warning of Python's, by its class."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DoubleRetryWarning)
        create_client(ISTIO, routes=EMPTY, transport=RetryTransport())
    forget()
    with warnings.catch_warnings():
        warnings.simplefilter("error", DoubleRetryWarning)
        with pytest.raises(DoubleRetryWarning):
            create_client(ISTIO, routes=EMPTY, transport=RetryTransport())


def test_httpx_retries_tells_its_number_and_its_methods(heard: list[warnings.WarningMessage]) -> None:
    """Without a POST among them, unless asked for."""
    library = pytest.importorskip("httpx_retries")
    create_client(ISTIO, routes=EMPTY, transport=library.RetryTransport(retry=library.Retry(total=3)))
    assert "httpx_retries.RetryTransport makes a call up to 4 times" in said(heard)[0]
    assert "4 x 3 = 12 tries of a GET" in said(heard)[0]
    forget()
    retry = library.Retry(total=2, allowed_methods=["POST"])
    create_client(ISTIO, routes=EMPTY, transport=library.RetryTransport(retry=retry))
    assert "3 x 3 = 9 tries of a POST" in said(heard)[1]


def test_a_cache_is_no_retry() -> None:
    """hishel asks at most whether what it has is still good."""
    hishel: Any = pytest.importorskip("hishel.httpx")
    create_client(ISTIO, routes=EMPTY, transport=hishel.CacheTransport(OK))


def test_a_method_that_a_known_library_decorates_is_seen(heard: list[warnings.WarningMessage]) -> None:
    """tenacity tells its number; stamina and backoff keep it to themselves."""
    tenacity, stamina = pytest.importorskip("tenacity"), pytest.importorskip("stamina")
    backoff = pytest.importorskip("backoff")
    stop = tenacity.stop_after_delay(9) | tenacity.stop_after_attempt(4)
    decorators = {
        "tenacity around tests.Decorated.handle_request makes a call up to 4 times": tenacity.retry(stop=stop),
        "stamina around tests.Decorated.handle_request makes a call again": stamina.retry(on=httpx.HTTPError),
        "backoff around tests.Decorated.handle_request makes a call again": backoff.on_exception(
            backoff.expo, httpx.HTTPError, max_tries=3
        ),
    }
    for expected, decorate in decorators.items():

        class Decorated(Plain):
            __module__ = "tests"
            handle_request = decorate(Plain.handle_request)

        create_client(ISTIO, routes=EMPTY, transport=Decorated(OK))
        assert expected in said(heard)[-1]
    assert len(heard) == 3


def test_a_policy_in_a_mapping_is_read() -> None:
    """As pydantic_ai's transports have it."""
    holder = SimpleNamespace(config={"stop": SimpleNamespace(max_attempt_number=5)})
    number: Callable[..., int | None] = vars(retries)["_number"]
    assert number(holder, None) == 5
    assert number(SimpleNamespace(config={"stop": None}), None) is None


def test_the_mesh_s_number_is_that_of_the_route(routes: Routes) -> None:
    """Else what its kind does for hosts inside it; TLS it does not see, and what is outside it does not try again."""
    tries = MeshTries(ISTIO, routes(retries={"attempts": 4}))
    assert tries.of("GET", "http://inventory.shop/items").number == 5
    assert tries.of("GET", "http://orders:8080/") == (3, "Istio, where no route says otherwise")
    assert tries.of("GET", "https://inventory.shop/items").number == 1
    assert tries.of("GET", "http://api.example.com/").number == 1
    assert tries.most().number == 5
    assert MeshTries(MeshSettings(mesh="kuma"), EMPTY).most().number == 6
    assert MeshTries(NOWHERE, Source()).most().number == 1


def test_what_was_said_is_remembered_within_bounds(
    heard: list[warnings.WarningMessage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hosts in URLs may be any number."""
    monkeypatch.setattr(retries, "_REMEMBERED", 2)
    for number in range(5):
        say_once(number, "again")
    assert len(heard) == 2
