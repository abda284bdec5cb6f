"""
A proxy that gets ready at an instant: `python -m tests.benchmarks.proxy`.

Questions on standard input: `503 SECONDS` and `refused SECONDS` begin anew: the port answers 503, or refuses, and 200
after so many seconds; the answer is that instant on the clock of `time.monotonic`, which processes share. `counts`
tells how often the gate asked since then.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time

REPLY = b"HTTP/1.1 %s\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
GATE = b"GET /gate"


class Port:
    """A fixed port on loopback, by turns refusing, not ready and ready."""

    def __init__(self) -> None:
        self._taken = socket.socket()
        self._taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._taken.bind(("127.0.0.1", 0))
        self.number: int = self._taken.getsockname()[1]
        self._ready_at = 0.0
        self.asked = 0

    def begin(self, before: str, seconds: float) -> float:
        """Begin anew, and tell when it will be ready."""
        with contextlib.suppress(OSError):
            # What waits in `accept` would otherwise keep the port.
            self._taken.shutdown(socket.SHUT_RDWR)
        self._taken.close()
        self._taken = socket.socket()
        self._taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._taken.bind(("127.0.0.1", self.number))
        self.asked, self._ready_at = 0, time.monotonic() + seconds
        listening = self._taken
        if before == "503":
            listening.listen(64)
            threading.Thread(target=self._serve, args=(listening,), daemon=True).start()
        else:
            threading.Thread(target=self._listen_then, args=(listening,), daemon=True).start()
        return self._ready_at

    def _listen_then(self, listening: socket.socket) -> None:
        time.sleep(max(0.0, self._ready_at - time.monotonic()))
        listening.listen(64)
        self._serve(listening)

    def _serve(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                self.asked += connection.recv(4096).startswith(GATE)
                ready = time.monotonic() >= self._ready_at
                connection.sendall(REPLY % (b"200 OK" if ready else b"503 Service Unavailable"))


def main() -> None:
    port = Port()
    print(port.number, flush=True)
    for line in sys.stdin:
        question, *arguments = line.split()
        print(port.asked if question == "counts" else port.begin(question, float(arguments[0])), flush=True)


if __name__ == "__main__":
    main()
