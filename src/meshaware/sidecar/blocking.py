"""Asking the proxy from a thread: what of `admin` needs no event loop, for commands that must start quickly."""

from __future__ import annotations

import socket
import time

from meshaware.sidecar.exchange import AdminReply, Exchange

__all__ = ["fetch"]

_CHUNK = 1 << 16


def fetch(url: str, *, timeout: float = 1.0, max_bytes: int = 1 << 20, method: str = "GET") -> AdminReply:
    """
    Ask the proxy beside this process, and return whatever it answers, of any status.

    `timeout` bounds the whole exchange, from connecting to the last byte: a peer that sends a byte now and
    then does not extend it. Redirects are returned as they are. `HTTP_PROXY` and its kin mean nothing here.

    Args:
        url: `http`, and on loopback.
        timeout: Seconds; more than 0.
        max_bytes: How long a body may be.
        method: `GET`, `HEAD` or `POST`; Envoy wants `POST` for everything that changes something.

    Raises:
        SidecarUnavailable: There was no complete reply; its `cause` is `refused`, `timeout`, `invalid` or
            `too_large`.
        ValueError: The URL is not one on loopback, or another argument cannot be used; no socket was opened.
    """
    exchange = Exchange(url, method, timeout, max_bytes)
    deadline = time.monotonic() + timeout
    try:
        with _connect(exchange, deadline) as connection:
            connection.settimeout(_left(deadline))
            connection.sendall(exchange.request)
            while True:
                connection.settimeout(_left(deadline))
                reply = exchange.receive(connection.recv(_CHUNK))
                if reply is not None:
                    return reply
    except TimeoutError:
        raise exchange.timed_out() from None
    except OSError as error:
        raise exchange.broken(error) from error


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _connect(exchange: Exchange, deadline: float) -> socket.socket:
    for address in exchange.address.addresses:
        try:
            return socket.create_connection((address, exchange.address.port), timeout=_left(deadline))
        except TimeoutError:
            raise
        except OSError:
            continue
    raise exchange.refused()
