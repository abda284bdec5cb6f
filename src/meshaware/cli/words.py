"""The answer for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshaware.cli.bars import draw
from meshaware.cli.terminal import Look, plain
from meshaware.durations import format_duration

if TYPE_CHECKING:
    from meshaware.budgets import Budget
    from meshaware.budgets.explain import Candidate, Search
    from meshaware.cli.answer import Answer

__all__ = ["as_text"]

_VERDICTS = {True: "yes", False: "no", None: "cannot be told"}


def as_text(answer: Answer, look: Look) -> str:
    """
    The answer in words and bars.

    Args:
        answer: What was found.
        look: What the terminal can show.
    """
    route = answer.explanation.route
    lines = [plain(f"{answer.call.method} {answer.call.shown}"), *_source(answer), ""]
    if route is None:
        lines += _field("route", "none: the sidecar has no route for this call")
    else:
        lines += [*_field("route", route.name), *_field("origin", route.origin), *_field("host", route.host)]
    if answer.explanation.why:
        lines += _field("why", answer.explanation.why)
    for search in answer.explanation.searches:
        lines += ["", *_search(search)]
    lines.append("")
    if answer.budget is not None:
        lines += _field("budget", _budget(answer.budget))
    if answer.ceiling is not None and answer.tight is not None:
        lines += _field(
            "totals",
            f"ceiling {format_duration(answer.ceiling)}, tight {format_duration(answer.tight)},"
            f" each with {format_duration(answer.buffer)} of buffer",
        )
    elif answer.budget is not None:
        lines += _field("totals", "none: the mesh bounds nothing")
    lines += _field("client", _client(answer))
    if answer.spans and answer.ceiling is not None and answer.tight is not None:
        lines += ["", "the longest course of the call, from the end of the request:"]
        lines += draw(answer.spans, [("tight", answer.tight), ("ceiling", answer.ceiling)], look)
    if answer.notes:
        lines.append("")
    for note in answer.notes:
        lines += _field("note", note)
    return "\n".join(lines)


def _field(name: str, value: str) -> list[str]:
    return [f"{name:<8} {plain(value, 1000)}"]


def _source(answer: Answer) -> list[str]:
    source = answer.source
    seen = f", seen from the namespace {source.namespace}" if source.namespace else ""
    what = "the sidecar at " if source.kind == "sidecar" else ""
    return _field("routes", f"{what}{', '.join(source.at)}{seen}")


def _search(search: Search) -> list[str]:
    where = f"routes of port {search.config}, " if search.config.isdigit() else ""
    where = f"{search.config}, " if search.config and not where else where
    head = f"{where}virtual host {search.virtual_host}: its domain {search.domain} fits {search.asked}"
    lines = [f"{plain(head, 600)} ({search.found_by})"]
    for number, candidate in enumerate(search.candidates, 1):
        lines += _candidate(number, candidate)
    if search.untried:
        lines.append(f"     {search.untried} more not tried")
    if not any(candidate.verdict is not False for candidate in search.candidates):
        lines.append(plain(f"     none of them takes the path {search.path}"))
    return lines


def _candidate(number: int, candidate: Candidate) -> list[str]:
    said = {True: "yes", False: "no", None: "maybe"}[candidate.verdict]
    lines = [f"{number:>3}  {plain(candidate.route.name)}: {said}  ({plain(candidate.route.origin)})"]
    if not candidate.conditions:
        lines.append("       asks for nothing")
    for each in candidate.conditions:
        said = f", {plain(each.compared)}" if each.compared else ""
        lines.append(f"       {plain(each.asks)}: {_VERDICTS[each.verdict]}{said}")
    return lines


def _budget(budget: Budget) -> str:
    def seconds(value: float | None) -> str:
        return "none" if value is None else format_duration(value)

    tries = budget.attempts + 1
    parts = [
        f"timeout {seconds(budget.timeout)}",
        f"attempts {budget.attempts} ({tries} {'try' if tries == 1 else 'tries'})",
        f"perTryTimeout {seconds(budget.per_try_timeout)}",
    ]
    if budget.attempts:
        parts.append(f"retryOn {','.join(sorted(budget.retry_on)) or 'nothing'}")
        parts.append(f"back-off from {format_duration(budget.backoff)}")
    if budget.connect_timeout is not None:
        parts.append(f"connect timeout {format_duration(budget.connect_timeout)}")
    if budget.delay:
        parts.append(f"injected delay {format_duration(budget.delay)}")
    return ", ".join(parts)


def _client(answer: Answer) -> str:
    client = answer.client
    bounds = "" if client.whole else " for the response's headers, and so long for each silence after them"
    match client.source:
        case "route":
            origin = f"the {answer.policy} total" + (f", {client.origin}" if client.origin != "default" else "")
        case "settings":
            origin = f"the default of the settings, {client.origin}"
        case _:
            origin = "the built-in default"
    return f"waits {format_duration(client.seconds)}{bounds} ({origin})"
