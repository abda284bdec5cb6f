"""
Trace headers as OpenTelemetry's propagator: W3C and B3 read to the letter, and written as they came.

OpenTelemetry's own (1.45) take the first of two `traceparent`, keep one of two members of `tracestate` with the same
key, drop B3's decision where it comes alone, and sample nothing where B3 leaves the decision to the receiver
(https://github.com/open-telemetry/opentelemetry-python/issues/4793). Here one propagator reads both formats, so that
they cannot contradict each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from random import getrandbits
from typing import Any, Protocol, cast

from opentelemetry.baggage import get_all
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import TextMapPropagator, default_getter, default_setter
from opentelemetry.trace import (
    INVALID_SPAN,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    TraceFlags,
    TracerProvider,
    TraceState,
    get_tracer_provider,
    set_span_in_context,
)

from meshaware.propagation.context import current
from meshaware.propagation.names import BAGGAGE, FORMATS, Pair
from meshaware.propagation.outgoing import changes, load
from meshaware.propagation.position import Position
from meshaware.propagation.spans import Arrival, arrival, live_trace_headers, remember
from meshaware.propagation.w3c import tracestate_members

__all__ = ["BaggageFormat", "Names", "TraceFormat", "carried_here", "read_pairs", "span_context"]

_BAGGAGE = (BAGGAGE,)
_SAMPLED = 1


class TraceFormat(TextMapPropagator):
    """
    Reads and writes W3C Trace Context (levels 1 and 2) and B3 (single and multiple headers) as one format.

    Read: a valid `traceparent` counts before B3, and `x-b3-*` before a single `b3`. What is malformed or comes twice is
    not read at all. Where B3 leaves the decision to the receiver, the sampler of this process decides as it does for
    a trace that begins here.

    Written: in each format that came, in agreement; where none came, in W3C's and as `x-b3-*`. A span that only
    stands for the caller's goes out as it came, byte for byte.

    Args:
        provider: Whose sampler decides. Default: the process's tracer provider, asked for each time.
        one: Write one format and no more, for meshes whose proxy advances one of several.
        local: Write the decision of the mesh where it was against sampling, also if this process sampled.
    """

    def __init__(self, provider: TracerProvider | None = None, *, one: bool = False, local: bool = False) -> None:
        self._provider = provider
        self._one = one
        self._local = local

    @property
    def fields(self) -> set[str]:
        """Every header that `inject` may write."""
        return {name.decode() for name in FORMATS}

    # The carriers are Any: OpenTelemetry types getters and setters by a variable that no caller can bind.
    def extract(self, carrier: Any, context: Context | None = None, getter: Any = default_getter) -> Context:
        """Read the request's position in its trace into a context."""
        return self._arrive(self._found(carrier, getter), Context() if context is None else context)

    def inject(self, carrier: Any, context: Context | None = None, setter: Any = default_setter) -> None:
        """Write the position of the context's span; nothing where there is none."""
        for name, value in self._leaving({}, context):
            setter.set(carrier, name.decode(), value.decode("latin-1"))

    def _found(self, carrier: Any, getter: Any) -> list[Pair]:
        return read_pairs(carrier, getter, FORMATS, FORMATS)

    def _arrive(self, found: list[Pair], context: Context) -> Context:
        if not found:
            return context
        arrived = Arrival(found, local=self._local)
        position = arrived.position
        # A decision for sampling that came alone, or one against it that does not hold here, has no span.
        if position is not None and (position.trace_id or not (position.flags or self._local)):
            arrived.stands(NonRecordingSpan(span_context(position, self._samples)))
        # Whoever came before in a list of propagators may have believed what is not to be believed.
        if arrived.span is None and any(name in FORMATS for name, _ in found):
            context = set_span_in_context(INVALID_SPAN, context)
        return remember(context, arrived)

    def _samples(self, trace_id: int) -> bool:
        """Ask this process's sampler, as for a trace that begins here; only the SDK's providers have one."""
        provider = get_tracer_provider() if self._provider is None else self._provider
        sampler: Any = getattr(provider, "sampler", None)
        if sampler is None:
            return False
        decision = sampler.should_sample(Context(), trace_id, "", SpanKind.SERVER).decision
        return bool(decision.is_sampled())

    def _leaving(self, present: Mapping[bytes, bytes], context: Context | None) -> Iterable[Pair]:
        came = carried_here(context)
        traced = {name: value for name, value in came.items() if name in FORMATS}
        live = live_trace_headers(came, context)
        return changes(load(traced, one=self._one), present, live, one=self._one).add


