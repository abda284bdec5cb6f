"""Spans leave in bounded time, whatever the provider does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from threading import Event
from typing import Any

import anyio
import anyio.to_thread
import pytest
from opentelemetry.trace import NoOpTracerProvider, TracerProvider

from meshaware.telemetry import Telemetry
from meshaware.telemetry.outlet import Outlet


class Provider(NoOpTracerProvider):
    """A provider that notes what is asked of it, and hangs where told to."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.go = Event()
        self.go.set()

    def force_flush(self) -> None:
        self.calls.append("flush")
        self.go.wait()

    def shutdown(self) -> None:
        self.calls.append("shutdown")
        self.go.wait()


@pytest.fixture(name="provider")
def _provider() -> Iterator[Provider]:
    provider = Provider()
    yield provider
    provider.go.set()


def own(provider: TracerProvider) -> Telemetry:
    return Telemetry("own", "because", target="http://c:4318", tracer_provider=provider)


def test_off_has_nothing_to_do() -> None:
    telemetry = Telemetry("off", "OTEL_SDK_DISABLED=true")
    telemetry.leave()

    assert telemetry.flush(0)
    assert telemetry.shutdown(0)
    assert telemetry.resource == {}
    assert anyio.run(telemetry.async_flush)
    assert anyio.run(telemetry.async_shutdown)


def test_a_provider_of_ours_is_flushed_as_often_as_asked_and_shut_down_once(provider: Provider) -> None:
    telemetry = own(provider)

    assert telemetry.flush()
    assert telemetry.flush()
    assert telemetry.shutdown()
    assert telemetry.shutdown()
    assert telemetry.flush()
    assert provider.calls == ["flush", "flush", "shutdown"]


def test_a_provider_of_somebody_else_is_flushed_and_never_shut_down(provider: Provider) -> None:
    telemetry = Telemetry("shared", "because", tracer_provider=provider)

    assert telemetry.flush()
    assert telemetry.shutdown()
    assert provider.calls == ["flush", "flush"]


def test_a_provider_that_cannot_flush_needs_none() -> None:
    telemetry = Telemetry("shared", "because", tracer_provider=NoOpTracerProvider())

    assert telemetry.flush()
    assert telemetry.shutdown()
    assert telemetry.resource == {}


@pytest.mark.parametrize("work", ["flush", "shutdown"])
def test_the_wait_has_a_bound_and_the_log_says_once_why_spans_are_missing(
    provider: Provider, work: str, caplog: pytest.LogCaptureFixture
) -> None:
    telemetry = own(provider)
    provider.go.clear()

    begin = time.monotonic()
    assert not getattr(telemetry, work)(0.1)
    assert not telemetry.shutdown(0.1) or work == "shutdown"

    assert time.monotonic() - begin < 1
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == (
        "telemetry: spans could not be sent within 100ms to http://c:4318; those still queued when the process"
        " ends are lost. Next: does the collector answer?"
    )


def test_an_exit_does_not_wait_again_for_what_hangs(provider: Provider) -> None:
    telemetry = own(provider)
    provider.go.clear()
    telemetry.flush(0.05)

    begin = time.monotonic()
    telemetry.leave()

    assert time.monotonic() - begin < 1
    assert provider.calls == ["flush"]


def test_an_exit_shuts_down_what_works_again(provider: Provider) -> None:
    telemetry = own(provider)
    provider.go.clear()
    telemetry.flush(0.05)
    provider.go.set()
    telemetry.flush()

    telemetry.leave()

    assert provider.calls[-1] == "shutdown"


@pytest.mark.anyio
@pytest.mark.parametrize("work", ["async_flush", "async_shutdown"])
async def test_the_asynchronous_wait_has_the_same_bound(provider: Provider, work: str) -> None:
    telemetry = own(provider)
    assert await telemetry.async_flush()
    provider.go.clear()

    begin = time.monotonic()
    assert not await getattr(telemetry, work)(0.1)

    assert time.monotonic() - begin < 1


