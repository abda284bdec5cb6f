"""`ReadinessGate` against real sockets: refusing, silent, dribbling, starting."""

from __future__ import annotations

import inspect
import logging
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic

import anyio
import pytest

from meshaware import MeshSettings, ReadinessGate
from meshaware.errors import SettingsError, SidecarNotReady
from meshaware.flavours import Detected, Flavour
from meshaware.instrumentation import GateOutcome, on_gate
from meshaware.settings import gate as settings_gate
from meshaware.settings.model import MeshName
from meshaware.sidecar import async_attempts, attempts, waiting
from meshaware.sidecar.schedule import step

SOON = 0.5
"""How much later than agreed a wait may end on a busy machine."""

Wait = Callable[..., bool]


class Sidecar:
    """A readiness port that says what it is told to say, and counts who asked."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.otherwise = 503
        self.paths: list[str] = []
        self.moments: list[float] = []
        self.enough = threading.Semaphore(0)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.moments.append(monotonic())
                outer.paths.append(self.path)
                self.send_response(outer.statuses.pop(0) if outer.statuses else outer.otherwise)
                self.send_header("content-length", "0")
                self.end_headers()
                outer.enough.release()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class calls it so
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/healthz/ready"

    def asked(self, times: int) -> None:
        """Wait until it has been asked so often."""
        for _ in range(times):
            assert self.enough.acquire(timeout=10)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


@pytest.fixture
def sidecar() -> Iterator[Sidecar]:
    stub = Sidecar()
    yield stub
    stub.close()


@pytest.fixture
def refusing() -> Iterator[str]:
    """A port that is taken, but where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/healthz/ready"


@pytest.fixture
def silent() -> Iterator[str]:
    """A port that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/healthz/ready"


@pytest.fixture
def dribbling() -> Iterator[str]:
    """A port that sends a byte every few milliseconds, and never an end."""
    over = threading.Event()

    def serve(connection: socket.socket) -> None:
        with connection:
            try:
                connection.sendall(b"HTTP/1.1 200 OK\r\nx: ")
                while not over.wait(0.005):
                    connection.sendall(b"a")
            except OSError:
                pass

    def accept(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=serve, args=(connection,)))
            threads[-1].start()

    threads: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threads.append(threading.Thread(target=accept, args=(listener,)))
        threads[0].start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/healthz/ready"
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join(5)


def wait_synchronously(gate: ReadinessGate, timeout: float | None = None, *, fatal: bool | None = None) -> bool:
    return gate.wait(timeout, fatal=fatal)


def wait_on(backend: str, gate: ReadinessGate, timeout: float | None = None, *, fatal: bool | None = None) -> bool:
    return anyio.run(partial(gate.async_wait, timeout, fatal=fatal), backend=backend)


@pytest.fixture(params=["sync", "asyncio", "trio"])
def wait(request: pytest.FixtureRequest) -> Wait:
    """The ways to wait: each promise holds for all of them."""
    return wait_synchronously if request.param == "sync" else partial(wait_on, request.param)


def gate_at(url: str, *, mesh: MeshName = "istio", ready_fatal: bool = True) -> ReadinessGate:
    return ReadinessGate(MeshSettings(mesh=mesh, ready_url=url, ready_fatal=ready_fatal, in_kubernetes=False))


@pytest.fixture(autouse=True)
def no_other_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test does not mean to ask is not asked: the fixed ports of this machine may be anybody's."""
    for module, name in ((attempts, "fetch"), (async_attempts, "async_fetch")):
        monkeypatch.setattr(module, name, _but_not_fixed_ports(getattr(module, name)))


def _but_not_fixed_ports(original: Callable[..., object]) -> Callable[..., object]:
    def checked(url: str, **arguments: object) -> object:
        assert not url.startswith(("http://localhost:150", "http://localhost:9", "http://localhost:4191"))
        return original(url, **arguments)

    return checked


# No mesh


@pytest.mark.parametrize("mesh", ["none", "ambient", "auto"])
def test_without_a_sidecar_it_returns_at_once(
    wait: Wait, mesh: MeshName, silent: str, caplog: pytest.LogCaptureFixture
) -> None:
    """No mesh is a normal state: no waiting, no request, no line in the log; a URL that is set changes nothing."""
    caplog.set_level(logging.DEBUG, "meshaware")
    settings = MeshSettings(mesh=mesh, in_kubernetes=False, ready_url=None if mesh == "auto" else silent)
    gate = ReadinessGate(settings)
    assert gate.is_open
    begin = monotonic()
    assert wait(gate)
    assert monotonic() - begin < SOON
    assert gate.state.attempts == 0
    assert caplog.records == []


