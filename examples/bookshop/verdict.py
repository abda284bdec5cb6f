"""What a scene has seen, and whether that is what it promised."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

Stage = TypeVar("Stage")


class Seen:
    """The facts of one scene; it is as promised when all of them are."""

    def __init__(self) -> None:
        self.facts: list[tuple[bool, str]] = []

    def that(self, fact: str, holds: bool) -> None:  # noqa: FBT001 (reads as a sentence)
        """Note a fact, and whether it is as promised."""
        self.facts.append((holds, fact if holds else f"NOT AS PROMISED: {fact}"))

    @property
    def as_promised(self) -> bool:
        """Whether there are facts, and all are as promised."""
        return bool(self.facts) and all(holds for holds, _ in self.facts)

    def __str__(self) -> str:
        return "\n".join(fact for _, fact in self.facts)


class Scene(NamedTuple, Generic[Stage]):
    """One scene: its name, how it is played, and whose logs tell why it failed."""

    name: str
    play: Callable[[Stage], Seen]
    logs: tuple[str, ...]

    @property
    def promise(self) -> str:
        """The docstring of the scene, in one line."""
        return " ".join((self.play.__doc__ or "").split())
