"""`meshaware wait` as a process: exit codes, messages, signals, and what it does not load."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from meshaware.cli import wait
from meshaware.cli.exits import EX_CONFIG, EX_OK, EX_UNAVAILABLE, EX_USAGE
from meshaware.cli.wait import wait_for_sidecar
from meshaware.testing import LocalMesh

Ran = tuple[int, str, str]

HEAVY = ["pydantic", "pydantic_settings", "httpx", "httpx2", "anyio", "asyncio", "yaml", "logging", "opentelemetry"]


class Port:
    """A readiness port that answers these statuses, the last one for ever."""

    def __init__(self, *statuses: int) -> None:
        left = list(statuses)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(left.pop(0) if len(left) > 1 else left[0])
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class calls it so
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/healthz/ready"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


@pytest.fixture
def port() -> Iterator[Callable[..., str]]:
    """Starts readiness ports, by the statuses they answer; returns their URL."""
    ports: list[Port] = []

    def start(*statuses: int) -> str:
        ports.append(Port(*statuses))
        return ports[-1].url

    yield start
    for each in ports:
        each.close()


@pytest.fixture
def refusing() -> Iterator[str]:
    """A port that is taken, but where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/healthz/ready"


def test_a_ready_sidecar_is_passed_without_a_word(process: Callable[..., Ran], port: Callable[..., str]) -> None:
    """All is well: exit code 0, nothing written."""
    assert process("wait", MESHAWARE_READY_URL=port(200)) == (EX_OK, "", "")


def test_without_a_mesh_there_is_nothing_to_wait_for(process: Callable[..., Ran]) -> None:
    """The same image runs on a laptop."""
    assert process("wait", MESHAWARE_MESH="none") == (EX_OK, "", "")


def test_a_late_sidecar_is_told_of_twice(process: Callable[..., Ran], port: Callable[..., str]) -> None:
    """What is waited for, how long at most, what it answered; and how long it took."""
    url = port(503, 503, 200)
    code, out, err = process("wait", "--timeout", "20s", MESHAWARE_READY_URL=url)
    begun, ready = err.splitlines()
    assert (code, out) == (EX_OK, "")
    assert begun == f"meshaware wait: waiting for the sidecar (Istio), 20s at most: {url}: 503"
    assert ready.startswith("meshaware wait: the sidecar (Istio) is ready after ")


def test_a_sidecar_that_does_not_come_is_an_error(process: Callable[..., Ran], refusing: str) -> None:
    """69, as `linkerd-await` has it; the message says who was asked, how long, what answered and what to check."""
    code, _, err = process("wait", "--timeout", "100ms", MESHAWARE_READY_URL=refusing, MESHAWARE_MESH="linkerd")
    assert code == EX_UNAVAILABLE
    last = err.splitlines()[-1]
    assert last.startswith("meshaware wait: the sidecar (Linkerd) was not ready in 1")
    assert f"last: {refusing}: refused. To check next: is there a container linkerd-proxy" in last


@pytest.mark.parametrize(
    ("arguments", "environment"), [(["--no-fatal"], {}), ([], {"MESHAWARE_READY_FATAL": "false"})], ids=["flag", "env"]
)
def test_a_sidecar_that_does_not_come_is_no_error_by_choice(
    process: Callable[..., Ran], refusing: str, arguments: list[str], environment: dict[str, str]
) -> None:
    """By flag or variable: the program is to start all the same, and the message says so."""
    environment |= {"MESHAWARE_READY_URL": refusing, "MESHAWARE_READY_TIMEOUT": "100ms"}
    code, _, err = process("wait", *arguments, **environment)
    assert code == EX_OK
    assert "meshaware wait: warning: the sidecar (Istio) was not ready in " in err
    assert err.endswith("; going on without it\n")


def test_the_flag_wins_over_the_variable(process: Callable[..., Ran], refusing: str) -> None:
    """As every argument does."""
    environment = {"MESHAWARE_READY_URL": refusing, "MESHAWARE_READY_FATAL": "false"}
    assert process("wait", "--fatal", "--timeout=0.1", **environment)[0] == EX_UNAVAILABLE


@pytest.mark.parametrize("wrong", ["0", "soon", "-1s", "1 year"])
def test_a_time_that_is_none_is_a_matter_of_usage(process: Callable[..., Ran], wrong: str) -> None:
    """64, with the value and what may be written."""
    code, _, err = process("wait", f"--timeout={wrong}")
    assert code == EX_USAGE
    assert f"argument --timeout: {wrong!r} is none; write a duration such as " in err


