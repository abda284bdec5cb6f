"""Knocking at several ports of this host at once."""

from __future__ import annotations

import socket
import struct
import threading
from time import monotonic
from typing import Any

import pytest

from meshaware.flavours import PORTS, Heard
from meshaware.settings import addresses
from meshaware.sidecar.knocking import MAX_BYTES, Knock, knock

ALL = tuple(Knock(port, path) for port, path in PORTS.items())
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nlive\n"


@pytest.mark.usefixtures("own_host")
def test_where_nothing_listens_everything_is_refused() -> None:
    """At once, however long one would wait."""
    begin = monotonic()
    assert knock(ALL, 30.0) == {port: Heard("refused") for port in PORTS}
    assert monotonic() - begin < 5


def test_each_port_is_heard_for_itself(ports: Any) -> None:
    """One that answers, one that listens, one that says nothing, one that speaks another language."""
    ports.listen(4191, {"GET /live": OK})
    ports.listen(15008)
    ports.listen(15021)
    ports.listen(9901, {"GET /ready": b"SSH-2.0-x\r\n"})
    heard = knock(ALL, 0.3)
    assert {port: said for port, said in heard.items() if said.said != "refused"} == {
        4191: Heard("answered", 200, b"live\n"),
        15008: Heard("listening"),
        15021: Heard("silent"),
        9901: Heard("invalid"),
    }
    assert sorted(ports.requests) == [b"15021 GET /healthz/ready", b"4191 GET /live", b"9901 GET /ready"]


def test_silence_holds_up_nobody_and_ends_on_time(ports: Any) -> None:
    """The bound is for all of them together."""
    for port, path in PORTS.items():
        if path is not None:
            ports.listen(port)
    begin = monotonic()
    heard = knock(ALL, 0.2)
    assert 0.2 <= monotonic() - begin < 2
    assert {heard[port].said for port, path in PORTS.items() if path is not None} == {"silent"}


@pytest.mark.parametrize("body", [b"x" * (MAX_BYTES + 1), b"x" * 10 * MAX_BYTES])
def test_a_long_answer_is_nothing_that_a_proxy_says(ports: Any, body: bytes) -> None:
    """It is not read to the end."""
    ports.listen(9902, {"GET /ready": b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body})
    assert knock((Knock(9902, "/ready"),), 5.0) == {9902: Heard("too_large")}


def test_who_hangs_up_has_said_nothing_valid(ports: Any) -> None:
    """An end without an answer."""
    ports.listen(9902, {"GET /ready": b""})
    assert knock((Knock(9902, "/ready"),), 5.0) == {9902: Heard("invalid")}


def test_a_connection_that_breaks_is_no_answer(own_host: str) -> None:
    """A listener that resets it, as a process does that is killed."""
    with socket.create_server((own_host, 9902)) as listener:

        def reset() -> None:
            connection, _ = listener.accept()
            connection.recv(1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()

        thread = threading.Thread(target=reset)
        thread.start()
        assert knock((Knock(9902, "/ready"),), 5.0) == {9902: Heard("invalid")}
        thread.join(5)


def test_an_answer_may_come_in_pieces(own_host: str) -> None:
    """It is complete when its length is."""
    with socket.create_server((own_host, 4191)) as listener:
        heard = threading.Event()

        def dribble() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for byte in OK:
                    connection.sendall(bytes((byte,)))
                heard.wait(5)

        thread = threading.Thread(target=dribble)
        thread.start()
        assert knock((Knock(4191, "/live"),), 5.0) == {4191: Heard("answered", 200, b"live\n")}
        heard.set()
        thread.join(5)


def test_the_second_address_is_tried_where_the_first_refuses(ports: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a dual-stack cluster Consul's proxy listens on ::1 alone."""
    ports.listen(19000, {"GET /ready": OK})
    monkeypatch.setattr(addresses, "LOCALHOST", ("127.254.254.254", ports.host))
    assert knock((Knock(19000, "/ready"),), 5.0) == {19000: Heard("answered", 200, b"live\n")}


def test_a_host_without_ipv6_refuses_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """No socket, no listener."""
    create = socket.socket

    def without(family: int = socket.AF_INET, *arguments: int, **options: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError("Address family not supported by protocol")
        return create(family, *arguments, **options)

    monkeypatch.setattr(socket, "socket", without)
    monkeypatch.setattr(addresses, "LOCALHOST", ("127.254.254.254", "::1"))
    assert knock((Knock(4191, "/live"), Knock(15008, None)), 5.0) == {4191: Heard("refused"), 15008: Heard("refused")}


def test_a_crowded_listener_is_not_reached(own_host: str) -> None:
    """One that takes no more connections holds up nobody either, and proves nothing."""
    with socket.create_server((own_host, 15008), backlog=1) as listener:
        crowd = [socket.socket() for _ in range(8)]
        for one in crowd:
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        heard = knock((Knock(15008, None), Knock(4191, "/live")), 0.2)
        for one in crowd:
            one.close()
    assert heard == {15008: Heard("unreached"), 4191: Heard("refused")}
