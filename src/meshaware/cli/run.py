"""`meshaware run`: run a command as the entry point of a container beside a sidecar."""

from __future__ import annotations

import argparse
import os
import signal
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from meshaware.cli.child import Ended, adopt_orphans, hold_signals, run_child, signal_name
from meshaware.cli.exits import EX_CONFIG, EX_OK, CommandError
from meshaware.cli.terminal import say
from meshaware.durations import parse_duration

if TYPE_CHECKING:
    from meshaware.sidecar.parting import Outcome, QuitPolicy

__all__ = ["add_arguments", "run"]

_LONGEST = 86_400.0
_SIGNALLED = 128
_WHEN: Mapping[str, QuitPolicy] = {"always": "always", "success": "success", "never": "never"}

_DESCRIPTION = """\
Runs a command and does what the first process of a container has to: signals are passed on, zombies are
reaped, and the exit code is the command's. On the way in it can wait for the sidecar, and on the way out
hold back SIGTERM for a while, or let the sidecar of a Job go.
"""
_EPILOG = """\
exit codes:
  64   the command line cannot be understood
  69   --wait: the sidecar was not ready in time; the command was not started
  78   a variable or file of the settings cannot be used; the command was not started
  126  the command is there and cannot be executed
  127  there is no such command
Otherwise the command's own: its exit code, or 128 and the number of the signal that ended it.

examples:
  meshaware run --wait --quit success -- python job.py
  meshaware run --drain 3s -- hypercorn shop:app
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line may have."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    parser.usage = (
        "%(prog)s [--wait [--timeout TIME] [--fatal | --no-fatal]] [--drain TIME]\n"
        "       [--quit always|success|never] -- COMMAND [ARGUMENT ...]"
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.set_defaults(fail=parser.error)
    parser.add_argument("--wait", action="store_true", help="start the command when the sidecar takes calls")
    parser.add_argument(
        "--timeout",
        type=_time,
        metavar="TIME",
        help="with --wait: how long at most, such as 30s; default: MESHAWARE_READY_TIMEOUT, or a minute",
    )
    parser.add_argument(
        "--fatal",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="with --wait: whether a late sidecar keeps it from starting; default: MESHAWARE_READY_FATAL, or true",
    )
    parser.add_argument(
        "--drain",
        type=_duration,
        default=0.0,
        metavar="TIME",
        help="pass SIGTERM on only after this time; a second SIGTERM at once; default: 0",
    )
    parser.add_argument(
        "--quit",
        choices=_WHEN,
        help="for a Job: when to let a classic sidecar go after the command; default: MESHAWARE_QUIT, or never",
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="the program and its arguments")


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit code, or one of those above."""
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        arguments.fail("which command? Write it after --, as in: meshaware run -- python job.py")
    if not arguments.wait and not (arguments.timeout is None and arguments.fatal is None):
        arguments.fail("--timeout and --fatal go with --wait")
    asked = arguments.quit or os.environ.get("MESHAWARE_QUIT", "").strip().lower() or "never"
    when = _WHEN.get(asked)
    if when is None:
        say(f"meshaware run: MESHAWARE_QUIT={asked[:60]!r} cannot be used; write one of {', '.join(_WHEN)}")
        return EX_CONFIG
    with _ended_by_signals():
        code = _wait(arguments.timeout, fatal=arguments.fatal) if arguments.wait else EX_OK
        # To the end: what comes while the sidecar is told to go must not replace the command's exit code.
        with hold_signals():
            ended = _run(command, arguments.drain) if code == EX_OK else Ended(code, None, frozenset())
            # Who has ended the wait ends the pod.
            if code <= _SIGNALLED and when != "never":
                _let_go(when, ended)
    return ended.code


def _run(command: list[str], drain: float) -> Ended:
    adopt_orphans()
    # One drain is enough: a mesh in the command does not add its own, unless somebody says so.
    environment = {"MESHAWARE_DRAIN": "0", **os.environ} if drain else os.environ
    try:
        ended = run_child(command, environment, drain=drain)
    except CommandError as error:
        say(f"meshaware run: {error}")
        return Ended(error.code, None, frozenset())
    if ended.signal is not None and ended.signal not in ended.passed:
        why = " (the memory limit of the container?)" if ended.signal == signal.SIGKILL else ""
        say(f"meshaware run: {command[0]!r} was ended by {signal_name(ended.signal)}{why}")
    return ended


def _let_go(when: QuitPolicy, ended: Ended) -> None:
    outcome: Outcome = "success"
    if ended.code != EX_OK:
        outcome = "terminated" if signal.SIGTERM in ended.passed else "failure"
    if when == "success" and outcome == "terminated":
        # The sidecar has its own SIGTERM, or the container is to be started again beside it.
        return
    from meshaware.cli.quit import let_go  # noqa: PLC0415 (it reads settings, and tells the sidecar)

    let_go(when, outcome)


def _wait(timeout: float | None, *, fatal: bool | None) -> int:
    from meshaware.cli.wait import wait_for_sidecar  # noqa: PLC0415 (it reads settings, and asks the sidecar)

    return wait_for_sidecar(timeout, fatal=fatal)


@contextmanager
def _ended_by_signals() -> Generator[None]:
    """
    End the process at what would end any other: to the first one of a container, such a signal does nothing by itself.

    From before the wait until signals are held, so that none is lost in between.
    """

    def end(number: int, frame: FrameType | None) -> NoReturn:
        del frame
        raise SystemExit(_SIGNALLED + number)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)}
    heard = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    try:
        for number in heard:
            signal.signal(number, end)
        yield
    finally:
        for number, handler in heard.items():
            signal.signal(number, handler)


def _duration(text: str) -> float:
    try:
        seconds = parse_duration(text, bare_seconds=True)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if seconds > _LONGEST:
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is longer than a day")
    return seconds


def _time(text: str) -> float:
    seconds = _duration(text)
    if not seconds:
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is no time to wait: leave --wait out")
    return seconds
