"""What a command gets from `meshaware run`: its signals, its exit code, and a parent for its orphans; as processes."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from meshaware.cli import child
from meshaware.cli.exits import CommandError

MESHAWARE = [sys.executable, "-W", "error", "-m", "meshaware"]
WITHIN = 20.0
STOPS = {signal.SIGKILL, signal.SIGSTOP}

# Says each signal that it gets, once, until SIGUSR2 ends it.
LISTENER = """
import signal, sys
held = set(signal.valid_signals()) - {signal.SIGCHLD, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
signal.pthread_sigmask(signal.SIG_BLOCK, held)
print("ready", flush=True)
while (got := signal.sigwait(held)) != signal.SIGUSR2:
    print(int(got), flush=True)
sys.exit(9)
"""


class Running:
    """`meshaware run` as a process, whose command talks line by line."""

    def __init__(
        self,
        *command: str,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: int = subprocess.PIPE,
        session: bool = False,
    ) -> None:
        self.process = subprocess.Popen(
            command,
            env=env,
            cwd=cwd,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=session,
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def close(self) -> None:
        """Kill what a failed test has left."""
        if self.process.poll() is None:
            for pid in [*children(self.process.pid), self.process.pid]:
                os.kill(pid, signal.SIGKILL)
        self.process.communicate(timeout=WITHIN)

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=WITHIN)
        return self.process.returncode, out, err


Start = Callable[..., Running]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start `meshaware run`; what is left of it at the end is killed."""
    started: list[Running] = []

    def start(
        *arguments: str, before: Sequence[str] = (), cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> Running:
        started.append(Running(*before, *MESHAWARE, "run", *arguments, cwd=cwd, env=env))
        return started[-1]

    yield start
    for each in started:
        each.close()


def until(holds: Callable[[], bool]) -> None:
    """Ask until it is true."""
    deadline = time.monotonic() + WITHIN
    while not holds():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.005)


def state(pid: int) -> dict[str, str]:
    """What the kernel says of a process; nothing if there is none."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def children(pid: int) -> list[int]:
    """Zombies included."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize(
    ("script", "code", "said"),
    [
        ("exit 0", 0, ""),
        ("exit 7", 7, ""),
        ("echo out; echo err >&2; exit 255", 255, "err\n"),
        (
            "kill -KILL $$",
            137,
            "meshaware run: 'sh' was ended by SIGKILL (the memory limit of the container?)\n",
        ),
        ("kill -SEGV $$", 139, "meshaware run: 'sh' was ended by SIGSEGV\n"),
        ("kill -TERM $$", 143, "meshaware run: 'sh' was ended by SIGTERM\n"),
        ("kill -64 $$", 192, "meshaware run: 'sh' was ended by SIGRTMAX\n"),
        ("kill -63 $$", 191, "meshaware run: 'sh' was ended by signal 63\n"),
    ],
)
def test_the_exit_code_is_the_commands(start: Start, script: str, code: int, said: str) -> None:
    """Quiet unless a signal ended it that nobody had sent here."""
    out = "out\n" if "echo out" in script else ""
    assert start("--", "sh", "-c", script).end() == (code, out, said)


def test_what_cannot_be_started_is_126_or_127(start: Start, tmp_path: Path) -> None:
    """As shells have it; the message names the command and the reason."""
    (tmp_path / "no-shebang").write_text("exit 0\n")
    (tmp_path / "no-shebang").chmod(0o755)
    (tmp_path / "no-interpreter").write_text("#!/no/such/interpreter\n")
    (tmp_path / "no-interpreter").chmod(0o755)
    (tmp_path / "plain").write_text("")
    for name, code, why in [
        ("nowhere", 127, "No such file or directory"),
        ("./no-interpreter", 127, "No such file or directory"),
        ("./plain", 126, "Permission denied"),
        ("./no-shebang", 126, "Exec format error"),
        ("./", 126, "Permission denied"),
    ]:
        got = start("--", name, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(SOURCE)}).end()
        assert got == (code, "", f"meshaware run: {name!r} cannot be started: {why}\n"), name
    with pytest.raises(CommandError, match=r"'a.x00b' cannot be started: .*embedded null") as caught:
        child.run_child(["a\0b"], {})
    assert caught.value.code == 126


SOURCE = Path(__file__).parents[2] / "src"


def test_signals_are_passed_on(start: Start) -> None:
    """All that another process may mean for the command, each once; the last one ends it, and its code is kept."""
    running = start("--", sys.executable, "-c", LISTENER)
    assert running.line() == "ready"
    for number in sorted(child.PASSED_ON - {signal.SIGUSR2}):
        running.send(number)
        assert running.line() == str(int(number))
    running.send(signal.SIGUSR2)
    assert running.end() == (9, "", "")
    expected = {"HUP", "INT", "QUIT", "USR1", "USR2", "ALRM", "TERM", "CONT", "WINCH"}
    assert {getattr(signal, f"SIG{name}") for name in expected} <= child.PASSED_ON


