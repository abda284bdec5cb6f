"""`meshaware run` around its command: the wait before it, the sidecar let go after it, and its life as process 1."""

from __future__ import annotations

import argparse
import json
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
from urllib.request import urlopen

import pytest

from meshaware.cli import run as run_command
from meshaware.cli.exits import EX_CONFIG, EX_UNAVAILABLE, EX_USAGE
from tests.cli.test_child import LISTENER, MESHAWARE, WITHIN, Running, children, state, until

Ran = tuple[int, str, str]
Process = Callable[..., Ran]

HEAVY = ["pydantic", "pydantic_settings", "httpx", "httpx2", "anyio", "asyncio", "yaml", "logging", "opentelemetry"]


class FakeSidecar:
    """Answers as it is told to, by path; remembers what was asked, `POST /quitquitquit`."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, bytes]] = {"/ready": (200, b""), "/quitquitquit": (200, b"OK")}
        self.asked: list[str] = []
        self.answering = threading.Event()
        self.answering.set()
        sidecar = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                sidecar.asked.append(f"{self.command} {self.path}")
                sidecar.answering.wait(WITHIN)
                status, body = sidecar.answers.get(self.path, (404, b""))
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class calls it so
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @property
    def variables(self) -> dict[str, str]:
        """What a pod with this sidecar has."""
        return {
            "MESHAWARE_MESH": "istio",
            "MESHAWARE_READY_URL": f"{self.url}/ready",
            "MESHAWARE_ADMIN_URL": self.url,
            "MESHAWARE_QUIT_URL": f"{self.url}/quitquitquit",
        }

    @property
    def told(self) -> int:
        """How often it was told to go."""
        return self.asked.count("POST /quitquitquit")

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


@pytest.fixture
def sidecar() -> Iterator[FakeSidecar]:
    sidecar = FakeSidecar()
    yield sidecar
    sidecar.close()


@pytest.fixture
def refusing() -> Iterator[str]:
    """A port that is taken, but where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


# --- the command line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "which command? Write it after --, as in: meshaware run -- python job.py"),
        (("--",), "which command? Write it after --, as in: meshaware run -- python job.py"),
        (("--timeout", "3s", "--", "true"), "--timeout and --fatal go with --wait"),
        (("--no-fatal", "--", "true"), "--timeout and --fatal go with --wait"),
        (("--quit", "sometimes", "--", "true"), "argument --quit: invalid choice: 'sometimes'"),
        (("--drain", "5 s", "--", "true"), "argument --drain: '5 s' is not a duration such as"),
        (("--drain", "48h", "--", "true"), "argument --drain: '48h' is longer than a day"),
        (("--wait", "--timeout", "0", "--", "true"), "argument --timeout: '0' is no time to wait: leave --wait out"),
        (("--dry", "--", "true"), "unrecognized arguments: --dry"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_64(run: Process, arguments: tuple[str, ...], said: str) -> None:
    """With the usage and what to write instead."""
    code, out, err = run("run", *arguments)
    assert (code, out) == (EX_USAGE, "")
    assert err.startswith("usage: meshaware run [--wait")
    assert f"meshaware run: {said}" in err


def test_the_command_keeps_its_own_options(process: Process) -> None:
    """All that follows `--`, or the first word that is no option, is the command's."""
    assert process("run", "--", "echo", "--wait", "--", "-x") == (0, "--wait -- -x\n", "")
    assert process("run", "--drain", "0", "echo", "--wait", "--", "-x") == (0, "--wait -- -x\n", "")


def test_a_quit_that_is_none_is_found_before_the_command_starts(process: Process) -> None:
    """The variable is named, and what it takes."""
    code, out, err = process("run", "--", "echo", "ran", MESHAWARE_QUIT="sometimes")
    assert (code, out) == (EX_CONFIG, "")
    assert err == "meshaware run: MESHAWARE_QUIT='sometimes' cannot be used; write one of always, success, never\n"


def test_nothing_heavy_is_loaded(directory: Path) -> None:
    """While the command runs there is this process beside it; it has no sockets unless asked to wait."""
    script = (
        "import sys; from meshaware.cli import main; main(sys.argv[1:]);"
        f"print([name for name in {[*HEAVY, 'socket', 'h11', 'json']!r} if name in sys.modules])"
    )

    def loaded(*arguments: str, **environment: str) -> str:
        command = [sys.executable, "-c", script, "run", *arguments, "--", "true"]
        done = subprocess.run(
            command, env={**os.environ, **environment}, capture_output=True, text=True, check=True, timeout=WITHIN
        )
        return done.stdout.strip()

    assert loaded("--drain", "5s") == "[]"
    assert loaded("--wait", "--quit", "always", MESHAWARE_MESH="none") == "['socket', 'h11', 'json']"


# --- waiting


def test_it_waits_before_the_command_starts(process: Process, sidecar: FakeSidecar) -> None:
    """Quiet where the sidecar is ready."""
    got = process("run", "--wait", "--", "sh", "-c", "echo ran; exit 3", **sidecar.variables)
    assert got == (3, "ran\n", "")
    assert sidecar.asked == ["GET /ready"]


def test_the_command_is_not_started_when_the_time_is_up(process: Process, sidecar: FakeSidecar) -> None:
    """69, with what `meshaware wait` says."""
    sidecar.answers["/ready"] = (503, b"")
    code, out, err = process("run", "--wait", "--timeout", "50ms", "--", "echo", "ran", **sidecar.variables)
    assert (code, out) == (EX_UNAVAILABLE, "")
    assert re.search(r"was not ready in \d+ms; asked", err)


@pytest.mark.parametrize("by", ["option", "variable"])
def test_or_it_is_started_all_the_same(process: Process, sidecar: FakeSidecar, by: str) -> None:
    """By option or by variable."""
    sidecar.answers["/ready"] = (503, b"")
    options = ["--no-fatal"] if by == "option" else []
    variables = {"MESHAWARE_READY_FATAL": "false"} if by == "variable" else {}
    code, out, err = process(
        "run", "--wait", "--timeout", "50ms", *options, "--", "echo", "ran", **sidecar.variables, **variables
    )
    assert (code, out) == (0, "ran\n")
    assert "going on without it" in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda each: each.name)
