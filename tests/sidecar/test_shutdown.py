"""
Telling a proxy to go, over real sockets: servers that answer byte for byte as the proxies do, and a real Envoy.

The heads of the answers are those of Go's `net/http` (Istio's agent, consul-dataplane) and of hyper (Linkerd).
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import anyio
import pytest

from meshaware.flavours import FLAVOURS
from meshaware.sidecar.shutdown import DISMISSAL_TIMEOUT, Dismissal, async_dismiss, dismiss
from meshaware.testing import LocalMesh

PATIENT = 10.0
QUICK = 0.2
GO = b"HTTP/1.1 %s\r\nContent-Type: text/plain; charset=utf-8\r\nDate: Wed, 25 Nov 2026 20:00:00 GMT\r\n"
ISTIO = (GO % b"200 OK") + b"Content-Length: 2\r\nConnection: close\r\n\r\nOK"
FORBIDDEN = (
    (GO % b"403 Forbidden") + b"X-Content-Type-Options: nosniff\r\nContent-Length: 41\r\nConnection: close\r\n\r\n"
    b"Only requests from localhost are allowed\n"
)
LINKERD = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 9\r\nconnection: close\r\n\r\nshutdown\n"
DISABLED = (
    b"HTTP/1.1 404 Not Found\r\ncontent-type: text/plain\r\ncontent-length: 33\r\nconnection: close\r\n"
    b"date: Wed, 25 Nov 2026 20:00:00 GMT\r\n\r\nshutdown endpoint is not enabled\n"
)
UNKNOWN = b"HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
CONSUL = b"HTTP/1.1 200 OK\r\nDate: Wed, 25 Nov 2026 20:00:00 GMT\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

Dismiss = Callable[..., Dismissal]


@pytest.fixture(name="let_go", params=["sync", "asyncio", "trio"])
def _let_go(request: pytest.FixtureRequest) -> Dismiss:
    """Both functions, on both event loops."""
    if request.param == "sync":
        return dismiss

    def run(*arguments: Any, **more: Any) -> Dismissal:
        return anyio.run(partial(async_dismiss, *arguments, **more), backend=request.param)

    return run


class Proxy:
    """Answers one connection after the other, each with the next of some replies; then nobody listens any more."""

    def __init__(self, *replies: bytes) -> None:
        self.requests: list[bytes] = []
        self._replies = replies
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENT)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        for left, reply in reversed(list(enumerate(reversed(self._replies)))):
            connection, _ = self._listener.accept()
            if not left:
                self._listener.close()
            with connection:
                connection.settimeout(PATIENT)
                request = b""
                while b"\r\n\r\n" not in request:
                    request += connection.recv(4096)
                self.requests.append(request)
                connection.sendall(reply)

    def close(self) -> None:
        self._thread.join(PATIENT)
        self._listener.close()


@pytest.fixture(name="proxy")
def _proxy() -> Iterator[Callable[..., Proxy]]:
    made: list[Proxy] = []

    def make(*replies: bytes) -> Proxy:
        made.append(Proxy(*replies))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.mark.parametrize(
    ("mesh", "path", "reply"),
    [
        ("istio", "/quitquitquit", ISTIO),
        ("linkerd", "/shutdown", LINKERD),
        ("consul", "/graceful_shutdown", CONSUL),
    ],
)
def test_a_proxy_is_told_by_an_empty_post(
    let_go: Dismiss, proxy: Callable[..., Proxy], mesh: str, path: str, reply: bytes
) -> None:
    """Istio's agent answers 405 to anything else."""
    peer = proxy(reply)
    dismissal = let_go(FLAVOURS[mesh], url=peer.url + path)
    assert dismissal.told
    assert not dismissal.refused
    (request,) = peer.requests
    assert request.startswith(f"POST {path} HTTP/1.1\r\n".encode())
    assert b"\r\ncontent-length: 0\r\n" in request.lower()


def test_by_default_it_is_told_where_its_mesh_has_it(let_go: Dismiss, proxy: Callable[..., Proxy]) -> None:
    """No setting is needed."""
    peer = proxy(ISTIO)
    quit_ = FLAVOURS["istio"].quit._replace(url=f"{peer.url}/quitquitquit")
    assert let_go(replace(FLAVOURS["istio"], quit=quit_)).told


