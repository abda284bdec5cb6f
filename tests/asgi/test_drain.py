"""The time between SIGTERM and the stop, in this process; `test_drain_servers` has the servers."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from meshaware import MeshSettings, ReadinessGate
from meshaware.asgi.drain import Drain, LastAnswers, drain_time
from meshaware.asgi.types import Message, Receive, Scope, Send

PATIENT = 10.0
LONG = 60.0


class Server:
    """What a server does with a signal: it notes it."""

    def __init__(self) -> None:
        self.told: list[int] = []
        self.stopped = threading.Event()

    def handle(self, number: int, frame: FrameType | None) -> None:
        self.told.append(number)
        self.stopped.set()


@pytest.fixture(name="server")
def _server() -> Iterator[Server]:
    """The handler that is there when the application starts; afterwards everything is as it was."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    server = Server()
    for number in before:
        signal.signal(number, server.handle)
    yield server
    for number, handler in before.items():
        signal.signal(number, handler)


def begun_by_now(drain: Drain) -> bool:
    # Asked anew: a type checker takes it for what it was before the signal.
    return drain.begun


def lasting(seconds: float) -> Callable[[], float]:
    return lambda: seconds


def test_sigterm_reaches_the_server_after_the_pause(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """In the main thread, as always; meanwhile it is known that the end has begun, and one line says so."""
    caplog.set_level("INFO", "meshaware.drain")
    drain = Drain(lasting(0.05))
    with drain.watching():
        assert not drain.begun
        begin = time.monotonic()
        signal.raise_signal(signal.SIGTERM)
        assert begun_by_now(drain)
        assert not server.stopped.is_set()
        assert server.stopped.wait(PATIENT)
        assert time.monotonic() - begin >= 0.05
    assert server.told == [signal.SIGTERM]
    assert caplog.messages == ["SIGTERM: not ready any more, and stopping in 50ms"]


@pytest.mark.parametrize("again", [signal.SIGTERM, signal.SIGINT])
def test_who_asks_twice_does_not_wait(server: Server, again: signal.Signals) -> None:
    """A second signal is passed on at once, and no third comes from us."""
    drain = Drain(lasting(0.2))
    with drain.watching():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(again)
        assert server.told == [again]
        server.stopped.clear()
        assert not server.stopped.wait(0.4)
    assert server.told == [again]


def test_an_interrupt_from_the_keyboard_is_the_server_s(server: Server) -> None:
    """On a laptop nothing is held back."""
    drain = Drain(lasting(LONG))
    with drain.watching():
        assert signal.getsignal(signal.SIGINT) == server.handle
        signal.raise_signal(signal.SIGINT)
    assert server.told == [signal.SIGINT]
    assert not drain.begun


def test_without_a_pause_sigterm_is_passed_on_at_once(server: Server) -> None:
    """That the end has begun is known all the same."""
    drain = Drain(lasting(0.0))
    with drain.watching():
        signal.raise_signal(signal.SIGTERM)
        assert server.told == [signal.SIGTERM]
        assert drain.begun


def test_afterwards_the_handlers_are_as_they_were(server: Server) -> None:
    """Also SIGINT's, which is looked at from SIGTERM on; an application that is started again begins anew."""
    drain = Drain(lasting(LONG))
    for _ in range(2):
        with drain.watching():
            assert not drain.begun
            signal.raise_signal(signal.SIGTERM)
            assert signal.getsignal(signal.SIGINT) != server.handle
        assert signal.getsignal(signal.SIGTERM) == server.handle
        assert signal.getsignal(signal.SIGINT) == server.handle
    assert server.told == []


def test_who_comes_after_us_is_left_in_place(server: Server) -> None:
    """A handler that was chained before ours goes on calling the server's through ours."""
    drain, heard = Drain(lasting(0.0)), list[int]()

    def later(number: int, frame: FrameType | None) -> None:
        heard.append(number)
        ours: Any = before
        ours(number, frame)

    with drain.watching():
        before = signal.signal(signal.SIGTERM, later)
    assert signal.getsignal(signal.SIGTERM) is later
    signal.raise_signal(signal.SIGTERM)
    assert heard == server.told == [signal.SIGTERM]


def test_two_lifespans_at_once_do_not_call_each_other_for_ever(server: Server) -> None:
    """One mesh around two applications."""
    drain = Drain(lasting(0.0))
    with drain.watching(), drain.watching():
        signal.raise_signal(signal.SIGTERM)
    assert server.told == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) == server.handle


@pytest.mark.usefixtures("server")
def test_a_server_that_ignores_sigterm_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """It has its reasons; readiness must not fail for ever."""
    caplog.set_level("DEBUG", "meshaware.drain")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    drain = Drain(lasting(0.0))
    with drain.watching():
        signal.raise_signal(signal.SIGTERM)
        assert not drain.begun
    assert caplog.messages == ["SIGTERM is not held back: it is ignored, so nothing stops"]