def test_a_signal_ends_the_wait(sidecar: FakeSidecar, number: int) -> None:
    """The command is not started, and nobody is told to go: whoever ends the container ends the pod."""
    sidecar.answers["/ready"] = (503, b"")
    running = Running(
        *(*MESHAWARE, "run", "--wait", "--quit", "always", "--", "echo", "ran"), env={**os.environ, **sidecar.variables}
    )
    until(lambda: bool(sidecar.asked))
    running.send(number)
    code, out, _ = running.end()
    assert (code, out, sidecar.told) == (128 + number, "", 0)


def test_a_signal_that_was_ignored_before_stays_so(sidecar: FakeSidecar) -> None:
    """As with `nohup`: neither the wait nor the command ends."""
    sidecar.answers["/ready"] = (503, b"")
    command = [*MESHAWARE, "run", "--wait", "--", "sh", "-c", "kill -HUP $$; echo ran"]
    running = Running("sh", "-c", 'trap "" HUP; exec "$@"', "sh", *command, env={**os.environ, **sidecar.variables})
    until(lambda: bool(sidecar.asked))
    running.send(signal.SIGHUP)
    sidecar.answers["/ready"] = (200, b"")
    code, out, _ = running.end()
    assert (code, out) == (0, "ran\n")


# --- draining


def test_a_drain_is_not_added_to_the_meshs_own(process: Process) -> None:
    """A mesh in the command has none then, unless it is set."""
    show = ["sh", "-c", "echo ${MESHAWARE_DRAIN-unset}"]
    assert process("run", "--", *show) == (0, "unset\n", "")
    assert process("run", "--drain", "1s", "--", *show) == (0, "0\n", "")
    assert process("run", "--drain", "1s", "--", *show, MESHAWARE_DRAIN="2s") == (0, "2s\n", "")


SERVER = """
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body", "body": b"served"})
"""


