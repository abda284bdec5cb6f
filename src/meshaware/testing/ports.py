"""Ports of 127.0.0.1 that are known before anybody listens on them, and stay ours when nobody does."""

from __future__ import annotations

import socket

__all__ = ["LOOPBACK", "HeldPort"]

LOOPBACK = "127.0.0.1"


class HeldPort:
    """
    A TCP port of 127.0.0.1, held from now until `release`.

    A socket of ours stays bound to it, and never listens. So the kernel gives the number to nobody who asks
    for a free port, and no outgoing connection takes it; whoever connects is refused; and a process that
    names the number and sets `SO_REUSEADDR`, as Envoy and every ASGI server do, may bind and listen beside
    us, because Linux lets two sockets share an address while at most one of them listens
    (`inet_bind_conflict` in net/ipv4/inet_connection_sock.c). There is no moment at which the port is free,
    so nobody can take it between choosing it and listening, nor while what listened is being restarted.
    """

    def __init__(self) -> None:
        self._socket = _bind(0)
        self.number: int = self._socket.getsockname()[1]

    @property
    def address(self) -> str:
        """`127.0.0.1:port`."""
        return f"{LOOPBACK}:{self.number}"

    def listen(self) -> socket.socket:
        """Return a new socket that listens on this port and can be handed to another process."""
        listening = _bind(self.number)
        listening.listen(socket.SOMAXCONN)
        listening.set_inheritable(True)
        return listening

    def release(self) -> None:
        """Let go of the port."""
        self._socket.close()


def _bind(port: int) -> socket.socket:
    # By its full name: asyncio sets TCP_NODELAY on TCP only, and reads that here; without it, replies that a server
    # writes in two pieces take 40 ms longer.
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((LOOPBACK, port))
    except BaseException:
        bound.close()
        raise
    return bound