def span_context(position: Position, samples: Callable[[int], bool]) -> SpanContext:
    """
    Return OpenTelemetry's word for the caller's span.

    Args:
        position: Where the request stands. A decision against sampling that came alone gets identifiers that nobody
            has, because samplers heed a parent and nothing else.
        samples: Decides on a trace where the caller left that open.
    """
    trace_id, span_id, flags = position.trace_id, position.span_id, position.flags
    if not trace_id:
        trace_id, span_id = getrandbits(127) + 1, getrandbits(63) + 1
    if flags is None:
        flags = _SAMPLED if samples(trace_id) else 0
    state = None
    if position.tracestate:
        members = tracestate_members(position.tracestate)
        # It knows level 1 only, and complains of every other key.
        known = [(key.decode(), value.decode()) for key, value in members if b"@" in key or not key[:1].isdigit()]
        state = TraceState(known)
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags), trace_state=state)


def carried_here(context: Context | None) -> Mapping[bytes, bytes]:
    """What is carried: what is bound in this task, or else what a propagator of this room read into the context."""
    carried = current()
    if carried is not None:
        return carried.cargo.came
    arrived = arrival(context)
    return {} if arrived is None else arrived.came


class BaggageFormat(W3CBaggagePropagator):
    """
    Reads and writes W3C baggage, all lines of it: OpenTelemetry's own reads the first one.

    It stands behind `TraceFormat`, and notes what it has read, to tell it from what the application changed.
    """

    def extract(self, carrier: Any, context: Context | None = None, getter: Any = default_getter) -> Context:
        """Read the request's baggage into a context."""
        context = Context() if context is None else context
        found = read_pairs(carrier, getter, _BAGGAGE, _BAGGAGE)
        if not found:
            return context
        joined = b",".join(value for _, value in found).decode("latin-1")
        context = super().extract({"baggage": joined}, context)
        arrived = arrival(context)
        if arrived is None:
            arrived = Arrival(())
            context = remember(context, arrived)
        arrived.baggage = get_all(context)
        return context


class Names(Protocol):
    """What can say whether a lower-case name is one of it."""

    def __contains__(self, name: bytes, /) -> bool: ...


def read_pairs(carrier: Any, getter: Any, names: Names, asked: Iterable[bytes]) -> list[Pair]:
    """
    Read headers from whatever OpenTelemetry's instrumentation hands over as a carrier, each line of each header.

    Args:
        carrier: An ASGI scope and the headers of httpx and Starlette are read directly, since their getters go through
            all headers for each name. Everything else is asked through its getter.
        getter: The carrier's.
        names: Lower-case names that are wanted.
        asked: What a getter is asked for that cannot tell which names there are.
    """
    raw = _raw(carrier)
    if raw is not None:
        if isinstance(carrier, dict):
            # Of an ASGI server, whose names are lower-case.
            return [pair for pair in raw if pair[0] in names]
        return [(key, value) for name, value in raw if (key := name.lower()) in names]
    keys: list[str] = getter.keys(carrier) or [name.decode() for name in asked]
    found: list[Pair] = []
    seen: set[bytes] = set()
    for text in keys:
        name = text.lower().encode()
        # Some tell of a header as often as it came, and give all of its lines each time.
        if name in names and name not in seen:
            seen.add(name)
            values: list[Any] | None = getter.get(carrier, text)
            found += [(name, str(value).encode("latin-1", "replace")) for value in values or ()]
    return found


def _raw(carrier: Any) -> list[Pair] | None:
    raw: Any = getattr(carrier, "raw", None)
    if isinstance(carrier, dict):
        scope = cast("dict[str, Any]", carrier)
        raw = scope.get("headers") if "type" in scope else None
    # Neither an ASGI scope nor a client's headers, and some of whose attributes only look like it.
    lines = cast("list[Pair]", raw) if isinstance(raw, list) else None
    return lines if lines and type(lines[0][0]) is bytes else None
