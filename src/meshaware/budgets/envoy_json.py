"""
A message of Envoy's as its admin port prints it: JSON, in snake case there and in camel case from `istioctl`.

What is asked for is checked: a reply is not ours, and a wrong one must not become a wrong route.
"""

from __future__ import annotations

import marshal
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, cast

from meshaware.durations import parse_duration
from meshaware.errors import ConfigDumpError

__all__ = ["Message", "TakenRoute", "shown"]

_MAX_SHOWN = 80

TakenRoute = tuple[int, dict[str, Any], str, str, str, bool]
"""Number, what is left, name, what istiod says that it was made from, cluster, and whether there is a `route`."""


class Message:
    """
    One message and where it is, such as "configs[4].dynamic_route_configs[0].route_config".

    Every method raises `ConfigDumpError`, naming the place, if what it reads is not what Envoy writes. Fields that
    are not there have protobuf's default.
    """

    __slots__ = ("_fields", "_inside", "_number", "_place")

    def __init__(self, value: Any, place: str, inside: Message | None = None, number: int | None = None) -> None:
        self._place, self._inside, self._number = place, inside, number
        self._fields: dict[str, Any] = value
        if not isinstance(value, dict):
            raise ConfigDumpError(f"{self.path}: {shown(value)}: must be an object")

    @property
    def path(self) -> str:
        """Where it is; put together when it is asked for, as that is only after an error."""
        place = self._place if self._number is None else f"{self._place}[{self._number}]"
        return place if self._inside is None else f"{self._inside.path}{place}"

    def key(self, *without: str) -> bytes:
        """What it says, some fields aside, as a key: equal only for equal JSON, the order of its fields included."""
        fields = (
            {name: value for name, value in self._fields.items() if name not in without} if without else self._fields
        )
        try:
            # Version 2 writes every text in full, whatever else refers to it.
            return marshal.dumps(fields, 2)
        except ValueError as error:
            raise ConfigDumpError(f"{self.path}: is nested too deeply") from error

    def take_routes(self) -> Iterator[TakenRoute]:
        """Take from each of its routes what it is called and what says nothing about time."""
        for number, value in enumerate(self._list("routes")):
            # Thousands of them are read, so that no message is made of one where nothing is unusual.
            if type(value) is not dict:
                Message(value, ".routes", self, number)
            fields = cast("dict[str, Any]", value)
            take = fields.pop
            take("decorator", None)
            name, metadata, sent = take("name", ""), take("metadata", None), fields.get("route")
            cluster: Any = cast("dict[str, Any]", sent).pop("cluster", "") if type(sent) is dict else ""
            if type(name) is not str:
                name = self.route(number).text_of("name", name)
            if type(cluster) is not str:
                cluster = self.route(number).text_of("route.cluster", cluster)
            made_from: Any = ""
            if metadata is not None:
                try:
                    made_from = metadata["filter_metadata"]["istio"]["config"]
                except (KeyError, TypeError):
                    made_from = None
                if type(made_from) is not str:
                    made_from = _istio_config(Message(metadata, ".metadata", self.route(number)))
            yield number, fields, name, made_from, cluster, sent is not None

    def route(self, number: int) -> Message:
        """One of its routes."""
        return Message(self._list("routes")[number], ".routes", self, number)

    def text_of(self, name: str, value: object) -> str:
        """What has been taken out, if it is a text or null."""
        if value is not None and not isinstance(value, str):
            raise self._error(name, value, "text")
        return value or ""

    def raw(self, name: str) -> Any:
        """A field as it is, None if it is not there; `name` is in snake case."""
        value = self._fields.get(name)
        if value is None and "_" in name:
            value = self._fields.get(_camel(name))
        return value

    def only(self, *names: str) -> bool:
        """Whether no fields are there but these."""
        return self._fields.keys() <= _both_spellings(names)

    def has(self, *names: str) -> str:
        """The first of some fields that is there, or nothing."""
        return next((name for name in names if self.raw(name) is not None), "")

    def message(self, name: str) -> Message | None:
        """A message, or None."""
        value = self.raw(name)
        return None if value is None else Message(value, f".{name}", self)

    def messages(self, name: str) -> Iterator[Message]:
        """The elements of a repeated message."""
        place = f".{name}"
        for number, value in enumerate(self._list(name)):
            yield Message(value, place, self, number)

    def entries(self, name: str) -> Iterator[tuple[str, Message]]:
        """The entries of a map of messages."""
        found = self.message(name)
        if found is not None:
            for key, value in found._fields.items():
                yield key, Message(value, f"[{key[:_MAX_SHOWN]!r}]", found)

    def text(self, name: str) -> str:
        """A text."""
        value: str = self._fields.get(name)  # type: ignore[assignment]
        if type(value) is not str:
            value = self._typed(name, "", str, "text")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A repeated text."""
        values = self._list(name)
        try:
            "".join(values)
        except TypeError as error:
            raise self._error(name, values, "texts") from error
        return tuple(values)

    def flag(self, name: str) -> bool:
        """True or false."""
        value: bool = self._typed(name, False, bool, "true or false")  # noqa: FBT003 (the default of protobuf)
        return value

    def whole(self, name: str, default: int = 0) -> int:
        """A whole number; those of 64 bits are written as text."""
        value = self.raw(name)
        if isinstance(value, str) and len(value) <= len("-9223372036854775808") and value.removeprefix("-").isdecimal():
            value = int(value)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._error(name, value, "a whole number")
        return value

    def wholes(self, name: str) -> tuple[int, ...]:
        """A repeated number."""
        values = self._list(name)
        if any(isinstance(value, bool) or not isinstance(value, int) for value in values):
            raise self._error(name, values, "whole numbers")
        return tuple(values)

    def seconds(self, name: str) -> float | None:
        """A duration such as "2.500s", in seconds; None if it is not there."""
        text = self._typed(name, "", str, "a duration")
        if not text:
            return None
        try:
            return parse_duration(text)
        except ValueError as error:
            raise self._error(name, text, 'a duration such as "2.500s"') from error

    def _list(self, name: str) -> Sequence[Any]:
        value: Any = self.raw(name)
        if value is None:
            return []
        if type(value) is not list:
            raise self._error(name, value, "a list")
        return value  # pyright: ignore[reportUnknownVariableType]

    def _typed(self, name: str, default: Any, kind: type, wanted: str) -> Any:
        value = self.raw(name)
        if value is None:
            return default
        if not isinstance(value, kind):
            raise self._error(name, value, wanted)
        return value

    def _error(self, name: str, value: object, wanted: str) -> ConfigDumpError:
        return ConfigDumpError(f"{self.path}.{name}: {shown(value)}: must be {wanted}")


def _istio_config(metadata: Message) -> str:
    for name, found in metadata.entries("filter_metadata"):
        if name == "istio":
            return found.text("config")
    return ""


@cache
def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))


@cache
def _both_spellings(names: tuple[str, ...]) -> frozenset[str]:
    return frozenset({*names, *map(_camel, names)})


def shown(value: object) -> str:
    """A value as an error names it, bounded."""
    text = "an object" if isinstance(value, dict) else "a list" if isinstance(value, list) else repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
