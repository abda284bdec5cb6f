"""Pods that are Linux namespaces, with each tool that is there; skipped where the kernel does not let it."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from meshaware.errors import LocalMeshError
from meshaware.testing import agent, namespaces, why_no_redirect
from meshaware.testing.namespaces import Node, PodNamespace, PodPort
from meshaware.testing.ports import HeldPort
from meshaware.testing.processes import ProcessGroup

WHY = why_no_redirect()
possible = pytest.mark.skipif(WHY is not None, reason=f"no redirection here: {WHY}")
CONNECT = "import socket, sys; print(socket.create_connection((sys.argv[1], int(sys.argv[2])), 5).recv(9).decode())"


@pytest.fixture
def group(tmp_path: Path) -> Iterator[ProcessGroup]:
    directory = tmp_path / "mesh"
    directory.mkdir()
    group = ProcessGroup(directory)
    yield group
    group.close()


@pytest.fixture
def node(group: ProcessGroup, tmp_path: Path) -> Iterator[Node]:
    node = Node(group, tmp_path)
    yield node
    node.close()


def make(node: Node, number: int, directory: Path, *relayed: tuple[HeldPort, int]) -> PodNamespace:
    home = directory / str(number)
    home.mkdir()
    return PodNamespace(node, number, home, relayed)


def connect(pod: PodNamespace, host: str, port: int, *, as_sidecar: bool = False) -> str:
    """What the first bytes are that a program in the pod gets; or its error."""
    before = pod.command_of_sidecar() if as_sidecar else pod.entering()
    python = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else "python3"
    done = subprocess.run(
        [*before, python, "-I", "-c", CONNECT, host, str(port)], capture_output=True, text=True, timeout=20, check=False
    )
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


class Greeter:
    """A listening socket of a pod that says its name to the next who connects."""

    def __init__(self, pod: PodNamespace, port: int) -> None:
        self._listening = PodPort(pod, port).listen()

    def greet(self, text: bytes) -> None:
        """Wait for one that is in the backlog already, or comes within seconds."""
        self._listening.settimeout(10)
        connection, _ = self._listening.accept()
        connection.sendall(text)
        connection.close()

    def close(self) -> None:
        self._listening.close()


@possible
@pytest.mark.parametrize("tool", ["nft", "iptables-restore"])
def test_connections_of_a_pod_go_to_its_sidecar(
    node: Node, tmp_path: Path, tool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out to 15001, in to 15006; the sidecar's own, and those on loopback, where they are meant to go."""
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    monkeypatch.setattr(namespaces, "_tool", lambda: tool)
    one, two = make(node, 1, tmp_path), make(node, 2, tmp_path)
    assert (one.address, two.address) == ("10.244.0.2", "10.244.0.3")
    one.name("127.0.0.1 localhost\n10.96.0.1 inventory\n")
    outbound, inbound = Greeter(one, 15001), Greeter(two, 15006)
    local, ready = Greeter(one, 8080), Greeter(two, 15021)
    with ThreadPoolExecutor(1) as threads:
        for greeter, pod, host, port, as_sidecar in (
            (outbound, one, "inventory", 8080, False),
            (outbound, one, "203.0.113.1", 443, False),
            (outbound, one, two.address, 8080, False),
            (inbound, one, two.address, 8080, True),
            (ready, one, two.address, 15021, True),
            (local, one, "localhost", 8080, False),
            (local, one, one.address, 8080, False),
        ):
            said = threads.submit(connect, pod, host, port, as_sidecar=as_sidecar)
            greeter.greet(b"hello")
            assert said.result() == "hello", (host, port)
    for greeter in (outbound, inbound, local, ready):
        greeter.close()
    assert "ConnectionRefusedError" in connect(one, "inventory", 8080)
    assert "gaierror" in connect(one, "unknown", 8080)
    for pod in (one, two):
        pod.close()


