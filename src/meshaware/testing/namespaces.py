"""
Linux namespaces that are laid out as a node and its pods: each pod with a network of its own, all on one bridge.

As root, or in a user namespace where that is allowed. In the latter there is one user only, so the sidecar's
connections are known by a mark there, where Istio and root know them by its user.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from meshaware.errors import LocalMeshError
from meshaware.testing import agent
from meshaware.testing.ports import HeldPort
from meshaware.testing.processes import ProcessGroup, end
from meshaware.testing.redirect import Exemption, Tool, address, rules

__all__ = ["Node", "PodNamespace", "PodPort", "why_no_redirect"]

_WITHIN = 10.0
_NAMESPACES = ("--net", "--mount")
_NODE = """
ip link set lo up
ip link add br0 type bridge
ip addr add "$1/16" dev br0
ip link set br0 up
"""
# In the node: a cable from the bridge to the pod whose process has this number.
_CABLE = """
ip link add "$1" type veth peer name eth0 netns "$2"
ip link set "$1" master br0 up
"""
_POD = """
mount --bind "$3/hosts" /etc/hosts
if [ -e /etc/resolv.conf ]; then mount --bind "$3/resolv.conf" /etc/resolv.conf; fi
ip link set lo up
ip addr add "$1/16" dev eth0
ip link set eth0 up
ip route add default via "$2"
"""
_TRIAL = """
ip link add br0 type bridge
ip link add veth0 type veth peer name veth1
mount --bind /etc/hosts /etc/hosts
"""


def why_no_redirect() -> str | None:
    """
    Why `LocalMesh(redirect=True)` cannot work here, for `pytest.skip`; None where it can.

    It takes Linux with network namespaces, as root or with user namespaces for everybody; the programs `unshare`,
    `nsenter` and `setpriv` (util-linux) and `ip` (iproute2); `nft` or `iptables`; and a kernel with veth, bridges and
    redirection.
    """
    missing = [name for name in ("unshare", "nsenter", "setpriv", "ip", "mount") if _program(name) is None]
    tool = _tool()
    if tool is None:
        missing.append("nft (or iptables)")
    if missing:
        return f"not installed: {', '.join(missing)}"
    script = f'set -e\n{_TRIAL}\nexec "$@"'
    command = [_which("unshare"), *_user(), *_NAMESPACES, "sh", "-c", script, "sh", *_load(str(tool))]
    tried = subprocess.run(  # noqa: S603
        command,
        input=rules("nft" if tool == "nft" else "iptables-restore", _exemption()),
        capture_output=True,
        text=True,
        timeout=_WITHIN,
        env=_ENVIRONMENT,
        check=False,
    )
    return None if tried.returncode == 0 else f"the kernel does not let it: {_last(tried.stderr)}"


class PodPort:
    """A port of a pod, for an application in it: nobody else is there to take it."""

    def __init__(self, pod: PodNamespace, number: int) -> None:
        self._pod, self.number = pod, number

    @property
    def address(self) -> str:
        """`address:port`, in the mesh."""
        return f"{self._pod.address}:{self.number}"

    def listen(self) -> socket.socket:
        """Return a new socket that listens on this port of the pod, and can be used outside of it."""
        return self._pod.listen(self.number)


class _Holder:
    """A process in namespaces of its own, and what is done in them."""

    def __init__(
        self, group: ProcessGroup, directory: Path, enter: Sequence[str], relayed: Sequence[tuple[HeldPort, int]] = ()
    ) -> None:
        self._control, theirs = socket.socketpair()
        self._control.settimeout(_WITHIN)
        outside = [port.listen() for port, _ in relayed]
        pairs = [f"{each.fileno()}:{port}" for each, (_, port) in zip(outside, relayed, strict=True)]
        self._log = directory / "agent.log"
        try:
            self._process = group.spawn(
                [*enter, sys.executable, "-I", "-S", agent.__file__, *pairs],
                log=self._log,
                stdin=theirs.fileno(),
                pass_fds=[each.fileno() for each in outside],
            )
        finally:
            for each in (theirs, *outside):
                each.close()
        try:
            self._hear("start")
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The process that holds the namespaces."""
        return self._process.pid

    def entering(self, *options: str) -> list[str]:
        """The beginning of a command that runs in these namespaces."""
        user = ["--user", "--preserve-credentials"] if _user() else []
        return [_which("nsenter"), "--target", str(self.pid), *user, *_NAMESPACES, *options, "--"]

    def do(self, script: str, *arguments: str, text: str = "") -> None:
        """
        Run a shell script in the namespaces.

        Raises:
            LocalMeshError: It failed; the message ends with what it said.
        """
        command = [*self.entering(), "/bin/sh", "-c", f"set -e\n{script}", "sh", *arguments]
        done = subprocess.run(  # noqa: S603
            command, input=text, capture_output=True, text=True, timeout=_WITHIN, env=_ENVIRONMENT, check=False
        )
        if done.returncode:
            raise LocalMeshError(f"a pod of the local mesh cannot be set up: {_last(done.stderr)}")

    def listen(self, port: int) -> socket.socket:
        """
        A socket that listens on a port in there.

        Raises:
            LocalMeshError: Somebody listens there already.
        """
        self._control.sendall(b"%d" % port)
        (number,) = self._hear(f"listen on port {port}", 1)
        listening = socket.socket(fileno=number)
        listening.set_inheritable(True)
        return listening

    def close(self) -> None:
        """End the process, and with it the namespaces, unless somebody else is in them."""
        self._control.close()
        end(self._process, _WITHIN)

    def _hear(self, what: str, count: int = 0) -> list[int]:
        try:
            said, numbers, _, _ = socket.recv_fds(self._control, 256, count)
        except TimeoutError:
            said, numbers = b"", []
        if said and len(numbers) == count:
            return numbers
        why = said.decode(errors="replace") or self._log.read_text(encoding="utf-8", errors="replace")
        raise LocalMeshError(f"the namespaces of the local mesh do not {what}: {_last(why)}")


