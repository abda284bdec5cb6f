"""A value of a document together with where it stands, so that each mistake is told in one sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, cast

from meshaware.budgets.documents import Fields
from meshaware.durations import parse_duration
from meshaware.errors import ManifestError

__all__ = ["Field"]

_PLAIN = re.compile(r"[\w.:/+*@-][\w.:/+*@ -]{0,80}", re.ASCII)
_MILLISECOND = 0.001
_LONGEST = 2_562_047 * 3600.0
_MAX_SHOWN = 80


class Field:
    """
    One value, its path in the document ("spec.http[1].timeout"), and where that is.

    Each method that reads it as something raises `ManifestError` if it is not: file, document, line, path, value and
    what is accepted. `null` is as good as not there, as it is for Kubernetes.
    """

    __slots__ = ("_line", "_place", "path", "value")

    def __init__(self, value: Any, place: str, line: int, path: str = "") -> None:
        self.value = value
        self.path = path
        self._place = place
        self._line = line

    @property
    def origin(self) -> str:
        """Where it stands, for people: "routes/inventory.yaml, document 2, line 14, spec.http[1]"."""
        return f"{self._place}, line {self._line}" + (f", {self.path}" if self.path else "")

    def error(self, rule: str) -> ManifestError:
        """What to raise: the value breaks a rule."""
        said = f"{self.path}: {_shown(self.value)}: " if self.path else ""
        return ManifestError(f"{self._place}, line {self._line}: {said}{rule}")

    def get(self, key: str) -> Field | None:
        """A field of a mapping, or None."""
        return self._child(key) if self._fields().get(key) is not None else None

    def need(self, key: str, rule: str) -> Field:
        """
        A field of a mapping that has to be there.

        Raises:
            ManifestError: It is not, or the value is not a mapping; `rule` says what is wanted.
        """
        found = self.get(key)
        if found is None:
            path = f"{self.path}.{key}" if self.path else key
            raise ManifestError(f"{self._place}, line {self._line}: {path}: is missing: {rule}")
        return found

    def keys(self) -> Iterator[str]:
        """The keys of a mapping."""
        return iter(self._fields())

    def entries(self) -> Iterator[tuple[str, Field]]:
        """The fields of a mapping, `null` ones too."""
        for key in self._fields():
            yield key, self._child(key)

    def elements(self) -> Iterator[Field]:
        """The elements of a list."""
        value: object = self.value
        if not isinstance(value, list):
            raise self.error("must be a list")
        for number, element in enumerate(cast("Sequence[Any]", value)):
            line = element.line if isinstance(element, Fields) else self._line
            yield Field(element, self._place, line, f"{self.path}[{number}]")

    def text(self) -> str:
        """A text."""
        if not isinstance(self.value, str):
            raise self.error("must be a text; put it in quotes")
        return self.value

    def texts(self) -> tuple[str, ...]:
        """A list of texts."""
        return tuple(element.text() for element in self.elements())

    def flag(self) -> bool:
        """True or false."""
        if not isinstance(self.value, bool):
            raise self.error("must be true or false")
        return self.value

    def whole(self, least: int, most: int) -> int:
        """A whole number from `least` to `most`."""
        if isinstance(self.value, bool) or not isinstance(self.value, int):
            raise self.error("must be a whole number")
        if not least <= self.value <= most:
            raise self.error(f"must be from {least} to {most}")
        return self.value

    def duration(self) -> float:
        """
        A duration as Istio accepts it: a Go duration of at least a millisecond and whole milliseconds.

        Returns:
            Seconds.
        """
        if not isinstance(self.value, str):
            raise self.error(
                'must be a duration in text, such as "250ms", "1.5s" or "1h30m"; YAML read it as something else'
            )
        try:
            seconds = parse_duration(self.value)
        except ValueError as error:
            raise self.error('must be a duration such as "250ms", "1.5s" or "1h30m"') from error
        if seconds < _MILLISECOND:
            raise self.error("must be at least 1ms; leave it out to disable")
        if seconds > _LONGEST:
            raise self.error("must be at most 2562047h, the longest duration that Go has")
        milliseconds = seconds / _MILLISECOND
        if abs(milliseconds - round(milliseconds)) > max(1e-6, milliseconds * 1e-12):
            raise self.error("must be whole milliseconds")
        return seconds

    def _fields(self) -> Fields:
        if not isinstance(self.value, Fields):
            raise self.error("must be a mapping")
        return self.value

    def _child(self, key: str) -> Field:
        fields = self._fields()
        path = f"{self.path}.{key}" if self.path else key
        return Field(fields[key], self._place, fields.lines.get(key, self._line), path)


def _shown(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str() if _PLAIN.fullmatch(value):
            return value
        case str():
            return repr(value) if len(value) <= _MAX_SHOWN else f"{value[:_MAX_SHOWN]!r}..."
        case dict() | list():
            return "a mapping" if isinstance(value, dict) else "a list"
        case _:
            text = repr(value) if not isinstance(value, int) or abs(value) < 10**40 else "a very large number"
            return text[:_MAX_SHOWN]
