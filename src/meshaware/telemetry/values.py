"""
Of any value one that can be encoded, in a time and a size that are bounded: it is made inside a logging call.

What a program logs may contain itself, many times over, or be as long as it likes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar, cast

from opentelemetry.util.types import AnyValue

__all__ = ["LONGEST", "MOST", "Values", "bounded_text"]

MOST = 1000
"""Values of one record, all that is nested in them included."""

LONGEST = 1 << 15
"""Characters of one text, bytes of one value."""

Item = TypeVar("Item")

_DEEPEST = 4
_INT64 = 1 << 63
# Python refuses to write longer ones in decimals.
_LONGEST_INT = 4096
# Sequences that are one value.
_SINGLE = (str, bytes, bytearray, range, memoryview)


class Values:
    """
    Makes the values of one record.

    Attributes:
        whole: Whether nothing was left out yet because there was too much of it.
    """

    __slots__ = ("_left", "whole")

    def __init__(self) -> None:
        self._left = MOST
        self.whole = True

    def room(self) -> bool:
        """Whether one more value may be made."""
        self.whole = self.whole and self._left > 0
        return self._left > 0

    def make(self, value: object, depth: int = 0) -> AnyValue:
        """Make one; what is nested too deeply is written as text, and items for which there is no room are missing."""
        self._left -= 1
        if _is_several(value):
            return self._several(cast("Collection[object]", value), depth)
        if value is None or isinstance(value, bool | float):
            return value
        if isinstance(value, bytes | bytearray):
            return bytes(value[:LONGEST])
        if isinstance(value, int):
            return value if -_INT64 <= value < _INT64 else _long(value)
        return bounded_text(str(value))

    def _several(self, value: Collection[object], depth: int) -> AnyValue:
        if depth >= _DEEPEST:
            # Its own text might be endless.
            return f"<{type(value).__name__} of {len(value)}>"
        if isinstance(value, Mapping):
            pairs = cast("Mapping[object, object]", value).items()
            return {bounded_text(str(key)): self.make(each, depth + 1) for key, each in self._fitting(pairs)}
        made = [self.make(each, depth + 1) for each in self._fitting(value)]
        # SDKs before 1.45 take no sequence of several types.
        return made if len({type(each) for each in made}) < 2 else [bounded_text(str(each)) for each in made]

    def _fitting(self, items: Iterable[Item]) -> Iterator[Item]:
        for item in items:
            if not self.room():
                return
            yield item


def _is_several(value: object) -> bool:
    return not isinstance(value, _SINGLE) and isinstance(value, Mapping | Sequence | set | frozenset)


def bounded_text(value: str, *, end: bool = False) -> str:
    """
    Return text that can be encoded and is not too long.

    Args:
        value: The text.
        end: Whether its end is kept, rather than its beginning.
    """
    if len(value) > LONGEST:
        value = f"...{value[3 - LONGEST :]}" if end else f"{value[: LONGEST - 3]}..."
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-8", "backslashreplace").decode()
    return value


def _long(value: int) -> str:
    return str(value) if value.bit_length() <= _LONGEST_INT else bounded_text(hex(value))