def test_what_is_about_this_process_is_not_passed_on() -> None:
    """Faults, children, limits; stops, with which the kernel reaches the whole job."""
    named = {"CHLD", "SEGV", "BUS", "FPE", "ILL", "TRAP", "SYS", "ABRT", "XCPU", "XFSZ", "PIPE"}
    stops = {"TSTP", "TTIN", "TTOU"}
    kept = {getattr(signal, f"SIG{name}") for name in named | stops} | STOPS
    assert signal.valid_signals() - child.PASSED_ON == kept


def test_a_command_that_a_passed_signal_ends_is_no_news(start: Start) -> None:
    """128 and the number, without a word."""
    running = start("--", "sh", "-c", "echo ready; exec sleep 60")
    assert running.line() == "ready"
    running.send(signal.SIGTERM)
    assert running.end() == (143, "", "")


def test_the_command_begins_with_clean_signals(start: Start) -> None:
    """Nothing blocked, and nothing ignored but what was ignored before."""
    script = "grep -E '^Sig(Blk|Ign)' /proc/self/status"
    # glibc's posix_spawn ignores the two signals that it keeps for itself, 32 and 33.
    glibcs = 0b11 << 31

    def masks(output: str) -> list[int]:
        return [int(line.partition(":")[2], 16) & ~glibcs for line in output.splitlines()]

    for ignored, expected in (("", 0), ("trap '' HUP USR1; ", 1 << signal.SIGHUP - 1 | 1 << signal.SIGUSR1 - 1)):
        before = ["sh", "-c", f'{ignored}exec "$@"', "sh"]
        code, out, err = start("--", "sh", "-c", script, before=before).end()
        assert (code, masks(out), err) == (0, [0, expected], "")


def test_an_exit_code_is_kept_where_the_parent_ignores_children(start: Start) -> None:
    """The kernel throws exit codes away then, and a program inherits it."""
    ignoring = [
        sys.executable,
        "-c",
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])",
    ]
    assert start("--", "sh", "-c", "exit 5", before=ignoring).end() == (5, "", "")


def test_a_command_that_ignores_sigterm_is_waited_for(start: Start) -> None:
    """Who sent it decides what comes next: the kubelet sends SIGKILL after the grace period, to the whole container."""
    running = start("--", "sh", "-c", "trap '' TERM; trap 'echo there' USR1; echo ready; while :; do read -r _; done")
    assert running.line() == "ready"
    for _ in range(3):
        running.send(signal.SIGTERM)
    running.send(signal.SIGUSR1)
    assert running.line() == "there"
    assert running.process.poll() is None
    (pid,) = children(running.process.pid)
    os.kill(pid, signal.SIGKILL)
    code, _, err = running.end()
    assert (code, "was ended by SIGKILL" in err) == (137, True)


def test_orphans_are_reaped(start: Start) -> None:
    """A grandchild whose parent is gone becomes a child of `meshaware run`, and no zombie when it ends."""
    orphan = "(sleep 60 & echo $!)"
    running = start("--", "sh", "-c", f"{orphan}; read -r _")
    pid = int(running.line())
    until(lambda: state(pid).get("PPid") == str(running.process.pid))
    os.kill(pid, signal.SIGKILL)
    until(lambda: not state(pid))
    assert len(children(running.process.pid)) == 1
    assert running.process.poll() is None
    assert running.process.communicate("\n", timeout=WITHIN) == ("", "")
    assert running.process.returncode == 0


