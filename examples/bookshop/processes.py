"""Child processes that end when they are told to, and at the latest when this process does."""

from __future__ import annotations

import subprocess
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Self

GRACE = 5.0

# Waits until its standard input ends, at the latest when the process that holds the other end is gone, of
# whatever it died; then kills its process group. In that group the services do not hear a terminal's Ctrl-C.
WATCH = "trap '' HUP INT QUIT TERM; read -r _; kill -KILL 0"


class Service:
    """One service process, and what it wrote."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.process = process
        self._log = log

    @property
    def pid(self) -> int:
        """Its process ID."""
        return self.process.pid

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def log(self, last: int = 15) -> list[str]:
        """The last lines that it wrote."""
        with self._log.open(encoding="utf-8", errors="replace") as lines:
            return [line.rstrip() for line in deque(lines, last)]


class Processes:
    """A context manager: starts services, and ends them all, by force after `GRACE` seconds."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._services: list[Service] = []
        self._watcher = subprocess.Popen(
            ["/bin/sh", "-c", WATCH], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, process_group=0
        )

    def start(
        self, name: str, arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str], descriptor: int
    ) -> Service:
        """Start a Python program; it inherits one file descriptor."""
        log = self._logs / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=cwd,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[descriptor],
                process_group=self._watcher.pid,
            )
        service = Service(name, process, log)
        self._services.append(service)
        return service

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for service in self._services:
                service.process.terminate()
            until = monotonic() + GRACE
            for service in self._services:
                try:
                    service.process.wait(max(until - monotonic(), 0.01))
                except subprocess.TimeoutExpired:
                    service.process.kill()
                    service.process.wait(GRACE)
        finally:
            if self._watcher.stdin is not None:
                self._watcher.stdin.close()
            self._watcher.wait(GRACE)
