"""Routes from the live sidecar: read when told, kept when it cannot be read, and said once."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from meshaware.budgets import RouteSource, RouteTable
from meshaware.budgets.sources import SidecarRoutes
from meshaware.instrumentation import RouteRefresh, on_route_refresh, routes_confirmed

_HOST = {"name": "x", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {}}]}
_ROUTES = json.dumps([{"name": "8080", "virtual_hosts": [_HOST]}]).encode()


class Sidecar(HTTPServer):
    """An admin port that answers what it is told."""

    status = 200
    body = _ROUTES
    asked: tuple[str, ...] = ()


class _Handler(BaseHTTPRequestHandler):
    server: Sidecar  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        self.server.asked += (self.path,)
        self.send_response(self.server.status)
        self.send_header("content-length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name in the standard library)
        pass


@pytest.fixture
def sidecar() -> Iterator[Sidecar]:
    with Sidecar(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join(10)


def url(sidecar: Sidecar) -> str:
    return f"http://127.0.0.1:{sidecar.server_port}/ignored"


def test_routes_are_those_of_the_fallback_until_the_sidecar_was_read(sidecar: Sidecar) -> None:
    """Nothing is read before it is asked for; then the sidecar's word counts."""
    fallback = RouteTable.from_config_dump(_ROUTES.replace(b"8080", b"9090"))
    routes = SidecarRoutes(url(sidecar), fallback=fallback)
    source: RouteSource = routes
    assert source.current is fallback
    before = (routes.live, sidecar.asked)
    assert routes.refresh() is True
    assert source.current == RouteTable.from_config_dump(_ROUTES)
    assert before == (False, ())
    assert routes.live
    assert sidecar.asked == ("/config_dump?resource=dynamic_route_configs",)
    assert SidecarRoutes(url(sidecar)).current == RouteTable.empty()


@pytest.mark.anyio
async def test_they_are_read_without_blocking_too(sidecar: Sidecar) -> None:
    """On either event loop."""
    routes = SidecarRoutes(url(sidecar))
    assert await routes.async_refresh() is True
    assert len(routes.current) == 1
    sidecar.status = 503
    assert await routes.async_refresh() is False
    assert len(routes.current) == 1


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (503, _ROUTES, "answered 503, not 200"),
        (200, b"<html>", "config dump: is not JSON"),
        (200, _ROUTES[:50], "config dump: is cut off after 50 bytes"),
    ],
)
def test_the_last_known_routes_stay_when_the_sidecar_fails(
    sidecar: Sidecar, caplog: pytest.LogCaptureFixture, status: int, body: bytes, said: str
) -> None:
    """One line when it begins to fail, one when it is back, none in between."""
    routes = SidecarRoutes(url(sidecar))
    with caplog.at_level(logging.INFO, "meshaware.routes"):
        assert routes.refresh()
        assert routes.refresh()
        known = routes.current
        sidecar.status, sidecar.body = status, body
        assert not routes.refresh()
        assert not routes.refresh()
        assert routes.current == known
        sidecar.status, sidecar.body = 200, _ROUTES
        assert routes.refresh()
    first, failed, back = caplog.messages
    assert first.startswith("1 routes read from the sidecar at http://127.0.0.1:")
    assert failed.startswith("the sidecar's routes cannot be read, the last known stay in use: ")
    assert said in failed
    assert back == first


def test_each_attempt_is_announced(sidecar: Sidecar) -> None:
    """With the instant at which the routes were last known to be the sidecar's."""
    heard: list[RouteRefresh] = []
    stop = on_route_refresh(heard.append)
    routes = SidecarRoutes(url(sidecar))
    routes.refresh()
    sidecar.status = 503
    routes.refresh()
    stop()
    routes.refresh()
    read, failed = heard
    assert (read.confirmed, failed.confirmed) == (True, False)
    assert routes_confirmed() == read.at <= failed.at


def test_a_sidecar_that_is_not_there_leaves_what_is_known() -> None:
    """Refused at once; nothing is raised."""
    with Sidecar(("127.0.0.1", 0), _Handler) as closed:
        address = url(closed)
    routes = SidecarRoutes(address, timeout=5.0)
    assert routes.refresh() is False
    assert routes.current == RouteTable.empty()
    assert not routes.live