def test_an_interrupt_that_is_ignored_does_not_end_the_pause(server: Server) -> None:
    """As in the background of a shell; and SIGTERM still comes when it is over."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    drain = Drain(lasting(0.1))
    with drain.watching():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert not server.stopped.is_set()
        assert server.stopped.wait(PATIENT)
    assert server.told == [signal.SIGTERM]


def test_a_pause_that_is_over_does_not_end_another(server: Server) -> None:
    """Of an application that was started again meanwhile."""
    seconds = [0.1, LONG]
    drain = Drain(lambda: seconds.pop(0))
    for _ in range(2):
        with drain.watching():
            signal.raise_signal(signal.SIGTERM)
            # Longer than the first pause, of which only the first part was waited for.
            assert not server.stopped.wait(0.05 if seconds else 0.3)
    assert server.told == []


def test_outside_the_main_thread_nothing_is_touched(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Python sets handlers in the main thread only; the log says so to those who look for it."""
    caplog.set_level("DEBUG", "meshaware.drain")

    def serve() -> None:
        with Drain(lasting(LONG)).watching():
            assert signal.getsignal(signal.SIGTERM) == server.handle

    thread = threading.Thread(target=serve)
    thread.start()
    thread.join(PATIENT)
    assert caplog.messages == ["SIGTERM is not held back: the application does not run in the main thread"]


def test_a_handler_that_python_does_not_know_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It could not be called afterwards."""
    caplog.set_level("DEBUG", "meshaware.drain")

    def unknown(_: int) -> None:
        return None

    def touch(*_: object) -> None:
        pytest.fail("touched")

    monkeypatch.setattr(signal, "getsignal", unknown)
    monkeypatch.setattr(signal, "signal", touch)
    with Drain(lasting(LONG)).watching():
        pass
    assert caplog.messages == ["SIGTERM is not held back: it has a handler that was not set from Python"]


PLAIN = """
import signal, sys, time
from meshaware.asgi.drain import Drain

with Drain(lambda: float(sys.argv[1])).watching():
    print("serving", flush=True)
    while True:
        time.sleep(60)
"""


@pytest.mark.parametrize("pause", ["0", "0.1"])
def test_where_nobody_handles_sigterm_the_process_dies_of_it(pause: str) -> None:
    """After the pause, and in the way that whoever started it expects."""
    with subprocess.Popen([sys.executable, "-c", PLAIN, pause], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "serving\n"
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENT) == -signal.SIGTERM
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("settings", "seconds"),
    [
        (MeshSettings(mesh="none"), 0.0),
        (MeshSettings(mesh="none", drain="1s"), 1.0),
        (MeshSettings(mesh="ambient"), 2.0),
        (MeshSettings(mesh="ambient", drain=0), 0.0),
        (MeshSettings(mesh="istio", drain="1s"), 0.0),  # the gate was never open
    ],
)
def test_how_long_is_the_settings_or_the_mesh_s_to_say(settings: MeshSettings, seconds: float) -> None:
    """Nothing without a mesh, and nothing where no traffic was ever asked for."""
    assert drain_time(settings, ReadinessGate(settings)) == seconds


async def answers(drain: Drain, scope: Scope, headers: Any) -> list[Message]:
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200}
        await send(start if headers is None else {**start, "headers": headers})
        await send({"type": "http.response.body", "body": b"42"})

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    layer = LastAnswers(app, drain)
    assert layer.app is app
    await layer({"type": "http", "http_version": "1.1", **scope}, receive, send)
    return sent


def begun() -> Drain:
    drain = Drain(lasting(0.0))
    drain.begun = True
    return drain


BODY = {"type": "http.response.body", "body": b"42"}
CLOSE = (b"connection", b"close")


@pytest.mark.anyio
async def test_before_the_end_answers_are_as_they_are() -> None:
    """To the very objects."""
    headers = [(b"connection", b"keep-alive")]
    sent = await answers(Drain(lasting(0.0)), {}, headers)
    assert sent == [{"type": "http.response.start", "status": 200, "headers": headers}, BODY]
    assert sent[0]["headers"] is headers


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("headers", "answered"),
    [
        ([(b"x", b"1")], [(b"x", b"1"), CLOSE]),
        ([[b"Connection", b"keep-alive"], [b"x", b"1"]], [(b"x", b"1"), CLOSE]),
        ({b"x": b"1"}.items(), [(b"x", b"1"), CLOSE]),
        (None, [CLOSE]),
    ],
)
async def test_from_then_on_each_answer_closes_its_connection(headers: Any, answered: list[Any]) -> None:
    """Whatever the application says of it."""
    assert await answers(begun(), {}, headers) == [
        {"type": "http.response.start", "status": 200, "headers": answered},
        BODY,
    ]


@pytest.mark.anyio
@pytest.mark.parametrize("scope", [{"http_version": "2"}, {"http_version": "1.0"}, {"type": "websocket"}])
async def test_only_http_1_1_has_the_header(scope: Scope) -> None:
    """HTTP/2 forbids it, HTTP/1.0 closes anyway, a WebSocket has its own close."""
    assert (await answers(begun(), scope, []))[0]["headers"] == []
