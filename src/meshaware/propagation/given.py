"""Headers that code gives to be carried: what would be left out of a request is refused here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from meshaware.deadline.header import DEFAULT_NAME
from meshaware.propagation.fitness import MAX_COUNT, MAX_TOTAL, rule_of
from meshaware.propagation.headers import warn_of
from meshaware.propagation.names import (
    POSITIONS,
    TRACE_NAMES,
    TRACEPARENT,
    TRACESTATE,
    X_B3_PARENTSPANID,
    X_B3_SPANID,
    X_B3_TRACEID,
    Pair,
    danger,
    is_name,
    obstacle,
)

__all__ = ["GivenHeaders", "merge", "read_given"]

GivenHeaders = Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]]

_SHOWN = 80
# `outbound_headers` gave it to whoever wrote the message; what was left then says nothing of the job.
_DEADLINE = DEFAULT_NAME.encode()
_NEEDS = {
    TRACESTATE: TRACEPARENT,
    X_B3_TRACEID: X_B3_SPANID,
    X_B3_SPANID: X_B3_TRACEID,
    X_B3_PARENTSPANID: X_B3_TRACEID,
}


def read_given(headers: GivenHeaders, stacklevel: int) -> tuple[Pair, ...]:
    """
    Read headers given in code. A caller's deadline among them is left out: what was left of it then holds no job.

    Args:
        headers: Names in any case, with their values. Text is ASCII; bytes are taken as they are.
        stacklevel: Whom a warning about a dangerous header points at; 1 is whoever calls this.

    Raises:
        ValueError: A name or value cannot go out as it is, a name comes twice, a header lacks the one it
            needs, or it is too much altogether.
    """
    read: dict[bytes, bytes] = {}
    for given, text in cast("Mapping[str, str]", headers).items() if isinstance(headers, Mapping) else headers:
        if (given.encode() if isinstance(given, str) else given).lower() == _DEADLINE:
            continue
        name = _name(given)
        if name in read:
            raise ValueError(f"header {_shown(given)} is given twice: give it once")
        read[name] = _value(name, text)
        warn_of(name, "bind_headers", stacklevel + 1)
    for name, needed in _NEEDS.items():
        if name in read and needed not in read:
            raise ValueError(f"header {name.decode()} means nothing without {needed.decode()}: give both")
    size = sum(len(name) + len(value) for name, value in read.items())
    if len(read) > MAX_COUNT or size > MAX_TOTAL:
        raise ValueError(f"{len(read)} headers of {size} bytes are too many: at most {MAX_COUNT}, of {MAX_TOTAL} bytes")
    return tuple(read.items())


def merge(outer: Sequence[Pair], inner: Sequence[Pair]) -> tuple[Pair, ...]:
    """
    Put headers over those that are carried already.

    A header replaces the one of its name. One that names a position in a trace replaces every trace header:
    the others would tell of another position.
    """
    names = {name for name, _ in inner}
    if not names.isdisjoint(POSITIONS):
        names |= TRACE_NAMES
    return (*(pair for pair in outer if pair[0] not in names), *inner)


def _name(given: str | bytes) -> bytes:
    # What is not ASCII stays so, and is no name.
    name = (given.encode() if isinstance(given, str) else given).lower()
    if not is_name(name):
        raise ValueError(f"{_shown(given)} is no header name: letters, digits and dashes, at most 128 of them")
    reason = obstacle(name)
    if reason is not None:
        raise ValueError(f"header {_shown(given)} cannot be carried: {reason}. Leave it out")
    return name


def _value(name: bytes, text: str | bytes) -> bytes:
    shown = "a value" if danger(name) else _shown(text)
    if isinstance(text, str):
        if not text.isascii():
            raise ValueError(f"header {name.decode()}: {shown} is not ASCII: encode it first, such as percent-encoded")
        text = text.encode("ascii")
    if not text:
        raise ValueError(f"header {name.decode()} has no value: leave it out")
    if text != text.strip(b" \t"):
        raise ValueError(f"header {name.decode()}: {shown} begins or ends with a blank: strip it")
    rule = rule_of(name)
    if len(text) > rule.limit:
        raise ValueError(f"header {name.decode()}: {len(text)} bytes are too many: at most {rule.limit}")
    if not rule.valid(text):
        raise ValueError(f"header {name.decode()}: {shown} must be {rule.says}")
    return text


def _shown(given: str | bytes) -> str:
    return repr(given if len(given) <= _SHOWN else given[:_SHOWN])
