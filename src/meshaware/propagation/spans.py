"""
OpenTelemetry's live span, and the headers it was made from.

The one file of this room that touches OpenTelemetry, and only where somebody else has loaded it: a process
without tracing does not pay for the import.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from functools import cache
from types import EllipsisType, MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from meshaware.propagation.fitness import MAX_LIST, fit
from meshaware.propagation.names import B3, TRACEPARENT, X_B3_SPANID, Pair
from meshaware.propagation.position import Position, read_position
from meshaware.propagation.telling import tell

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, TraceState

__all__ = [
    "ARRIVAL_KEY",
    "Arrival",
    "Contexts",
    "arrival",
    "baggage_as_written",
    "contexts",
    "live_baggage",
    "live_position",
    "live_trace_headers",
    "remember",
    "span_key",
    "tracing_here",
    "tracing_loaded",
    "without_client_spans",
]

_SAMPLED = 1
_POSITIONS = (TRACEPARENT, X_B3_SPANID, B3)
ARRIVAL_KEY = "meshaware-arrival"
"""Under which key OpenTelemetry's contexts have their request."""


class Arrival:
    """
    What meshaware's propagator has found in a request. It is looked at when it is first used.

    Args:
        found: Lower-case names with values, as they came in: those of the trace, and others that are carried.
        local: Whether spans go out with the decision that came, if it was against sampling: for services that record
            every request whatever the mesh decided. What they call shall not do so as well.
    """

    __slots__ = ("_came", "_position", "_span", "baggage", "found", "local")

    def __init__(self, found: Sequence[Pair], *, local: bool = False) -> None:
        self.found = found
        self.local = local
        self.baggage: Mapping[str, object] | None = None
        """What OpenTelemetry has read from the request's baggage; None where it was not asked to."""
        self._span: Span | None = None
        self._came: Mapping[bytes, bytes] | None = None
        self._position: Position | EllipsisType | None = ...

    @property
    def came(self) -> Mapping[bytes, bytes]:
        """The headers, as `fit` returns them."""
        if self._came is None:
            self._came = fit(self.found)
        return self._came

    @property
    def position(self) -> Position | None:
        """Where the request stands in its trace."""
        if isinstance(self._position, EllipsisType):
            self._position = read_position(self.came)
        return self._position

    @property
    def span(self) -> Span | None:
        """What stands for the caller's span in OpenTelemetry's context."""
        return self._span

    def stands(self, span: Span) -> None:
        """Note what stands for the caller's span; before `remember`."""
        self._span = span


def tracing_loaded() -> bool:
    """Tell whether there can be a live span at all."""
    return "opentelemetry.trace" in sys.modules


def tracing_here() -> bool:
    """Tell whether OpenTelemetry's context holds anything here: a span, baggage, an arrival."""
    return tracing_loaded() and bool(_loaded_contexts().get_current())


class Contexts(NamedTuple):
    """
    OpenTelemetry's way with contexts.

    Attributes:
        get_current: Returns the current one.
        attach: Makes another one the current one, and returns a token.
        detach: Undoes that. May raise a ValueError where the token is of another task or thread.
    """

    get_current: Callable[[], Any]
    attach: Callable[[Any], Any]
    detach: Callable[[Any], None]


def _nothing(*_: object) -> None:
    return None


_NO_CONTEXTS = Contexts(_nothing, _nothing, _nothing)


def contexts() -> Contexts:
    """Return OpenTelemetry's way with contexts; where nobody has loaded it there is one context, None."""
    return _loaded_contexts() if "opentelemetry.trace" in sys.modules else _NO_CONTEXTS


def remember(context: Context, arrived: Arrival) -> Context:
    """Return an OpenTelemetry context with this request, for `arrival`, and with what stands for its caller's span."""
    entries: dict[str, object] = {**context, ARRIVAL_KEY: arrived}
    if (span := arrived.span) is not None:
        entries[span_key()] = span
    return type(context)(entries)


def arrival(context: Context | None = None) -> Arrival | None:
    """Return what meshaware's propagator has read from the request in this OpenTelemetry context, or None."""
    found = _get_value()(ARRIVAL_KEY, context)
    return found if isinstance(found, Arrival) else None


def live_position(
    came: Mapping[bytes, bytes] = MappingProxyType({}), context: Context | None = None
) -> Position | None:
    """
    Return where the live span stands; None where no span is live.

    A span that only stands for the caller's, as instrumentation without a tracer provider leaves it, is not
    live when the headers that came in tell of it: those say more, such as that the sampling decision is left
    to the receiver.

    Args:
        came: The headers that came in, where somebody else's propagator has read them.
        context: OpenTelemetry's; default: the current one.
    """
    if not tracing_loaded():
        return None
    current = _current_span()(context)
    arrived = arrival(context)
    if arrived is not None and current is arrived.span:
        return None
    span = current.get_span_context()
    if not span.is_valid or (span.is_remote and _came_with(span.span_id, came)):
        return None
    parent = read_position(came) if arrived is None else arrived.position
    flags = span.trace_flags & 0xFF
    debug = short = False
    # A decision that came alone has no trace of its own: it is about the one that begins here.
    if parent is not None and parent.trace_id in (span.trace_id, 0):
        debug, short = parent.debug, parent.short
        if arrived is not None and arrived.local and parent.sampled is False:
            flags &= ~_SAMPLED
    return Position(span.trace_id, span.span_id, flags, _tracestate(span.trace_state, arrived), debug, short)


