"""
What a request to the mesh gets, given what it has already and what is carried. Pure.

One request tells one story about its trace. There are three tellers, and the first that is there tells all of it:

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
    SETS,
    TRACE_NAMES,
    TRACEPARENT,
    X_B3_NAMES,
    X_B3_SPANID,
    X_B3_TRACEID,
    Pair,
)

__all__ = ["Cargo", "Changes", "changes", "load", "wanted_forms"]

# One of these is enough to say where in which trace a request stands.
_POSITIONS = frozenset({TRACEPARENT, B3, X_B3_TRACEID, X_B3_SPANID})
# Those that differ between two spans of one trace.
_SPANS = (TRACEPARENT, B3, X_B3_SPANID)
_REWRITTEN = SETS["w3c"] & TRACE_NAMES | SETS["b3"]


class Cargo(NamedTuple):
    """Carried headers, divided into what tells of the trace and what does not."""

    plain: tuple[Pair, ...]
    story: tuple[Pair, ...]
    forms: frozenset[bytes]
    """Names of the trace headers that came in, those included that do not go on."""
    verbatim: tuple[Pair, ...]
    names: frozenset[bytes]


class Changes(NamedTuple):
    """What to do to a request's headers."""

    add: tuple[Pair, ...]
    drop: frozenset[bytes]
    """Lower-case names to take away first; only beside a live span, where they tell of another."""


def load(headers: Iterable[Pair]) -> Cargo:
    """
    Divide what is carried.

    A single `b3` beside `x-b3-traceid` stays behind: Envoys before 1.40 advance only the latter and read only the
    former, so that the two tell of different spans from the first proxy on.
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
    story = tuple(trace.items())
    verbatim = (*plain, *story)
    return Cargo(tuple(plain), story, forms, verbatim, frozenset(name for name, _ in verbatim))


def wanted_forms(forms: frozenset[bytes], present: Mapping[bytes, bytes | None]) -> tuple[bool, bool]:
    """
    Tell in which forms of B3 a live span is written besides W3C: those that came in and those that are there.

    Returns:
        Whether as the single `b3`, and whether as several `x-b3-*`.
    """
    return (
        B3 in forms or B3 in present,
        not X_B3_NAMES.isdisjoint(forms) or X_B3_TRACEID in present,
    )


def changes(
    cargo: Cargo, present: Mapping[bytes, bytes | None], live: Mapping[bytes, bytes] | None
) -> Changes:
    """
    Decide what is added to a request and what is taken from it.

    Args:
        cargo: What is carried.
        present: The request's headers by lower-case name; None for a value that is not known.
        live: The live span in the forms that `wanted_forms` asks for; None where there is none.
    """
    story = dict(cargo.story) if live is None else live
    positions = _POSITIONS.intersection(present)
    if positions and not _agree(present, story, live is not None):
        return Changes(_missing(cargo.plain, present), frozenset())
    drop: frozenset[bytes] = frozenset()
    if live is not None:
        drop = frozenset(
            name for name in _REWRITTEN.intersection(present) if present[name] not in (None, live.get(name))
        )
    told = tuple((name, value) for name, value in story.items() if name not in present or name in drop)
    return Changes((*_missing(cargo.plain, present), *told), drop)


def _agree(present: Mapping[bytes, bytes | None], story: Mapping[bytes, bytes], live: bool) -> bool:  # noqa: FBT001
    for name in _SPANS:
        if name in present:
            value = present[name]
            if (live if value is None else value == story.get(name)):
                return True
    return False


def _missing(pairs: tuple[Pair, ...], present: Mapping[bytes, bytes | None]) -> tuple[Pair, ...]:
    return tuple(pair for pair in pairs if pair[0] not in present)
