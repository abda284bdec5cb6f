"""
A child process, and what it may expect of the first process of a container.

Signals are blocked and fetched one by one, never handled: so none is lost between two instructions, none comes while
another is being passed on, and the first process of a container, to which the kernel delivers no signal that has its
default effect, gets them all.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import NamedTuple

from meshaware.cli.exits import CANNOT_EXECUTE, NOT_FOUND, CommandError
from meshaware.cli.terminal import say

__all__ = ["PASSED_ON", "Ended", "adopt_orphans", "hold_signals", "pass_on", "run_child", "signal_name"]

_KILLED = 128
# <linux/prctl.h>
_PR_SET_CHILD_SUBREAPER = 36

PASSED_ON = frozenset(signal.valid_signals()) - {
    # Nobody can keep these from their effect.
    signal.SIGKILL,
    signal.SIGSTOP,
    # About this process itself: its children, its faults, its limits, its output.
    signal.SIGCHLD,
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGTRAP,
    signal.SIGSYS,
    signal.SIGABRT,
    signal.SIGXCPU,
    signal.SIGXFSZ,
    signal.SIGPIPE,
    # A terminal sends them to the whole job, and this process has to stop with the rest for the shell to go on.
    signal.SIGTSTP,
    signal.SIGTTIN,
    signal.SIGTTOU,
}
"""What the child gets when this process gets it."""


class Ended(NamedTuple):
    """
    How a child ended.

    Attributes:
        code: Its exit code; 128 and the signal's number if it was a signal.
        signal: The signal that ended it, or None.
        passed: The signals that came to this process meanwhile.
    """

    code: int
    signal: int | None
    passed: frozenset[int]


@contextmanager
def hold_signals() -> Generator[None]:
    """Hold back what `run_child` passes on. What came and was not passed on until the end has no effect any more."""
    held = PASSED_ON | {signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        while signal.sigtimedwait(held, 0) is not None:
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def adopt_orphans() -> None:
    """
    Become the parent of descendants whose own parent is gone, as the first process of a container is anyway.

    Where the kernel does not let it, some ancestor gets them, as always.
    """
    if os.getpid() == 1:
        return
    # Not every Python is built with it.
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes  # noqa: PLC0415

        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def run_child(command: Sequence[str], environment: Mapping[str, str], *, drain: float = 0.0) -> Ended:
    """
    Run a command until it ends; call it inside `hold_signals`, in a process without other children and threads.

    It has this process's terminal and process group, and no signal is blocked for it. Zombies are reaped, whosever
    children they were.

    Args:
        command: The program, looked for in `PATH`, and its arguments.
        environment: Its variables.
        drain: Seconds to wait after a SIGTERM before the child gets it. A second one is passed on at once.

    Raises:
        CommandError: It cannot be started; the code is 127 if there is no such program, otherwise 126.
    """
    # Whoever started this process may ignore it, and the kernel would then keep no exit codes.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    return _Attendant(_spawn(command, environment), drain).attend()


def pass_on(child: int, number: int) -> None:
    """Send a signal to a child that was not reaped yet; one that has become another user's is told of."""
    try:
        os.kill(child, number)
    except PermissionError:
        say(f"meshaware run: {signal_name(number)} was not passed on: the process runs as another user now")


class _Attendant:
    def __init__(self, child: int, drain: float) -> None:
        self._child, self._drain = child, drain
        self._draining_until: float | None = None
        self._seen: set[int] = set()

    def attend(self) -> Ended:
        held = PASSED_ON | {signal.SIGCHLD}
        while True:
            info = self._next(held)
            if info is None:
                self._draining_until = None
                pass_on(self._child, signal.SIGTERM)
            elif info.si_signo == signal.SIGCHLD:
                status = _reap(self._child)
                if status is not None:
                    return self._ended(os.waitstatus_to_exitcode(status))
            else:
                self._take(info)

    def _next(self, held: Collection[int]) -> signal.struct_siginfo | None:
        """The next signal; None when the time of draining is over."""
        if self._draining_until is None:
            return signal.sigwaitinfo(held)
        return signal.sigtimedwait(held, max(0.0, self._draining_until - monotonic()))

    def _take(self, info: signal.struct_siginfo) -> None:
        number = info.si_signo
        first = number not in self._seen
        self._seen.add(number)
        if number == signal.SIGTERM:
            if first and self._drain:
                self._draining_until = monotonic() + self._drain
                return
            self._draining_until = None
        if not _has_it(self._child, info):
            pass_on(self._child, number)

    def _ended(self, code: int) -> Ended:
        passed = frozenset(self._seen)
        return Ended(code, None, passed) if code >= 0 else Ended(_KILLED - code, -code, passed)


def _spawn(command: Sequence[str], environment: Mapping[str, str]) -> int:
    try:
        return os.posix_spawnp(
            command[0],
            list(command),
            environment,
            setsigmask=(),
            # Python ignores these, and a program inherits what is ignored.
            setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
        )
    except (OSError, ValueError) as error:
        missing = isinstance(error, OSError) and error.errno == errno.ENOENT
        why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise CommandError(
            f"{command[0][:200]!r} cannot be started: {why}", NOT_FOUND if missing else CANNOT_EXECUTE
        ) from error


def _reap(child: int) -> int | None:
    """Take leave of all that have ended; the status of this child if it is among them."""
    status = None
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG)) != (0, 0):
            if found[0] == child:
                status = found[1]
    return status


def _has_it(child: int, info: signal.struct_siginfo) -> bool:
    """Whether the kernel has sent the child the same: a terminal's signals go to all processes of the job."""
    if info.si_code <= 0:
        return False
    if info.si_signo == signal.SIGHUP and os.getsid(0) == os.getpid():
        # A terminal that is gone tells the first process of its session only.
        return False
    return os.getpgid(child) == os.getpgrp()


def signal_name(number: int) -> str:
    """As people write it: `SIGTERM`."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