@pytest.mark.parametrize(
    ("mesh", "reply", "meaning"),
    [
        ("istio", FORBIDDEN, "403: only loopback may ask"),
        ("linkerd", DISABLED, "404: the endpoint is not enabled; annotate the pod"),
        ("linkerd", UNKNOWN, "404: it knows no such path"),
    ],
)
def test_a_refusal_is_told_apart(
    let_go: Dismiss, proxy: Callable[..., Proxy], mesh: str, reply: bytes, meaning: str
) -> None:
    """By the status, and by the body where it takes both."""
    dismissal = let_go(FLAVOURS[mesh], url=proxy(reply).url)
    assert (dismissal.told, dismissal.refused) == (False, True)
    assert meaning in dismissal.reason


@pytest.mark.parametrize("torn", [b"", ISTIO[:40]])
def test_a_proxy_that_goes_in_the_middle_of_its_answer_has_gone(
    let_go: Dismiss, proxy: Callable[..., Proxy], torn: bytes
) -> None:
    """Istio's agent exits at once."""
    assert let_go(FLAVOURS["istio"], url=proxy(torn).url) == Dismissal(
        told=True, reason="the sidecar (Istio) was told to go, and has gone"
    )


@pytest.fixture(name="nobody")
def _nobody() -> Iterator[str]:
    """A URL where nobody listens, and nobody will: the port is taken."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/"


def test_a_second_goodbye_finds_nobody(let_go: Dismiss, proxy: Callable[..., Proxy], nobody: str) -> None:
    """Consul's proxy for one, after its grace period: that is no news."""
    peer, flavour = proxy(CONSUL), replace(FLAVOURS["consul"], ready_url=nobody)
    assert let_go(flavour, url=peer.url).told
    again = let_go(flavour, url=peer.url)
    assert (again.told, again.refused) == (False, False)
    assert "has gone already" in again.reason


def test_a_proxy_that_listens_elsewhere_is_noticed(let_go: Dismiss, proxy: Callable[..., Proxy], nobody: str) -> None:
    """By its readiness."""
    flavour = replace(FLAVOURS["istio"], ready_url=proxy(UNKNOWN).url)
    dismissal = let_go(flavour, url=nobody)
    assert (dismissal.told, dismissal.refused) == (False, True)
    assert "MESHAWARE_QUIT_URL" in dismissal.reason


def test_a_silent_proxy_costs_the_timeout_and_no_more(let_go: Dismiss) -> None:
    """And is worth a warning."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begin = time.monotonic()
        dismissal = let_go(
            FLAVOURS["istio"], url=f"http://127.0.0.1:{silent.getsockname()[1]}/quitquitquit", timeout=QUICK
        )
    assert time.monotonic() - begin < DISMISSAL_TIMEOUT
    assert (dismissal.told, dismissal.refused) == (False, True)


@pytest.mark.parametrize("mesh", ["kuma", "ambient", "none"])
def test_where_nobody_is_told_nobody_is_asked(let_go: Dismiss, mesh: str) -> None:
    """No socket is opened."""
    with socket.create_server(("127.0.0.1", 0)) as unasked:
        unasked.setblocking(False)
        assert not let_go(FLAVOURS[mesh], url=f"http://127.0.0.1:{unasked.getsockname()[1]}").told
        with pytest.raises(BlockingIOError):
            unasked.accept()


@pytest.mark.parametrize("arguments", [{"url": "http://10.0.0.1:15020/"}, {"timeout": 0.0}, {"timeout": float("nan")}])
@pytest.mark.parametrize("mesh", ["istio", "none"])
def test_what_cannot_be_used_is_refused(let_go: Dismiss, mesh: str, arguments: dict[str, Any]) -> None:
    """Another host, or no time."""
    with pytest.raises(ValueError):
        let_go(FLAVOURS[mesh], **arguments)


def test_a_command_that_lets_a_proxy_go_loads_little() -> None:
    """Neither pydantic nor a client nor an event loop."""
    script = (
        "import sys, meshaware.sidecar.shutdown;"
        "print([name for name in ('pydantic', 'httpx', 'anyio', 'asyncio', 'logging') if name in sys.modules])"
    )
    seen = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    assert seen.stdout.strip() == "[]"


@pytest.mark.envoy
def test_a_real_envoy_goes(nobody: str) -> None:
    """Its own `/quitquitquit`, which Istio's agent has under the same name, takes POST only."""
    with LocalMesh() as mesh:
        sidecar, flavour = mesh.add("job", app=False).sidecar, replace(FLAVOURS["istio"], ready_url=nobody)
        assert dismiss(flavour, url=f"{sidecar.admin_url}/quitquitquit").told
        end = time.monotonic() + PATIENT
        while sidecar.running:
            assert time.monotonic() < end
            time.sleep(0.01)
        assert not dismiss(flavour, url=f"{sidecar.admin_url}/quitquitquit").refused
