r"""
RE2 patterns, read into a tree of what they match.

Envoy and Istio speak RE2 (https://github.com/google/re2/wiki/Syntax); Python's `re` differs from it in meaning
(`\d`, `$`, `{,3}`) and may take exponential time. What is read here is what ordinary patterns use, of ASCII text.
Anything else raises `Unsupported`, and the pattern is then not evaluated at all.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["ALL", "MAX_LENGTH", "Alternatives", "Anchor", "Chars", "Node", "Repeat", "Sequence", "Unsupported", "parse"]

ALL = (1 << 128) - 1
"""Every ASCII character; sets of characters are bits of an integer."""

MAX_LENGTH = 1024
"""Istio refuses longer ones."""

_MAX_DEPTH = 40
_MAX_REPEAT = 1000  # RE2's own limit


class Unsupported(ValueError):
    """The pattern is no RE2, or uses what is not read here; the message says what."""


class Chars(NamedTuple):
    """One character of a set."""

    mask: int


class Anchor(NamedTuple):
    """The begin or the end of the text."""

    where: Literal["begin", "end"]


class Sequence(NamedTuple):
    """One after the other."""

    nodes: tuple[Node, ...]


class Alternatives(NamedTuple):
    """Any one of them."""

    nodes: tuple[Node, ...]


class Repeat(NamedTuple):
    """At least `least` and at most `most` times; None is without end."""

    node: Node
    least: int
    most: int | None


Node = Chars | Anchor | Sequence | Alternatives | Repeat


def _bits(text: str) -> int:
    mask = 0
    for character in text:
        mask |= 1 << ord(character)
    return mask


_DIGITS = _bits("0123456789")
_LOWER = _bits("abcdefghijklmnopqrstuvwxyz")
_UPPER = _LOWER >> 32
_WORD = _DIGITS | _LOWER | _UPPER | _bits("_")
_SPACE = _bits("\t\n\f\r ")
_NOT_NEWLINE = ALL & ~_bits("\n")
_CLASSES = {
    "d": _DIGITS,
    "s": _SPACE,
    "w": _WORD,
    "D": ALL & ~_DIGITS,
    "S": ALL & ~_SPACE,
    "W": ALL & ~_WORD,
}
_POSIX = {
    "alnum": _DIGITS | _LOWER | _UPPER,
    "alpha": _LOWER | _UPPER,
    "ascii": ALL,
    "blank": _bits("\t "),
    "cntrl": _bits("\x7f") | ((1 << 32) - 1),
    "digit": _DIGITS,
    "graph": ((1 << 127) - 1) & ~((1 << 33) - 1),
    "lower": _LOWER,
    "print": ((1 << 127) - 1) & ~((1 << 32) - 1),
    "punct": ((1 << 127) - 1) & ~((1 << 33) - 1) & ~(_DIGITS | _LOWER | _UPPER),
    "space": _SPACE | _bits("\v"),
    "upper": _UPPER,
    "word": _WORD,
    "xdigit": _bits("0123456789abcdefABCDEF"),
}
_ANCHORS: tuple[tuple[str, Literal["begin", "end"]], ...] = (
    ("^", "begin"),
    ("$", "end"),
    (r"\A", "begin"),
    (r"\z", "end"),
)
_CONTROL = {"a": 7, "f": 12, "t": 9, "n": 10, "r": 13, "v": 11}


def parse(pattern: str) -> Node:
    """
    Read a pattern.

    Raises:
        Unsupported: It is not RE2, or uses what is not read here.
    """
    if len(pattern) > MAX_LENGTH:
        raise Unsupported(f"is longer than {MAX_LENGTH} characters")
    reader = _Reader(pattern)
    node = reader.alternatives(0)
    if reader.peek():
        raise Unsupported("has an unmatched )")
    return node


class _Reader:
    def __init__(self, pattern: str) -> None:
        self.text = pattern
        self.at = 0
        self.ignore_case = False
        self.dot = _NOT_NEWLINE

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def take(self) -> str:
        character = self.peek()
        self.at += 1
        return character

    def skip(self, text: str) -> bool:
        if self.text.startswith(text, self.at):
            self.at += len(text)
            return True
        return False

    def alternatives(self, depth: int) -> Node:
        if depth > _MAX_DEPTH:
            raise Unsupported("nests too deeply")
        choices = [self.sequence(depth)]
        while self.skip("|"):
            choices.append(self.sequence(depth))
        return choices[0] if len(choices) == 1 else Alternatives(tuple(choices))

    def sequence(self, depth: int) -> Node:
        nodes: list[Node] = []
        while self.peek() not in ("", "|", ")"):
            if self.skip(r"\Q"):
                literal, _, rest = self.text[self.at :].partition(r"\E")
                nodes.extend(self.chars(ord(character)) for character in literal)
                self.at = len(self.text) - len(rest)
                continue
            node = self.atom(depth)
            if node is not None:
                nodes.append(self.quantified(node))
        return Sequence(tuple(nodes))

    def atom(self, depth: int) -> Node | None:
        for text, where in _ANCHORS:
            if self.skip(text):
                return Anchor(where)
        character = self.take()
        match character:
            case "(":
                return self.group(depth)
            case "[":
                return self.bracket()
            case ".":
                return Chars(self.dot)
            case "*" | "+" | "?":
                raise Unsupported(f"has {character} with nothing to repeat")
            case "\\":
                return Chars(self.fold(self.escape()))
            case _:
                return self.chars(ord(character))

    def chars(self, code: int) -> Chars:
        # Text to be matched is ASCII, so a character beyond it matches nothing; but the sign of the kelvin is also a k.
        if code < 128:
            return Chars(self.fold(1 << code))
        if self.ignore_case:
            raise Unsupported("ignores the case of characters beyond ASCII")
        return Chars(0)

    def fold(self, mask: int) -> int:
        if self.ignore_case:
            mask |= (mask & _LOWER) >> 32 | (mask & _UPPER) << 32
        return mask

    def group(self, depth: int) -> Node | None:
        before = self.ignore_case, self.dot
        if self.skip("?"):
            if self.skip("P<") or self.skip("<"):
                self.name()
            elif self.flags():
                return None
        node = self.alternatives(depth + 1)
        if not self.skip(")"):
            raise Unsupported("has an unmatched (")
        self.ignore_case, self.dot = before
        return node

    def name(self) -> None:
        name, closed, _ = self.text[self.at :].partition(">")
        if not closed or not name.isidentifier() or not name.isascii():
            raise Unsupported("has a group with a bad name, or looks behind")
        self.at += len(name) + 1

    def flags(self) -> bool:
        """Read `:`, `i:`, `i-s:` or `i)`; True if the flags hold from here on rather than for a group."""
        value = True
        while (flag := self.take()) not in (":", ")"):
            match flag:
                case "i":
                    self.ignore_case = value
                case "s":
                    self.dot = ALL if value else _NOT_NEWLINE
                case "U":
                    pass  # what is matched in full is the same, greedy or not
                case "-" if value:
                    value = False
                case _:
                    raise Unsupported(f"has (?{flag}, which is not evaluated")
        return flag == ")"

    def quantified(self, node: Node) -> Node:
        bounds = self.bounds()
        if bounds is None:
            return node
        self.skip("?")
        if self.peek() in ("*", "+", "?") and self.peek():
            raise Unsupported("has a repetition of a repetition")
        again = self.at
        if self.bounds() is not None:
            raise Unsupported("has a repetition of a repetition")
        self.at = again
        return Repeat(node, *bounds)

    def bounds(self) -> tuple[int, int | None] | None:
        if self.skip("*"):
            return 0, None
        if self.skip("+"):
            return 1, None
        if self.skip("?"):
            return 0, 1
        if self.peek() != "{":
            return None
        inside, closed, _ = self.text[self.at + 1 :].partition("}")
        least, comma, most = inside.partition(",")
        numbers = [number for number in (least, most) if number]
        if not closed or not least or not all(number.isascii() and number.isdigit() for number in numbers):
            return None  # RE2 takes such a brace as text
        if any(len(number) > 4 or int(number) > _MAX_REPEAT for number in numbers):
            raise Unsupported(f"repeats more than {_MAX_REPEAT} times")
        self.at += len(inside) + 2
        low = int(least)
        high = low if not comma else int(most) if most else None
        if high is not None and high < low:
            raise Unsupported("repeats at most less than at least")
        return low, high

    def bracket(self) -> Chars:
        negated = self.skip("^")
        mask = 0
        first = True
        while first or self.peek() != "]":
            first = False
            if self.skip("[:"):
                mask |= self.posix()
                continue
            low = self.member()
            if self.peek() == "-" and self.text[self.at + 1 : self.at + 2] not in ("]", ""):
                self.take()
                mask |= _between(low, self.member())
            else:
                mask |= low
        self.take()
        mask = self.fold(mask)
        return Chars(ALL & ~mask if negated else mask)

    def posix(self) -> int:
        name, closed, _ = self.text[self.at :].partition(":]")
        mask = _POSIX.get(name.removeprefix("^"))
        if not closed or mask is None:
            raise Unsupported("has an unknown class of characters")
        self.at += len(name) + 2
        return ALL & ~mask if name.startswith("^") else mask

    def member(self) -> int:
        character = self.take()
        if character == "":
            raise Unsupported("has an unmatched [")
        if character == "\\":
            return self.escape()
        if ord(character) >= 128:
            raise Unsupported("has a class with characters beyond ASCII")
        return 1 << ord(character)

    def escape(self) -> int:
        character = self.take()
        if character in _CLASSES:
            return _CLASSES[character]
        if character in _CONTROL:
            return 1 << _CONTROL[character]
        if character == "x":
            return self.hexadecimal()
        if character and character.isascii() and not character.isalnum():
            return 1 << ord(character)
        raise Unsupported(f"has \\{character}, which is not evaluated")

    def hexadecimal(self) -> int:
        if self.skip("{"):
            digits, closed, _ = self.text[self.at :].partition("}")
            length = len(digits) + 1
        else:
            digits = self.text[self.at : self.at + 2]
            closed, length = ("}" if len(digits) == 2 else ""), 2
        if (
            not closed
            or not digits
            or len(digits) > 6
            or any(digit not in "0123456789abcdefABCDEF" for digit in digits)
        ):
            raise Unsupported("has a bad \\x")
        self.at += length
        code = int(digits, 16)
        if code >= 128:
            raise Unsupported("has characters beyond ASCII")
        return 1 << code


def _between(low: int, high: int) -> int:
    if low.bit_count() != 1 or high.bit_count() != 1 or high < low:
        raise Unsupported("has a bad range of characters")
    return (high << 1) - low
