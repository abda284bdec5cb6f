"""
How long the answer to a request is waited for, read from the request, and held while it is served.

A request without a deadline pays for one look at the names of its headers.
"""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic
from typing import TYPE_CHECKING, Literal, NamedTuple

from meshaware.asgi.overtime import BODIES, Timed
from meshaware.asgi.types import ASGIApp, Message, Receive, Scope, Send
from meshaware.deadline.header import ENVOY_TIMEOUT, GRPC_TIMEOUT, read_grpc_timeout, read_milliseconds
from meshaware.deadline.work import Work, begin, end
from meshaware.instrumentation import DeadlineSource, ServedOutcome, announce_served, served_observed
from meshaware.propagation.headers import HeaderSet
from meshaware.propagation.names import Pair

if TYPE_CHECKING:
    from meshaware.flavours import Flavour
    from meshaware.settings import MeshSettings

__all__ = ["DeadlineLayer", "Given", "read_deadline"]

_ATTEMPT = b"x-envoy-attempt-count"
# What a peer sends at once. Envoy's clock starts when the request has come whole, which may be much later.
_AT_ONCE = 1 << 16
_DIGITS = 5


class Given(NamedTuple):
    """
    How long a request is waited for.

    Attributes:
        seconds: From when it came.
        source: Which header says so.
        retried: Whether this is not the first try: then it is an upper bound, for the time began to run with the first.
    """

    seconds: float
    source: DeadlineSource
    retried: bool


def read_deadline(headers: Iterable[Pair], name: bytes, *, envoy: bool) -> Given | None:
    """
    Return the shortest time that a request's headers give, or None.

    What is not exactly a time is as good as not there, and so is a header that comes twice.

    Args:
        headers: As ASGI gives them.
        name: The header that meshaware's clients write.
        envoy: Whether `x-envoy-expected-rq-timeout-ms` counts. It does not for a request whose body may take long: it
            runs from the end of that.
    """
    found: dict[bytes, bytes | None] = {}
    for key, value in headers:
        found[key] = None if key in found else value
    times: list[tuple[float, DeadlineSource]] = []
    if (told := found.get(name)) is not None and (seconds := read_milliseconds(told)) is not None:
        times.append((seconds, "header"))
    if (told := found.get(GRPC_TIMEOUT)) is not None and (seconds := read_grpc_timeout(told)) is not None:
        times.append((seconds, "grpc-timeout"))
    if envoy and (told := found.get(ENVOY_TIMEOUT)) is not None and _comes_at_once(found):
        seconds = read_milliseconds(told)
        if seconds is not None:
            times.append((seconds, "envoy"))
    if not times:
        return None
    attempt = found.get(_ATTEMPT)
    return Given(*min(times), attempt is not None and attempt.isdigit() and attempt.lstrip(b"0") not in (b"", b"1"))


def _comes_at_once(headers: dict[bytes, bytes | None]) -> bool:
    if b"transfer-encoding" in headers:
        return False
    length = headers.get(b"content-length", b"0")
    return length is not None and length.isdigit() and len(length) <= _DIGITS and int(length) <= _AT_ONCE


class DeadlineLayer:
    """
    The application, held to the deadline of a request that brings one.

    Only for HTTP: a WebSocket outlives the request that opens it.

    Args:
        app: The application.
        settings: They name the header, and say what is done when time is up.
        flavour: It tells whether Envoy's word counts.
        carried: Which headers go on: those of them that tell a time, too, but for meshaware's own.

    Attributes:
        names: The headers that tell a time; none where deadlines are off.
    """

    __slots__ = ("_app", "_cancel", "_envoy", "_held", "_name", "_taken", "names")

    def __init__(self, app: ASGIApp, settings: MeshSettings, flavour: Flavour, carried: HeaderSet) -> None:
        self._app = app
        self._name = settings.deadline_header.encode()
        self._envoy = flavour.tells_timeout
        names = {self._name, GRPC_TIMEOUT, *((ENVOY_TIMEOUT,) if self._envoy else ())}
        self.names: frozenset[bytes] = frozenset(() if settings.deadlines == "off" else names)
        self._taken = frozenset(name for name in self.names if name == self._name or name not in carried)
        self._held = settings.deadlines == "enforce"
        self._cancel = self._held and settings.deadline_cancel

    def take(self, found: Iterable[Pair]) -> list[Pair]:
        """Return what was found of a request without what tells of its time, and so goes no further."""
        return [pair for pair in found if pair[0] not in self._taken]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        given = read_deadline(scope["headers"], self._name, envoy=self._envoy) if self.names else None
        if given is not None and scope["type"] == "http":
            await self._serve(given, scope, receive, send)
            return
        # Called in the same process, perhaps: the request is no part of what its caller does.
        token = begin(None)
        try:
            await self._app(scope, receive, send)
        finally:
            end(token)

    async def _serve(self, given: Given, scope: Scope, receive: Receive, send: Send) -> None:
        at = monotonic() + given.seconds
        work = Work(at, held=self._held, name=self._name)
        left: float | None = None

        async def send_in_time(message: Message) -> None:
            nonlocal left
            if message["type"] in BODIES and not message.get("more_body"):
                # The caller has its answer, so what is done from here on it does not wait for; and from within this
                # call a server begins the next request of the connection.
                work.at = None
                left = at - monotonic()
            await send(message)

        token = begin(work)
        ended: Literal["cut", "gone"] | None = None
        try:
            if self._cancel:
                ended = await Timed(at, receive, send, send_in_time).serve(self._app, scope)
            else:
                await self._app(scope, receive, send_in_time)
        finally:
            work.at = None
            end(token)
            if served_observed():
                left = at - monotonic() if left is None else left
                verdict = ended or ("late" if left < 0 else "in_time")
                announce_served(ServedOutcome(verdict, given.seconds, left, given.source, self._held, given.retried))
