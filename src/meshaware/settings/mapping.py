"""A mapping that can be part of a frozen model: it cannot be changed, hashes, copies and pickles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

__all__ = ["FrozenMapping"]


class FrozenMapping(Mapping[str, str]):
    """
    Strings by name, read-only.

    `types.MappingProxyType` would do, if it could be pickled and hashed.
    """

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, str] | None = None) -> None:
        self._items = dict(items or {})

    def __getitem__(self, name: str) -> str:
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))

    def __eq__(self, other: object) -> bool:
        return (
            self._items == dict(cast("Mapping[object, object]", other))
            if isinstance(other, Mapping)
            else NotImplemented
        )

    def __repr__(self) -> str:
        return repr(self._items)

    def __reduce__(self) -> tuple[type[FrozenMapping], tuple[dict[str, str]]]:
        return FrozenMapping, (dict(self._items),)
