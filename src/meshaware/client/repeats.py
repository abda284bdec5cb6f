"""
Calls that are made again after they failed: what can be seen of a retry that no factory was told of.

A decorator around `client.post(...)`, or a loop, makes a new request each time, and nothing connects them but this: one
task or thread asks one client for the same again soon after it failed. That is counted; nothing is done about it but to
say it. Redirects and auth flows happen inside one call and are never counted. Only calls that fail pay for it.
"""

from __future__ import annotations

from contextvars import ContextVar
from inspect import currentframe
from time import monotonic
from typing import Any, NamedTuple

from meshaware.client.retries import LIBRARIES, MeshTries, say_once

__all__ = ["Repeats"]

# Without the frame of a known library to prove it, only what follows a failure closely, twice, is taken for a retry:
# whoever polls an upstream waits longer.
_SOON = 2.0
_ENOUGH = 3
_FORGOTTEN = 60.0
_DEPTH = 200


class _Run(NamedTuple):
    """Calls for the same thing that failed, one after the other."""

    client: object
    key: tuple[str, str, int]
    tries: int
    ended: float
    soon: bool


_run: ContextVar[_Run | None] = ContextVar("meshaware_failed_calls", default=None)


class Repeats:
    """
    Watches how the calls of one client end.

    Args:
        tries: How often the mesh tries a call.
    """

    __slots__ = ("_mark", "_tries")

    def __init__(self, tries: MeshTries) -> None:
        self._tries = tries
        # What a context remembers must not keep the routes alive.
        self._mark = object()

    def answered(self, request: Any, status: int, begun: float) -> None:
        """A call was answered: 429 and 5xx are what retries are made for."""
        if status == 429 or status >= 500:
            self.failed(request, begun)
        elif (run := _run.get()) is not None and run.client is self._mark and run.key == _key(request):
            self._count(request, run, begun)
            _run.set(None)

    def failed(self, request: Any, begun: float) -> None:
        """A call failed in the transport, or was answered by an error."""
        if not request.url.host:
            return
        run = _run.get()
        key = _key(request)
        if run is None or run.client is not self._mark or run.key != key or begun - run.ended > _FORGOTTEN:
            _run.set(_Run(self._mark, key, 1, monotonic(), soon=True))
        else:
            _run.set(self._count(request, run, begun))

    def _count(self, request: Any, run: _Run, begun: float) -> _Run:
        run = _Run(run.client, run.key, run.tries + 1, monotonic(), run.soon and begun - run.ended <= _SOON)
        library = _on_the_stack()
        if library is not None or (run.soon and run.tries >= _ENOUGH):
            mesh = self._tries.of(request.method, run.key[1], request.headers)
            if mesh.number > 1:
                self._warn(request, run.tries, library, mesh.number, mesh.source)
        return run

    def _warn(self, request: Any, tries: int, library: str | None, mesh: int, source: str) -> None:
        method, url = request.method, request.url
        by = "made again each time it failed" if library is None else f"made again by {library} as it failed"
        say_once(
            ("seen", method, source, url.host),
            f"{method} {url.scheme}://{url.netloc.decode('ascii')}{url.path[:200]} was {by}, and the mesh makes"
            f" {mesh} tries of each: {tries} x {mesh} = {tries * mesh} tries of a {method} so far. The mesh's number is"
            f" from {source}. Keep one of the two: leave retries to the mesh, or set `retries: {{attempts: 0}}` on the"
            " route",
        )


def _key(request: Any) -> tuple[str, str, int]:
    # A body that is streamed is gone once it was sent, so nothing tells whether two of them are alike.
    content = getattr(request, "_content", None)
    return request.method, str(request.url), id(request) if content is None else hash(content)


def _on_the_stack() -> str | None:
    """The library that makes calls again and in whose hands this one is, if there is one."""
    frame = currentframe()
    for _ in range(_DEPTH):
        if frame is None:
            break
        name = str(frame.f_globals.get("__name__")).partition(".")[0]
        if name in LIBRARIES:
            return name
        frame = frame.f_back
    return None