@pytest.mark.anyio
async def test_spans_are_flushed_though_every_thread_is_stuck(provider: Provider) -> None:
    """An application that is stopped because it hangs has none left."""
    stuck = Event()

    async def hang() -> None:
        await anyio.to_thread.run_sync(stuck.wait)

    limiter = anyio.to_thread.current_default_thread_limiter()
    limiter.total_tokens = 1
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hang)
        while not limiter.borrowed_tokens:
            await anyio.lowlevel.checkpoint()
        assert await own(provider).async_flush(5)
        stuck.set()

    assert provider.calls == ["flush"]


@pytest.mark.anyio
async def test_a_cancellation_does_not_cut_the_flush_short(provider: Provider) -> None:
    telemetry = own(provider)
    outcome: list[bool] = []

    with anyio.CancelScope() as scope:
        scope.cancel()
        outcome.append(await telemetry.async_flush(5))

    assert outcome == [True]
    assert provider.calls == ["flush"]


def test_it_shows_what_was_found(spans: Any) -> None:
    telemetry = Telemetry("shared", "it was there", tracer_provider=spans.provider)

    assert repr(telemetry) == "Telemetry('shared', 'it was there', target='')"
    assert telemetry.resource["telemetry.sdk.name"] == "opentelemetry"


def test_all_signals_are_flushed_and_shut_down_at_once_within_one_bound() -> None:
    """What hangs in one holds up no other, and the waits do not add up."""
    hanging, working, providers = Provider(), Provider(), [Provider(), Provider()]
    hanging.go.clear()
    telemetry = own(hanging)
    telemetry.add(Outlet("metrics", "own", "because", target="http://c:4318", provider=providers[0]))
    telemetry.add(Outlet("logs", "shared", "because", provider=working))
    providers[0].go.clear()

    begin = time.monotonic()
    assert not telemetry.flush(0.2)
    took = time.monotonic() - begin
    telemetry.leave()
    for provider in (hanging, *providers):
        provider.go.set()

    assert 0.2 <= took < 0.4 + 0.5
    assert working.calls == ["flush", "flush"]
    assert hanging.calls == providers[0].calls == ["flush"]


def test_one_line_names_all_that_could_not_be_sent(caplog: pytest.LogCaptureFixture) -> None:
    hanging = [Provider(), Provider()]
    for provider in hanging:
        provider.go.clear()
    telemetry = own(hanging[0])
    telemetry.add(Outlet("metrics", "own", "because", target="http://d:4318", provider=hanging[1]))
    telemetry.add(Outlet("logs", "own", "because", provider=Provider()))
    telemetry.flush(0.05)
    telemetry.flush(0.05)
    for provider in hanging:
        provider.go.set()

    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(
        "telemetry: spans and metrics could not be sent within 50ms to http://c:4318 and http://d:4318; those"
    )


def test_a_shutdown_ends_what_is_ours_and_flushes_what_is_not() -> None:
    ours, theirs = Provider(), Provider()
    ended: list[str] = []
    telemetry = Telemetry("off", "because")
    telemetry.add(Outlet("metrics", "shared", "because", provider=theirs))
    telemetry.add(
        Outlet("logs", "own", "because", provider=ours, before_shutdown=lambda: ended.append(f"before {ours.calls}"))
    )

    assert (telemetry.works, telemetry.owns) == (True, True)
    assert telemetry.shutdown()
    assert telemetry.shutdown()
    assert ours.calls == ["shutdown"]
    assert theirs.calls == ["flush", "flush"]
    assert ended == ["before []"]


def test_what_works_is_not_replaced_by_a_reason_why_it_is_off() -> None:
    telemetry = Telemetry("off", "because")
    works = Outlet("metrics", "shared", "because", provider=Provider())
    telemetry.add(works)
    telemetry.add(Outlet("metrics", "off", "OTEL_METRICS_EXPORTER is not set"))
    telemetry.add(Outlet("logs", "off", "OTEL_LOGS_EXPORTER is not set"))

    assert telemetry.metrics is works
    assert telemetry.logs.reason == "OTEL_LOGS_EXPORTER is not set"
