"""Peers that behave and peers that do not, byte by byte, on real sockets."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from meshaware.budgets import RouteTable
from meshaware.settings import MeshSettings

Script = Callable[["Conversation"], None]

# Where only httpx is installed, tests that compare the two libraries have nothing to compare.
collect_ignore = (
    []
    if find_spec("httpx2")
    else [path.name for path in Path(__file__).parent.glob("test_*.py") if "\nimport httpx2\n" in path.read_text()]
)


class Conversation:
    """One connection: what was asked, and the means to answer slowly."""

    def __init__(self, connection: socket.socket, stop: threading.Event) -> None:
        self._connection = connection
        self._stop = stop

    def read_request(self) -> bytes:
        """The next request's head, and its body if it has a content-length; b'' at the end."""
        data = b""
        while b"\r\n\r\n" not in data:
            more = self._connection.recv(65536)
            if not more:
                return b""
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(
            (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")), 0
        )
        while len(body) < length:
            body += self._connection.recv(65536)
        return head + b"\r\n\r\n" + body

    def send(self, data: bytes) -> None:
        self._connection.sendall(data)

    def receive(self, most: int = 65536) -> bytes:
        """Whatever comes next; b'' at the end."""
        return self._connection.recv(most)

    def start_tls(self, context: ssl.SSLContext) -> None:
        """Go on encrypted."""
        self._connection = context.wrap_socket(self._connection, server_side=True)

    def stay_silent(self, seconds: float = 30) -> None:
        """Say nothing; wakes up when the test is over."""
        self._stop.wait(seconds)

    def close(self) -> None:
        self._connection.close()

    def reset(self) -> None:
        """Read the request, and break the connection off."""
        self.read_request()
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._connection.close()

    def dribble(self, data: bytes, every: float = 0.02) -> None:
        """One byte now and then, without end."""
        while not self._stop.wait(every):
            for byte in data:
                self.send(bytes([byte]))
                if self._stop.wait(every):
                    return


class Peer:
    """A server on a real socket that answers each connection by a script."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._stop = threading.Event()
        self._open: list[socket.socket] = []
        self._news = threading.Condition()
        self._ended = 0
        self.requests: list[bytes] = []
        self.connections = 0
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        conversation = Conversation(connection, self._stop)
        read = conversation.read_request

        def recorded() -> bytes:
            request = read()
            if request:
                self.requests.append(request)
            return request

        conversation.read_request = recorded  # type: ignore[method-assign]
        with contextlib.suppress(OSError), contextlib.closing(conversation):
            self._script(conversation)
        with self._news:
            self._ended += 1
            self._news.notify_all()

    def wait_until_closed(self) -> None:
        """Wait until the caller has closed every connection that it opened."""
        with self._news:
            assert self._news.wait_for(lambda: self._ended == self.connections, 10), "a connection is still open"

    def close(self) -> None:
        self._stop.set()
        # A blocked accept() holds the listening socket open until it is shut down.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def sockets(self) -> int:
        """How many sockets of this process lead here."""
        found = 0
        for path in Path("/proc/self/fd").iterdir():
            number = int(path.name)
            with contextlib.suppress(OSError):
                if stat.S_ISSOCK(os.fstat(number).st_mode):
                    with socket.socket(fileno=os.dup(number)) as each:
                        found += each.getpeername()[:2] == ("127.0.0.1", self.port)
        return found

    def headers(self, index: int = -1) -> list[tuple[bytes, bytes]]:
        """The headers of a request as they came over the wire, names in lower case."""
        lines = self.requests[index].partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
        return [(name.lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)]


@pytest.fixture(name="peer")
def _peer() -> Iterator[Callable[[Script], Peer]]:
    """Start a peer with a script; it is gone when the test is over."""
    peers: list[Peer] = []

    def start(script: Script) -> Peer:
        peers.append(Peer(script))
        return peers[-1]

    yield start
    for each in peers:
        each.close()


def answer(body: bytes = b"ok", status: bytes = b"200 OK", headers: bytes = b"") -> Script:
    """A script that answers every request of a connection alike."""

    def script(conversation: Conversation) -> None:
        while conversation.read_request():
            conversation.send(
                b"HTTP/1.1 " + status + b"\r\ncontent-length: %d\r\n" % len(body) + headers + b"\r\n" + body
            )

    return script


@pytest.fixture(name="answering")
def _answering() -> Callable[..., Script]:
    return answer


@pytest.fixture(name="inside")
def _inside() -> Callable[[Peer], MeshSettings]:
    """Settings under which plain names lead to a peer, as a sidecar would have it."""

    def settings(peer: Peer, **more: object) -> MeshSettings:
        return MeshSettings(mesh="none", outbound_proxy=peer.url, **more)  # type: ignore[arg-type]

    return settings


@pytest.fixture(name="routes")
def _routes(tmp_path: Path) -> Callable[..., RouteTable]:
    """A table with one VirtualService, for `inventory.shop`; the arguments are its http rule's fields."""

    def table(**fields: object) -> RouteTable:
        rule = {"name": "items", "route": [{"destination": {"host": "inventory"}}], **fields}
        document = {
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": {"name": "inventory", "namespace": "shop"},
            "spec": {"hosts": ["inventory"], "http": [rule]},
        }
        path = tmp_path / "inventory.json"
        path.write_text(json.dumps(document))
        return RouteTable.from_manifests(path, namespace="shop")

    return table
