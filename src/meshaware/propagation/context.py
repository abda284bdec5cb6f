"""
What this task or thread carries, and what of it goes out with a call.

It lives in a context variable: tasks, `asyncio.to_thread` and AnyIO's worker threads inherit it; a plain
thread or executor does not, see `threads`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from functools import lru_cache
from os import environ
from time import monotonic
from types import EllipsisType, TracebackType

from meshaware.deadline.header import DEFAULT_NAME, write_milliseconds
from meshaware.deadline.work import in_hand, told_deadline
from meshaware.identity import Peer
from meshaware.propagation.fitness import fit
from meshaware.propagation.given import GivenHeaders, merge, read_given
from meshaware.propagation.hosts import HostPolicy
from meshaware.propagation.names import BAGGAGE, FORMATS, W3C, Pair, is_name
from meshaware.propagation.outgoing import Cargo, Changes, changes, load
from meshaware.propagation.outside import detach
from meshaware.propagation.spans import arrival, baggage_as_written, live_baggage, live_trace_headers, tracing_here

__all__ = [
    "Caller",
    "Carried",
    "attach",
    "attach_trace",
    "bind",
    "bind_headers",
    "current",
    "outbound_headers",
    "reset",
]

Caller = tuple[Callable[[Iterable[Pair]], Peer | None], Iterable[Pair]]
"""Who called, not read yet: the function that reads it, and the headers of the request."""

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
        caller: Who called; None where nobody did or nobody vouches for it.
        one: Whether trace headers go out in one format only, as the proxy of some meshes wants it.
    """

    __slots__ = ("_cargo", "_found", "_peer", "caller", "hosts", "one")

    def __init__(
        self, found: Sequence[Pair], hosts: HostPolicy, caller: Caller | None = None, *, one: bool = False
    ) -> None:
        self._found = found
        self._cargo: Cargo | None = None
        self._peer: Peer | EllipsisType | None = ...
        self.caller = caller
        self.hosts = hosts
        self.one = one

    @property
    def cargo(self) -> Cargo:
        """What is fit to go out, for `changes`."""
        # Two threads may both do this; they come to the same.
        if self._cargo is None:
            self._cargo = load(fit(self._found), one=self.one)
        return self._cargo

    @property
    def headers(self) -> tuple[Pair, ...]:
        """What is fit to go out: verbatim, valid, each name once."""
        return tuple(self.cargo.came.items())

    @property
    def peer(self) -> Peer | None:
        """Who called."""
        if self._peer is ...:
            self._peer = None if self.caller is None else self.caller[0](self.caller[1])
        return self._peer

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

    def __init__(
        self,
        found: Sequence[Pair],
        hosts: HostPolicy,
        caller: Caller | None,
        *,
        one: bool,
        block: object,
        outer: Carried | None,
    ) -> None:
        super().__init__(found, hosts, caller, one=one)
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
        pairs, caller, one = self._pairs, None, False
        if outer is not None:
            pairs, caller, one = merge(outer.headers, pairs), outer.caller, outer.one
        elif tracing_here() and (arrived := arrival()) is not None:
            pairs = merge(tuple(arrived.came.items()), pairs)
        bind(_Bound(pairs, hosts, caller, one=one, block=self, outer=outer))

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

    A deadline header among them is left out: `meshaware.deadline.limit` is how a job is held to a time.

    Blocks nest: the inner headers go over the outer ones, and after the block all is as it was. Naming a
    position in a trace (`traceparent`, `b3`, `x-b3-...`) replaces every trace header of the outer block.

    Args:
        headers: Names with values, as a mapping or in pairs.
        hosts: Who may get them. Default: that of the block or request around it, or else what
            `MESHAWARE_MESH_HOSTS`, `MESHAWARE_CLUSTER_DOMAIN` and `MESHAWARE_TRACE_HOSTS` say.

    Raises:
        ValueError: A name or a value that cannot be sent as it is; the message says which and why.
    """
    return _Binding(read_given(headers, stacklevel=2), hosts)


def outbound_headers(url: str, headers: Mapping[str, str] | None = None) -> dict[str, str]:
    """
    Return the headers to add to a call made with any other client; none for a host outside the mesh.

    With a deadline in hand, what is left of it goes along, as `MESHAWARE_DEADLINE_HEADER` or under its default name.

    A host outside that `MESHAWARE_TRACE_HOSTS` names gets `traceparent` and `tracestate`, or the B3 headers where only
    those came.

    Ask for each hop: a client that follows redirects by itself would take them along to wherever it is sent.
    A value with bytes over 127 is left out, since clients disagree on how to write it.

    Args:
        url: Where the call goes.
        headers: What the call has already. Nothing of it comes back, but for trace headers that tell of another span
            than the live one: these come in the spelling they have there, to be written over. With a `Host` in it, that
            host must be inside the mesh too.
    """
    carried = current()
    hosts = _default_hosts() if carried is None else carried.hosts
    found = _URL.match(str(url))
    if found is None:
        return {}
    present: dict[bytes, bytes] = {}
    spelled: dict[bytes, str] = {}
    for name, value in () if headers is None else headers.items():
        lower = _encoded(name).lower()
        present[lower], spelled[lower] = _encoded(value), name
    host, authority = found[1], present.get(b"host", found[1])
    if hosts.inside(host) and hosts.inside(authority):
        add = _with_deadline(_changes(present).add, present)
    elif hosts.traced(host) and hosts.traced(authority):
        add = _trace_alone(present).add
    else:
        return {}
    return {spelled.get(name) or name.decode(): value.decode() for name, value in add if value.isascii()}


def attach(raw: Sequence[Pair], *, one: bool = False) -> Sequence[Pair]:
    """
    Return the headers with which a request goes to a host inside the mesh: its own, and what is carried.

    The hosts are the caller's to check. Beside a live span, trace headers of the request that tell of
    another span are replaced; everything else that the request has stays as it is.

    Args:
        raw: The request's headers in order, names in any case.
        one: Whether the mesh wants trace headers in one format only; what is carried may say so as well.

    Returns:
        `raw` itself where there is nothing to change.
    """
    if current() is None and not tracing_here():
        return raw
    add, drop = _changes({name.lower(): value for name, value in raw}, one=one)
    if drop:
        raw = [pair for pair in raw if pair[0].lower() not in drop]
    return [*raw, *add] if add else raw


def attach_trace(raw: Sequence[Pair]) -> Sequence[Pair]:
    """
    Return the headers with which a request goes to a host outside the mesh that gets the trace context alone.

    In one format, W3C's where there is a choice: who is outside has no sidecar that reads another.

    Args:
        raw: The request's headers in order, names in any case.
    """
    own = detach(raw)
    add, drop = _trace_alone({name.lower(): value for name, value in own})
    return [*(pair for pair in own if pair[0].lower() not in drop), *add]


def _trace_alone(present: Mapping[bytes, bytes]) -> Changes:
    add, drop = _changes(present)
    story = [pair for pair in add if pair[0] in FORMATS]
    return Changes([pair for pair in story if pair[0] in W3C] or story, drop - {BAGGAGE})


def _changes(present: Mapping[bytes, bytes], *, one: bool = False) -> Changes:
    carried = current()
    if not tracing_here():
        return changes(_NOTHING if carried is None else carried.cargo, present)
    if carried is not None:
        cargo, one = carried.cargo, one or carried.one
    else:
        arrived = arrival()
        cargo = _NOTHING if arrived is None else load(arrived.came, one=one)
    live = live_trace_headers(cargo.came)
    baggage = live_baggage(cargo.came.get(BAGGAGE))
    if baggage is None and BAGGAGE in cargo.came and BAGGAGE in present and present[BAGGAGE] == baggage_as_written():
        # OpenTelemetry wrote again what it read, and what it could not read is lost: what came goes in its place.
        add, drop = changes(cargo, {name: present[name] for name in present if name != BAGGAGE}, live, one=one)
        return Changes(add, drop | {BAGGAGE})
    return changes(cargo, present, live, baggage, one=one)


def _with_deadline(add: Iterable[Pair], present: Container[bytes]) -> Iterable[Pair]:
    # What came is of the request, not of what is left of it by now.
    name = _deadline_header()
    yield from (pair for pair in add if pair[0] != name)
    at = None if name is None else told_deadline()
    if name is not None and at is not None and name not in present:
        told = write_milliseconds(at - monotonic())
        if told is not None:
            yield name, told


def _deadline_header() -> bytes | None:
    work = in_hand()
    if work is not None and work.name is not None:
        return work.name
    if environ.get("MESHAWARE_DEADLINES", "").strip().lower() == "off":
        return None
    # What is no name, settings refuse; here it is not worth an error with each call.
    name = _encoded(environ.get("MESHAWARE_DEADLINE_HEADER", "").strip().lower())
    return name if is_name(name) else DEFAULT_NAME.encode()


def _encoded(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "replace")


def _default_hosts() -> HostPolicy:
    return _hosts_from(
        environ.get("MESHAWARE_MESH_HOSTS", ""),
        environ.get("MESHAWARE_CLUSTER_DOMAIN", "") or "cluster.local",
        environ.get("MESHAWARE_TRACE_HOSTS", ""),
    )


@lru_cache(maxsize=8)
def _hosts_from(mesh_hosts: str, cluster_domain: str, trace_hosts: str) -> HostPolicy:
    return HostPolicy(mesh_hosts, cluster_domain=cluster_domain, trace_hosts=trace_hosts)
