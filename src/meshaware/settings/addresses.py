"""URLs of the proxy beside this process: plain HTTP, and never farther than loopback."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple
from urllib.parse import urlsplit

__all__ = ["LOCALHOST", "LoopbackUrl", "parse_loopback"]

LOCALHOST = ("127.0.0.1", "::1")
"""What `localhost` stands for, in the order to try it."""

_MAX_LENGTH = 2048
_PRINTABLE = re.compile(r"[\x21-\x7e]+")
_DEFAULT_PORT = 80


class LoopbackUrl(NamedTuple):
    """
    A URL on this host, taken apart.

    `addresses` are literal IP addresses in the order to try them, so that nothing ever asks a name server:
    `localhost` stands for `127.0.0.1`, then `::1`.
    """

    addresses: tuple[str, ...]
    port: int
    authority: str
    target: str


def parse_loopback(url: str) -> LoopbackUrl:
    """
    Take apart an `http://` URL whose host is `localhost`, in `127.0.0.0/8`, or `[::1]`.

    The admin port of a proxy has no authentication and full power over the proxy: whoever could make
    meshaware call another host could use it for requests of their own.

    Raises:
        ValueError: It is no such URL; the message is what is accepted.
    """
    accepted = "a URL such as http://127.0.0.1:15000: http, and the host localhost, in 127.0.0.0/8 or [::1]"
    if len(url) > _MAX_LENGTH or not _PRINTABLE.fullmatch(url):
        raise ValueError(accepted)
    try:
        parts = urlsplit(url)
        port = parts.port
        host = parts.hostname or ""
        addresses = LOCALHOST if host == "localhost" else (str(_loopback(host)),)
    except ValueError:
        raise ValueError(accepted) from None
    if parts.scheme != "http" or "@" in parts.netloc or "#" in url or port == 0:
        raise ValueError(accepted)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return LoopbackUrl(addresses, _DEFAULT_PORT if port is None else port, parts.netloc, target)


def _loopback(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(host)
    if "%" in host or not address.is_loopback or getattr(address, "ipv4_mapped", None) is not None:
        raise ValueError(host)
    return address
