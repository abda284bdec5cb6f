"""
Routes made ready to be matched: each condition becomes a small test, and a request asks them in order.

The tests follow Envoy's router. Where one cannot be answered here, such as a pattern that is not evaluated, the answer
is None, and every route that the request might then take stays in play.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import methodcaller
from typing import NamedTuple

from meshaware.budgets.paths import without_parameters
from meshaware.budgets.re2 import Unsupported
from meshaware.budgets.regex import compile_pattern
from meshaware.budgets.route import Entry, HeaderMatch, IntegerRange, QueryMatch, Route, RouteMatch, TextMatch

__all__ = [
    "REMOVED",
    "Compiled",
    "Headers",
    "Parts",
    "Request",
    "Tests",
    "Verdict",
    "compile_entries",
    "parameter",
    "parts_of",
    "sure",
    "taken",
    "values_of",
]

Verdict = bool | None
"""Whether something holds; None: that cannot be told here."""
Headers = Mapping[str, str] | Callable[[str], str | None]
"""The request's headers: a mapping that is asked by lower-case names, or what answers for a name."""

Request = tuple[str, str, str, str, Headers]
"""A request: method, `Host` header, path with query, query, headers. A tuple, as one is made for each call."""
Condition = Callable[[Request], Verdict]
Source = Callable[[Request], tuple[str, ...] | None]
"""Where a condition on a header finds its values: none, one, more where Envoys differ; None: it cannot be known."""

# Source: ConnectionManagerUtility::mutateRequestHeaders and cleanInternalHeaders in Envoy.
REMOVED = frozenset({
    "connection",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-force-trace",
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-internal",
    "x-envoy-ip-tags",
    "x-envoy-max-retries",
    "x-envoy-original-url",
    "x-envoy-retriable-header-names",
    "x-envoy-retriable-status-codes",
    "x-envoy-retry-grpc-on",
    "x-envoy-retry-on",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-upstream-rq-timeout-ms",
    "x-forwarded-client-cert",
})  # fmt: skip
"""What the sidecar takes away before it looks for a route: hop-by-hop headers, and what it would take orders from."""


Tests = tuple[Callable[[str], Verdict] | None, Condition | None]
"""The test of the path, None if any path will do; the test of all else, None if there is nothing else."""


class Compiled(NamedTuple):
    """
    An entry of a virtual host, ready.

    Attributes:
        tests: What is asked of a request.
        route: What is taken if both hold.
        port: The port that it is for, or 0.
        other_ports: Ports that it is not for.
        why: Why a test may not be able to answer, as far as that is known beforehand.
    """

    tests: Tests
    route: Route
    port: int
    other_ports: tuple[int, ...]
    why: str


class Parts(NamedTuple):
    """
    All that a route asks for, taken apart.

    Attributes:
        path: The test of the path, None if any path will do.
        conditions: All else in the order in which it is asked for, each with its test; a text is what cannot be told.
        why: Why tests may not be able to answer, as far as that is known beforehand.
    """

    path: Callable[[str], Verdict] | None
    conditions: tuple[tuple[HeaderMatch | QueryMatch | str, Condition], ...]
    why: str


def compile_entries(
    entries: Iterable[Entry],
    *,
    ignore_parameters: bool = False,
    known: dict[RouteMatch, tuple[Tests, str]] | None = None,
) -> tuple[Compiled, ...]:
    """
    Make entries ready, in their order.

    Args:
        entries: The entries.
        ignore_parameters: Whether paths are compared without their parameters, as the route configuration says.
        known: What was made ready before. Thousands of hosts have the same few conditions, and one test for all of
            them stays in the processor's caches.
    """
    ready = {} if known is None else known
    compiled: list[Compiled] = []
    for match, route in entries:
        made = ready.get(match)
        if made is None:
            made = ready[match] = _compile(match, ignore_parameters=ignore_parameters)
        tests, why = made
        compiled.append(Compiled(tests, route, match.port, match.other_ports, why))
    return tuple(compiled)


