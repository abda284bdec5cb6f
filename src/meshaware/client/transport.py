"""
The wrapping transports: one asynchronous, one synchronous, for httpx and httpx2 alike.

They have no base class of either library and pass the inner response through; they only replace its stream, by a class
that the library accepts. The total is held by the connections (see `watch`): exact, but for what a thread cannot
interrupt in a synchronous call, name resolution and connecting to several addresses. Asynchronous calls through a
transport of the caller's, or over HTTP/2, where one call waits for what another reads, run under a cancel scope.
"""

from __future__ import annotations

import math
from functools import partial
from time import monotonic
from types import TracebackType
from typing import Any, Self

import anyio

from meshaware.client.call import Call
from meshaware.client.clamp import ScopedTimeouts, ShrinkingTimeouts, TimeUp, WatchedTimeouts, active_call
from meshaware.client.library import Library, deadline_error, sidecar_error
from meshaware.client.outgoing import Leaving, Outgoing
from meshaware.client.report import REPORT, CallReport
from meshaware.client.streams import Fate
from meshaware.client.watch import async_tracer, tracer
from meshaware.client.witness import Witness
from meshaware.errors import DeadlineExceeded
from meshaware.instrumentation import calls_observed
from meshaware.propagation.spans import without_client_spans
from meshaware.sidecar.replies import classify

__all__ = ["AsyncMeshTransport", "MeshTransport"]

_SWITCHING_PROTOCOLS = 101


class _Wrapping:
    """
    What both transports do before the request leaves and after its answer came.

    Args:
        inner: The transport that is wrapped.
        outgoing: Makes requests ready.
        library: Which client library these are the transports of.
        inside: The transport for hosts inside the mesh, where `inner` leads through a proxy from the environment.
        watched: Whether the connections of `inner` serve one call at a time, and are all opened through this transport.
        proxied: Whether `inner` leads through a proxy. httpcore2 gives that a copy of a request's extensions, in which
            nothing can be put once a connection is opened.
    """

    def __init__(
        self,
        inner: Any,
        outgoing: Outgoing,
        library: Library,
        *,
        inside: Any = None,
        watched: bool = False,
        proxied: bool = False,
    ) -> None:
        self._inner = inner
        self._outgoing = outgoing
        self._library = library
        self._inside = inner if inside is None else inside
        self._alone = watched
        # Whether events are heard from a call's begin, and not only while a connection is opened for it.
        self._heard = proxied or not watched

    def _choose(self, leaving: Leaving) -> Any:
        return self._inside if leaving.inside else self._inner

    def _witness(self, leaving: Leaving) -> Witness | None:
        if leaving.observed is None and not calls_observed():
            return None
        return Witness(leaving.call)

    def _expired(self, leaving: Leaving) -> Exception:
        """The error for a call that has no time left before it begins."""
        error = deadline_error(self._library, leaving.call)
        self._failed(leaving, error)
        return error

    def _failed(self, leaving: Leaving, error: BaseException) -> None:
        witness = self._witness(leaving)
        if witness is not None:
            witness.failed(error)

    def _failure(self, leaving: Leaving, error: BaseException) -> BaseException:
        """The error to raise in place of the library's own; often that one."""
        library, call = self._library, leaving.call
        if isinstance(error, TimeUp):
            return deadline_error(library, call)
        if isinstance(error, DeadlineExceeded):
            return error
        if isinstance(error, library.timeout) and (call.expired() or call.silent()):
            return deadline_error(library, call, error)
        if isinstance(error, library.connect_error):
            sidecar = self._outgoing.unreachable(leaving, error)
            if sidecar is not None:
                return sidecar_error(library, call, sidecar, error)
        return error

    def _answered(self, leaving: Leaving, response: Any, stream: type[Any]) -> Any:
        call = leaving.call
        status = response.status_code
        call.answered(upgraded=status == _SWITCHING_PROTOCOLS)
        reply = classify(status, response.headers.raw, None) if status >= 400 else None
        response.extensions[REPORT] = CallReport(
            call.route, call.allowance.source, call.allowance.total, call.end, reply
        )
        witness = self._witness(leaving)
        if witness is not None:
            witness.answered(reply, response)
            if not witness.stays:
                witness = None
        if witness is not None or not call.held:
            response.stream = stream(response.stream, Fate(call, self._library, witness))
        return response


class AsyncMeshTransport(_Wrapping):
    """An asynchronous transport that keeps budgets and carries headers, around any other."""

    async def handle_async_request(self, request: Any) -> Any:
        """Send one request and return its response, in time."""
        leaving = self._outgoing.leave(request)
        call = leaving.call
        if call.end is not None and call.expired():
            raise self._expired(leaving)
        extensions: dict[str, Any] = leaving.request.extensions
        if self._heard or "trace" in extensions:
            extensions["trace"] = self._trace(call, extensions.get("trace"))
        token = None
        try:
            if self._alone:
                extensions["timeout"] = WatchedTimeouts(extensions["timeout"], call, extensions, self._trace)
                token = active_call.set(call)
                send = self._choose(leaving).handle_async_request
            else:
                call.begin("wait")
                extensions["timeout"] = ScopedTimeouts(extensions["timeout"], call)
                send = partial(self._send_scoped, leaving)
            # Instrumented by OpenTelemetry from outside, the call has its span already; a second one would be made
            # where httpx's own transport is instrumented as well.
            if "handle_async_request" in vars(self):
                with without_client_spans():
                    response = await send(leaving.request)
            else:
                response = await send(leaving.request)
        except self._library.failures as error:
            failure = self._failure(leaving, error)
            self._failed(leaving, failure)
            if failure is error:
                raise
            raise failure from error
        except BaseException as error:
            self._failed(leaving, error)
            raise
        finally:
            if token is not None:
                active_call.reset(token)
        return self._answered(leaving, response, self._library.async_stream)

    def _trace(self, call: Call, theirs: Any = None) -> Any:
        return async_tracer(call, self._library, theirs, alone=self._alone)

    async def _send_scoped(self, leaving: Leaving, request: Any) -> Any:
        call = leaving.call
        with anyio.CancelScope() as scope:

            def move(end: float | None) -> None:
                scope.deadline = math.inf if end is None else anyio.current_time() + end - monotonic()

            move(call.end)
            call.on_end = move
            try:
                return await self._choose(leaving).handle_async_request(request)
            finally:
                call.on_end = None
        raise TimeUp

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
        if call.end is not None and call.expired():
            raise self._expired(leaving)
        extensions: dict[str, Any] = leaving.request.extensions
        if self._heard or "trace" in extensions:
            extensions["trace"] = self._trace(call, extensions.get("trace"))
        if self._alone:
            extensions["timeout"] = WatchedTimeouts(extensions["timeout"], call, extensions, self._trace)
        else:
            call.begin("wait")
            extensions["timeout"] = ShrinkingTimeouts(extensions["timeout"], call)
        token = active_call.set(call)
        try:
            if "handle_request" in vars(self):
                with without_client_spans():
                    response = self._choose(leaving).handle_request(leaving.request)
            else:
                response = self._choose(leaving).handle_request(leaving.request)
        except self._library.failures as error:
            failure = self._failure(leaving, error)
            self._failed(leaving, failure)
            if failure is error:
                raise
            raise failure from error
        except BaseException as error:
            self._failed(leaving, error)
            raise
        finally:
            active_call.reset(token)
        return self._answered(leaving, response, self._library.sync_stream)

    def _trace(self, call: Call, theirs: Any = None) -> Any:
        return tracer(call, self._library, theirs, alone=self._alone)

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
