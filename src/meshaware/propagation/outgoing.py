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

from collections.abc import Container, Mapping, Sequence
from typing import NamedTuple

from meshaware.propagation.names import (
    B3,
    BAGGAGE,
    FORMATS,
    POSITIONS,
    SETS,
    TRACE_NAMES,
    TRACEPARENT,
    TRACESTATE,
    W3C,
    X_B3_FLAGS,
    X_B3_NAMES,
    X_B3_SAMPLED,
    X_B3_SPANID,
    X_B3_TRACEID,
    Pair,
)
from meshaware.propagation.position import single_is_newer

__all__ = ["Cargo", "Changes", "changes", "load", "wanted_names"]

# Of the positions, those that differ between two spans of one trace.
_SPANS = (TRACEPARENT, B3, X_B3_SPANID)
# What belongs to a position, and makes another story beside a foreign one.
_ASIDE = (TRACESTATE, X_B3_SAMPLED, X_B3_FLAGS)
_B3_ALONE = frozenset({B3})
_W3C_AND_B3 = W3C | _B3_ALONE
_W3C_AND_MULTI = W3C | X_B3_NAMES
_NONE: frozenset[bytes] = frozenset()


class Changes(NamedTuple):
    """What to do to a request's headers."""

    add: Sequence[Pair]
    drop: frozenset[bytes]
    """Lower-case names to take away first; only beside a live span, where they tell of another."""


class Cargo(NamedTuple):
    """What is carried."""

    came: Mapping[bytes, bytes]
    """All of it, by name."""
    goes: Sequence[Pair]
    """What goes on where neither the request nor a tracer has trace headers of its own."""
    alone: Changes
    """The same, as what to do to a request that has none of these headers."""


def load(came: Mapping[bytes, bytes], *, one: bool = False) -> Cargo:
    """
    Decide what of the carried headers goes on by itself.

    A single `b3` beside `x-b3-traceid` stays behind: Zipkin's tracer reads the former first, and before Envoy 1.40 it
    advances the latter only, so that the two tell of different spans from the first proxy on. Since 1.40 it is the
    other way round; a `b3` that shows it was advanced goes, and the `x-b3-*` stay behind.

    Args:
        came: What is carried, by name.
        one: One format of trace headers and no more, for proxies that advance one of several: W3C's if it came.
    """
    behind = _NONE
    if one and TRACEPARENT in came:
        behind = SETS["b3"]
    elif B3 in came and X_B3_TRACEID in came:
        behind = X_B3_NAMES if single_is_newer(came) else _B3_ALONE
    goes = tuple([pair for pair in came.items() if pair[0] not in behind] if behind else came.items())
    return Cargo(came, goes, Changes(goes, _NONE))


def wanted_names(cargo: Cargo, present: Container[bytes], *, one: bool = False) -> frozenset[bytes]:
    """
    Tell by which headers a live span is written: in W3C's format, and in the form of B3 that came in or is there.

    A single `b3` is written only where no `x-b3-*` goes, for the reason that `load` has. A trace that begins here goes
    out as `x-b3-*`, too: the sidecar's tracer may know nothing else.

    Args:
        cargo: What is carried.
        present: What the request has, by lower-case name.
        one: One format and no more, for proxies that advance one of several.
    """
    came = cargo.came
    multi = X_B3_TRACEID in present or not X_B3_NAMES.isdisjoint(came)
    single = not multi and (B3 in present or B3 in came)
    if one:
        return X_B3_NAMES if multi and TRACEPARENT not in came and TRACEPARENT not in present else W3C
    if single:
        return _W3C_AND_B3
    began_here = TRACEPARENT not in came and TRACEPARENT not in present
    return _W3C_AND_MULTI if multi or began_here else W3C


def changes(
    cargo: Cargo,
    present: Mapping[bytes, bytes],
    live: Mapping[bytes, bytes] | None = None,
    baggage: bytes | None = None,
    *,
    one: bool = False,
) -> Changes:
    """
    Decide what is added to a request and what is taken from it.

    Args:
        cargo: What is carried.
        present: What the request has, by lower-case name.
        live: The live span in every format; None where there is none.
        baggage: What goes in the place of the carried `baggage`; empty: nothing does.
        one: As for `wanted_names`.
    """
    positioned = not POSITIONS.isdisjoint(present)
    if live is None and baggage is None and not positioned and cargo.came.keys().isdisjoint(present):
        return cargo.alone
    plain = {name: value for name, value in cargo.goes if name not in TRACE_NAMES}
    if baggage:
        plain[BAGGAGE] = baggage
    elif baggage is not None:
        plain.pop(BAGGAGE, None)
    if live is None:
        story = {name: value for name, value in cargo.goes if name in TRACE_NAMES}
    else:
        names = wanted_names(cargo, present, one=one)
        story = {name: value for name, value in live.items() if name in names}
    drop = _NONE
    if live is None and any(name in present and present[name] != story.get(name) for name in _ASIDE):
        # A decision or a tracestate of the call's own: whatever else it says of its trace, it says all of it.
        story = {}
    elif positioned and not _tells(present, story if live is None else live):
        story = {}
    elif live is not None:
        drop = frozenset(name for name in FORMATS.intersection(present) if present[name] != story.get(name))
    add = [pair for pair in plain.items() if pair[0] not in present]
    add += [pair for pair in story.items() if pair[0] not in present or pair[0] in drop]
    return Changes(add, drop)


def _tells(present: Mapping[bytes, bytes], story: Mapping[bytes, bytes]) -> bool:
    """
    Tell whether a request that has a position in a trace has the one of the story.

    One header that agrees is enough: OpenTelemetry writes some of the forms and leaves what stood in the
    others.
    """
    return any(name in present and present[name] == story.get(name) for name in _SPANS)
