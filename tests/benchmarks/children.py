"""
The processes beside the benchmark: each is a module of this package, says its port, and answers on its own streams.

A child ends when its standard input does, so none is left, however the benchmark ends.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Self

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0
_OF_THE_MACHINE = ("MESHAWARE_", "OTEL_", "ISTIO_", "POD_", "KUBERNETES_", "LINKERD_", "FASTAPI_")


class Child:
    """A process of this package's; a context manager that ends it."""

    def __init__(self, module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OF_THE_MACHINE)}
        self.name = " ".join((module, *arguments))
        # A session of its own: Ctrl-C is the benchmark's, which then ends its children one by one.
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"tests.benchmarks.{module}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            cwd=ROOT,
            env=inherited | dict(environment or {}),
            start_new_session=True,
        )
        self._port: int | None = None

    @property
    def port(self) -> int:
        """Where it listens on loopback; waits until it says so."""
        if self._port is None:
            self._port = int(self._read())
        return self._port

    def ask(self, question: str) -> str:
        """Have it answer one of the questions that it was started with."""
        if self._process.stdin is None:
            raise RuntimeError("a pipe was asked for")
        self._process.stdin.write(f"{question}\n".encode())
        return self._read()

    def _read(self) -> str:
        if self._process.stdout is None:
            raise RuntimeError("a pipe was asked for")
        ready, _, _ = select.select([self._process.stdout], [], [], PATIENCE)
        line = self._process.stdout.readline() if ready else b""
        if not line:
            raise RuntimeError(f"{self.name} said nothing for {PATIENCE:.0f} s, or ended; its errors stand above")
        return line.decode().strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)
        if self._process.stdout is not None:
            self._process.stdout.close()


def answer_parent(port: int, answers: Mapping[str, Callable[[], object]], end: Callable[[], object]) -> None:
    """In the child: say the port, answer questions in a thread of its own, and end with the parent."""

    def listen() -> None:
        for question in sys.stdin:
            print(answers[question.strip()](), flush=True)
        end()

    print(port, flush=True)
    Thread(target=listen, daemon=True).start()
