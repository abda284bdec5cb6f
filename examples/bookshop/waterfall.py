"""A trace as lines of text: one line a span, children under their parents, bars on one time axis. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

BARS = {"app": "█", "envoy": "━"}
MILLISECOND = 1_000_000
DEEPEST = 12


class Span(NamedTuple):
    """One span, as far as it is drawn: times in nanoseconds of the wall clock."""

    trace: str
    id: str
    parent: str
    service: str
    by: str
    """`app` or `envoy`."""
    kind: str
    """`server`, `client` or `internal`."""
    name: str
    start: int
    end: int
    attributes: Mapping[str, str]


def draw(spans: Iterable[Span], *, width: int = 110) -> list[str]:
    """
    Draw the spans of one trace.

    A span whose parent is not among them begins a tree of its own. Each is drawn once, also where spans are
    each other's parents.

    Args:
        spans: In any order.
        width: Columns of a line; bars get what the labels leave, ten at least.
    """
    rows = list(_walk(list(spans)))
    if not rows:
        return []
    begin = min(span.start for span, _ in rows)
    whole = max(max(span.end for span, _ in rows) - begin, 1)
    labels = [_label(span, depth) for span, depth in rows]
    edge = min(max(map(len, labels)), max(width - 24, 24))
    columns = max(width - edge - 14, 10)
    lines: list[str] = []
    for (span, _), label in zip(rows, labels, strict=True):
        took = (span.end - span.start) / MILLISECOND
        lines.append(f"{label[:edge]:<{edge}}  {_bar(span, begin, whole, columns)} {took:8.1f} ms")
    return lines


def _walk(spans: list[Span]) -> Iterator[tuple[Span, int]]:
    """The spans with their depths, parents first, siblings by their begin."""
    spans.sort(key=lambda span: (span.start, span.id))
    known = {span.id for span in spans}
    children: dict[str, list[Span]] = defaultdict(list)
    for span in spans:
        children[span.parent].append(span)
    roots = [span for span in spans if span.parent not in known]
    seen: set[int] = set()
    for root in [*roots, *spans]:
        waiting = [(root, 0)]
        while waiting:
            span, depth = waiting.pop()
            if id(span) in seen:
                continue
            seen.add(id(span))
            yield span, depth
            waiting += [(child, depth + 1) for child in reversed(children[span.id])]


def _label(span: Span, depth: int) -> str:
    arrow = {"server": "<-", "client": "->"}.get(span.kind, "--")
    # Envoy names its spans after the route: `orders.shop.svc.cluster.local/*`.
    name = span.name.partition(".svc.")[0]
    return f"{span.service:<11}{span.by:<6}{'  ' * min(depth, DEEPEST)}{arrow} {name}"


def _bar(span: Span, begin: int, whole: int, columns: int) -> str:
    first = min((span.start - begin) * columns // whole, columns - 1)
    last = min(max((span.end - begin) * columns // whole, first + 1), columns)
    return " " * first + BARS.get(span.by, "-") * (last - first) + " " * (columns - last)
