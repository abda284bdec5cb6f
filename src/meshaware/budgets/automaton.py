"""
Regular expressions that cannot hang: a pattern becomes an automaton that looks at each character once.

Its states are made when they are first reached, and kept. Their number is bounded, and a pattern that needs more is
not evaluated from then on: whatever it is matched with, it costs some milliseconds once.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshaware.budgets.re2 import Alternatives, Anchor, Chars, Node, Repeat, Sequence, Unsupported, parse

__all__ = ["MAX_TEXT", "Pattern", "beginning"]

MAX_TEXT = 8192
"""Longer texts are not judged."""

_MAX_STEPS = 400
_MAX_STATES = 512

_SPLIT, _BEGIN, _END, _MATCH = "split", "begin", "end", "match"


class _Dead(Exception):
    pass


class _Overgrown(Exception):
    pass


class _State(dict[str, "_State"]):
    """What can come next, by character; the successor of one not seen yet is made when it is asked for."""

    __slots__ = ("accepts", "maker", "steps")

    def __init__(self, maker: _Maker, steps: frozenset[int], *, accepts: bool) -> None:
        super().__init__()
        self.maker = maker
        self.steps = steps
        self.accepts = accepts

    def __missing__(self, character: str) -> _State:
        found = self.maker.after(self.steps, character)
        self[character] = found
        return found


class Pattern:
    """
    A compiled RE2 pattern that matches a text in full.

    Args:
        pattern: The pattern, as RE2 understands it.

    Raises:
        Unsupported: The pattern is too large, or uses what `re2.parse` does not read.
    """

    __slots__ = ("_begin", "_maker", "_start")

    def __init__(self, pattern: str) -> None:
        node = parse(pattern)
        self._maker = _Maker(node)
        self._start = self._maker.start()
        self._begin = _literal(node)[0]

    def match(self, text: str) -> bool | None:
        """Whether the whole text matches; None where that is not judged: too long, not ASCII, or too many states."""
        if not text.startswith(self._begin):
            return False
        if len(text) > MAX_TEXT or not text.isascii() or self._maker.overgrown:
            return None
        state = self._start
        try:
            for character in text:
                state = state[character]
        except _Dead:
            return False
        except _Overgrown:
            return None
        return state.accepts


def beginning(pattern: str) -> str:
    """
    The text that all matches of a pattern begin with.

    Raises:
        Unsupported: The pattern uses what `re2.parse` does not read.
    """
    return _literal(parse(pattern))[0]


class _Maker:
    """The pattern as a list of steps, and the states made of them."""

    def __init__(self, node: Node) -> None:
        self.kinds: list[str | int] = []
        self.targets: list[tuple[int, ...]] = []
        if _size(node) > _MAX_STEPS:
            raise Unsupported("is too large")
        last = self.add(_MATCH)
        self.first = self.compile(node, last)
        self.states: dict[frozenset[int], _State] = {}
        self.overgrown = False

    def add(self, kind: str | int, *targets: int) -> int:
        self.kinds.append(kind)
        self.targets.append(targets)
        return len(self.kinds) - 1

    def compile(self, node: Node, then: int) -> int:
        """Lay down the steps of a node, last first; returns the one to begin with."""
        match node:
            case Chars(mask):
                return self.add(mask, then)
            case Anchor(where):
                return self.add(_BEGIN if where == "begin" else _END, then)
            case Sequence(nodes):
                for part in reversed(nodes):
                    then = self.compile(part, then)
                return then
            case Alternatives(nodes):
                return self.add(_SPLIT, *[self.compile(part, then) for part in nodes])
            case _:
                return self.repeat(node, then)

    def repeat(self, node: Repeat, then: int) -> int:
        part, least, most = node
        if most is None:
            loop = self.add(_SPLIT, then)
            self.targets[loop] = (self.compile(part, loop), then)
            then = loop
        else:
            end = then
            for _ in range(most - least):
                then = self.add(_SPLIT, self.compile(part, then), end)
        for _ in range(least):
            then = self.compile(part, then)
        return then

    def start(self) -> _State:
        return self.state([self.first], begin=True)

    def after(self, steps: frozenset[int], character: str) -> _State:
        bit = 1 << ord(character)
        reached = [self.targets[step][0] for step in steps if self.takes(step, bit)]
        if not reached:
            raise _Dead
        return self.state(reached)

    def takes(self, step: int, bit: int) -> bool:
        kind = self.kinds[step]
        return isinstance(kind, int) and bool(kind & bit)

    def state(self, reached: Iterable[int], *, begin: bool = False) -> _State:
        steps = frozenset(self.closure(reached, begin=begin, end=False))
        known = None if begin else self.states.get(steps)
        if known is not None:
            return known
        if len(self.states) >= _MAX_STATES:
            self.overgrown = True
            self.states.clear()
            raise _Overgrown
        accepts = any(self.kinds[step] == _MATCH for step in self.closure(reached, begin=begin, end=True))
        made = _State(self, steps, accepts=accepts)
        if not begin:
            self.states[steps] = made
        return made

    def closure(self, reached: Iterable[int], *, begin: bool, end: bool) -> set[int]:
        """All steps that can be taken without a character."""
        seen: set[int] = set()
        todo = list(reached)
        while todo:
            step = todo.pop()
            if step in seen:
                continue
            seen.add(step)
            kind = self.kinds[step]
            if kind == _SPLIT or (kind == _BEGIN and begin) or (kind == _END and end):
                todo.extend(self.targets[step])
        return seen


def _literal(node: Node) -> tuple[str, bool]:
    """The text that every match begins with, and whether it is all there is: most paths are refused by that alone."""
    match node:
        case Anchor("begin"):
            return "", True
        case Chars(mask) if mask.bit_count() == 1:
            return chr(mask.bit_length() - 1), True
        case Sequence(nodes):
            found = ""
            for part in nodes:
                text, whole = _literal(part)
                found += text
                if not whole:
                    return found, False
            return found, True
        case _:
            return "", False


def _size(node: Node) -> int:
    match node:
        case Chars() | Anchor():
            return 1
        case Sequence(nodes) | Alternatives(nodes):
            return 1 + sum(_size(part) for part in nodes)
        case _:
            most = node.least + 1 if node.most is None else node.most
            return 1 + (_size(node.node) + 1) * max(1, most)
