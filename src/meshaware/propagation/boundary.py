"""
Where a request ends and its server begins.

A server's own code runs inside the calls that an application makes to it: from within the last `send` uvicorn begins
the next request of the connection, and from within `receive` it goes on to read it, each in the context that it finds
there. So what one request carries, and its span, would be the next one's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import Token
from typing import Any

from meshaware.propagation.context import Carried, bind, current, reset
from meshaware.propagation.spans import Contexts, contexts

__all__ = ["boundary", "put_back"]

# A server writes its access log where an answer begins, and that shall tell of this request.
_BEGINNINGS = ("http.response.start", "websocket.accept", "websocket.close", "websocket.http.response.start")

_Receive = Callable[[], Awaitable[Any]]
_Send = Callable[[Any], Awaitable[None]]


def boundary(receive: _Receive, send: _Send, ways: Contexts | None = None) -> tuple[_Receive, _Send]:
    """
    Return a request's `receive` and `send` (ASGI 3.0) so that the server's code runs with what is carried now.

    To be asked before anything is bound for the request.

    Args:
        receive: The server's.
        send: The server's.
        ways: What `contexts` returns, from whoever has it.
    """
    here, attach, detach = contexts() if ways is None else ways
    outer, traced = current(), here()

    async def receive_outside() -> Any:
        token = bind(outer)
        trace = None if here() is traced else attach(traced)
        try:
            return await receive()
        finally:
            if put_back(token) and trace is not None:
                detach(trace)

    async def send_outside(message: Any) -> None:
        if message["type"] in _BEGINNINGS:
            await send(message)
            return
        token = bind(outer)
        trace = None if here() is traced else attach(traced)
        try:
            await send(message)
        finally:
            # As `put_back` does, for every request.
            try:
                reset(token)
            except ValueError:
                trace = None
            if trace is not None:
                detach(trace)

    return receive_outside, send_outside


def put_back(token: Token[Carried | None]) -> bool:
    """Carry again what was carried before, if this is still the context in which something else was bound."""
    try:
        reset(token)
    except ValueError:
        # Left unfinished, it is closed by whoever finds it, in a context that never had the binding.
        return False
    return True
