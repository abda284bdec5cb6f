"""
`meshaware wait`: until the sidecar takes calls.

It is what a container runs before its program, so it starts quickly: neither pydantic nor an HTTP client nor an event
loop is loaded. Where all is well it says nothing.
"""

from __future__ import annotations

import os
import signal
import threading
from argparse import ArgumentParser, ArgumentTypeError, BooleanOptionalAction, Namespace, RawDescriptionHelpFormatter
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from types import FrameType

from meshaware.cli.exits import EX_CONFIG, EX_OK, EX_UNAVAILABLE
from meshaware.cli.terminal import say
from meshaware.durations import format_duration
from meshaware.errors import SettingsError, SidecarNotReady
from meshaware.flavours import Flavour
from meshaware.settings.gate import GateSettings, read_gate_settings
from meshaware.settings.readers import read_positive_seconds
from meshaware.settings.sources.variables import unknown_variables
from meshaware.settings.upstreams import parse_upstream
from meshaware.sidecar.gate import Gate
from meshaware.sidecar.waiting import News

__all__ = ["add_arguments", "run", "wait_for_sidecar"]

_ENDING = (signal.SIGTERM, signal.SIGINT)
_EPILOG = """\
exit codes:
  0     the sidecar takes calls, or there is none to wait for; with --no-fatal also where it was not ready in time
  64    the command line cannot be understood
  69    the sidecar was not ready in time
  78    a variable or file of the settings cannot be used
  130   ended by SIGINT
  143   ended by SIGTERM

Which mesh, where it answers, how long and for what: MESHAWARE_MESH, MESHAWARE_READY_URL, MESHAWARE_READY_TIMEOUT,
MESHAWARE_READY_FATAL, MESHAWARE_WAIT_FOR, and the pod's labels and annotations. MESHAWARE_WAIT_DISABLED and
LINKERD_AWAIT_DISABLED, with a reason as their value, switch it off. Nothing is written where the sidecar is ready.
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Add what the command takes to its parser."""
    parser.description = "Wait until the sidecar takes calls."
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument(
        "--timeout",
        type=_seconds,
        metavar="TIME",
        help="at most so long, as 30s or 1m30s; default MESHAWARE_READY_TIMEOUT, or 1m",
    )
    parser.add_argument(
        "--for",
        dest="upstreams",
        action="append",
        default=[],
        type=_upstream,
        metavar="HOST:PORT",
        help="until the sidecar has a route for this upstream, too; may be given several times",
    )
    parser.add_argument(
        "--fatal",
        action=BooleanOptionalAction,
        default=None,
        help="whether it is an error when the time is up; default MESHAWARE_READY_FATAL, or true",
    )


def run(arguments: Namespace) -> int:
    """Wait, and return the exit code."""
    return wait_for_sidecar(arguments.timeout, fatal=arguments.fatal, upstreams=arguments.upstreams)


def wait_for_sidecar(timeout: float | None = None, *, fatal: bool | None = None, upstreams: Iterable[str] = ()) -> int:
    """
    Wait until the sidecar takes calls, say on standard error what is worth saying, and return an exit code.

    SIGTERM and SIGINT end it at once, unless they are ignored; afterwards they do what they did before.

    Args:
        timeout: Seconds at most; default `MESHAWARE_READY_TIMEOUT`.
        fatal: Whether it is an error when the time is up; default `MESHAWARE_READY_FATAL`.
        upstreams: Wait until the sidecar has routes for these too, each `host:port`, beside those of
            `MESHAWARE_WAIT_FOR`.

    Returns:
        0; `EX_UNAVAILABLE` (69) where the time was up; `EX_CONFIG` (78) where a setting cannot be used; 128 and the
        number of the signal where one ended it.
    """
    try:
        with _ended_by_signals():
            for sentence in unknown_variables(os.environ):
                _say(f"warning: {sentence}")
            settings = read_gate_settings(os.environ)
            settings = settings._replace(
                wait_for=(*settings.wait_for, *upstreams),
                ready_timeout=settings.ready_timeout if timeout is None else timeout,
                ready_fatal=settings.ready_fatal if fatal is None else fatal,
            )
            return _wait(settings)
    except _Signalled as signalled:
        return 128 + signalled.number
    except SettingsError as error:
        _say(str(error))
        return EX_CONFIG


def _wait(settings: GateSettings) -> int:
    def tell(news: News, flavour: Flavour) -> None:
        reason, waited = news.state.reason, format_duration(news.state.waited)
        routes = news.subject == "routes"
        if news.what == "begun":
            at_most = format_duration(settings.ready_timeout)
            _say(f"waiting for the sidecar ({flavour.title}), {at_most} at most: {reason}")
        elif news.what == "opened" and news.state.attempts > 1:
            came = "has the routes waited for" if routes else "is ready"
            _say(f"the sidecar ({flavour.title}) {came} after {waited}")
        elif news.what == "absent":
            _say(f"{reason}; going on without a mesh. MESHAWARE_MESH says it without asking")
        elif news.what == "needless":
            _say(f"not waiting for {'routes' if routes else 'the sidecar'}: {reason}")

    try:
        Gate(settings, tell=tell).wait(fatal=True)
    except SidecarNotReady as error:
        fatal = settings.ready_fatal
        _say(f"{error}" if fatal else f"warning: {error}; going on without it")
        return EX_UNAVAILABLE if fatal else EX_OK
    return EX_OK


class _Signalled(BaseException):
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def _ended_by_signals() -> Generator[None]:
    """Let SIGTERM and SIGINT end what is done here; the first process of a container would otherwise ignore them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _ENDING}
    heard = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    try:
        for number in heard:
            signal.signal(number, _end)
        yield
    finally:
        for number, handler in heard.items():
            signal.signal(number, handler)


def _end(number: int, _: FrameType | None) -> None:
    raise _Signalled(number)


def _seconds(text: str) -> float:
    try:
        return read_positive_seconds(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text[:60]!r} is none; write {error}") from None


def _upstream(text: str) -> str:
    try:
        return str(parse_upstream(text))
    except ValueError as error:
        raise ArgumentTypeError(f"{text[:60]!r} is none; write {error}") from None


def _say(message: str) -> None:
    say(f"meshaware wait: {message}")
