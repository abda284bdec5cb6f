"""One signal leaves, whosever its provider is."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event

import pytest

from meshaware.telemetry.outlet import Outlet


class Provider:
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


def test_what_is_off_has_nothing_to_do() -> None:
    outlet = Outlet("logs", "off", "OTEL_LOGS_EXPORTER is not set")

    assert outlet.flush() is None
    assert outlet.shutdown() is None
    assert not outlet.stuck
    assert repr(outlet) == "Outlet('logs', 'off', 'OTEL_LOGS_EXPORTER is not set', target='')"


def test_a_provider_of_ours_is_shut_down_once_and_flushed_no_more(provider: Provider) -> None:
    order: list[str] = []
    outlet = Outlet(
        "logs", "own", "because", provider=provider, before_shutdown=lambda: order.append(f"after {provider.calls}")
    )

    errands = [outlet.flush(), outlet.shutdown()]

    assert [errand is not None and errand.wait(5) for errand in errands] == [True, True]
    assert (outlet.flush(), outlet.shutdown()) == (None, None)
    assert provider.calls == ["flush", "shutdown"]
    assert order == ["after ['flush']"]


def test_a_provider_of_somebody_else_is_only_flushed(provider: Provider) -> None:
    errand = Outlet("metrics", "shared", "because", provider=provider).shutdown()

    assert errand is not None
    assert errand.wait(5)
    assert provider.calls == ["flush"]


def test_a_provider_that_cannot_flush_needs_none() -> None:
    assert Outlet("metrics", "shared", "because", provider=object()).flush() is None


def test_it_is_stuck_from_a_wait_that_was_in_vain_until_its_work_is_done(provider: Provider) -> None:
    outlet = Outlet("traces", "own", "because", provider=provider)
    provider.go.clear()
    errand = outlet.flush()
    assert errand is not None
    busy = outlet.stuck
    outlet.late = True
    late = outlet.stuck
    provider.go.set()

    assert errand.wait(5)
    assert (busy, late, outlet.stuck) == (False, True, False)
