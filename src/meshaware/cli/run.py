"""`meshaware run`: run a command as the entry point of a container beside a sidecar."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from meshaware.cli.child import Ended, adopt_orphans, hold_signals, run_child, signal_name
from meshaware.cli.exits import EX_OK, EX_USAGE, CommandError
from meshaware.cli.terminal import say
from meshaware.durations import parse_duration

__all__ = ["add_arguments", "run"]

_LONGEST = 86_400.0
_SIGNALLED = 128

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
  meshaware run --drain 3s -- gunicorn shop:app
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line may have."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    parser.usage = (
        "%(prog)s [--wait [--timeout TIME] [--no-fatal]] [--drain TIME]\n"
        "       [--quit always|success|never] -- COMMAND [ARGUMENT ...]"
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--wait", action="store_true", help="start the command when the sidecar takes calls")
    parser.add_argument(
        "--timeout",
        type=_duration,
        metavar="TIME",
        help="with --wait: how long at most, such as 30s; default: MESHAWARE_READY_TIMEOUT, or a minute",
    )
    parser.add_argument(
        "--no-fatal",
        dest="fatal",
        action="store_false",
        help="with --wait: start the command also when the time is up; MESHAWARE_READY_FATAL=false does it too",
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
        choices=("always", "success", "never"),
        default="never",
        help="for a Job: when to let a classic sidecar go after the command has ended; default: never",
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="the program and its arguments")


def run(arguments: argparse.Namespace) -> int:
    """
    Run the command; return its exit code.

    Raises:
        CommandError: It was not started.
    """
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        raise CommandError("run: which command? Write it after --, as in: meshaware run -- python job.py", EX_USAGE)
    if not arguments.wait and (arguments.timeout is not None or not arguments.fatal):
        raise CommandError(f"run: {'--no-fatal' if arguments.timeout is None else '--timeout'}: goes with --wait", EX_USAGE)
    if arguments.wait:
        code = _wait(arguments.timeout, fatal=arguments.fatal)
        if code != EX_OK:
            _let_go(arguments.quit, code)
            return code
    adopt_orphans()
    # To the end: what comes while the sidecar is told to go must not replace the command's exit code.
    with hold_signals():
        try:
            ended = run_child(command, drain=arguments.drain)
        except CommandError as error:
            _let_go(arguments.quit, error.code)
            raise
        _tell(command[0], ended)
        _let_go(arguments.quit, ended.code)
    return ended.code


def _wait(timeout: float | None, *, fatal: bool) -> int:
    from meshaware.cli.wait import wait_for_sidecar  # noqa: PLC0415 (it reads settings, and asks the sidecar)

    with _ended_by_signals():
        return wait_for_sidecar(timeout, fatal=fatal)


@contextmanager
def _ended_by_signals() -> Generator[None]:
    """End the process at what would end any: to the first one of a container, such signals do nothing by themselves."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        del frame
        raise SystemExit(_SIGNALLED + number)

    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    before = [signal.getsignal(number) for number in numbers]
    try:
        for number, handler in zip(numbers, before, strict=True):
            if handler is not signal.SIG_IGN:
                signal.signal(number, end)
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _tell(program: str, ended: Ended) -> None:
    if ended.signal is not None and not ended.asked:
        why = " (the memory limit of the container?)" if ended.signal == signal.SIGKILL else ""
        say(f"meshaware: run: {program!r} was ended by {signal_name(ended.signal)}{why}")


def _let_go(when: str, code: int) -> None:
    if when == "always" or (when == "success" and code == EX_OK):
        from meshaware.cli.farewell import let_go  # noqa: PLC0415 (it reads settings, and tells the sidecar)

        let_go()


def _duration(text: str) -> float:
    try:
        seconds = parse_duration(text, bare_seconds=True)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if seconds > _LONGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is longer than a day")
    return seconds