@possible
def test_ports_of_a_pod_are_relayed_to_loopback(node: Node, tmp_path: Path) -> None:
    """For the test itself, which is not in the pod; a port at which nobody listens resets."""
    held = HeldPort()
    pod = make(node, 1, tmp_path, (held, 15000))
    where = ("127.0.0.1", held.number)
    with pytest.raises(ConnectionResetError), socket.create_connection(where, 5) as connection:
        connection.recv(1)
    admin = Greeter(pod, 15000)
    with socket.create_connection(where, 5) as connection:
        admin.greet(b"admin")
        assert connection.recv(9) == b"admin"
        assert connection.recv(9) == b""
    admin.close()
    pod.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(where, 5)
    held.release()


@possible
def test_a_pod_has_no_other_files_than_these(node: Node, tmp_path: Path) -> None:
    """Its names are its own, and this machine's stay as they are."""
    before = Path("/etc/hosts").read_bytes()
    pod = make(node, 1, tmp_path)
    pod.name("127.0.0.1 localhost\n10.96.0.1 inventory\n")
    pod.do("grep -q inventory /etc/hosts; grep -q 127.0.0.1 /etc/resolv.conf")
    assert Path("/etc/hosts").read_bytes() == before
    pod.close()


@possible
def test_what_fails_in_a_pod_is_said(node: Node, tmp_path: Path) -> None:
    """With the last line of what failed; and a pod that cannot be set up leaves no process."""
    pod = make(node, 1, tmp_path)
    with pytest.raises(LocalMeshError, match=r"cannot be set up: so it is$"):
        pod.do("echo so it is >&2; exit 3")
    with pytest.raises(LocalMeshError, match=r"cannot be set up: it does not say why$"):
        pod.do("exit 3")
    pod.close()
    with pytest.raises(LocalMeshError, match="cannot be set up: "):
        make(node, 70_000_000, tmp_path)


@possible
@pytest.mark.parametrize(
    ("program", "said"),
    [("import sys; sys.exit('it says so')", "it says so"), ("import time; time.sleep(60)", "it does not say why")],
    ids=["ends", "hangs"],
)
def test_namespaces_that_do_not_start_are_an_error(
    group: ProcessGroup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, said: str
) -> None:
    """With the last line of what was said."""
    another = tmp_path / "another.py"
    another.write_text(program)
    monkeypatch.setattr(agent, "__file__", str(another))
    monkeypatch.setattr(namespaces, "_WITHIN", 2.0)
    with pytest.raises(LocalMeshError, match=f"the namespaces of the local mesh do not start: {said}"):
        Node(group, tmp_path)


@possible
def test_a_node_that_cannot_be_set_up_leaves_no_process(
    group: ProcessGroup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And says why."""
    monkeypatch.setattr(namespaces, "_NODE", "echo no bridges >&2; exit 1")
    with pytest.raises(LocalMeshError, match="cannot be set up: no bridges"):
        Node(group, tmp_path)


@possible
def test_a_port_that_is_taken_is_an_error_and_no_more(node: Node, tmp_path: Path) -> None:
    """The pod goes on."""
    pod = make(node, 1, tmp_path)
    first = PodPort(pod, 8080).listen()
    with pytest.raises(LocalMeshError, match=r"do not listen on port 8080: \[Errno \d+\] Address already in use"):
        PodPort(pod, 8080).listen()
    first.close()
    PodPort(pod, 8080).listen().close()
    pod.close()


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, group: ProcessGroup, tmp_path: Path) -> None:
    """By its program; and by what the kernel said."""
    which = shutil.which

    def without(*names: str) -> None:
        def find(name: str, path: str | None = None) -> str | None:
            return None if name in names else which("sh")

        monkeypatch.setattr(shutil, "which", find)

    without("ip", "nsenter")
    assert why_no_redirect() == "not installed: nsenter, ip"
    with pytest.raises(LocalMeshError, match="redirect=True is not possible here: not installed: nsenter, ip"):
        Node(group, tmp_path)
    without("nft", "iptables-restore")
    assert why_no_redirect() == "not installed: nft (or iptables)"


@possible
def test_a_kernel_that_does_not_let_it_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container without privileges."""
    monkeypatch.setattr(namespaces, "_TRIAL", "echo Operation not permitted >&2; exit 2")
    assert why_no_redirect() == "the kernel does not let it: Operation not permitted"
