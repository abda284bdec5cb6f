"""Child processes that cannot outlive this one."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

__all__ = ["ProcessGroup", "end"]

# Waits until its standard input ends, which is when the last copy of the other end is closed: at the latest
# when the process that holds it is gone, of whatever it died. Then it removes the directory and kills its own
# process group.
_WATCH = "trap '' HUP INT QUIT TERM; read -r _; rm -rf -- \"$1\"; kill -KILL 0"
_KILLED_WITHIN = 5.0


class ProcessGroup:
    """
    A process group with a watcher that kills it, and removes its directory, when this process is gone.

    `PR_SET_PDEATHSIG` would not do: it is sent when the *thread* that forked ends, and needs code between
    fork and exec, which is not safe with threads. A pipe asks nothing of either. And in a group of their own
    the proxies do not hear a terminal's Ctrl-C, which they would obey before the test has been able to stop.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._watcher: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def spawn(
        self, command: Sequence[str], *, log: Path, stdin: int = subprocess.DEVNULL, pass_fds: Collection[int] = ()
    ) -> subprocess.Popen[bytes]:
        """Start a program in the group; what it writes is appended to `log`."""
        with log.open("ab") as file:
            return self.popen(
                command,
                stdin=stdin,
                stdout=file,
                stderr=subprocess.STDOUT,
                pass_fds=pass_fds,
                # Nothing of the test's environment is Envoy's business; proxies and locales would be.
                env={"PATH": os.environ.get("PATH", os.defpath)},
            )

    def popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a program in the group, with arguments of `subprocess.Popen`."""
        with self._lock:
            if self._watcher is None:
                self._watcher = _watch(self._directory)
            return subprocess.Popen(command, process_group=self._watcher.pid, **options)  # noqa: S603

    def close(self) -> None:
        """End the watcher, and with it all that is left in the group and the directory."""
        with self._lock:
            if self._watcher is not None and self._watcher.stdin is not None:
                self._watcher.stdin.close()
                self._watcher.wait(_KILLED_WITHIN)


def _watch(directory: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603
        ["/bin/sh", "-c", _WATCH, "watch", str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )


def end(process: subprocess.Popen[Any], within: float, *, kill: bool = False) -> None:
    """Ask a process to end, with `kill` make it, and wait; after `within` seconds it is killed."""
    if process.poll() is None:
        process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
    try:
        process.wait(within)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(_KILLED_WITHIN)