def test_a_server_goes_on_serving_while_it_drains(directory: Path) -> None:
    """New connections too, for those who have not heard yet; and then it ends as it always does."""
    (directory / "server.py").write_text(SERVER)
    server = [sys.executable, "-m", "uvicorn", "server:app", "--port", "0", "--lifespan", "off", "--no-access-log"]
    running = Running(*MESHAWARE, "run", "--drain", "1h", "--", *server, cwd=directory)
    assert running.process.stderr is not None
    port = None
    while port is None:
        port = re.search(r"running on http://127.0.0.1:(\d+)", running.process.stderr.readline())
    url = f"http://127.0.0.1:{port[1]}/"
    running.send(signal.SIGTERM)
    for _ in range(20):
        with urlopen(url, timeout=WITHIN) as response:
            assert response.read() == b"served"
    running.send(signal.SIGTERM)
    code, _, err = running.end()
    assert code in {0, 143}
    assert "Finished server process" in err


# --- letting the sidecar go


@pytest.mark.parametrize(
    ("option", "variable", "told"),
    [
        (None, None, [0, 0]),
        ("never", "always", [0, 0]),
        ("success", None, [1, 1]),
        ("always", None, [1, 2]),
        (None, "Success", [1, 1]),
        (None, "always", [1, 2]),
        (None, "", [0, 0]),
    ],
)
def test_the_sidecar_is_let_go_as_asked(
    process: Process, sidecar: FakeSidecar, option: str | None, variable: str | None, told: list[int]
) -> None:
    """By option, else by variable, else never; after a success, after a failure. The exit code is the command's."""
    options = [] if option is None else ["--quit", option]
    variables = sidecar.variables | ({} if variable is None else {"MESHAWARE_QUIT": variable})
    assert process("run", *options, "--", "true", **variables) == (0, "", "")
    after_success = sidecar.told
    code, out, err = process("run", *options, "--", "sh", "-c", "exit 3", **variables)
    assert (code, out, [after_success, sidecar.told]) == (3, "", told)
    # Where it was let go after a success only, the pod of a failed job stays, and that is said.
    assert ("the sidecar (Istio) was not let go: the job failed" in err) == (told == [1, 1])


def test_a_command_that_never_ran_is_a_failure_too(process: Process, sidecar: FakeSidecar) -> None:
    """The pod of a Job would otherwise stay for a name that was misspelled, or a sidecar that is never ready."""
    code, _, err = process("run", "--quit", "always", "--", "no-such-program", **sidecar.variables)
    assert (code, err) == (127, "meshaware run: 'no-such-program' cannot be started: No such file or directory\n")
    assert sidecar.told == 1
    sidecar.answers["/ready"] = (503, b"")
    code, _, _ = process("run", "--wait", "--timeout", "20ms", "--quit", "always", "--", "true", **sidecar.variables)
    assert (code, sidecar.told) == (EX_UNAVAILABLE, 2)


def test_a_signal_while_the_sidecar_is_told_changes_nothing(sidecar: FakeSidecar) -> None:
    """The exit code of a job that has ended stands."""
    command = [*MESHAWARE, "run", "--quit", "always", "--", "sh", "-c", "exit 6"]
    sidecar.answering.clear()
    running = Running(*command, env={**os.environ, **sidecar.variables})
    until(lambda: bool(sidecar.asked))
    running.send(signal.SIGTERM)
    sidecar.answering.set()
    assert running.end() == (6, "", "")
    assert sidecar.told == 1


@pytest.mark.parametrize(
    "variables",
    [
        {"MESHAWARE_MESH": "none"},
        {"MESHAWARE_MESH": "ambient"},
        {"MESHAWARE_MESH": "kuma"},
        {
            "MESHAWARE_WORKLOAD__ANNOTATIONS": 'sidecar.istio.io/status={"initContainers":["istio-proxy"]}',
            "MESHAWARE_MESH": "istio",
        },
    ],
    ids=["none", "ambient", "kuma", "native"],
)
def test_where_a_job_has_nothing_to_say_nothing_is_said(
    process: Process, sidecar: FakeSidecar, variables: dict[str, str]
) -> None:
    """No mesh, one without a proxy in the pod, or one whose proxy somebody else ends."""
    got = process("run", "--quit", "always", "--", "true", **(sidecar.variables | variables))
    assert got == (0, "", "")
    assert sidecar.told == 0


def test_a_sidecar_that_was_never_there_is_no_news(process: Process, refusing: str) -> None:
    """The same job runs in a cluster without a mesh, where nobody knows of the pod."""
    variables = {"MESHAWARE_IN_KUBERNETES": "true", "MESHAWARE_QUIT_URL": f"{refusing}/quitquitquit"}
    assert process("run", "--quit", "always", "--", "true", **variables) == (0, "", "")
    assert process("run", "--quit", "always", "--", "true", MESHAWARE_MESH="istio", **variables)[0] == 0


