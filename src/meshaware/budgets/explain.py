"""
Why a call takes its route: what was asked of it, in order, and what was compared.

Nothing is decided here: the tests are those of `match.py`, asked by the same `taken`, and each notes its answer.
"""

from __future__ import annotations

from typing import NamedTuple

from meshaware.budgets.choice import Place, is_for
from meshaware.budgets.domains import Namespace, split_authority
from meshaware.budgets.match import (
    REMOVED,
    Compiled,
    Request,
    Verdict,
    parameter,
    parts_of,
    taken,
    values_of,
)
from meshaware.budgets.route import Entry, HeaderMatch, IntegerRange, QueryMatch, Route, TextMatch

__all__ = ["Candidate", "Condition", "Explanation", "Search", "search", "unreached"]

_ANY_PATH = (TextMatch("prefix", "/"), TextMatch("prefix", ""))


class Condition(NamedTuple):
    """
    One condition that was tried.

    Attributes:
        asks: What must hold, such as "uri prefix /admin".
        verdict: Whether it does; None if that cannot be told.
        compared: What it was compared with, such as "the path is /items/42"; empty if there is nothing to say.
    """

    asks: str
    verdict: Verdict
    compared: str


class Candidate(NamedTuple):
    """
    One route that was tried: one element of its `match`, where it has several.

    Attributes:
        route: The route.
        verdict: Whether the call meets its conditions; None if that cannot be told.
        conditions: Those that were tried: up to, and with, the first that failed. None if it takes every call.
    """

    route: Route
    verdict: Verdict
    conditions: tuple[Condition, ...]


class Search(NamedTuple):
    """
    The routes of one virtual host, tried for one reading of the path.

    Attributes:
        config: The name of the route configuration; empty if it is made from manifests.
        virtual_host: The name of the virtual host.
        asked: The name that was looked for: the call's host, or the full name of the service that it means.
        domain: The domain of the virtual host that fits it.
        path: The path that was matched, without its query.
        candidates: The routes that were tried, in order; the last one is taken if its verdict is True.
        untried: How many come after them.
    """

    config: str
    virtual_host: str
    asked: str
    domain: str
    path: str
    candidates: tuple[Candidate, ...]
    untried: int

    @property
    def found_by(self) -> str:
        """How the domain fits: `exact`, `suffix`, `prefix`, or `any`."""
        if self.domain == "*":
            return "any"
        return "suffix" if self.domain.startswith("*") else "prefix" if self.domain.endswith("*") else "exact"


class Explanation(NamedTuple):
    """
    Why a call takes its route.

    Attributes:
        route: What `match` returns for it.
        searches: A search for each virtual host that it may belong to, and each reading of its path; mostly one.
        why: Why nothing was searched; empty otherwise.
    """

    route: Route | None
    searches: tuple[Search, ...] = ()
    why: str = ""


def search(place: Place, path: str, request: Request, port: int) -> tuple[Search, Route | list[Compiled] | None]:
    """
    Try the routes of a virtual host.

    Args:
        place: The virtual host.
        path: The path that is matched, without query.
        request: The rest of the request.
        port: The port that is called.

    Returns:
        What was tried, and what `taken` made of it.
    """
    tries = [
        _Try(entry, compiled, port, ignore_parameters=place.ignore_parameters)
        for entry, compiled in zip(place.host.entries, place.entries, strict=True)
    ]
    outcome = taken((each.entry for each in tries), path, request)
    tried = [each for each in tries if each.asked]
    candidates = tuple(each.candidate() for each in tried)
    made = Search(place.config, place.host.name, place.asked, place.domain, path, candidates, len(tries) - len(tried))
    return made, outcome