def test_a_setting_that_cannot_be_used_is_named(process: Callable[..., Ran]) -> None:
    """78, with all that is wrong at once; budgets are none of its business."""
    environment = {"MESHAWARE_MESH": "isto", "MESHAWARE_READY_URL": "https://example.com", "MESHAWARE_TIMEOUT": "soon"}
    code, _, err = process("wait", **environment)
    assert code == EX_CONFIG
    assert err.startswith("meshaware wait: 2 settings cannot be used:\n  env MESHAWARE_")
    assert "did you mean istio?" in err
    assert "MESHAWARE_TIMEOUT" not in err


def test_a_variable_that_means_nothing_is_warned_of(process: Callable[..., Ran]) -> None:
    """A slip of the pen would otherwise pass for the default."""
    code, _, err = process("wait", MESHAWARE_MESH="none", MESHAWARE_REDY_TIMEOUT="5s")
    assert code == EX_OK
    assert "warning: the variable MESHAWARE_REDY_TIMEOUT is set" in err
    assert "did you mean MESHAWARE_READY_TIMEOUT?" in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_at_once(number: signal.Signals, refusing: str, directory: Path) -> None:
    """128 and its number, as shells tell it, also where nobody asked for a traceback."""
    environment = {**os.environ, "MESHAWARE_READY_URL": refusing}
    command = [sys.executable, "-m", "meshaware", "wait", "--timeout", "60s"]
    with subprocess.Popen(command, cwd=directory, env=environment, stderr=subprocess.PIPE, text=True) as waiting:
        assert waiting.stderr is not None
        first = waiting.stderr.readline()
        waiting.send_signal(number)
        rest = waiting.stderr.read()
        assert waiting.wait(20) == 128 + number
    assert "waiting for the sidecar" in first
    assert rest == ""


def test_an_ignored_signal_stays_ignored(directory: Path, port: Callable[..., str]) -> None:
    """What `nohup` and shells' background jobs ask for is not undone."""
    script = (
        "import os, signal, sys; from meshaware.cli import wait\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "class Gate(wait.Gate):\n"
        "    def wait(self, timeout=None, **more):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        return super().wait(timeout, **more)\n"
        "wait.Gate = Gate\n"
        "sys.exit(wait.wait_for_sidecar(10))"
    )
    environment = {**os.environ, "MESHAWARE_READY_URL": port(200)}
    done = subprocess.run([sys.executable, "-c", script], cwd=directory, env=environment, timeout=50, check=False)
    assert done.returncode == EX_OK


def test_it_puts_the_handlers_back(monkeypatch: pytest.MonkeyPatch, port: Callable[..., str]) -> None:
    """For whoever goes on with a child of their own, as `meshaware run` does."""
    monkeypatch.setenv("MESHAWARE_READY_URL", port(200))
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    assert wait_for_sidecar(10) == EX_OK
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_it_may_be_called_from_any_thread(monkeypatch: pytest.MonkeyPatch, port: Callable[..., str]) -> None:
    """Only the main thread may set handlers; elsewhere signals are left to whoever has them."""
    monkeypatch.setenv("MESHAWARE_READY_URL", port(200))
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(wait_for_sidecar(10)))
    thread.start()
    thread.join(20)
    assert codes == [EX_OK]