def test_a_refusal_is_a_warning_and_the_exit_code_stands(process: Process, sidecar: FakeSidecar) -> None:
    """The pod will stay, so somebody has to know."""
    sidecar.answers["/quitquitquit"] = (403, b"Only requests from localhost are allowed")
    code, out, err = process("run", "--quit", "success", "--", "true", **sidecar.variables)
    assert (code, out) == (0, "")
    assert err.startswith("meshaware run: the sidecar (Istio) was not let go: POST http://127.0.0.1:")


def test_a_setting_that_cannot_be_used_is_a_warning_too(process: Process, sidecar: FakeSidecar) -> None:
    """The command has run by then."""
    variables = sidecar.variables | {"MESHAWARE_QUIT_URL": "http://example.com/"}
    code, out, err = process("run", "--quit", "success", "--", "echo", "ran", **variables)
    assert (code, out, sidecar.told) == (0, "ran\n", 0)
    assert err.startswith("meshaware run: the sidecar was not let go: ")
    assert "MESHAWARE_QUIT_URL" in err


SHARED = b'{"node": {"metadata": {"APP_CONTAINERS": "job,shipper"}}}'


@pytest.mark.parametrize("by", ["sidecar", "variable"])
def test_a_sidecar_that_other_containers_need_stays(process: Process, sidecar: FakeSidecar, by: str) -> None:
    """Unless somebody says that they do not; the sidecar tells which there are, if nothing else does."""
    variables = sidecar.variables
    if by == "sidecar":
        sidecar.answers["/server_info"] = (200, SHARED)
    else:
        variables["MESHAWARE_WORKLOAD__APP_CONTAINERS"] = "job,shipper"
    code, _, err = process("run", "--quit", "success", "--", "true", **variables)
    assert (code, sidecar.told) == (0, 0)
    assert err == (
        "meshaware run: the sidecar (Istio) was not let go: the pod has the containers job, shipper, and another of"
        " them may need it; MESHAWARE_QUIT_SHARED=true lets it go all the same\n"
    )
    got = process("run", "--quit", "success", "--", "true", **variables, MESHAWARE_QUIT_SHARED="true")
    assert (got, sidecar.told) == ((0, "", ""), 1)


def test_a_sidecar_that_says_it_is_native_is_left_to_the_kubelet(process: Process, sidecar: FakeSidecar) -> None:
    """It would be started again; most pods do not mount the annotation that tells."""
    status = json.dumps({"initContainers": ["istio-init", "istio-proxy"], "containers": None})
    document = {"node": {"metadata": {"ANNOTATIONS": {"sidecar.istio.io/status": status}}}}
    sidecar.answers["/server_info"] = (200, json.dumps(document).encode())
    assert process("run", "--quit", "success", "--", "true", **sidecar.variables) == (0, "", "")
    assert sidecar.told == 0


@pytest.mark.parametrize(("option", "told"), [("success", 0), ("always", 1)], ids=["by success", "always"])
@pytest.mark.parametrize("script", ["exec sleep 60", "trap 'exit 1' TERM; read -r _"], ids=["killed", "failed"])
def test_a_terminated_command_is_no_failed_job(sidecar: FakeSidecar, option: str, told: int, script: str) -> None:
    """SIGTERM came to the sidecar too, or the container is started again beside it: nothing is said of it."""
    command = ["sh", "-c", f"echo ready; {script}"]
    running = Running(*(*MESHAWARE, "run", "--quit", option, "--", *command), env={**os.environ, **sidecar.variables})
    assert running.line() == "ready"
    running.send(signal.SIGTERM)
    code, _, err = running.end()
    assert (code != 0, err, sidecar.told) == (True, "", told)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"node": 1}',
        b'{"node": {"metadata": 1}}',
        b'{"node": {"metadata": {"APP_CONTAINERS": "job"}}}',
        b"[" * 90_000,
    ],
)
def test_a_sidecar_that_does_not_tell_of_containers_is_let_go(
    process: Process, sidecar: FakeSidecar, body: bytes
) -> None:
    """Whatever it answers."""
    sidecar.answers["/server_info"] = (200, body)
    assert process("run", "--quit", "success", "--", "true", **sidecar.variables) == (0, "", "")
    assert sidecar.told == 1


