"""Which headers this service carries from a request to the calls it causes."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import ClassVar

from meshaware.errors import SettingsError
from meshaware.propagation.fitness import fit
from meshaware.propagation.names import SETS, Pair, danger, is_name, obstacle

__all__ = ["DangerousHeaderWarning", "HeaderSet", "warn_of"]

_SHOWN = 80
_warned: set[bytes] = set()


class DangerousHeaderWarning(UserWarning):
    """A header is carried, because it was named, that can hurt whoever sent it."""


class HeaderSet:
    """
    The names of headers to carry. Immutable; two of them are joined with `|`.

    Args:
        names: Lower-case names.
        prefixes: Beginnings of names. Names that are dangerous to carry are never meant by a prefix.
    """

    __slots__ = ("_names", "_prefixes")

    DEFAULT: ClassVar[HeaderSet]
    """
    `w3c`, `b3`, `envoy` and `routing`: what Istio asks applications to pass on, and `x-user-type` and
    `x-canary`.
    """

    def __init__(self, names: Iterable[bytes] = (), prefixes: Iterable[bytes] = ()) -> None:
        self._names = frozenset(names)
        self._prefixes = tuple(sorted(set(prefixes)))

    @classmethod
    def parse(cls, names: Iterable[str]) -> HeaderSet:
        """
        Read what `MESHAWARE_HEADERS` names, and that only: `HeaderSet.DEFAULT |
        HeaderSet.parse(settings.headers)`.

        Naming `authorization`, `cookie`, `x-forwarded-client-cert`, `x-envoy-...`, `l5d-...` or another
        header that is dangerous to carry gives a `DangerousHeaderWarning`, once for each name.

        Args:
            names: Sets (`w3c`, `b3`, `envoy`, `routing`, `vendors`), names (`x-tenant`) and prefixes
                (`x-shop-*`), in any case; or one string with commas between.

        Raises:
            SettingsError: Something else, or a header that cannot be carried: of a connection or of one
                message.
        """
        items = names.split(",") if isinstance(names, str) else names
        wanted: set[bytes] = set()
        prefixes: set[bytes] = set()
        for item in items:
            word = item.strip().lower()
            if word in SETS:
                wanted |= SETS[word]
            elif word.endswith("-*"):
                prefixes.add(_prefix(item, word[:-1]))
            elif word:
                wanted.add(_name(item, word))
        return cls(wanted, prefixes)

    @property
    def names(self) -> frozenset[bytes]:
        """The names that stand for themselves; prefixes mean further ones."""
        return self._names

    def __or__(self, other: HeaderSet) -> HeaderSet:
        return HeaderSet(self._names | other._names, self._prefixes + other._prefixes)

    def __contains__(self, name: bytes) -> bool:
        return name in self._names or (name.startswith(self._prefixes) and _is_free(name))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HeaderSet) and self._names == other._names and self._prefixes == other._prefixes

    def __hash__(self) -> int:
        return hash((self._names, self._prefixes))

    def __repr__(self) -> str:
        shown = [name.decode() for name in sorted(self._names)] + [f"{p.decode()}*" for p in self._prefixes]
        return f"<HeaderSet {', '.join(shown)}>"

    def select(self, raw: Iterable[Pair]) -> list[Pair]:
        """
        Pick the headers of this set, unlooked at: the part that every request pays for.

        Args:
            raw: A request's headers with lower-case names, as ASGI gives them.
        """
        names = self._names
        if not self._prefixes:
            return [pair for pair in raw if pair[0] in names]
        prefixes = self._prefixes
        return [pair for pair in raw if pair[0] in names or (pair[0].startswith(prefixes) and _is_free(pair[0]))]

    def capture(self, raw: Iterable[Pair]) -> tuple[Pair, ...]:
        """
        Return those of a request's headers that go on with its calls: verbatim, valid, each once, bounded.

        Args:
            raw: As for `select`.
        """
        return tuple(fit(self.select(raw)).items())


def warn_of(name: bytes, where: str, stacklevel: int) -> None:
    """Warn, the first time, that carrying this header is dangerous, if it is."""
    reason = danger(name)
    if reason is not None and name not in _warned:
        _warned.add(name)
        warnings.warn(f"{where} carries {name.decode()}: {reason}", DangerousHeaderWarning, stacklevel=stacklevel + 1)


def _is_free(name: bytes) -> bool:
    return is_name(name) and obstacle(name) is None and danger(name) is None


def _name(item: str, word: str) -> bytes:
    name = word.encode()
    if "*" in word or not is_name(name):
        raise SettingsError(
            f"MESHAWARE_HEADERS names {_shown(item)}: no header name. Write a set ({', '.join(SETS)}),"
            " a name (x-tenant) or a prefix that ends in a dash and an asterisk (x-shop-*)"
        )
    reason = obstacle(name)
    if reason is not None:
        raise SettingsError(f"MESHAWARE_HEADERS names {_shown(item)}, which cannot be carried: {reason}. Take it out")
    warn_of(name, "MESHAWARE_HEADERS", stacklevel=3)
    return name


def _prefix(item: str, word: str) -> bytes:
    prefix = word.encode()
    if "*" in word or not is_name(prefix) or word in ("-", "x-"):
        raise SettingsError(
            f"MESHAWARE_HEADERS names {_shown(item)}: too much begins like that. Name more of it (x-shop-*)"
        )
    reason = obstacle(prefix)
    if reason is not None:
        raise SettingsError(f"MESHAWARE_HEADERS names {_shown(item)}, which cannot be carried: {reason}. Take it out")
    reason = danger(prefix)
    if reason is not None:
        raise SettingsError(f"MESHAWARE_HEADERS names {_shown(item)}: {reason}. Name each of such headers in full")
    return prefix


def _shown(item: str) -> str:
    return repr(item if len(item) <= _SHOWN else item[:_SHOWN] + "...")


HeaderSet.DEFAULT = HeaderSet.parse(["w3c", "b3", "envoy", "routing"])