def sure(tests: Iterable[Tests], path: str, request: Request) -> int | None:
    """
    Which of the entries with these tests a request takes, counted from 1; for the plain case that is most of them.

    Returns:
        0 if it takes none; None where that cannot be told.
    """
    number = 0
    for test, condition in tests:
        number += 1
        if test is not None:
            verdict = test(path)
            if not verdict:
                if verdict is None:
                    return None
                continue
        if condition is not None:
            verdict = condition(request)
            if not verdict:
                if verdict is None:
                    return None
                continue
        return number
    return 0


def taken(entries: Iterable[Compiled], path: str, request: Request) -> Route | list[Compiled] | None:
    """
    The route that a request takes among the entries of a virtual host.

    Args:
        entries: Asked in order.
        path: The path that is matched, without query.
        request: The rest of it.

    Returns:
        None if it takes none; a list, in order, of all it might take where that cannot be told.
    """
    possible: list[Compiled] = []
    for entry in entries:
        test, condition = entry.tests
        verdict = True if test is None else test(path)
        if verdict is False:
            continue
        if condition is not None:
            met = condition(request)
            if met is False:
                continue
            verdict = verdict and met
        if verdict and not possible:
            return entry.route
        possible.append(entry)
        if verdict:
            break
    return possible or None


def parts_of(match: RouteMatch, *, ignore_parameters: bool = False) -> Parts:
    """Make a test of each condition; the arguments are those of `compile_entries`."""
    why = [match.doubt] if match.doubt else []
    path = _path(match.path, why)
    if ignore_parameters and path is not None:
        path = _before_parameters(path)
    conditions: list[tuple[HeaderMatch | QueryMatch | str, Condition]] = []
    conditions.extend((header, _header(header, why)) for header in match.headers)
    conditions.extend((query, _query(query, why)) for query in match.query)
    if match.doubt:
        conditions.append((match.doubt, _unknown))
    return Parts(path, tuple(conditions), "; ".join(why))


def _compile(match: RouteMatch, *, ignore_parameters: bool) -> tuple[Tests, str]:
    parts = parts_of(match, ignore_parameters=ignore_parameters)
    return (parts.path, _together([condition for _, condition in parts.conditions])), parts.why


def _together(conditions: list[Condition]) -> Condition | None:
    if len(conditions) < 2:
        return conditions[0] if conditions else None
    every = tuple(conditions)

    def together(request: Request) -> Verdict:
        verdict: Verdict = True
        for condition in every:
            answer = condition(request)
            if answer is False:
                return False
            if answer is None:
                verdict = None
        return verdict

    return together


def _unknown(_: object) -> None:
    return None


def _path(text: TextMatch, why: list[str]) -> Callable[[str], Verdict] | None:
    if text.kind == "prefix" and not text.value:
        return None
    return _text(text, why)


def _before_parameters(test: Callable[[str], Verdict]) -> Callable[[str], Verdict]:
    def compared(path: str) -> Verdict:
        verdicts = {test(way) for way in without_parameters(path)}
        return verdicts.pop() if len(verdicts) == 1 else None

    return compared


def _text(text: TextMatch, why: list[str]) -> Callable[[str], Verdict]:
    """The test of a text; in C where possible, as paths are asked for on each call."""
    if text.kind == "regex":
        try:
            return compile_pattern(text.value)
        except Unsupported as error:
            why.append(f"the regular expression {text.value[:60]!r} {error}")
            return _unknown
    if text.ignore_case:
        test = _plain(text.kind, text.value.lower())
        return lambda value: test(value.lower())
    return _plain(text.kind, text.value)


def _plain(kind: str, value: str) -> Callable[[str], bool]:
    match kind:
        case "exact":
            return value.__eq__
        case "prefix":
            return methodcaller("startswith", value)
        case "suffix":
            return methodcaller("endswith", value)
        case "contains":
            return methodcaller("__contains__", value)
        case _:
            inside = f"{value}/"
            return lambda path: path == value or path.startswith(inside)


