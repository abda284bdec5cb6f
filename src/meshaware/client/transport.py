"""
The wrapping transports: one asynchronous, one synchronous, for httpx and httpx2 alike.

They have no base class of either library and pass the inner response through; they only replace its stream, by a class
that the library accepts. The asynchronous total is a cancel scope and exact. The synchronous one clamps every read and
write (see `clamp`): exact too, but for name resolution and for connecting to several addresses, which Python cannot
interrupt.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from types import TracebackType
from typing import Any, NoReturn, Self

import anyio

from meshaware.client.call import Call
from meshaware.client.clamp import ShrinkingTimeouts, TimeUp, active_call, tracer
from meshaware.client.library import Library, deadline_error, sidecar_error
from meshaware.client.outgoing import Leaving, Outgoing
from meshaware.client.report import REPORT, CallReport
from meshaware.client.streams import Fate
from meshaware.propagation.spans import without_client_spans
from meshaware.sidecar.replies import classify

__all__ = ["AsyncMeshTransport", "MeshTransport"]


class _Wrapping:
    """
    What both transports do before the request leaves and after its answer came.

    Args:
        inner: The transport that is wrapped.
        outgoing: Makes requests ready.
        library: Which client library these are the transports of.
        inside: The transport for hosts inside the mesh, where `inner` leads through a proxy from the environment.
    """

    def __init__(self, inner: Any, outgoing: Outgoing, library: Library, inside: Any = None) -> None:
        self._inner = inner
        self._outgoing = outgoing
        self._library = library
        self._inside = inner if inside is None else inside

    def _choose(self, leaving: Leaving) -> Any:
        return self._inside if leaving.inside else self._inner

    def _failure(self, leaving: Leaving, request: Any, error: Exception) -> Exception:
        """The error to raise in place of the library's own; often that one."""
        if isinstance(error, TimeUp) or (isinstance(error, self._library.timeout) and leaving.call.expired()):
            return deadline_error(self._library, leaving.call, request)
        if isinstance(error, self._library.connect_error):
            address = self._outgoing.unreachable(leaving)
            if address is not None:
                return sidecar_error(self._library, leaving.call, address, error, request)
        return error

    def _answered(self, leaving: Leaving, request: Any, response: Any, stream: type[Any]) -> Any:
        call = leaving.call
        call.answered()
        reply = classify(response.status_code, response.headers.raw, None) if response.status_code >= 400 else None
        response.extensions[REPORT] = CallReport(call.route, call.allowance.source, call.allowance.total, call.end, reply)

        def fail(cause: Exception | None) -> NoReturn:
            raise deadline_error(self._library, call, request) from cause

        finished = None
        if leaving.observed is not None:
            finished = self._outgoing.observer(leaving)
        response.stream = stream(response.stream, Fate(call, self._library.timeout, fail, finished))
        return response


class AsyncMeshTransport(_Wrapping):
    """An asynchronous transport that keeps budgets and carries headers, around any other."""

    async def handle_async_request(self, request: Any) -> Any:
        """Send one request and return its response, in time."""
        leaving = self._outgoing.leave(request)
        call = leaving.call
        if call.expired():
            raise deadline_error(self._library, call, request)
        extensions: dict[str, Any] = leaving.request.extensions
        extensions["trace"] = _async_tracer(call, extensions.get("trace"))
        response = None
        with anyio.CancelScope() as scope:

            def move(end: float | None) -> None:
                scope.deadline = math.inf if end is None else anyio.current_time() + end - monotonic()

            move(call.end)
            call.on_end = move
            try:
                # Instrumented by OpenTelemetry from outside, the call has its span already; a second one would be
                # made where httpx's own transport is instrumented as well.
                if "handle_async_request" in vars(self):
                    with without_client_spans():
                        response = await self._choose(leaving).handle_async_request(leaving.request)
                else:
                    response = await self._choose(leaving).handle_async_request(leaving.request)
            except self._library.failures as error:
                failure = self._failure(leaving, request, error)
                if failure is error:
                    raise
                raise failure from error
            finally:
                call.on_end = None
        if response is None:
            raise deadline_error(self._library, call, request)
        return self._answered(leaving, request, response, self._library.async_stream)

    async def aclose(self) -> None:
        """Close the wrapped transport."""
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        """Enter the wrapped transport."""
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        """Leave the wrapped transport."""
        await self._inner.__aexit__(exc_type, exc_value, traceback)


class MeshTransport(_Wrapping):
    """A synchronous transport that keeps budgets and carries headers, around any other."""

    def handle_request(self, request: Any) -> Any:
        """Send one request and return its response, in time."""
        leaving = self._outgoing.leave(request)
        call = leaving.call
        if call.expired():
            raise deadline_error(self._library, call, request)
        extensions: dict[str, Any] = leaving.request.extensions
        extensions["trace"] = tracer(call, extensions.get("trace"))
        extensions["timeout"] = ShrinkingTimeouts(extensions["timeout"], call)
        token = active_call.set(call)
        try:
            if "handle_request" in vars(self):
                with without_client_spans():
                    response = self._choose(leaving).handle_request(leaving.request)
            else:
                response = self._choose(leaving).handle_request(leaving.request)
        except (TimeUp, *self._library.failures) as error:
            failure = self._failure(leaving, request, error)
            if failure is error:
                raise
            raise failure from error
        finally:
            active_call.reset(token)
        return self._answered(leaving, request, response, self._library.sync_stream)

    def close(self) -> None:
        """Close the wrapped transport."""
        self._inner.close()

    def __enter__(self) -> Self:
        """Enter the wrapped transport."""
        self._inner.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        """Leave the wrapped transport."""
        self._inner.__exit__(exc_type, exc_value, traceback)


def _async_tracer(
    call: Call, theirs: Callable[[str, Any], Awaitable[None]] | None
) -> Callable[[str, Mapping[str, Any]], Awaitable[None]]:
    async def trace(name: str, info: Mapping[str, Any]) -> None:
        call.event(name)
        if theirs is not None:
            await theirs(name, info)

    return trace
