"""SIGTERM heard: during the work, and around it."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import anyio
import anyio.lowlevel
import pytest

from meshaware.jobs.sigterm import Terminated, async_hear_sigterm, hear_sigterm


@pytest.fixture(autouse=True)
def _default() -> Iterator[None]:
    """Whatever the one who runs the tests has: here nobody handles SIGTERM."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


@contextmanager
def sent_again(monkeypatch: pytest.MonkeyPatch) -> Generator[list[int]]:
    """What is sent to this process at the end, in place of its death."""
    sent: list[int] = []

    def kill(pid: int, number: int) -> None:
        assert pid == os.getpid()
        sent.append(number)

    with monkeypatch.context() as patch:
        patch.setattr("os.kill", kill)
        yield sent


def test_sigterm_during_the_work_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """By an error that would end the process, with the code that a shell shows for it."""
    with sent_again(monkeypatch) as sent:
        with pytest.raises(Terminated) as ended, hear_sigterm() as ear, ear.at_work():
            signal.raise_signal(signal.SIGTERM)
    assert ended.value.code == 143
    assert sent == []
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_sigterm_before_the_work_ends_it_as_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """It must not be lost."""
    with sent_again(monkeypatch) as sent:
        with pytest.raises(Terminated), hear_sigterm() as ear:
            signal.raise_signal(signal.SIGTERM)
            with ear.at_work():
                pytest.fail("begun")
    assert sent == []


def test_sigterm_after_the_work_waits_for_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is sent again, to whoever there is."""
    with sent_again(monkeypatch) as sent:
        with hear_sigterm() as ear:
            with ear.at_work():
                pass
            signal.raise_signal(signal.SIGTERM)
            assert sent == []
        assert sent == [signal.SIGTERM]


def test_another_s_handler_is_left_in_place() -> None:
    """It has a reason."""
    heard: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    with hear_sigterm() as ear, ear.at_work():
        signal.raise_signal(signal.SIGTERM)
    assert heard == [signal.SIGTERM]
    assert not ear.told


async def until_cancelled() -> None:
    with anyio.fail_after(10):
        await anyio.sleep_forever()


@pytest.mark.anyio
async def test_sigterm_cancels_what_is_asynchronous(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it waits for."""
    with sent_again(monkeypatch) as sent:
        with pytest.raises(Terminated):
            async with async_hear_sigterm() as ear:
                with ear.at_work():
                    signal.raise_signal(signal.SIGTERM)
                    await until_cancelled()
    assert sent == []


@pytest.mark.anyio
async def test_sigterm_before_asynchronous_work_cancels_it_as_it_begins() -> None:
    """It must not be lost."""
    with pytest.raises(Terminated):
        async with async_hear_sigterm() as ear:
            signal.raise_signal(signal.SIGTERM)
            with ear.at_work():
                await until_cancelled()


@pytest.mark.anyio
async def test_sigterm_after_asynchronous_work_waits_for_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for threads."""
    with sent_again(monkeypatch) as sent:
        async with async_hear_sigterm() as ear:
            with ear.at_work():
                await anyio.lowlevel.checkpoint()
            signal.raise_signal(signal.SIGTERM)
            with anyio.fail_after(10):
                while not ear.told:
                    await anyio.sleep(0.001)
            assert sent == []
        assert sent == [signal.SIGTERM]


@pytest.mark.anyio
async def test_an_error_of_asynchronous_work_is_raised_as_it_is() -> None:
    """Not in a group: the task that listens is ours."""
    with pytest.raises(LookupError, match="shelf"):
        async with async_hear_sigterm() as ear:
            with ear.at_work():
                raise LookupError("shelf")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.anyio
async def test_another_s_handler_is_left_in_place_there_too() -> None:
    """An event loop's own, for instance."""
    heard: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    async with async_hear_sigterm() as ear:
        with ear.at_work():
            signal.raise_signal(signal.SIGTERM)
            await anyio.lowlevel.checkpoint()
    assert heard == [signal.SIGTERM]
    assert not ear.told
