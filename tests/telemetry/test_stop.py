"""Spans leave where a process stops."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from threading import Event

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from opentelemetry.trace import NoOpTracerProvider

from meshaware.errors import SettingsError
from meshaware.telemetry import Telemetry
from meshaware.telemetry.stop import flush_at_lifespan_end, flush_at_sigterm


class Provider(NoOpTracerProvider):
    """A provider that notes when it is flushed."""

    def __init__(self, events: list[str]) -> None:
        self.events = events

    def force_flush(self) -> None:
        self.events.append("flush")


@pytest.fixture(name="events")
def _events() -> list[str]:
    return []


@pytest.fixture(name="telemetry")
def _telemetry(events: list[str]) -> Telemetry:
    return Telemetry("own", "because", tracer_provider=Provider(events))


def test_the_flush_comes_after_the_applications_own_shutdown(telemetry: Telemetry, events: list[str]) -> None:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[dict[str, int], None]:
        events.append("start")
        yield {"shelves": 7}
        events.append("stop")

    app = FastAPI(lifespan=lifespan)
    flush_at_lifespan_end(app, telemetry)

    @app.get("/")
    def shelves(request: Request) -> int:  # pyright: ignore[reportUnusedFunction]
        count: int = request.state.shelves
        return count

    for _ in range(2):
        with TestClient(app) as client:
            assert client.get("/").json() == 7

    assert events == ["start", "stop", "flush"] * 2


def test_an_application_that_fails_to_start_or_stop_is_flushed_too(telemetry: Telemetry, events: list[str]) -> None:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        yield
        raise LookupError("no such shelf")

    app = FastAPI(lifespan=lifespan)
    flush_at_lifespan_end(app, telemetry)

    with pytest.raises(LookupError), TestClient(app):
        pass

    assert events == ["flush"]


@pytest.fixture(name="handler")
def _handler() -> Iterator[None]:
    """SIGTERM's handler as it was."""
    previous = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, previous)


@pytest.mark.usefixtures("handler")
def test_the_handler_that_was_there_runs_after_the_flush(telemetry: Telemetry, events: list[str]) -> None:
    def theirs(*_: object) -> None:
        events.append("theirs")

    signal.signal(signal.SIGTERM, theirs)
    flush_at_sigterm(telemetry)

    os.kill(os.getpid(), signal.SIGTERM)

    assert events == ["flush", "theirs"]


@pytest.mark.usefixtures("handler")
def test_a_signal_does_not_wait_again_for_what_hangs() -> None:
    """uvicorn sends itself the signal again after the lifespan, which has waited already."""
    go, events = Event(), list[str]()
    provider = Provider(events)
    provider.force_flush = go.wait  # type: ignore[method-assign,assignment]
    telemetry = Telemetry("own", "because", tracer_provider=provider)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    flush_at_sigterm(telemetry)
    assert not telemetry.flush(0.05)
    provider.force_flush = lambda: events.append("flush")  # type: ignore[method-assign]

    os.kill(os.getpid(), signal.SIGTERM)
    go.set()

    assert events == []


@pytest.mark.usefixtures("handler")
def test_a_signal_that_was_ignored_is_ignored(telemetry: Telemetry, events: list[str]) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    flush_at_sigterm(telemetry)

    os.kill(os.getpid(), signal.SIGTERM)

    assert events == ["flush"]


@pytest.mark.usefixtures("handler")
def test_a_process_that_would_have_died_dies_of_the_signal_after_the_flush(
    telemetry: Telemetry, events: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(_: int, number: int) -> None:
        events.append(repr(signal.getsignal(number)))

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    flush_at_sigterm(telemetry)
    monkeypatch.setattr(os, "kill", kill)

    signal.raise_signal(signal.SIGTERM)

    assert events == ["flush", repr(signal.SIG_DFL)]


@pytest.mark.usefixtures("handler")
def test_a_handler_that_python_cannot_run_is_left_alone(telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: int) -> None:
        pass

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(signal, "getsignal", unknown)
        with pytest.raises(SettingsError, match="not set from Python"):
            flush_at_sigterm(telemetry)

    assert signal.getsignal(signal.SIGTERM) is before


def test_another_thread_than_the_main_one_cannot_set_a_handler(telemetry: Telemetry) -> None:
    with ThreadPoolExecutor(1) as thread, pytest.raises(SettingsError, match="in the main thread"):
        thread.submit(flush_at_sigterm, telemetry).result()
