"""A mesh that samples everything away is pointed out, once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from threading import Barrier, Thread

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, DEFAULT_ON
from opentelemetry.trace import NoOpTracerProvider

from meshaware.telemetry.sampling import Sampling, make_sampler
from meshaware.telemetry.watch import SamplingWatch, watch_of

PAGE = (Path(__file__).parents[2] / "docs" / "telemetry.md").read_text()


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1e6

    def __call__(self) -> float:
        return self.now


Told = list[tuple[int, float]]


def tell(told: Told) -> Callable[[int, float], None]:
    return lambda requests, seconds: told.append((requests, seconds))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def told() -> Told:
    return []


@pytest.fixture
def watch(clock: Clock, told: Told) -> SamplingWatch:
    """Needs a hundred requests in a minute."""
    return SamplingWatch(tell(told), clock=clock, requests=100, seconds=60)


def send(watch: SamplingWatch, count: int, *, sampled: bool = False) -> None:
    for _ in range(count):
        watch.saw(sampled)


def test_enough_requests_over_enough_time_are_told_once(watch: SamplingWatch, clock: Clock, told: Told) -> None:
    send(watch, 99)
    clock.now += 61
    assert told == []
    send(watch, 1)
    assert told == [(100, 61)]
    send(watch, 10_000)
    assert len(told) == 1


def test_many_requests_at_once_prove_nothing(watch: SamplingWatch, clock: Clock, told: Told) -> None:
    """A burst may be one user, or one trace. The time counts from the first request, not from the start."""
    clock.now += 3600
    send(watch, 10_000)
    clock.now += 59
    send(watch, 10_000)
    assert told == []
    clock.now += 2
    send(watch, 50)
    ((requests, seconds),) = told
    assert 20_000 <= requests <= 20_050
    assert seconds == 61


@pytest.mark.parametrize("before", [0, 1, 50, 99])
def test_one_sampled_request_ends_the_watch(before: int, watch: SamplingWatch, clock: Clock, told: Told) -> None:
    send(watch, before)
    send(watch, 1, sampled=True)
    clock.now += 3600
    send(watch, 10_000)
    assert told == []


def test_few_requests_over_a_long_time_prove_nothing(watch: SamplingWatch, clock: Clock, told: Told) -> None:
    for _ in range(99):
        send(watch, 1)
        clock.now += 3600
    assert told == []


def test_threads_that_meet_tell_it_once(told: Told) -> None:
    """And none of them fails."""
    watch = SamplingWatch(tell(told), requests=1000, seconds=0)
    start = Barrier(8)

    def work() -> None:
        start.wait(10)
        send(watch, 5000)

    threads = [Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(told) == 1


def test_the_line_says_what_was_seen_what_follows_and_what_to_change(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    watch = SamplingWatch(clock=clock)
    send(watch, 999)
    clock.now += 301.4
    send(watch, 51)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        "telemetry: all of the first 1000 requests that carry a trace, within 5m1s, arrived unsampled: the mesh decided"
        " so, and that is why their spans are dropped here. To see them, raise what the mesh samples (Istio:"
        " randomSamplingPercentage in a Telemetry resource, or meshConfig.defaultConfig.tracing.sampling), or set"
        " MESHAWARE_SAMPLING=always to keep this service's spans whatever the mesh decides"
    )
    assert f"\nWARNING meshaware.telemetry: {record.getMessage()}\n" in PAGE


@pytest.mark.parametrize(
    ("provider", "watched"),
    [
        (lambda: TracerProvider(make_sampler(Sampling("mesh")), shutdown_on_exit=False), True),
        (lambda: TracerProvider(make_sampler(Sampling(0.5)), shutdown_on_exit=False), True),
        (lambda: TracerProvider(make_sampler(Sampling("always")), shutdown_on_exit=False), False),
        (lambda: TracerProvider(ALWAYS_ON, shutdown_on_exit=False), False),
        (lambda: TracerProvider(DEFAULT_ON, shutdown_on_exit=False), False),
        (NoOpTracerProvider, False),
        (lambda: None, False),
    ],
)
def test_a_provider_is_watched_where_the_mesh_decides(provider: Callable[[], object], watched: bool) -> None:
    """And it is one of meshaware's."""
    assert isinstance(watch_of(provider()), SamplingWatch) is watched
