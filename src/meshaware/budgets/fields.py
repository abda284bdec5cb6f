"""A value of a document together with where it stands, so that each mistake is told in one sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, cast

from meshaware.budgets.documents import Fields
from meshaware.durations import parse_duration
from meshaware.errors import ManifestError

__all__ = ["Field", "home_of", "timestamp"]

_PLAIN = re.compile(r"[\w.:/+*@-][\w.:/+*@ -]{0,80}", re.ASCII)
# GEP-2257: https://gateway-api.sigs.k8s.io/geps/gep-2257/
_GEP_DURATION = re.compile(r"([0-9]{1,5}(h|m|s|ms)){1,4}", re.ASCII)
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

    def one_of(self, *values: str) -> str:
        """One of the texts that are known."""
        text = self.text()
        if text not in values:
            raise self.error(f"must be one of {', '.join(values)}")
        return text

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

    def gateway_duration(self) -> float:
        """
        A duration as the Gateway API accepts it: one to four whole numbers with a unit each; 0 is none.

        Returns:
            Seconds.
        """
        if not isinstance(self.value, str) or _GEP_DURATION.fullmatch(self.value) is None:
            raise self.error(
                'must be a duration of whole h, m, s or ms in text, such as "250ms", "1500ms" or "1h30m" (GEP-2257)'
            )
        return parse_duration(self.value)

    def _fields(self) -> Fields:
        if not isinstance(self.value, Fields):
            raise self.error("must be a mapping")
        return self.value

    def _child(self, key: str) -> Field:
        fields = self._fields()
        path = f"{self.path}.{key}" if self.path else key
        return Field(fields[key], self._place, fields.lines.get(key, self._line), path)


def home_of(field: Field, kind: str, namespace: str) -> tuple[str, str, Field]:
    """The name of a resource, where it is, and its metadata; `namespace` is where it is if they do not say."""
    metadata = field.need("metadata", "must have at least a name")
    name = metadata.need("name", f"must be the name of the {kind}").text()
    own = metadata.get("namespace")
    return name, namespace if own is None else own.text(), metadata


def timestamp(field: Field | None) -> str:
    """A creationTimestamp in a form that sorts by time, empty if there is none."""
    if field is None:
        return ""
    # YAML makes a date of it unless it is quoted; RFC 3339 in UTC, as Kubernetes writes it, sorts as text.
    if isinstance(field.value, datetime):
        return field.value.strftime("%Y-%m-%dT%H:%M:%SZ")
    return field.text()


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
