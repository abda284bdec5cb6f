"""Ports that are ours before anybody listens."""

from __future__ import annotations

import socket

import pytest

from meshaware.testing.ports import HeldPort


def test_a_held_port_refuses_until_somebody_listens_and_again_afterwards() -> None:
    """And the number stays the same, and nobody else's."""
    port = HeldPort()
    try:
        for _ in range(2):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port.number))
            with port.listen() as listening:
                assert listening.get_inheritable()
                socket.create_connection(("127.0.0.1", port.number)).close()
        assert port.address == f"127.0.0.1:{port.number}"
    finally:
        port.release()


def test_nobody_is_given_a_held_port() -> None:
    """Neither who asks for any, nor who names it and does not share."""
    held = [HeldPort() for _ in range(200)]
    numbers = {port.number for port in held}
    assert len(numbers) == len(held)
    try:
        for _ in range(500):
            with socket.socket() as other:
                other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                other.bind(("127.0.0.1", 0))
                assert other.getsockname()[1] not in numbers
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", held[0].number))
    finally:
        for port in held:
            port.release()


def test_only_one_may_listen() -> None:
    port = HeldPort()
    try:
        with port.listen(), pytest.raises(OSError, match="in use"):
            port.listen()
    finally:
        port.release()
