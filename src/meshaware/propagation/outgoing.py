"""
What a request to the mesh gets, given what it has already and what is carried. Pure.

One request tells one story about its trace. There are three tellers, and the first that is there tells all
of it:

1. whoever made the request, where it has trace headers that are not those of the other two;
2. the live span, where a tracer runs in this process;
3. the request that is being served: what came in goes on verbatim.

Every other header goes on as it came, unless the request has one of that name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from meshaware.propagation.names import (
    B3,
    BAGGAGE,
    POSITIONS,
    SETS,
    TRACE_NAMES,
    TRACEPARENT,
    X_B3_NAMES,
    X_B3_SPANID,
    X_B3_TRACEID,
    Pair,
)

__all__ = ["Cargo", "Changes", "Present", "changes", "load", "wanted_forms"]

Present = Mapping[bytes, bytes | None]
"""A request's headers by lower-case name; None for a value that is not known."""

# Of the positions, those that differ between two spans of one trace.
_SPANS = (TRACEPARENT, B3, X_B3_SPANID)
_REWRITTEN = (SETS["w3c"] & TRACE_NAMES) | SETS["b3"]
_NONE: frozenset[bytes] = frozenset()


class Cargo(NamedTuple):
    """Carried headers, divided into what tells of the trace and what does not."""

    plain: tuple[Pair, ...]
    story: tuple[Pair, ...]
    all: tuple[Pair, ...]
    forms: frozenset[bytes]
    """Names of the trace headers that came in, those included that do not go on."""
    sensitive: frozenset[bytes]
    """Names of which a request may have none if `all` is to go on it just so."""
    baggage: bytes | None


class Changes(NamedTuple):
    """What to do to a request's headers."""

    add: tuple[Pair, ...]
    drop: frozenset[bytes]
    """Lower-case names to take away first; only beside a live span, where they tell of another."""


def load(headers: Iterable[Pair]) -> Cargo:
    """
    Divide what is carried.

    A single `b3` beside `x-b3-traceid` stays behind: Envoys before 1.40 advance only the latter and read the
    former first, so that the two tell of different spans from the first proxy on.
    """
    plain: list[Pair] = []
    trace: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in TRACE_NAMES:
            trace[name] = value
        else:
            plain.append((name, value))
    forms = frozenset(trace)
    if X_B3_TRACEID in trace:
        trace.pop(B3, None)
    everything = (*plain, *trace.items())
    return Cargo(
        plain=tuple(plain),
        story=tuple(trace.items()),
        all=everything,
        forms=forms,
        sensitive=POSITIONS.union(name for name, _ in everything),
        baggage=dict(plain).get(BAGGAGE),
    )


def wanted_forms(cargo: Cargo, present: Present) -> tuple[bool, bool]:
    """
    Tell in which forms of B3 a live span is written besides W3C: those that came in and those that are there.

    Returns:
        Whether as the single `b3`, and whether as several `x-b3-*`.
    """
    return (
        B3 in cargo.forms or B3 in present,
        not X_B3_NAMES.isdisjoint(cargo.forms) or X_B3_TRACEID in present,
    )


def changes(
    cargo: Cargo, present: Present, live: Mapping[bytes, bytes] | None = None, baggage: bytes | None = None
) -> Changes:
    """
    Decide what is added to a request and what is taken from it.

    Args:
        cargo: What is carried.
        present: What the request has.
        live: The live span in the forms that `wanted_forms` asks for; None where there is none.
        baggage: What goes in the place of the carried `baggage`.
    """
    if live is None and baggage is None and cargo.sensitive.isdisjoint(present):
        return Changes(cargo.all, _NONE)
    plain = [pair for pair in cargo.plain if pair[0] not in present]
    if baggage is not None and BAGGAGE not in present:
        plain = [*(pair for pair in plain if pair[0] != BAGGAGE), (BAGGAGE, baggage)]
    story = dict(cargo.story) if live is None else live
    if not POSITIONS.isdisjoint(present) and not _tells(present, story, trusted=live is not None):
        return Changes(tuple(plain), _NONE)
    drop = _NONE
    if live is not None:
        drop = frozenset(
            name for name in _REWRITTEN.intersection(present) if present[name] not in (None, live.get(name))
        )
    told = (pair for pair in story.items() if pair[0] not in present or pair[0] in drop)
    return Changes((*plain, *told), drop)


def _tells(present: Present, story: Mapping[bytes, bytes], *, trusted: bool) -> bool:
    """
    Tell whether a request that has a position in a trace has the one of the story.

    One header that agrees is enough: OpenTelemetry writes some of the forms and leaves what stood in the
    others. Where the values are not known, a live span's are supposed: its instrumentation wrote them.
    """
    for name in _SPANS:
        if name in present:
            value = present[name]
            if trusted if value is None else value == story.get(name):
                return True
    return False