class PodNamespace(_Holder):
    """
    The namespaces of one pod.

    Attributes:
        address: Its address, in the mesh.
    """

    def __init__(
        self,
        node: Node,
        number: int,
        directory: Path,
        relayed: Sequence[tuple[HeldPort, int]],
    ) -> None:
        self.address = address("pod", number)
        self._hosts = directory / "hosts"
        self._hosts.touch()
        # Without a server that listens, a name that is not in the hosts file fails at once.
        (directory / "resolv.conf").write_text("nameserver 127.0.0.1\noptions attempts:1 timeout:1\n")
        super().__init__(node.group, directory, node.unsharing(), relayed)
        try:
            node.do(_CABLE, f"pod{number}", str(self.pid))
            self.do(_POD, self.address, address("pod", 0), str(directory))
            self.do('exec "$@"', *_load(str(_tool())), text=rules(_tool() or "nft", _exemption()))
        except BaseException:
            self.close()
            raise

    def name(self, hosts: str) -> None:
        """Let these be the names that resolve; written in place, as what is mounted is this very file."""
        self._hosts.write_text(hosts, encoding="utf-8")

    def command_of_sidecar(self) -> list[str]:
        """The beginning of a command that runs as the sidecar: its connections are not redirected."""
        if _exemption() == "mark":
            return self.entering()
        user = ["--reuid", "1337", "--regid", "1337", "--clear-groups"]
        # It may read what root put somewhere for it, its own program and configuration first of all.
        reading = ["--inh-caps", "+dac_override", "--ambient-caps", "+dac_override"]
        return [*self.entering(), _which("setpriv"), *user, *reading, "--"]


class Node:
    """
    The namespaces that pods are plugged into.

    Raises:
        LocalMeshError: There can be none here; the message says why.
    """

    def __init__(self, group: ProcessGroup, directory: Path) -> None:
        why = why_no_redirect()
        if why is not None:
            raise LocalMeshError(f"redirect=True is not possible here: {why}")
        self.group = group
        self._holder = _Holder(group, directory, [_which("unshare"), *_user(), *_NAMESPACES, "--"])
        try:
            self.do(_NODE, address("pod", 0))
        except BaseException:
            self.close()
            raise

    @property
    def exemption(self) -> Exemption:
        """How the sidecar's own connections are known."""
        return _exemption()

    def unsharing(self) -> list[str]:
        """The beginning of a command that runs in new namespaces of the same user namespace."""
        user = ["--user", "--preserve-credentials"] if _user() else []
        entering = [_which("nsenter"), "--target", str(self._holder.pid), *user, "--"] if user else []
        return [*entering, _which("unshare"), *_NAMESPACES, "--"]

    def do(self, script: str, *arguments: str) -> None:
        """Run a shell script as the node."""
        self._holder.do(script, *arguments)

    def close(self) -> None:
        """End it."""
        self._holder.close()


# Administrators' programs are not on everybody's PATH.
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin", "/usr/bin", "/bin"])
_ENVIRONMENT = {"PATH": _PATH}


def _program(name: str) -> str | None:
    return shutil.which(name, path=_PATH)


def _which(name: str) -> str:
    return _program(name) or name


def _tool() -> Tool | None:
    tools: tuple[Tool, ...] = ("nft", "iptables-restore")
    return next((tool for tool in tools if _program(tool)), None)


def _load(tool: str) -> list[str]:
    """The command that reads rules."""
    return [_which(tool), *(["-f", "-"] if tool == "nft" else [])]


def _user() -> tuple[str, ...]:
    return () if os.geteuid() == 0 else ("--user", "--map-root-user")


def _exemption() -> Exemption:
    return "user" if os.geteuid() == 0 else "mark"


def _last(said: str) -> str:
    lines = said.strip().splitlines()
    return lines[-1] if lines else "it does not say why"