# --- as the first process of a container


def unshared() -> str | None:
    """Why there can be no PID namespace here, or None."""
    if shutil.which("unshare") is None:
        return "there is no unshare (util-linux)"
    done = subprocess.run(
        ["unshare", "-Urpf", "--mount-proc", "true"], capture_output=True, text=True, timeout=WITHIN, check=False
    )
    return done.stderr.strip() or None if done.returncode else None


@pytest.fixture
def container() -> Iterator[Callable[..., Running]]:
    """Start `meshaware run` as process 1 of a PID namespace."""
    if (why := unshared()) is not None:
        pytest.skip(f"no PID namespace: {why}")
    started: list[Running] = []

    def start(*arguments: str, **variables: str) -> Running:
        command = ["unshare", "-Urpf", "--kill-child", "--mount-proc", *MESHAWARE, "run", *arguments]
        started.append(Running(*command, env={**os.environ, **variables}))
        return started[-1]

    yield start
    for each in started:
        each.close()


Container = Callable[..., Running]


def first(container: Running) -> int:
    """The number of its process 1, as it is seen from here."""
    until(lambda: bool(children(container.process.pid)))
    return children(container.process.pid)[0]


def test_as_process_1_it_passes_signals_on(container: Container) -> None:
    """Also those that the kernel keeps from a process 1 that has no handler for them."""
    running = container("--drain", "100ms", "--", sys.executable, "-c", LISTENER)
    assert running.line() == "ready"
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM, signal.SIGWINCH):
        os.kill(first(running), number)
        assert running.line() == str(int(number))
    os.kill(first(running), signal.SIGUSR2)
    assert running.end() == (9, "", "")


def test_as_process_1_it_reaps_orphans(container: Container) -> None:
    """Daemons fork twice, so that their parent is process 1."""
    running = container("--", "sh", "-c", "echo $PPID; (sleep 0 & exec sleep 0) & wait; read -r _; exit 5")
    assert running.line() == "1"
    until(lambda: len(children(first(running))) == 1)
    out, err = running.process.communicate("\n", timeout=WITHIN)
    assert (running.process.returncode, out, err) == (5, "", "")


def test_as_process_1_it_ends_a_wait_at_sigterm(container: Container, sidecar: FakeSidecar) -> None:
    """The kernel would ignore it."""
    sidecar.answers["/ready"] = (503, b"")
    running = container("--wait", "--", "echo", "ran", **sidecar.variables)
    until(lambda: bool(sidecar.asked))
    os.kill(first(running), signal.SIGTERM)
    code, out, _ = running.end()
    assert (code, out) == (143, "")


def test_a_killed_process_1_takes_all_with_it(container: Container) -> None:
    """What the kubelet does to a command that ignores SIGTERM, after the grace period."""
    running = container("--", "sh", "-c", "trap '' TERM; sleep 60 & echo ready; wait; wait; sleep 60")
    assert running.line() == "ready"
    pid = first(running)
    (shell,) = children(pid)
    everyone = [pid, shell, *children(shell)]
    os.kill(pid, signal.SIGTERM)
    assert state(shell)
    os.kill(pid, signal.SIGKILL)
    assert running.process.wait(WITHIN) != 0
    until(lambda: not any(state(each) for each in everyone))


# --- the documentation

PAGE = (Path(__file__).parents[2] / "docs" / "run.md").read_text()


def rows(head: str) -> dict[str, str]:
    """A table of the page, by the first column."""
    body = PAGE.partition(f"{head}\n|---|---|\n")[2].partition("\n\n")[0]
    return dict(line.strip("| ").split(" | ", 1) for line in body.splitlines())


def test_every_option_and_exit_code_stands_in_the_page() -> None:
    """And no other."""
    parser = argparse.ArgumentParser()
    run_command.add_arguments(parser)
    options = {option for action in parser._actions for option in action.option_strings} - {"-h", "--help"}
    assert set(re.findall(r"--[a-z-]+", " ".join(rows("| option | meaning |")))) == options
    listed = re.findall(r"^  (\d+) ", parser.epilog or "", re.MULTILINE)
    assert [code for code in rows("| exit code | when |") if code.isdigit()] == listed
