"""Reading a manifest field by field, so that what nobody reads can be refused by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn, cast

from meshaware.durations import parse_duration
from meshaware.errors import LocalMeshError

__all__ = ["Fields"]

_SHOWN = 80


class Fields:
    """
    One mapping of a manifest.

    Each reading method returns None for an absent field (lists: an empty list), and raises `LocalMeshError`
    with file, document and field for a value of another type. `finish` refuses the fields that nobody has
    read.
    """

    def __init__(self, value: object, where: str, path: str = "") -> None:
        self.where, self.path = where, path
        if not isinstance(value, dict):
            raise LocalMeshError(f"{where}: {path or 'the document'}: {_show(value)} is no mapping")
        self._values = cast("dict[object, Any]", value)
        self._read: set[object] = set()

    def __contains__(self, name: str) -> bool:
        return self._values.get(name) is not None

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, for a mapping whose names are the user's."""
        for name in self._values:
            if not isinstance(name, str):
                raise self._wrong(str(name), name, "is no text: put it in quotes")
            yield name

    def text(self, name: str) -> str | None:
        """A text; YAML's own booleans and numbers are refused, as Istio does."""
        value = self._take(name)
        if value is None or isinstance(value, str):
            return value
        raise self._wrong(name, value, "is no text: put it in quotes")

    def integer(self, name: str) -> int | None:
        """A whole number from 0 on, of 31 bits."""
        value = self._take(name)
        if value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31):
            return value
        raise self._wrong(name, value, "is no whole number from 0 on")

    def percent(self, name: str) -> float | None:
        """A number from 0 to 100."""
        value = self._take(name)
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 100):
            return value
        raise self._wrong(name, value, "is no number from 0 to 100")

    def flag(self, name: str) -> bool | None:
        """A boolean."""
        value = self._take(name)
        if value is None or isinstance(value, bool):
            return value
        raise self._wrong(name, value, "is neither true nor false")

    def seconds(self, name: str) -> float | None:
        """A duration such as `1.5s`, in seconds; at least a millisecond, as Istio demands."""
        text = self.text(name)
        if text is None:
            return None
        try:
            seconds = parse_duration(text)
        except ValueError as error:
            raise LocalMeshError(f"{self.where}: {self._at(name)}: {error}") from error
        if seconds < 0.001:
            raise self._wrong(name, text, "is less than 1ms, which Istio refuses; to switch it off, leave it out")
        return seconds

    def fields(self, name: str) -> Fields | None:
        """A mapping."""
        value = self._take(name)
        return None if value is None else Fields(value, self.where, self._at(name))

    def items(self, name: str) -> list[Fields]:
        """A list of mappings."""
        return [Fields(item, self.where, f"{self._at(name)}[{i}]") for i, item in enumerate(self._list(name))]

    def texts(self, name: str) -> list[str]:
        """A list of texts."""
        values = self._list(name)
        for i, value in enumerate(values):
            if not isinstance(value, str):
                raise self._wrong(f"{name}[{i}]", value, "is no text: put it in quotes")
        return [*values]

    def pairs(self, name: str) -> dict[str, str]:
        """A mapping of texts to texts."""
        inner = self.fields(name)
        return {} if inner is None else {key: inner.text(key) or "" for key in inner}

    def raw(self, name: str) -> Any:
        """Whatever is there."""
        return self._take(name)

    def finish(self, what: str = "LocalMesh does not support this field") -> None:
        """Refuse every field that has not been read."""
        for name, value in self._values.items():
            if name not in self._read and value is not None:
                raise LocalMeshError(f"{self.where}: {self._at(str(name))}: {what}")

    def refuse(self, name: str, problem: str) -> NoReturn:
        """Raise: there is something wrong with this field; with the whole mapping, for an empty name."""
        value = self._values.get(name)
        shown = "" if value is None else f"{_show(value)} "
        raise LocalMeshError(f"{self.where}: {self._at(name)}: {shown}{problem}")

    def _take(self, name: str) -> Any:
        self._read.add(name)
        return self._values.get(name)

    def _list(self, name: str) -> Sequence[Any]:
        value = self._take(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self._wrong(name, value, "is no list")
        return cast("Sequence[Any]", value)

    def _at(self, name: str) -> str:
        return ".".join(part for part in (self.path, name) if part)

    def _wrong(self, name: str, value: object, problem: str) -> LocalMeshError:
        return LocalMeshError(f"{self.where}: {self._at(name)}: {_show(value)} {problem}")


def _show(value: object) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
