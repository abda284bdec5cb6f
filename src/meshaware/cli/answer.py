"""All that there is to say about a call, as plain values: for people and for programs the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from meshaware.budgets import Budget, RouteTable, declared_budget
from meshaware.budgets.explain import Explanation
from meshaware.budgets.timeline import Span, course
from meshaware.client.allowance import Source as Owner
from meshaware.client.allowance import default_allowances, from_budget

if TYPE_CHECKING:
    from meshaware.cli.sources import Source
    from meshaware.settings import MeshSettings

__all__ = ["Answer", "Call", "Client", "Lines", "answer"]


class Lines(dict[str, str]):
    """Headers by lower-case name, of which some may have come on several lines."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: dict[str, list[str]] = {}

    def add(self, name: str, value: str) -> None:
        """Add a line."""
        lines = self._lines.setdefault(name.lower(), [])
        lines.append(value)
        self[name.lower()] = ",".join(lines)

    def get_list(self, name: str) -> list[str]:
        """The lines of a name, as httpx has them."""
        return self._lines.get(name.lower(), [])


class Call(NamedTuple):
    """What is called; `url` as it was given."""

    method: str
    url: str
    headers: Lines

    @property
    def shown(self) -> str:
        """The URL without its user and password."""
        user, at, host = urlsplit(self.url).netloc.rpartition("@")
        return self.url.replace(f"{user}{at}{host}", f"***@{host}", 1) if at else self.url


class Client(NamedTuple):
    """
    How long a client of meshaware waits for the call.

    Attributes:
        seconds: So long.
        whole: Whether that bounds the whole response; else the wait for its headers, and each silence after them.
        source: Who says so: the route, the settings, or the built-in default.
        origin: Where that was said: for a route, what decides between the totals.
    """

    seconds: float
    whole: bool
    source: Owner
    origin: str


class Answer(NamedTuple):
    """
    What was found.

    Attributes:
        call: What was asked about.
        source: Where the routes come from.
        explanation: The route and why.
        buffer: What comes on top of the mesh's own time.
        policy: Which total counts.
        ceiling: The one total, with buffer; None if there is no route or it bounds nothing.
        tight: The other.
        client: What a client does.
        spans: The longest course of the call.
        notes: What else is worth knowing.
    """

    call: Call
    source: Source
    explanation: Explanation
    buffer: float
    policy: str
    ceiling: float | None
    tight: float | None
    client: Client
    spans: tuple[Span, ...]
    notes: tuple[str, ...]

    @property
    def budget(self) -> Budget | None:
        """The route's."""
        return None if self.explanation.route is None else self.explanation.route.budget


def answer(call: Call, source: Source, settings: MeshSettings) -> Answer:
    """Find out what there is to say about a call to an absolute URL."""
    table: RouteTable = source.table
    found = table.explain(call.method, call.url, call.headers)
    route = found.route
    buffer = settings.buffer
    budget = Budget() if route is None else route.budget
    return Answer(
        call,
        source,
        found,
        buffer,
        settings.budget_policy,
        budget.total(buffer, "ceiling"),
        budget.total(buffer, "tight"),
        _client(None if route is None else route.budget, settings),
        course(budget),
        tuple(_notes(found, settings)),
    )


def _client(budget: Budget | None, settings: MeshSettings) -> Client:
    seconds = None if budget is None else budget.total(settings.buffer, settings.budget_policy)
    if seconds is not None:
        allowance, origin = from_budget(seconds, "route"), settings.origins["budget_policy"]
    else:
        declared = declared_budget(settings.timeout, settings.attempts, settings.per_try_timeout)
        unrouted, unbounded = default_allowances(declared, settings.buffer, settings.budget_policy)
        allowance = unrouted if budget is None else unbounded
        origin = settings.origins["per_try_timeout" if settings.timeout is None else "timeout"]
    return Client(allowance.head or 0.0, allowance.total is not None, allowance.source, origin)


def _notes(found: Explanation, settings: MeshSettings) -> list[str]:
    notes: list[str] = []
    if found.route is not None and found.route.note:
        notes.append(found.route.note)
    paths = dict.fromkeys(search.path for search in found.searches)
    if len(paths) > 1:
        first, *others = paths
        notes.append(f"the sidecar may rewrite the path {first} to {' or '.join(others)} before it looks for a route")
    if found.route is not None and found.route.action != "route":
        kind = "a redirect" if found.route.action == "redirect" else "a fixed response"
        notes.append(f"the sidecar answers this itself, with {kind}: nothing upstream is waited for")
    if settings.deadlines != "enforce":
        done = "counted and logged, and not ended" if settings.deadlines == "observe" else "not ended"
        notes.append(f"deadlines are set to {settings.deadlines}: calls that take longer are {done}")
    return notes
