"""
What a caller sees when an upstream fails this service and nothing in the application handled it.

504 where the budget was used up, 503 where the sidecar took no connection. The reply names no host and no route: those
are in the log.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from meshaware.asgi.types import Receive, Scope, Send
from meshaware.errors import DeadlineExceeded, SidecarUnavailable

__all__ = ["ERROR_HANDLERS", "ErrorReply"]

_log = logging.getLogger("meshaware.errors")


class ErrorReply:
    """A small JSON response, as an ASGI application."""

    def __init__(self, status: int, detail: str) -> None:
        self.status_code = status
        self.body = json.dumps({"detail": detail}).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        del scope, receive
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(self.body)).encode())]
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


async def _deadline(request: Any, error: Exception) -> ErrorReply:
    del request
    _log.warning("answered 504: %s", error)
    return ErrorReply(504, "An upstream did not answer in time.")


async def _sidecar(request: Any, error: Exception) -> ErrorReply:
    del request
    _log.warning("answered 503: %s", error)
    return ErrorReply(503, "The service mesh is not available at the moment.")


ERROR_HANDLERS: Mapping[type[Exception], Callable[..., Any]] = {
    DeadlineExceeded: _deadline,
    SidecarUnavailable: _sidecar,
}
