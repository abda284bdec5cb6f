"""
The process that holds the namespaces of a pod, and is the way in and out of them: a program of its own.

It is run by its path, without the package, so that it starts in the time that Python needs. On its standard input, a
socket, it gets the number of a port and hands back a socket that listens there, in the pod; when the other end is
closed, it ends, and with it the namespaces. What connects to the sockets that it was started with, which listen
outside, it connects to ports inside.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import threading

__all__ = ["main"]

_CHUNK = 1 << 16
_ABORT = struct.pack("ii", 1, 0)


def main(arguments: list[str]) -> None:
    """
    Hold the namespaces until nobody needs them.

    Args:
        arguments: Pairs of numbers, `7:15000`: a listening socket outside, by its file descriptor, and a port inside.
    """
    control = socket.socket(fileno=0)
    for pair in arguments:
        number, _, port = pair.partition(":")
        outside = socket.socket(fileno=int(number))
        threading.Thread(target=_relay, args=(outside, int(port)), daemon=True).start()
    control.sendall(b"ready\n")
    while asked := control.recv(16):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
            try:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listening.bind(("", int(asked)))
                listening.listen(socket.SOMAXCONN)
            except OSError as error:
                control.sendall(str(error).encode())
            else:
                socket.send_fds(control, [b"here\n"], [listening.fileno()])


def _relay(outside: socket.socket, port: int) -> None:
    while True:
        incoming, _ = outside.accept()
        try:
            inside = socket.create_connection(("127.0.0.1", port))
        except OSError:
            # As near to a refusal as an accepted connection gets.
            incoming.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
            incoming.close()
            continue
        for source, target in ((incoming, inside), (inside, incoming)):
            threading.Thread(target=_pump, args=(source, target), daemon=True).start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(_CHUNK):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    main(sys.argv[1:])
