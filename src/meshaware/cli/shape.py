"""The answer as JSON. Its shape is documented in docs/budgets.md, and only grows within a `version`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from meshaware.budgets import Budget, Route

if TYPE_CHECKING:
    from meshaware.budgets.explain import Candidate, Search
    from meshaware.cli.answer import Answer

__all__ = ["VERSION", "as_json"]

VERSION = 1
_VERDICTS = {True: "yes", False: "no", None: "unknown"}


def as_json(answer: Answer) -> str:
    """The answer as a JSON object, in ASCII and without control characters."""
    budget = answer.budget
    shaped: dict[str, Any] = {
        "version": VERSION,
        "call": {"method": answer.call.method, "url": answer.call.shown},
        "source": {"kind": answer.source.kind, "at": list(answer.source.at), "namespace": answer.source.namespace},
        "route": _route(answer.explanation.route),
        "why": answer.explanation.why,
        "searches": [_search(search) for search in answer.explanation.searches],
        "budget": None if budget is None else _budget(budget),
        "totals": {"ceiling": answer.ceiling, "tight": answer.tight, "buffer": answer.buffer, "policy": answer.policy},
        "client": answer.client._asdict(),
        "timeline": [_rounded(span._asdict()) for span in answer.spans],
        "notes": list(answer.notes),
    }
    return json.dumps(_rounded(shaped), indent=2).replace("\x7f", "\\u007f")


def _route(route: Route | None) -> dict[str, Any] | None:
    if route is None:
        return None
    return {"name": route.name, "host": route.host, "action": route.action, "origin": route.origin}


def _budget(budget: Budget) -> dict[str, Any]:
    return {
        "timeout": budget.timeout,
        "attempts": budget.attempts,
        "per_try_timeout": budget.per_try_timeout,
        "retry_on": sorted(budget.retry_on),
        "backoff": budget.backoff,
        "connect_timeout": budget.connect_timeout,
        "delay": budget.delay,
    }


def _search(search: Search) -> dict[str, Any]:
    return {
        "route_configuration": search.config,
        "virtual_host": search.virtual_host,
        "asked": search.asked,
        "domain": search.domain,
        "found_by": search.found_by,
        "path": search.path,
        "candidates": [_candidate(candidate) for candidate in search.candidates],
        "untried": search.untried,
    }


def _candidate(candidate: Candidate) -> dict[str, Any]:
    conditions = [{**each._asdict(), "verdict": _VERDICTS[each.verdict]} for each in candidate.conditions]
    return {
        "name": candidate.route.name,
        "origin": candidate.route.origin,
        "verdict": _VERDICTS[candidate.verdict],
        "conditions": conditions,
    }


def _rounded(values: Mapping[str, object]) -> dict[str, object]:
    """Seconds to the microsecond: what lies beyond is dust of additions."""
    return {name: _round(value) for name, value in values.items()}


def _round(value: object) -> object:
    if isinstance(value, float):
        return round(value, 6)
    return _rounded(cast("dict[str, object]", value)) if isinstance(value, dict) else value
