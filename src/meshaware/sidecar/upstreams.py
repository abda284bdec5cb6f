"""
Whether the proxy knows a route for certain upstreams, by its own `/config_dump`; no I/O.

First it is asked, in a few hundred bytes, whether anything moved; the routes themselves are read only then, and only
those of the ports in question. They come as Istio's sidecars have them: one route configuration a port, named by it, or
`http_proxy` for all of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import cast

from meshaware.errors import SidecarUnavailable
from meshaware.settings.upstreams import Upstream
from meshaware.sidecar.attempts import Attempt, Fetch, left, what_came
from meshaware.sidecar.exchange import AdminReply
from meshaware.sidecar.waiting import Answer

__all__ = ["Upstreams"]

_MAX_BYTES = 64 << 20
_OK = 200
_DUMP = "/config_dump?resource=dynamic_route_configs"
_FOR_ALL_PORTS = "http_proxy"


class Upstreams:
    """
    Upstreams that the proxy is to have routes for, and which of them it has not.

    Args:
        upstreams: The upstreams.
    """

    def __init__(self, upstreams: Iterable[Upstream]) -> None:
        self.missing: tuple[Upstream, ...] = tuple(sorted(set(upstreams)))
        self._seen = b""

    def attempt(self, admin: str, end: float) -> Attempt:
        """
        Ask the proxy, and take in what it says.

        Args:
            admin: The address of its admin.
            end: When to be done, on the clock of `time.monotonic`.
        """
        ports = "|".join(str(port) for port in sorted({upstream.port for upstream in self.missing}))
        # RE2 matches the whole name. Some ports of Istio's have a configuration a host: `host:port`.
        query = f"{admin}{_DUMP}&name_regex=(.*:)?({ports})|{_FOR_ALL_PORTS}"
        where = f"{admin}/config_dump"
        stamp = yield Fetch(f"{query}&mask=version_info,last_updated", left(end))
        if (wrong := _wrong(stamp)) is not None:
            return Answer(where, wrong)
        if stamp.body != self._seen:
            dump = yield Fetch(query, left(end), _MAX_BYTES)
            if (wrong := _wrong(dump)) is not None:
                return Answer(where, wrong)
            known = set(_known(dump.body))
            self.missing = tuple(each for each in self.missing if not _serves(known, each))
            self._seen = stamp.body
        return Answer(where, f"no route yet for {', '.join(map(str, self.missing))}" if self.missing else "ready")


def _wrong(came: AdminReply | SidecarUnavailable) -> str | None:
    return None if isinstance(came, AdminReply) and came.status == _OK else what_came(came)


def _known(body: bytes) -> Iterator[tuple[str, str]]:
    """Pairs of a domain and a port, as text; the port is empty where it may be any."""
    try:
        document: object = json.loads(body)
    except (ValueError, RecursionError):
        return
    for entry in _list(document, "configs"):
        config = _get(entry, "route_config")
        name = _text(config, "name")
        for host in _list(config, "virtual_hosts"):
            port = name.rpartition(":")[2] if name != _FOR_ALL_PORTS else _port(_text(host, "name"))
            for domain in _list(host, "domains"):
                if isinstance(domain, str) and domain != "*":
                    bare = _port(domain)
                    yield domain.removesuffix(f":{bare}").lower().rstrip("."), bare or port


def _serves(known: set[tuple[str, str]], upstream: Upstream) -> bool:
    suffixes = [f"*{upstream.host[at:]}" for at, char in enumerate(upstream.host) if char in ".-" or at == 0]
    return any((host, port) in known for host in (upstream.host, *suffixes) for port in (str(upstream.port), ""))


def _port(text: str) -> str:
    port = text.rpartition(":")[2]
    return port if ":" in text and port.isdigit() else ""


def _get(value: object, key: str) -> object:
    return cast("dict[str, object]", value).get(key) if isinstance(value, dict) else None


def _list(value: object, key: str) -> list[object]:
    items = _get(value, key)
    return cast("list[object]", items) if isinstance(items, list) else []


def _text(value: object, key: str) -> str:
    text = _get(value, key)
    return text if isinstance(text, str) else ""
