"""Work that may hang is waited for no longer than asked."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from math import inf
from threading import Event, Thread
from weakref import ref

import pytest

from meshaware.telemetry.flush import Errands


@pytest.fixture(name="stuck")
def _stuck() -> Iterator[Event]:
    """What work waits for that hangs until the test is over."""
    event = Event()
    yield event
    event.set()


def test_work_is_done_and_waited_for() -> None:
    errands, done = Errands(), Event()

    assert errands.run(done.set, 5)
    assert done.is_set()
    assert not errands.busy


def test_work_that_hangs_is_waited_for_as_long_as_asked(stuck: Event) -> None:
    errands = Errands()

    begin = time.monotonic()
    assert not errands.run(stuck.wait, 0.1)

    assert 0.1 <= time.monotonic() - begin < 1
    assert errands.busy


def test_work_behind_work_that_hangs_waits_its_turn_and_is_done_once(stuck: Event) -> None:
    errands = Errands()
    calls: list[int] = []

    def count() -> None:
        calls.append(1)

    errands.run(stuck.wait, 0.01)
    assert [errands.run(count, 0.01) for _ in range(3)] == [False, False, False]
    stuck.set()

    assert errands.run(lambda: None, 5)
    assert calls == [1]


def test_an_error_is_logged_and_the_next_work_is_done(caplog: pytest.LogCaptureFixture) -> None:
    errands = Errands()

    def fail() -> None:
        raise OSError("no route to collector")

    assert not errands.run(fail, 5)
    assert errands.run(lambda: None, 5)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "no route to collector" in caplog.text


@pytest.fixture(name="fork")
def _fork(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Do what happens in a child after a fork, in this process."""
    hooks: list[Callable[[], None]] = []

    def register(*, after_in_child: Callable[[], None]) -> None:
        hooks.append(after_in_child)

    monkeypatch.setattr(os, "register_at_fork", register)

    def fork() -> None:
        for hook in hooks:
            hook()

    return fork


def test_after_a_fork_what_hung_in_the_parent_hangs_no_more(stuck: Event, fork: Callable[[], None]) -> None:
    errands = Errands()
    errands.run(stuck.wait, 0.01)

    fork()

    assert not errands.busy
    assert errands.run(lambda: None, 5)


def test_what_nobody_refers_to_any_more_is_not_kept_for_forks(fork: Callable[[], None]) -> None:
    errands = Errands()
    errands.run(lambda: None, 5)
    gone = ref(errands)
    del errands

    fork()

    assert gone() is None


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_forked_child_has_a_thread_of_its_own_and_nothing_of_the_parents_queue(stuck: Event) -> None:
    errands = Errands()
    errands.run(stuck.wait, 0.01)

    child = os.fork()
    if child == 0:  # pragma: no cover - not this process
        done = not errands.busy and errands.run(lambda: None, 5)
        os._exit(0 if done else 1)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0


def test_a_signal_handler_may_run_work_while_the_interrupted_code_does() -> None:
    errands = Errands()
    seen: list[bool] = []

    def handle(*_: object) -> None:
        seen.append(errands.run(lambda: None, 5))

    previous = signal.signal(signal.SIGUSR1, handle)
    try:
        assert errands.run(lambda: os.kill(os.getpid(), signal.SIGUSR1), 5)
        errands.run(lambda: None, 5)
    finally:
        signal.signal(signal.SIGUSR1, previous)

    assert seen == [True]


# A signal before each line that is run while an errand is waited for, which another one keeps from starting.
INTERRUPTED = """
import signal, sys, threading
from meshaware.telemetry.flush import Errands

errands, stuck = Errands(), threading.Event()
begun = threading.Event()
errands.begin(lambda: (begun.set(), stuck.wait()))
begun.wait(10)
waits = []

def work():
    pass

def handle(*_):
    waits.append(errands.run(work, 0.02))

def trace(frame, event, argument):
    if event == "line":
        signal.raise_signal(signal.SIGUSR1)
    return trace

signal.signal(signal.SIGUSR1, handle)
sys.settrace(trace)
done = errands.run(work, 0.02)
sys.settrace(None)
assert waits and not done and not any(waits), (waits, done)
stuck.set()
assert errands.run(work, 10)
"""


def test_a_signal_handler_may_wait_for_what_the_interrupted_code_waits_for(
    python: Callable[..., subprocess.Popen[str]],
) -> None:
    """Wherever in its wait that is interrupted."""
    process = python("-c", INTERRUPTED)
    _, err = process.communicate(timeout=20)

    assert (process.returncode, err) == (0, "")


@pytest.mark.parametrize(("timeout", "done"), [(-1.0, False), (0.0, False), (inf, True)])
def test_a_wait_may_be_of_any_length(timeout: float, done: bool, stuck: Event) -> None:
    """A time that is over already is no wait, and one without an end is one."""
    errands = Errands()

    assert errands.run(stuck.wait if not done else list, timeout) is done


def test_everybody_who_waits_for_an_errand_is_let_go(stuck: Event) -> None:
    errand = Errands().begin(stuck.wait)
    waits: list[bool] = []
    threads = [Thread(target=lambda: waits.append(errand.wait(10))) for _ in range(4)]
    for thread in threads:
        thread.start()

    stuck.set()
    for thread in threads:
        thread.join(10)

    assert waits == [True] * 4