def test_a_bare_gate_reads_its_settings_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ReadinessGate()` is enough."""
    monkeypatch.setenv("MESHAWARE_MESH", "none")
    assert ReadinessGate().state == ("open", "mesh=none is set", 0.0, 0, "none")


def test_a_constructor_asks_nobody(sidecar: Sidecar) -> None:
    """Nor do `state`, `is_open` and `repr`."""
    sidecar.otherwise = 200
    gate = gate_at(sidecar.url)
    assert not gate.is_open
    assert gate.state == ("waiting", "not asked yet: mesh=istio is set", 0.0, 0, "istio")
    assert repr(gate) == "<ReadinessGate waiting: not asked yet: mesh=istio is set>"
    assert sidecar.paths == []


# Opening


def test_a_ready_sidecar_opens_it_with_one_request(
    wait: Wait, sidecar: Sidecar, caplog: pytest.LogCaptureFixture
) -> None:
    """And without a line in the log; later callers do not ask again, even if the sidecar says something else then."""
    caplog.set_level(logging.DEBUG, "meshaware")
    sidecar.statuses = [200]
    gate = gate_at(sidecar.url)
    assert wait(gate)
    assert wait(gate)
    assert sidecar.paths == ["/healthz/ready"]
    assert (gate.state.status, gate.state.reason) == ("open", f"{sidecar.url}: ready")
    assert gate.flavour.name == "istio"
    assert caplog.records == []


def test_what_came_of_the_wait_is_announced_once_a_gate(wait: Wait, sidecar: Sidecar) -> None:
    """To those who listen then and to those who come later; a gate that was open from the start had no wait."""
    heard: list[GateOutcome] = []
    stop = on_gate(heard.append)
    heard.clear()
    gate = gate_at(sidecar.url)
    assert not wait(gate, 0.05, fatal=False)
    sidecar.statuses = [503, 200]
    assert wait(gate, 10)
    assert wait(gate, 10)
    assert wait(ReadinessGate(MeshSettings(mesh="none")))
    stop()
    assert [(outcome.result, outcome.mesh) for outcome in heard] == [("failed", "istio"), ("opened", "istio")]
    assert 0 < heard[0].waited < 0.05 + SOON
    late: list[GateOutcome] = []
    on_gate(late.append)()
    assert late[-2:] == heard


def test_any_success_counts(wait: Wait, sidecar: Sidecar) -> None:
    """Linkerd's own tool takes every 2xx."""
    sidecar.statuses = [204]
    assert wait(gate_at(sidecar.url, mesh="linkerd"))


@pytest.mark.parametrize("status", [302, 404, 500, 503])
def test_what_is_no_success_is_asked_again(wait: Wait, sidecar: Sidecar, status: int) -> None:
    """A redirect is not followed, an error is no end."""
    sidecar.statuses = [status, status, 200]
    gate = gate_at(sidecar.url)
    assert wait(gate, 10)
    assert gate.state.attempts == 3


def test_a_starting_sidecar_costs_two_lines_of_log(
    wait: Wait, sidecar: Sidecar, caplog: pytest.LogCaptureFixture
) -> None:
    """One when the wait begins, one with its time when the gate opens."""
    caplog.set_level(logging.DEBUG, "meshaware")
    sidecar.statuses = [503, 503, 503, 200]
    assert wait(gate_at(sidecar.url), 10)
    begun, opened = caplog.records
    assert begun.levelno == opened.levelno == logging.INFO
    assert begun.getMessage() == f"waiting for the sidecar (Istio): {sidecar.url}: 503"
    assert opened.getMessage().startswith("the sidecar is ready after ")


def test_it_opens_once_a_refusing_port_listens(wait: Wait) -> None:
    """Istio's readiness port refuses until Envoy's workers run, then answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        gate = gate_at(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        with ThreadPoolExecutor() as pool:
            waited = pool.submit(wait, gate, 10)
            until(lambda: gate.state.attempts >= 3)
            assert gate.state.reason.endswith(": refused")
            listener.listen()
            listener.settimeout(10)
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            assert waited.result(10)


def test_where_nobody_listens_the_next_address_is_asked(
    wait: Wait, refusing: str, sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mesh may have two places for readiness; the second is tried in the same attempt."""
    flavour = Flavour("kuma", "Kuma", ready_url=refusing, ready_fallback_url=sidecar.url)
    detects(monkeypatch, flavour, settled=True)
    sidecar.statuses = [503, 200]
    gate = ReadinessGate(MeshSettings(mesh="kuma"))
    assert wait(gate, 10)
    assert gate.state.reason == f"{sidecar.url}: ready"
    assert gate.state.attempts == 2


def test_an_address_that_answers_keeps_the_next_from_being_asked(
    wait: Wait, sidecar: Sidecar, refusing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 503 is an answer."""
    other = Sidecar()
    flavour = Flavour("kuma", "Kuma", ready_url=sidecar.url, ready_fallback_url=other.url)
    detects(monkeypatch, flavour, settled=True)
    assert not wait(ReadinessGate(MeshSettings(mesh="kuma")), 0.1, fatal=False)
    assert other.paths == []
    other.close()


def test_the_admin_that_is_set_is_asked_where_nothing_else_listens(
    wait: Wait, refusing: str, sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An Envoy on a virtual machine has no readiness port of Istio's, but `/ready`."""
    detects(monkeypatch, Flavour("istio", "Istio", ready_url=refusing), settled=True)
    sidecar.statuses = [200]
    admin = sidecar.url.removesuffix("/healthz/ready")
    assert wait(ReadinessGate(MeshSettings(admin_url=admin)), 10)
    assert sidecar.paths == ["/ready"]


def test_an_argument_wins_over_the_setting(sidecar: Sidecar, silent: str) -> None:
    """`url=` is for the one gate."""
    sidecar.statuses = [200]
    gate = ReadinessGate(MeshSettings(ready_url=silent), url=sidecar.url)
    assert gate.wait(10)


@pytest.mark.parametrize("url", ["http://example.com/", "https://localhost/", "file:///etc/passwd", "15021"])
def test_only_this_host_is_asked(url: str) -> None:
    """A URL that is not on loopback is refused before anything is asked."""
    with pytest.raises(SettingsError, match=r"url='.*' cannot be asked .* write a URL such as http://127.0.0.1"):
        ReadinessGate(MeshSettings(mesh="istio"), url=url)


# Failing on time


@pytest.mark.parametrize("kind", ["refusing", "silent", "dribbling"])
@pytest.mark.parametrize("timeout", [0.05, 0.4])
def test_it_ends_on_time_whatever_the_sidecar_does(
    wait: Wait, kind: str, timeout: float, request: pytest.FixtureRequest
) -> None:
    """Refused, accepted and silent, or a byte now and then: the overall timeout holds."""
    gate = gate_at(request.getfixturevalue(kind))
    begin = monotonic()
    assert wait(gate, timeout, fatal=False) is False
    assert timeout <= monotonic() - begin < timeout + SOON
    assert gate.state.status == "failed"
    assert timeout <= gate.state.waited < timeout + SOON


def test_one_attempt_is_bounded_too(wait: Wait, silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent sidecar is asked anew, rather than listened to until the end."""
    monkeypatch.setattr(waiting, "ATTEMPT", 0.05)
    gate = gate_at(silent)
    assert not wait(gate, 0.5, fatal=False)
    assert 4 <= gate.state.attempts <= 10
    assert gate.state.reason == f"{silent}: silent"


FAILURES = [
    ("refusing", "refused", "is there a container istio-proxy, and does it run? Without one, set MESHAWARE_MESH=none"),
    ("silent", "silent", "Has the container istio-proxy enough CPU"),
    ("dribbling", "silent", "Has the container istio-proxy enough CPU"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=[row[0] for row in FAILURES])
def test_the_error_says_who_was_asked_how_often_and_what_to_check(
    wait: Wait, failure: tuple[str, str, str], request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    """The message is enough to go on with; and the log has it too, for those who go on without."""
    kind, said, check = failure
    url = request.getfixturevalue(kind)
    with pytest.raises(SidecarNotReady) as caught:
        wait(gate_at(url), 0.2)
    message = str(caught.value)
    assert re.match(r"the sidecar \(Istio\) was not ready in [0-9]+ms; asked (once|[0-9]+ times), last: ", message)
    assert f"last: {url}: {said}." in message
    assert check in message
    assert caplog.records[-1].levelno == logging.WARNING
    assert f"{url}: {said}" in caplog.records[-1].getMessage()


ANSWERS = [
    (503, "503", "why has the proxy no configuration yet? The log of the container istio-proxy says"),
    (404, "404", "is it the proxy that listens there? See MESHAWARE_READY_URL"),
]


@pytest.mark.parametrize(("status", "said", "check"), ANSWERS, ids=[row[1] for row in ANSWERS])
def test_the_error_depends_on_what_was_answered(
    wait: Wait, sidecar: Sidecar, status: int, said: str, check: str
) -> None:
    """A proxy without configuration is another case than a port of somebody else."""
    sidecar.otherwise = status
    # A machine that stalls may spend a whole wait on one attempt; that is another answer, and another test's.
    message, gate = "", gate_at(sidecar.url)
    for _ in range(5):
        gate = gate_at(sidecar.url)
        with pytest.raises(SidecarNotReady) as caught:
            wait(gate, 0.2)
        message = str(caught.value)
        if gate.state.attempts > 1 and not gate.state.reason.endswith(": silent"):
            break
    assert re.search(rf"asked {gate.state.attempts} times, last: .*: {said}\. To check next: ", message)
    assert message.endswith(check)


def test_what_is_no_http_is_told_without_repeating_it(wait: Wait, caplog: pytest.LogCaptureFixture) -> None:
    """The bytes of whoever listens there reach neither the error nor the log."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.3)

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(4096)
                    connection.sendall(b"SSH-2.0-secret\r\n")

        server = threading.Thread(target=serve)
        server.start()
        gate = gate_at(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        with pytest.raises(SidecarNotReady, match=r"last: .*: no valid HTTP\.") as caught:
            wait(gate, 0.1)
        server.join(5)
    assert "secret" not in str(caught.value) + caplog.text


def test_fatal_is_a_setting_and_an_argument(wait: Wait, refusing: str) -> None:
    """The argument wins; True is the default."""
    assert wait(gate_at(refusing, ready_fatal=False), 0.05) is False
    with pytest.raises(SidecarNotReady):
        wait(gate_at(refusing, ready_fatal=False), 0.05, fatal=True)
    with pytest.raises(SidecarNotReady):
        wait(gate_at(refusing), 0.05)


def test_the_time_is_a_setting_and_an_argument(wait: Wait, refusing: str) -> None:
    """Without an argument `ready_timeout` holds."""
    gate = ReadinessGate(MeshSettings(mesh="istio", ready_url=refusing, ready_timeout="100ms"))
    begin = monotonic()
    assert wait(gate, fatal=False) is False
    assert 0.1 <= monotonic() - begin < 0.1 + SOON


def test_no_time_at_all_tells_what_is_known(wait: Wait, sidecar: Sidecar, caplog: pytest.LogCaptureFixture) -> None:
    """`timeout=0` asks nobody, and is no failure of the gate."""
    gate = gate_at(sidecar.url)
    assert wait(gate, 0, fatal=False) is False
    with pytest.raises(SidecarNotReady, match="asked 0 times, last: not asked yet: "):
        wait(gate, 0)
    assert gate.state.status == "waiting"
    assert sidecar.paths == []
    assert caplog.records == []


@pytest.mark.parametrize("timeout", [-1.0, float("nan")])
def test_a_time_that_is_none_is_refused(wait: Wait, refusing: str, timeout: float) -> None:
    """With the value, and what is accepted."""
    with pytest.raises(ValueError, match=rf"timeout={timeout!r}: the time to wait is a number of seconds"):
        wait(gate_at(refusing), timeout)


def test_after_a_failure_one_may_wait_again(wait: Wait, sidecar: Sidecar) -> None:
    """A sidecar that comes late is found by the next who waits, on a fresh schedule."""
    gate = gate_at(sidecar.url)
    assert not wait(gate, 0.1, fatal=False)
    assert gate.state.status == "failed"
    sidecar.otherwise = 200
    assert wait(gate, 0.1)
    assert gate.state.attempts == 1


# Perhaps a sidecar


def detects(monkeypatch: pytest.MonkeyPatch, flavour: Flavour, *, settled: bool) -> None:
    """Let detection find this, wherever the test runs."""
    found = Detected(flavour, "the test says so", settled)

    def detect(*arguments: object, **options: object) -> Detected:
        return found

    monkeypatch.setattr(settings_gate, "detect", detect)


def test_kubernetes_without_metadata_is_a_candidate() -> None:
    """Settings reach detection: this is the way into the case above."""
    gate = ReadinessGate(MeshSettings(mesh="auto", in_kubernetes=True, workload={}))
    assert gate.state.status == "waiting"
    assert "in Kubernetes" in gate.state.reason


def test_metadata_settles_it() -> None:
    """A pod whose labels name no mesh is open at once."""
    labels = {"app": "shop"}
    gate = ReadinessGate(MeshSettings(mesh="auto", in_kubernetes=True, workload={"labels": labels}))
    assert gate.state == ("open", "the pod's labels and annotations name no mesh", 0.0, 0, "none")


# Around work


def test_a_block_waits_at_its_begin(sidecar: Sidecar) -> None:
    """And raises there what `wait` raises."""
    sidecar.statuses = [503, 200]
    with gate_at(sidecar.url) as gate:
        assert gate.is_open
    with pytest.raises(SidecarNotReady):
        with ReadinessGate(MeshSettings(mesh="istio", ready_url=sidecar.url, ready_timeout=0.05)):
            pytest.fail("the block began")


@pytest.mark.anyio
async def test_an_asynchronous_block_waits_at_its_begin(sidecar: Sidecar) -> None:
    """The same on an event loop."""
    sidecar.statuses = [503, 200]
    async with gate_at(sidecar.url) as gate:
        assert gate.is_open
    with pytest.raises(SidecarNotReady):
        async with ReadinessGate(MeshSettings(mesh="istio", ready_url=sidecar.url, ready_timeout=0.05)):
            pytest.fail("the block began")


def test_a_function_waits_with_its_first_call(sidecar: Sidecar) -> None:
    """Not when it is decorated; and never again once the gate is open."""
    gate = gate_at(sidecar.url)

    @gate
    def add(left: int, right: int = 1) -> int:
        """Add."""
        return left + right

    assert sidecar.paths == []
    sidecar.statuses = [503, 200]
    assert [add(1), add(2, right=3)] == [2, 5]
    assert len(sidecar.paths) == 2
    assert (add.__name__, add.__doc__) == ("add", "Add.")


@pytest.mark.anyio
async def test_a_coroutine_function_waits_with_its_first_call(sidecar: Sidecar) -> None:
    """It stays one, and other tasks run meanwhile."""
    gate = gate_at(sidecar.url)

    @gate
    async def add(left: int, right: int = 1) -> int:
        return left + right

    assert inspect.iscoroutinefunction(add)
    assert sidecar.paths == []
    sidecar.statuses = [503, 200]
    assert [await add(1), await add(2, right=3)] == [2, 5]
    assert len(sidecar.paths) == 2


def test_a_decorated_function_is_not_called_where_the_gate_stays_closed(refusing: str) -> None:
    """The error is raised in its place."""

    @ReadinessGate(MeshSettings(mesh="istio", ready_url=refusing, ready_timeout=0.05))
    def never() -> None:
        pytest.fail("it was called")

    with pytest.raises(SidecarNotReady):
        never()


# How often it is asked


def test_a_starting_sidecar_gets_one_request_a_step(wait: Wait, sidecar: Sidecar) -> None:
    """On real sockets: no more than the schedule has steps in the time that went by."""
    gate = gate_at(sidecar.url)
    with ThreadPoolExecutor() as pool:
        begin = monotonic()
        waited = pool.submit(wait, gate, 20)
        sidecar.asked(20)
        sidecar.otherwise = 200
        assert waited.result(20)
    allowed, instant = 0, 0.0
    while instant <= max(sidecar.moments) - begin:
        allowed, instant = allowed + 1, instant + step(instant)
    assert len(sidecar.paths) <= allowed


# Together


def until(fact: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for a fact, for so long at most."""
    end, pause = monotonic() + seconds, threading.Event()
    while not fact():
        assert monotonic() < end
        pause.wait(0.002)


def test_threads_and_tasks_of_several_loops_wait_together(sidecar: Sidecar) -> None:
    """All are let in, and together they ask about as often as one would."""
    gate = gate_at(sidecar.url)

    async def several() -> list[bool]:
        opened: list[bool] = []

        async def one() -> None:
            opened.append(await gate.async_wait(10))

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(one)
        return opened

    def loop(backend: str) -> list[bool]:
        return anyio.run(several, backend=backend)

    with ThreadPoolExecutor() as pool:
        threads = [pool.submit(gate.wait, 10) for _ in range(4)]
        loops = [pool.submit(loop, backend) for backend in ("asyncio", "trio", "asyncio")]
        sidecar.asked(12)
        waited = gate.state.waited
        asked = len(sidecar.paths)
        sidecar.otherwise = 200
        assert all(thread.result(10) for thread in threads)
        assert all(opened == [True] * 5 for opened in (each.result(10) for each in loops))
    # At most one request a step, and no step is under 8 ms.
    assert asked <= waited / 0.008 + 2
    assert gate.state.attempts == len(sidecar.paths)


@pytest.mark.anyio
async def test_a_cancelled_wait_leaves_the_gate_to_the_others(silent: str) -> None:
    """Cancellation passes through at once, in the middle of an attempt too; nothing counts as failed."""
    gate = gate_at(silent)
    begin = monotonic()
    with anyio.move_on_after(0.05) as scope:
        await gate.async_wait(30)
    assert scope.cancelled_caught
    assert monotonic() - begin < 0.05 + SOON
    assert gate.state.status == "waiting"
    assert await gate.async_wait(0.05, fatal=False) is False
    assert gate.state.attempts == 1


@pytest.mark.anyio
async def test_a_wait_that_is_none_can_be_cancelled_all_the_same() -> None:
    """Every `await` is a place to stop: a loop around an open gate does not hold up its event loop."""
    gate = ReadinessGate(MeshSettings(mesh="none"))
    with anyio.CancelScope() as scope:
        scope.cancel()
        await gate.async_wait()
    assert scope.cancelled_caught


@pytest.mark.anyio
async def test_the_event_loop_is_free_meanwhile(silent: str) -> None:
    """While one task waits for a silent sidecar, others run."""
    gate, ticks = gate_at(silent), 0
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(gate.async_wait, 0.3, fatal=False))
        with anyio.move_on_after(0.25):
            while True:
                await anyio.sleep(0.005)
                ticks += 1
        assert gate.state.status == "waiting"
    assert ticks > 15


def test_the_state_can_be_read_at_any_moment(sidecar: Sidecar) -> None:
    """While it waits: how long, how often, what was answered."""
    gate = gate_at(sidecar.url)
    with ThreadPoolExecutor() as pool:
        waited = pool.submit(gate.wait, 10)
        until(lambda: gate.state.attempts >= 2)
        first, second = gate.state, gate.state
        assert first.status == second.status == "waiting"
        assert first.reason == f"{sidecar.url}: 503"
        assert 0 < first.waited <= second.waited
        described = second.describe()
        assert described == {
            "status": "waiting",
            "reason": f"{sidecar.url}: 503",
            "waited_ms": round(second.waited * 1000),
        }
        sidecar.otherwise = 200
        assert waited.result(10)


# A real Envoy


@pytest.mark.envoy
def test_an_envoy_that_passes_the_question_to_an_agent_opens_it(
    wait: Wait,
    sidecar: Sidecar,
    start_envoy: Callable[..., Mapping[str, int]],
    http_listener: Callable[..., object],
    cluster: Callable[..., object],
) -> None:
    """As in a pod of Istio's: Envoy forwards to the agent, which says 503 first and 200 then."""
    agent = int(sidecar.url.split(":")[2].split("/")[0])
    routes = [{"match": {"prefix": "/healthz/ready"}, "route": {"cluster": "agent"}}]
    ports = start_envoy([http_listener("readiness", routes)], [cluster("agent", agent)])
    sidecar.statuses = [503, 503, 503, 200]
    gate = gate_at(f"http://127.0.0.1:{ports['readiness']}/healthz/ready")
    assert wait(gate, 10)
    assert gate.state.attempts == 4
    assert sidecar.paths == ["/healthz/ready"] * 4
