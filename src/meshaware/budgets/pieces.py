"""
JSON that is read piece by piece, so that a large document is never in memory as a whole but as bytes.

`json.loads` of 20 MB holds every other thread up until it is done, and leaves half a million objects to the garbage
collector. Here the containers are walked through, and only what stands in the innermost of them is decoded at once.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any

from meshaware.errors import ConfigDumpError

__all__ = ["Cursor"]

_WINDOW = 1 << 18
# A literal or an escape that is cut in two is complained about where it begins.
_LONGEST_TOKEN = 16
_LONGEST_CUT = len("e+")
_NUMBERS = (int, float)
_SHOWN = 60
_space = re.compile(r"[ \t\n\r]*").match
_comma = re.compile(r"[ \t\n\r]*,[ \t\n\r]*").match
_decode = json.JSONDecoder().raw_decode


class Cursor:
    """
    A place in a JSON document, moved forward by reading.

    Every method raises `ConfigDumpError` where the document is not JSON, or is cut off.

    Args:
        data: The document.
        window: How many bytes, or characters, are looked at together.
    """

    def __init__(self, data: bytes | memoryview | str, *, window: int = _WINDOW) -> None:
        self._data = data
        self._chunks = _characters(data, window) if isinstance(data, str) else _decoded(data, window)
        self._text = ""
        self._position = 0
        self._passed = 0
        self._more()

    def peek(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            self._position = _space(self._text, self._position).end()  # type: ignore[union-attr]
            if self._position < len(self._text) or not self._more():
                return self._text[self._position : self._position + 1]

    def value(self) -> Any:
        """Decode the value that stands here."""
        self.peek()
        return self._value()

    def _value(self) -> Any:
        while True:
            try:
                value, end = _decode(self._text, self._position)
            except json.JSONDecodeError as error:
                open_text = error.msg.startswith("Unterminated string")
                if (not open_text and error.pos < len(self._text) - _LONGEST_TOKEN) or not self._more():
                    cut = open_text or error.pos >= len(self._text.rstrip())
                    raise self._not_json(error.msg, error.pos, cut=cut) from error
            except (ValueError, RecursionError) as error:
                raise ConfigDumpError(f"config dump: is not JSON that Envoy writes: {str(error)[:200]}") from error
            else:
                # A number may go on behind the window: of "1.5e+3", "1", "1.", "1.5e" and "1.5e+" may be in sight.
                if end < len(self._text) - _LONGEST_CUT or type(value) not in _NUMBERS or not self._more():
                    self._position = end
                    return value

    def members(self) -> Iterator[str]:
        """The names in the object that stands here; the caller reads each one's value before it asks for the next."""
        self._take("{")
        if self.peek() == "}":
            self._position += 1
            return
        while True:
            if self.peek() != '"':
                raise self._expected("property name enclosed in double quotes")
            name: str = self.value()
            self._take(":")
            yield name
            if self._take(",}") == "}":
                return

    def elements(self) -> Iterator[int]:
        """The numbers of the elements of the list that stands here; the caller reads each before it goes on."""
        self._take("[")
        if self.peek() == "]":
            self._position += 1
            return
        number = 0
        while True:
            yield number
            if self._take(",]") == "]":
                return
            number += 1

    def values(self) -> Iterator[Any]:
        """The elements of the list that stands here, decoded one by one."""
        self._take("[")
        if self.peek() == "]":
            self._position += 1
            return
        room = 0
        while True:
            if len(self._text) - self._position < room:
                # What is cut in two would have to be decoded twice.
                self._more()
            begin = self._passed + self._position
            try:
                value, end = _decode(self._text, self._position)
            except (ValueError, RecursionError):
                value = self._value()
            else:
                if type(value) in _NUMBERS:
                    value = self._value()
                else:
                    self._position = end
            yield value
            size = self._passed + self._position - begin
            if size > room >> 1:
                room = 2 * size
            comma = _comma(self._text, self._position)
            if comma is not None and comma.end() < len(self._text):
                self._position = comma.end()
            elif self._take(",]") == "]":
                return
            else:
                self.peek()

    def skip(self) -> None:
        """Pass over the value that stands here, a list element by element."""
        if self.peek() == "[":
            for _ in self.values():
                pass
        else:
            self.value()

    def finish(self) -> None:
        """Make sure that nothing more follows."""
        if self.peek():
            raise self._not_json("Extra data", self._position, cut=False)

    def _take(self, wanted: str) -> str:
        found = self.peek()
        if not found or found not in wanted:
            raise self._expected(" or ".join(map(repr, wanted)))
        self._position += 1
        return found

    def _expected(self, what: str) -> ConfigDumpError:
        return self._not_json(f"Expecting {what}", self._position, cut=self._position >= len(self._text))

    def _more(self) -> bool:
        """Look at more of the document; False if there is no more."""
        chunk = next(self._chunks, "")
        if not chunk:
            return False
        self._passed += self._position
        rest = self._text[self._position :]
        # A piece that is longer than the window is begun again with twice as much in sight.
        parts = [rest, chunk]
        size = len(chunk)
        while size < len(rest) and (chunk := next(self._chunks, "")):
            parts.append(chunk)
            size += len(chunk)
        self._text, self._position = "".join(parts), 0
        return True

    def _not_json(self, message: str, position: int, *, cut: bool) -> ConfigDumpError:
        whole = self._data if isinstance(self._data, str) else bytes(self._data).decode(errors="replace")
        line = whole.count("\n", 0, self._passed + position) + 1
        if cut and whole.strip():
            return ConfigDumpError(f"config dump: is cut off after {len(self._data)} bytes, at line {line}")
        return ConfigDumpError(f"config dump: is not JSON: {message} at line {line}; begins {whole[:_SHOWN]!r}")


def _characters(data: str, window: int) -> Iterator[str]:
    for begin in range(0, len(data), window):
        yield data[begin : begin + window]


def _decoded(data: bytes | memoryview, window: int) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    view = memoryview(data)
    for begin in range(0, len(data), window):
        pending = len(decoder.getstate()[0])
        try:
            text = decoder.decode(view[begin : begin + window], begin + window >= len(data))
        except UnicodeDecodeError as error:
            raise ConfigDumpError(f"config dump: is not UTF-8: byte {begin - pending + error.start}") from error
        if text:
            yield text