class _Try:
    """An entry whose tests note what they are asked and what they answer."""

    def __init__(self, entry: Entry, compiled: Compiled, port: int, *, ignore_parameters: bool) -> None:
        self._match, self._port = entry.match, port
        self._is_for = is_for(compiled, port)
        self._parts = parts_of(entry.match, ignore_parameters=ignore_parameters)
        self._conditions: list[Condition] = []
        self._verdicts: list[Verdict] = []
        self.asked = False
        self.entry = compiled._replace(tests=(self._path, self._rest))

    def _path(self, path: str) -> Verdict:
        self.asked = True
        if not self._is_for or self._match.port or self._match.other_ports:
            self._note(_port_words(self._match.port, self._match.other_ports), self._is_for, f"it is {self._port}")
        if not self._is_for:
            return False
        verdict = True if self._parts.path is None else self._parts.path(path)
        if verdict is not True or self._match.path not in _ANY_PATH:
            self._note(_text_words("uri", self._match.path), verdict, f"the path is {_quoted(path)}")
        else:
            self._verdicts.append(verdict)
        return verdict

    def _rest(self, request: Request) -> Verdict:
        for asks, condition in self._parts.conditions:
            verdict = condition(request)
            self._note(_words(asks), verdict, _compared(asks, request))
            if verdict is False:
                return False
        return None if None in self._verdicts else True

    def _note(self, asks: str, verdict: Verdict, compared: str) -> None:
        self._verdicts.append(verdict)
        self._conditions.append(Condition(asks, verdict, compared))

    def candidate(self) -> Candidate:
        verdict = False if False in self._verdicts else None if None in self._verdicts else True
        return Candidate(self.entry.route, verdict, tuple(self._conditions))


def unreached(
    scheme: str, host: str = "", port: int = 80, namespace: Namespace | None = None, *, served: bool = True
) -> str:
    """
    Why no virtual host was found, in words.

    Args:
        scheme: The scheme of the URL.
        host: The `Host` header.
        port: The port that is called.
        namespace: Where the caller runs.
        served: Whether there is a route configuration for the port.
    """
    if scheme == "https":
        return "https is a tunnel: the sidecar passes it on unread"
    if scheme != "http":
        return f"{scheme} is not http, and the sidecar passes it on unread"
    if not served:
        return f"the sidecar has no routes for port {port}: such a call passes it as plain TCP"
    name, _ = split_authority(host)
    full = name if namespace is None else namespace.services(name)[0] or name
    return f"no virtual host is for {name}" + (f", which is {full} here" if full != name else "")


def _words(asks: HeaderMatch | QueryMatch | str) -> str:
    if isinstance(asks, str):
        return asks
    if isinstance(asks, QueryMatch):
        what = f"query parameter {asks.name}"
        return _presence_words(what, asks.invert) if asks.value is None else _text_words(what, asks.value)
    what = asks.name.removeprefix(":") if asks.name.startswith(":") else f"header {asks.name}"
    if asks.value is None:
        return _presence_words(what, asks.invert)
    if asks.invert:
        what += " not"
    if isinstance(asks.value, IntegerRange):
        return f"{what} from {asks.value.start} to under {asks.value.end}"
    return _text_words(what, asks.value)


def _presence_words(what: str, inverted: bool) -> str:  # noqa: FBT001
    return f"{what} is {'not ' if inverted else ''}there"


def _text_words(what: str, text: TextMatch) -> str:
    kind = "prefix of segments" if text.kind == "segments" else text.kind
    return f"{what} {kind} {_quoted(text.value)}" + (" in any case" if text.ignore_case else "")


def _port_words(port: int, others: tuple[int, ...]) -> str:
    return f"port {port}" if port else f"port none of {', '.join(map(str, others))}"


def _compared(asks: HeaderMatch | QueryMatch | str, request: Request) -> str:
    if isinstance(asks, str):
        return ""
    if isinstance(asks, QueryMatch):
        value = parameter(request, asks.name)
        return "there is none" if value is None else f"it is {_quoted(value)}"
    values = values_of(asks.name)(request)
    if values is None:
        return "what the sidecar makes of it, only the sidecar knows"
    if not values:
        made = "the sidecar makes one" if asks.name == "x-request-id" else "there is none"
        return "the sidecar takes it away" if asks.name in REMOVED else made
    return f"it is {', or '.join(map(_quoted, dict.fromkeys(values)))}"


def _quoted(text: str) -> str:
    return text if text and " " not in text else f'"{text}"'
