"""
Kubernetes documents as values that know where they stand: each mapping keeps the line of each of its keys.

YAML is read with libyaml where PyYAML has it. JSON is read as the YAML that it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from meshaware.errors import ManifestError

__all__ = ["Document", "Fields", "read_documents"]

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MAX_DEPTH = 60


class Fields(dict[str, Any]):
    """A mapping of a document: `line` is where it begins, `lines` where each key stands."""

    __slots__ = ("line", "lines")

    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line
        self.lines: dict[str, int] = {}


class Document:
    """
    One document, or one item of a list, that is looked into no further than asked for.

    Attributes:
        place: "routes/inventory.yaml, document 2", with the item if it is one of a list.
        line: Where it begins.
    """

    __slots__ = ("_loader", "_node", "line", "place")

    def __init__(self, loader: Any, node: Node | None, place: str) -> None:
        self._loader = loader
        self._node = node
        self.place = place
        self.line = 1 if node is None else _line(node)

    @property
    def is_empty(self) -> bool:
        """Whether nothing stands in it, or `null`."""
        return self._node is None or (isinstance(self._node, ScalarNode) and self._node.tag == "tag:yaml.org,2002:null")

    def text(self, key: str) -> str:
        """The text of a field at the top, empty if there is none."""
        node = self._child(key)
        return node.value if isinstance(node, ScalarNode) else ""

    def items(self) -> Iterator[Document]:
        """The items of a list kind."""
        node = self._child("items")
        if isinstance(node, SequenceNode):
            for number, item in enumerate(node.value):
                yield Document(self._loader, item, f"{self.place}, items[{number}]")

    def load(self) -> Fields:
        """
        All of it, as plain values.

        Raises:
            ManifestError: It is not a mapping, has a key twice, or a value that YAML cannot make out.
        """
        value = self._value(self._node, {}, 0)
        if not isinstance(value, Fields):
            raise self._error(self._node, f"is {_kind(value)}: must be a mapping, such as a Kubernetes resource")
        return value

    def _child(self, key: str) -> Node | None:
        if not isinstance(self._node, MappingNode):
            raise self._error(self._node, f"is {_kind(self._node)}: must be a mapping, such as a Kubernetes resource")
        return next((value for name, value in self._node.value if name.value == key), None)

    def _value(self, node: Node | None, known: dict[int, Any], depth: int) -> Any:
        if id(node) in known:
            return known[id(node)]
        if depth > _MAX_DEPTH:
            raise self._error(node, "nests too deeply, or in itself")
        match node:
            case MappingNode():
                value: Any = self._mapping(node, known, depth)
            case SequenceNode():
                value = [self._value(item, known, depth + 1) for item in node.value]
            case _:
                value = self._scalar(node)
        known[id(node)] = value
        return value

    def _mapping(self, node: MappingNode, known: dict[int, Any], depth: int) -> Fields:
        fields = Fields(_line(node))
        merged = any(name.tag == "tag:yaml.org,2002:merge" for name, _ in node.value)
        if merged:
            self._loader.flatten_mapping(node)
        for name, child in node.value:
            if not isinstance(name, ScalarNode):
                raise self._error(name, "has a mapping or a list as a key; render a template before it is read")
            key = self._scalar(name)
            if not isinstance(key, str):
                shown = name.value[:60]
                raise self._error(name, f"has the key {shown!r}, which YAML reads as {_kind(key)}: put it in quotes")
            if key in fields and not merged:
                raise self._error(name, f"has the key {key!r} twice, first in line {fields.lines[key]}")
            fields[key] = self._value(child, known, depth + 1)
            fields.lines[key] = _line(name)
        return fields

    def _scalar(self, node: Node | None) -> Any:
        try:
            return self._loader.construct_object(node)
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            problem = getattr(error, "problem", None) or error
            raise self._error(node, f"has a value that YAML cannot make out: {str(problem)[:200]}") from error

    def _error(self, node: Node | None, problem: str) -> ManifestError:
        line = 1 if node is None else _line(node)
        return ManifestError(f"{self.place}, line {line}: {problem}")


def read_documents(text: str, file: str) -> Iterator[Document]:
    """
    The documents of a file, in order; empty ones too, as they count.

    Raises:
        ManifestError: It is no YAML; the message names the line.
    """
    # JSON may be indented with tabs, YAML may not.
    loader = _Loader(text.replace("\t", " ") if file.endswith(".json") else text)
    number = 0
    try:
        while _compose(loader.check_node, file, number):
            number += 1
            yield Document(loader, _compose(loader.get_node, file, number), f"{file}, document {number}")
    finally:
        loader.dispose()


def _compose(step: Any, file: str, number: int) -> Any:
    try:
        return step()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{file}, document {max(number, 1)}" + (f", line {mark.line + 1}" if mark is not None else "")
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or error
        raise ManifestError(f"{place}: is not YAML: {str(problem)[:200]}") from error
    except RecursionError as error:
        raise ManifestError(f"{file}, document {max(number, 1)}: nests too deeply") from error


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1


_KINDS: tuple[tuple[tuple[type, ...], str], ...] = (
    ((MappingNode, dict), "a mapping"),
    ((SequenceNode, list), "a list"),
    ((ScalarNode, str), "a text"),
    ((bool,), "yes or no"),
    ((int, float), "a number"),
    ((type(None),), "nothing"),
)


def _kind(value: object) -> str:
    return next((name for types, name in _KINDS if isinstance(value, types)), "a date")
