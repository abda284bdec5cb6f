"""Headers that are not yet an object of the client library, for who asks after one of them or none."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["HeaderLines"]


class HeaderLines:
    """
    Answers for a name as httpx's headers do, without being made of all of them first.

    Args:
        raw: The headers in order, names in any case.
    """

    __slots__ = ("_raw",)

    def __init__(self, raw: Sequence[tuple[bytes, bytes]]) -> None:
        self._raw = raw

    def __call__(self, name: str) -> str | None:
        """The header's lines with commas between, or None."""
        lines = self.get_list(name)
        return ", ".join(lines) if lines else None

    def get_list(self, name: str) -> list[str]:
        """The header's lines."""
        wanted = name.encode()
        return [_text(value) for key, value in self._raw if key.lower() == wanted]


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
