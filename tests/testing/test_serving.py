"""An application in a thread."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from meshaware.errors import LocalMeshError
from meshaware.testing.ports import HeldPort
from meshaware.testing.serving import AppThread


@pytest.fixture(name="listening")
def _listening() -> Iterator[socket.socket]:
    port = HeldPort()
    listening = port.listen()
    yield listening
    listening.close()
    port.release()


def test_an_application_whose_start_fails_says_so(listening: socket.socket) -> None:
    """Its lifespan's failure is in its log, as uvicorn writes it."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    thread = AppThread(app, listening, "orders v1", {"lifespan": "on"})
    with pytest.raises(LocalMeshError, match="the application of orders v1 did not start: the log of uvicorn says why"):
        thread.start()
    assert listening.fileno() < 0


def test_an_application_that_is_none_says_why(listening: socket.socket) -> None:
    """The cause is kept."""
    thread = AppThread("no.such.module:app", listening, "orders v1", {})
    with pytest.raises(LocalMeshError, match="did not start: ModuleNotFoundError: No module named 'no'") as caught:
        thread.start()
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_an_application_that_does_not_start_in_time_is_given_up(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bounded."""
    monkeypatch.setattr("meshaware.testing.serving._STARTS_WITHIN", 0.05)
    release = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        while not release.is_set():
            await asyncio.sleep(0.01)

    thread = AppThread(app, listening, "orders v1", {"lifespan": "on"})
    threading.Timer(0.3, release.set).start()
    with pytest.raises(LocalMeshError, match=r"did not start within 0\.05 seconds"):
        thread.start()


def test_a_handler_that_nobody_waits_for_does_not_hold_up_the_stop(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is cut off after a second, or at once where the server does not listen to that either."""
    monkeypatch.setattr("meshaware.testing.serving._STOPS_WITHIN", 0.1)
    entered = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        entered.set()
        await asyncio.sleep(30)

    thread = AppThread(app, listening, "orders v1", {"lifespan": "off", "timeout_graceful_shutdown": None})
    thread.start()
    with socket.create_connection(listening.getsockname()) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        assert entered.wait(5)
        thread.stop()
    assert listening.fileno() < 0


def test_without_uvicorn_the_error_says_what_to_do(listening: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(LocalMeshError, match=r"serve\(\) needs uvicorn"):
        AppThread(object(), listening, "orders v1", {})