def test_where_orphans_cannot_be_adopted_the_command_runs_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python without ctypes, as some are built."""
    monkeypatch.setitem(sys.modules, "ctypes", None)
    child.adopt_orphans()


def test_a_command_that_stops_is_not_over(start: Start) -> None:
    """And goes on at SIGCONT, which is passed on."""
    running = start("--", "sh", "-c", "echo $$; kill -STOP $$; exit 3")
    pid = int(running.line())
    until(lambda: state(pid)["State"].startswith("T"))
    assert running.process.poll() is None
    running.send(signal.SIGCONT)
    assert running.end() == (3, "", "")


def test_many_children_that_end_at_once_are_all_reaped(start: Start) -> None:
    """One SIGCHLD may stand for several."""
    script = "for _ in $(seq 50); do (true & ) ; done; echo done; read -r _; exit 4"
    running = start("--", "sh", "-c", script)
    assert running.line() == "done"
    until(lambda: len(children(running.process.pid)) == 1)
    assert running.process.communicate("\n", timeout=WITHIN) == ("", "")
    assert running.process.returncode == 4


# --- draining


def test_drain_holds_sigterm_back(start: Start) -> None:
    """For the time that is given; other signals pass meanwhile."""
    running = start("--drain", "300ms", "--", sys.executable, "-c", LISTENER)
    assert running.line() == "ready"
    begin = time.monotonic()
    running.send(signal.SIGTERM)
    running.send(signal.SIGUSR1)
    assert running.line() == str(int(signal.SIGUSR1))
    assert running.line() == str(int(signal.SIGTERM))
    assert time.monotonic() - begin >= 0.3
    # And only once: the next one is a second one.
    running.send(signal.SIGTERM)
    assert running.line() == str(int(signal.SIGTERM))
    running.send(signal.SIGUSR2)
    assert running.end() == (9, "", "")


def test_a_second_sigterm_ends_the_drain(start: Start) -> None:
    """And there is one for the command, not two."""
    running = start("--drain", "1h", "--", sys.executable, "-c", LISTENER)
    assert running.line() == "ready"
    running.send(signal.SIGTERM)
    running.send(signal.SIGUSR1)
    assert running.line() == str(int(signal.SIGUSR1))  # so the first has been taken
    running.send(signal.SIGTERM)
    assert running.line() == str(int(signal.SIGTERM))
    running.send(signal.SIGUSR2)
    assert running.end() == (9, "", "")


def test_a_command_that_ends_by_itself_ends_the_drain(start: Start) -> None:
    """Nothing is left to wait for."""
    running = start("--drain", "1h", "--", sys.executable, "-c", LISTENER)
    assert running.line() == "ready"
    running.send(signal.SIGTERM)
    running.send(signal.SIGUSR2)
    assert running.end() == (9, "", "")


def test_a_command_of_another_user_is_told_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Instead of an end with a traceback, which would end the container."""

    def forbidden(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", forbidden)
    child.pass_on(1, signal.SIGTERM)
    err = capsys.readouterr().err
    assert err == "meshaware run: SIGTERM was not passed on: the process runs as another user now\n"


# --- terminals

TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Terminal(Running):
    """`meshaware run` as the first process of a terminal's session, as with `docker run --tty`."""

    def __init__(self, *command: str) -> None:
        self.master, slave = os.openpty()
        takes = [sys.executable, "-c", TAKE_TERMINAL, *command]
        super().__init__(*takes, stdin=slave, session=True)
        os.close(slave)

    def type(self, key: bytes) -> None:
        os.write(self.master, key)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal(*MESHAWARE, "run", "--", sys.executable, "-c", LISTENER)
    yield terminal
    terminal.close()


@pytest.mark.parametrize(
    ("key", "number"), [(b"\x03", signal.SIGINT), (b"\x1c", signal.SIGQUIT)], ids=["Ctrl-C", "Ctrl-backslash"]
)
def test_keys_of_a_terminal_reach_the_command_once(terminal: Terminal, key: bytes, number: int) -> None:
    """The kernel sends them to the whole job; what another process sends is passed on as always."""
    assert terminal.line() == "ready"
    for _ in range(10):
        terminal.type(key)
        assert terminal.line() == str(int(number))
    # A second signal of the same kind would be lost in the first while that is pending; when this is through, none is.
    for sent in (signal.SIGUSR1, number):
        terminal.send(sent)
        assert terminal.line() == str(int(sent))
    terminal.send(signal.SIGUSR2)
    assert terminal.end() == (9, "", "")
    os.close(terminal.master)


def test_a_changed_size_of_the_terminal_reaches_the_command_once(terminal: Terminal) -> None:
    """SIGWINCH, by the kernel."""
    assert terminal.line() == "ready"
    for columns in range(80, 90):
        fcntl.ioctl(terminal.master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        assert terminal.line() == str(int(signal.SIGWINCH))
    terminal.send(signal.SIGUSR2)
    assert terminal.end() == (9, "", "")
    os.close(terminal.master)


def test_a_terminal_that_is_gone_reaches_the_command(terminal: Terminal) -> None:
    """The kernel tells the first process of the session only, so that is passed on."""
    assert terminal.line() == "ready"
    os.close(terminal.master)
    assert terminal.line() == str(int(signal.SIGHUP))
    terminal.send(signal.SIGUSR2)
    assert terminal.process.wait(WITHIN) == 9


def test_ctrl_z_stops_the_whole_job() -> None:
    """So that a shell gets its prompt back."""
    script = "sh -c 'echo ready; kill -TSTP 0; echo again'"
    # A shell with job control, in a session of its own, sees both stop.
    done = subprocess.run(
        ["sh", "-mc", f"{' '.join(MESHAWARE)} run -- {script} & wait; kill -CONT -$!; wait"],
        capture_output=True,
        text=True,
        timeout=WITHIN,
        start_new_session=True,
        check=False,
    )
    assert done.stdout == "ready\nagain\n"