def live_trace_headers(
    came: Mapping[bytes, bytes] = MappingProxyType({}), context: Context | None = None
) -> dict[bytes, bytes] | None:
    """
    Write the live span as trace headers in every format; None where no span is live.

    Args:
        came: As for `live_position`.
        context: As for `live_position`.
    """
    position = live_position(came, context)
    return None if position is None else tell(position)


def _came_with(span_id: int, came: Mapping[bytes, bytes]) -> bool:
    text = b"%016x" % span_id
    return any(text in came.get(name, b"") for name in _POSITIONS)


def _tracestate(state: TraceState, arrived: Arrival | None) -> bytes:
    # OpenTelemetry knows level 1 only: what it was not told of goes on as long as nobody changed the rest.
    if arrived is not None and arrived.position is not None and arrived.span is not None:
        told = arrived.span.get_span_context().trace_state
        if state is told or not (state or told):
            return arrived.position.tracestate
    return state.to_header().encode("ascii", "ignore")


def live_baggage(captured: bytes | None) -> bytes | None:
    """
    Write OpenTelemetry's baggage where the application has changed it; None where it has not.

    What OpenTelemetry read from the request and would write again differs from what came in: it drops
    properties and values with blanks. So as long as it holds what came in, that goes on as it was.

    Args:
        captured: What is carried; None where nobody has captured it: then OpenTelemetry's goes out in any case.

    Returns:
        What goes out, nothing where the application has removed all of it, or None.
    """
    if not tracing_loaded():
        return None
    get_all, read, write = _baggage()
    entries, arrived = get_all(), arrival()
    if arrived is not None and arrived.baggage is not None:
        if entries == arrived.baggage and captured is not None:
            return None
    elif not entries:
        return None
    elif captured is not None:
        # Somebody else has read it, perhaps not all of its lines.
        came = read(captured.decode("latin-1"))
        if all(came.get(key) == value for key, value in entries.items()):
            return None
    if not entries:
        return b"" if captured is not None else None
    value = write().encode("ascii", "ignore")
    return value if 0 < len(value) <= MAX_LIST else None


def baggage_as_written() -> bytes | None:
    """Write OpenTelemetry's baggage as its own clients do; None where there is none."""
    if not tracing_loaded():
        return None
    get_all, _, write = _baggage()
    return write().encode("ascii", "ignore") if get_all() else None


def without_client_spans() -> AbstractContextManager[None]:
    """Keep OpenTelemetry's HTTP clients from making spans inside the block: the call has one already."""
    if "opentelemetry.instrumentation.utils" not in sys.modules:
        return nullcontext()
    from opentelemetry.instrumentation.utils import suppress_http_instrumentation  # noqa: PLC0415

    return suppress_http_instrumentation()


@cache
def span_key() -> str:
    """Under which key OpenTelemetry's contexts have their span: one context, not two, is made for a request."""
    from opentelemetry.context import Context  # noqa: PLC0415
    from opentelemetry.trace import INVALID_SPAN, set_span_in_context  # noqa: PLC0415

    (key,) = set_span_in_context(INVALID_SPAN, Context())
    return key


@cache
def _loaded_contexts() -> Contexts:
    from opentelemetry import context  # noqa: PLC0415
    from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext  # noqa: PLC0415

    # Two calls deep it is a context variable, unless OTEL_PYTHON_CONTEXT names something else.
    runtime = getattr(context, "_RUNTIME_CONTEXT", None)
    variable = getattr(runtime, "_current_context", None)
    if type(runtime) is ContextVarsRuntimeContext and isinstance(variable, ContextVar):
        kept = cast("ContextVar[Context]", variable)
        return Contexts(kept.get, kept.set, kept.reset)
    return Contexts(context.get_current, context.attach, context.detach)


@cache
def _current_span() -> Callable[[Context | None], Span]:
    from opentelemetry.trace import get_current_span  # noqa: PLC0415

    return get_current_span


@cache
def _get_value() -> Callable[[str, Context | None], object]:
    from opentelemetry.context import get_value  # noqa: PLC0415

    return get_value


@cache
def _baggage() -> tuple[Callable[[], Mapping[str, object]], Callable[[str], Mapping[str, object]], Callable[[], str]]:
    from opentelemetry import baggage  # noqa: PLC0415
    from opentelemetry.baggage.propagation import W3CBaggagePropagator  # noqa: PLC0415
    from opentelemetry.context import Context  # noqa: PLC0415

    propagator = W3CBaggagePropagator()

    def read(value: str) -> Mapping[str, object]:
        return baggage.get_all(propagator.extract({"baggage": value}, Context()))

    def write() -> str:
        carrier: dict[str, str] = {}
        propagator.inject(carrier)
        return carrier.get("baggage", "")

    return baggage.get_all, read, write
