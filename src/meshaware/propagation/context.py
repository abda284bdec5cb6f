"""
What this task or thread carries, and what of it goes out with a call.

It lives in a context variable: tasks, `asyncio.to_thread` and AnyIO's worker threads inherit it; a plain
thread or executor does not, see `threads`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from functools import lru_cache
from os import environ
from types import TracebackType

from meshaware.propagation.fitness import fit
from meshaware.propagation.given import GivenHeaders, merge, read_given
from meshaware.propagation.hosts import HostPolicy
from meshaware.propagation.names import BAGGAGE, Pair
from meshaware.propagation.outgoing import Cargo, Changes, changes, load, wanted_forms
from meshaware.propagation.spans import live_baggage, live_trace_headers, tracing_loaded

__all__ = [
    "Carried",
    "attach",
    "bind",
    "bind_headers",
    "current",
    "outbound_headers",
    "reset",
]

_NOTHING = load({})

# Stricter than URLs are: what two clients might read differently (a backslash, a second @) has no host here.
_URL = re.compile(
    r"(?:https?|wss?)://(?:[^\x00-\x20@/?#\\]*@)?(\[[0-9a-f:.]*\]|[0-9a-z._-]+)(?::[0-9]*)?(?=[/?#]|\Z)",
    re.ASCII | re.IGNORECASE,
)


class Carried:
    """
    What goes on from one request to the calls it causes, and to which hosts.

    The headers are looked at when they are first used: a request that causes no call pays nothing for it.

    Args:
        found: Lower-case names with values, as they came in. It must not change afterwards.
        hosts: Who may get them.
    """

    __slots__ = ("_cargo", "_found", "hosts")

    def __init__(self, found: Sequence[Pair], hosts: HostPolicy) -> None:
        self._found = found
        self._cargo: Cargo | None = None
        self.hosts = hosts

    @property
    def cargo(self) -> Cargo:
        """What is fit to go out, for `changes`."""
        # Two threads may both do this; they come to the same.
        if self._cargo is None:
            self._cargo = load(fit(self._found))
        return self._cargo

    @property
    def headers(self) -> tuple[Pair, ...]:
        """What is fit to go out: verbatim, valid, each name once."""
        return tuple(self.cargo.came.items())

    def __repr__(self) -> str:
        return f"<Carried: {len(self.headers)} headers for {self.hosts!r}>"


_carried: ContextVar[Carried | None] = ContextVar("meshaware_carried", default=None)

current = _carried.get
"""Return what is carried here, or None."""
bind = _carried.set
"""Carry this from now on, and return the token that `reset` takes; None carries nothing."""
reset = _carried.reset
"""Carry again what was carried before."""


class _Bound(Carried):
    """What is carried in a block; it knows the block, and what is carried around it."""

    __slots__ = ("block", "outer")

    def __init__(self, found: Sequence[Pair], hosts: HostPolicy, block: object, outer: Carried | None) -> None:
        super().__init__(found, hosts)
        self.block = block
        self.outer = outer


class _Binding(AbstractContextManager[None]):
    # Tokens would not do: a generator that nobody finished is closed at any later time, and where its context is in
    # use still, its token would put back what an earlier job carried.

    __slots__ = ("_hosts", "_pairs")

    def __init__(self, pairs: tuple[Pair, ...], hosts: HostPolicy | None) -> None:
        self._pairs = pairs
        self._hosts = hosts

    def __enter__(self) -> None:
        outer = current()
        hosts = self._hosts or (_default_hosts() if outer is None else outer.hosts)
        pairs = self._pairs if outer is None else merge(outer.headers, self._pairs)
        bind(_Bound(pairs, hosts, self, outer))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        carried = current()
        while isinstance(carried, _Bound) and carried.block is not self:
            carried = carried.outer
        if isinstance(carried, _Bound):
            bind(carried.outer)
        elif kind is None:
            raise RuntimeError(
                "a bind_headers block ends where it did not begin, so its headers were not carried all along: a"
                " generator went on in another thread or task (a `def` dependency with `yield`, a streamed response),"
                " or in turn with another one. Bind around each call instead of around a `yield`"
            )


def bind_headers(headers: GivenHeaders, *, hosts: HostPolicy | None = None) -> AbstractContextManager[None]:
    """
    Carry headers inside a `with` block: for workers, jobs and tests, where no request came in.

        with bind_headers({"x-request-id": job_id, "x-user-type": "premium"}):
            client.post("http://inventory:8080/refill")

    Blocks nest: the inner headers go over the outer ones, and after the block all is as it was. Naming a
    position in a trace (`traceparent`, `b3`, `x-b3-...`) replaces every trace header of the outer block.

    Args:
        headers: Names with values, as a mapping or in pairs.
        hosts: Who may get them. Default: that of the block or request around it, or else what
            `MESHAWARE_MESH_HOSTS` and `MESHAWARE_CLUSTER_DOMAIN` say.

    Raises:
        ValueError: A name or a value that cannot be sent as it is; the message says which and why.
    """
    return _Binding(read_given(headers, stacklevel=2), hosts)


def outbound_headers(url: str, headers: Mapping[str, str] | None = None) -> dict[str, str]:
    """
    Return the headers to add to a call made with any other client; none for a host outside the mesh.

    Ask for each hop: a client that follows redirects by itself would take them along to wherever it is sent.
    A value with bytes over 127 is left out, since clients disagree on how to write it.

    Args:
        url: Where the call goes.
        headers: What the call has already. Nothing that is there comes back, and with a `Host` in it, that
            host must be inside the mesh too.
    """
    carried = current()
    hosts = _default_hosts() if carried is None else carried.hosts
    host = _URL.match(str(url))
    if host is None or not hosts.inside(host[1]):
        return {}
    present: dict[bytes, bytes] = {}
    if headers is not None:
        present = {_encoded(name).lower(): _encoded(value) for name, value in headers.items()}
        authority = present.get(b"host")
        if authority is not None and not hosts.inside(authority):
            return {}
    return {name.decode(): value.decode() for name, value in _changes(present).add if value.isascii()}


def attach(raw: Sequence[Pair]) -> Sequence[Pair]:
    """
    Return the headers with which a request goes to a host inside the mesh: its own, and what is carried.

    The hosts are the caller's to check. Beside a live span, trace headers of the request that tell of
    another span are replaced; everything else that the request has stays as it is.

    Args:
        raw: The request's headers in order, names in any case.

    Returns:
        `raw` itself where there is nothing to change.
    """
    if current() is None and not tracing_loaded():
        return raw
    add, drop = _changes({name.lower(): value for name, value in raw})
    if drop:
        raw = [pair for pair in raw if pair[0].lower() not in drop]
    return [*raw, *add] if add else raw


def _changes(present: Mapping[bytes, bytes]) -> Changes:
    carried = current()
    cargo = _NOTHING if carried is None else carried.cargo
    if not tracing_loaded():
        return changes(cargo, present)
    single, multi = wanted_forms(cargo, present)
    live = live_trace_headers(cargo.came, b3=single, multi=multi)
    baggage = live_baggage(cargo.came.get(BAGGAGE))
    if baggage is None and BAGGAGE in cargo.came and BAGGAGE in present and present[BAGGAGE] == live_baggage(None):
        # OpenTelemetry wrote again what it read, and what it could not read is lost: what came goes in its place.
        add, drop = changes(cargo, {name: present[name] for name in present if name != BAGGAGE}, live)
        return Changes(add, drop | {BAGGAGE})
    return changes(cargo, present, live, baggage)


def _encoded(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "replace")


def _default_hosts() -> HostPolicy:
    return _hosts_from(
        environ.get("MESHAWARE_MESH_HOSTS", ""),
        environ.get("MESHAWARE_CLUSTER_DOMAIN", "") or "cluster.local",
    )


@lru_cache(maxsize=8)
def _hosts_from(mesh_hosts: str, cluster_domain: str) -> HostPolicy:
    return HostPolicy(mesh_hosts.split(","), cluster_domain=cluster_domain)