def _range(wanted: IntegerRange) -> Callable[[str], bool]:
    def test(value: str) -> bool:
        digits = value.strip()
        number = digits.removeprefix("-").removeprefix("+") if digits[:2] not in ("-+", "+-") else ""
        if not number.isascii() or not number.isdigit() or len(number) > 20:
            return False
        return wanted.start <= int(digits) < wanted.end

    return test


def _header(header: HeaderMatch, why: list[str]) -> Condition:
    values = values_of(header.name)
    invert = header.invert
    # Envoy makes an identifier where the request has none or an empty one, and only Envoy knows it then.
    made_by_envoy = header.name == "x-request-id"
    if header.value is None:

        def present(request: Request) -> Verdict:
            found = values(request)
            return None if found is None else (made_by_envoy or bool(found)) is not invert

        return present
    test = _range(header.value) if isinstance(header.value, IntegerRange) else _text(header.value, why)
    missing_is_empty = header.missing_is_empty

    def compared(request: Request) -> Verdict:
        found = values(request)
        if not found:
            if made_by_envoy or found is None:
                return None
            if not missing_is_empty:
                return False
            found = ("",)
        answer = test(found[0])
        if len(found) > 1 and answer is not _any(test(line) for line in found[1:]):
            return None
        return None if answer is None else answer is not invert

    return compared


def _any(answers: Iterable[Verdict]) -> Verdict:
    given = set(answers)
    return True if True in given else None if None in given else False


def values_of(name: str) -> Source:
    """Where a condition on a header looks: pseudo-headers, what Envoy removes or sets, or the header itself."""
    source = _SOURCES.get(name)
    if source is not None:
        return source
    if name in REMOVED or name.startswith(":"):
        return lambda _: ()
    return lambda request: _lines(request, name)


def _lines(request: Request, name: str) -> tuple[str, ...]:
    """
    The values that may be compared for a header: none if it is missing, several where Envoys differ.

    A header given on several lines is one text with commas up to Envoy 1.36; 1.40 compares line by line.
    """
    headers = request[4]
    value = headers(name) if callable(headers) else headers.get(name)
    if value is None:
        return ()
    if "," in value and (get_list := getattr(headers, "get_list", None)) is not None:
        lines: list[str] = get_list(name)
        if len(lines) > 1:
            return (",".join(lines), *lines)
    return (value,)


def _scheme(request: Request) -> tuple[str, ...]:
    # The listener is plain HTTP, and believes the application about what was before it.
    said = _lines(request, "x-forwarded-proto")
    return said if said[:1] in (("http",), ("https",)) else ("http",)


def _te(request: Request) -> tuple[str, ...] | None:
    # Envoy keeps "trailers" and takes away the rest, or all, depending on its version.
    said = _lines(request, "te")
    return said if said in ((), ("trailers",)) else None


_SOURCES: dict[str, Source] = {
    ":method": lambda request: request[:1],
    ":authority": lambda request: request[1:2],
    "host": lambda request: request[1:2],
    ":path": lambda request: request[2:3],
    ":scheme": _scheme,
    "x-forwarded-proto": lambda request: _lines(request, "x-forwarded-proto") or ("http",),
    "x-request-id": lambda request: said if any(said := _lines(request, "x-request-id")) else (),
    "te": _te,
}


def _query(query: QueryMatch, why: list[str]) -> Condition:
    name, invert = query.name, query.invert
    test: Callable[[str], Verdict] = _always if query.value is None else _text(query.value, why)

    def matches(request: Request) -> Verdict:
        value = parameter(request, name)
        if value is None:
            return invert
        return test(value) if not invert else False

    return matches


def parameter(request: Request, name: str) -> str | None:
    """The first query parameter of a name, as it is written, or None."""
    for each in request[3].split("&"):
        key, _, value = each.partition("=")
        if key == name:
            return value
    return None


def _always(_: object) -> bool:
    return True