def test_it_loads_neither_pydantic_nor_a_client_nor_an_event_loop(directory: Path, port: Callable[..., str]) -> None:
    """A container runs it before its program, each time."""
    script = (
        "import sys; from meshaware.cli import main; code = main(['wait']);"
        f"print(code, [name for name in {HEAVY!r} if name in sys.modules])"
    )
    environment = {**os.environ, "MESHAWARE_READY_URL": port(503, 200)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    assert done.stdout.strip() == "0 []"


def test_the_help_tells_the_exit_codes(run: Callable[..., Ran]) -> None:
    """They are what an entry point depends on."""
    code, out, _ = run("wait", "--help")
    assert code == EX_OK
    for each in ("64", "69", "78", "130", "143"):
        assert f"\n  {each} " in out


_LINKERD = """
import fcntl, socket, struct, subprocess, sys, threading

def serve():
    while True:
        connection, _ = listener.accept()
        with connection:
            path = connection.recv(4096).split()[1]
            body = {b"/live": b"live\\n", b"/ready": b"ready\\n"}.get(path, b"")
            status = b"200 OK" if body else b"404 Not Found"
            connection.sendall(b"HTTP/1.1 %s\\r\\ncontent-length: %d\\r\\n\\r\\n%s" % (status, len(body), body))

with socket.socket() as control:
    request = bytearray(struct.pack("16sh14x", b"lo", 0))
    fcntl.ioctl(control, 0x8913, request)
    name, flags = struct.unpack("16sh14x", request)
    fcntl.ioctl(control, 0x8914, struct.pack("16sh14x", b"lo", flags | 1))
listener = socket.create_server(("127.0.0.1", 4191))
threading.Thread(target=serve, daemon=True).start()
sys.exit(subprocess.run([sys.executable, "-m", "meshaware", "wait", "--timeout", "2s"]).returncode)
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="there is no unshare to make a network namespace with")
def test_the_real_ports_of_a_mesh_are_asked(directory: Path) -> None:
    """In a network namespace of its own, with Linkerd's admin on 4191 and nothing said about the mesh."""
    if subprocess.run(["unshare", "-rn", "true"], capture_output=True, timeout=20, check=False).returncode:
        pytest.skip("the kernel forbids network namespaces to this user")
    environment = {**os.environ, "KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    done = subprocess.run(
        ["unshare", "-rn", sys.executable, "-c", _LINKERD],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    # One that is not recognised would be given up after two seconds, with a line of why.
    assert (done.returncode, done.stdout, done.stderr) == (EX_OK, "", "")


def test_a_pod_of_which_nothing_is_known_is_held_up_shortly(run: Callable[..., Ran], own_host: str) -> None:
    """Nothing answers on any mesh's port: after the grace the program may start, and one line says why."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
        code, out, err = run("wait", "--timeout", "200ms")
    assert (code, out) == (EX_OK, "")
    assert err.startswith("meshaware wait: no sidecar: no mesh's proxy on localhost (4191, ")
    assert err.endswith("; going on without a mesh. MESHAWARE_MESH says it without asking\n")
    assert err.count("\n") == 1


def test_waiting_is_switched_off_with_a_reason(process: Callable[..., Ran], refusing: str) -> None:
    """An image made for `linkerd-await` keeps its meaning."""
    environment = {"MESHAWARE_READY_URL": refusing, "LINKERD_AWAIT_DISABLED": "no proxy here"}
    reason = "waiting is disabled: LINKERD_AWAIT_DISABLED=no proxy here"
    expected = f"meshaware wait: not waiting for the sidecar: {reason}\n"
    assert process("wait", **environment) == (EX_OK, "", expected)


def test_an_upstream_that_is_none_is_a_matter_of_usage(process: Callable[..., Ran]) -> None:
    """64, with the value and what may be written."""
    code, _, err = process("wait", "--for", "inventory")
    assert code == EX_USAGE
    assert err.endswith("argument --for: 'inventory' is none; write host:port, such as inventory:8080\n")


@pytest.mark.envoy
def test_routes_are_waited_for(process: Callable[..., Ran]) -> None:
    """Those that are there at once and without a word; others for as long as there is time."""
    local = LocalMesh()
    local.add("inventory", namespace="shop")
    tester = local.add("tester", namespace="shop")
    with local:
        environment = {
            "MESHAWARE_MESH": "istio",
            "MESHAWARE_READY_URL": tester.sidecar.ready_url,
            "MESHAWARE_ADMIN_URL": tester.sidecar.admin_url,
        }
        assert process("wait", "--for", "inventory:8080", **environment) == (EX_OK, "", "")
        code, _, err = process("wait", "--for", "inventory:8080", "--for", "nowhere:80", "--timeout=0.2", **environment)
    begun, failed = err.splitlines()
    assert code == EX_UNAVAILABLE
    assert begun.endswith("200ms at most: " + tester.sidecar.admin_url + "/config_dump: no route yet for nowhere:80")
    assert "the sidecar (Istio) takes calls, but not all routes that were waited for came in " in failed


def test_the_page_has_the_options_and_the_exit_codes() -> None:
    """And no others; the help has the same codes."""
    page = (Path(__file__).parents[2] / "docs" / "readiness.md").read_text()
    section = page.partition("## In front of any program\n")[2].partition("\n## ")[0]
    parser = argparse.ArgumentParser()
    wait.add_arguments(parser)
    options = {option for action in parser._actions for option in action.option_strings} - {"-h", "--help"}
    table = section.partition("| option | meaning |\n|---|---|\n")[2].partition("\n\n")[0]
    assert set(re.findall(r"--[a-z-]+", table)) == options
    codes = section.partition("| exit code | when |\n|---|---|\n")[2].partition("\n\n")[0]
    documented = {code for row in codes.splitlines() for code in re.findall(r"[0-9]+", row.split("|")[1])}
    assert parser.epilog is not None
    assert documented == set(re.findall(r"^  ([0-9]+) ", parser.epilog, re.MULTILINE))
    assert {str(code) for code in (EX_OK, EX_USAGE, EX_UNAVAILABLE, EX_CONFIG)} <= documented
