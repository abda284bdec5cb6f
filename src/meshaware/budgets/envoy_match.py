"""
The conditions of a route as Envoy's own configuration states them.

Reference: RouteMatch, HeaderMatcher and QueryParameterMatcher in envoy/config/route/v3/route_components.proto. What is
not known here becomes a doubt, never a condition that holds or fails.
"""

from __future__ import annotations

from meshaware.budgets.envoy_json import Message
from meshaware.budgets.route import HeaderMatch, IntegerRange, QueryMatch, RouteMatch, TextMatch

__all__ = ["read_match"]

_HUNDRED = {"": 100, "HUNDRED": 100, "TEN_THOUSAND": 10_000, "MILLION": 1_000_000}
_UNKNOWN = ("tls_context", "dynamic_metadata", "filter_state", "cookies")
_OLD_KINDS = {
    "exact_match": "exact",
    "prefix_match": "prefix",
    "suffix_match": "suffix",
    "contains_match": "contains",
}


def read_match(message: Message | None) -> RouteMatch:
    """
    Read a RouteMatch.

    Raises:
        ConfigDumpError: It is not what Envoy writes.
    """
    if message is None:
        return RouteMatch(doubt="it has no match")
    doubts = [f"{name} decides" for name in _UNKNOWN if message.raw(name)]
    headers: list[HeaderMatch] = []
    for header in message.messages("headers"):
        read = _header(header)
        if read is None:
            doubts.append(f"a condition on {header.text('name')[:60]!r} is of an unknown kind")
        else:
            headers.append(read)
    query: list[QueryMatch] = []
    for parameter in message.messages("query_parameters"):
        found = _query(parameter)
        if found is None:
            doubts.append(f"a condition on the parameter {parameter.text('name')[:60]!r} is of an unknown kind")
        else:
            query.append(found)
    if message.raw("grpc") is not None:
        headers.append(HeaderMatch("content-type", TextMatch("regex", r"application/grpc(\+.*)?")))
    if message.raw("connect_matcher") is not None:
        headers.append(HeaderMatch(":method", TextMatch("exact", "CONNECT")))
    path = _path(message)
    if path is None:
        path = TextMatch("prefix", "")
        doubts.append("its path is compared in an unknown way")
    fraction = message.message("runtime_fraction")
    if fraction is not None and _may_not(fraction):
        doubts.append("it takes a fraction of the requests")
    return RouteMatch(path, tuple(headers), tuple(query), 0, "; ".join(dict.fromkeys(doubts)))


def _path(message: Message) -> TextMatch | None:
    sensitive = message.raw("case_sensitive")
    ignore_case = sensitive is False
    match message.has("prefix", "path", "path_separated_prefix", "safe_regex", "connect_matcher"):
        case "prefix":
            return TextMatch("prefix", message.text("prefix"), ignore_case)
        case "path":
            return TextMatch("exact", message.text("path"), ignore_case)
        case "path_separated_prefix":
            return TextMatch("segments", message.text("path_separated_prefix"), ignore_case)
        case "safe_regex":
            return _regex(message, "safe_regex")
        case "connect_matcher":
            return TextMatch("prefix", "")
        case _:
            return None


def _regex(message: Message, name: str) -> TextMatch:
    found = message.message(name)
    return TextMatch("regex", "" if found is None else found.text("regex"))


def _may_not(fraction: Message) -> bool:
    # A runtime key can change the default while Envoy runs; without one the default is all there is.
    default = fraction.message("default_value")
    if default is None:
        return True
    whole = _HUNDRED.get(default.text("denominator"))
    return bool(fraction.text("runtime_key")) or whole is None or default.whole("numerator") < whole


def _header(message: Message) -> HeaderMatch | None:
    name = message.text("name").lower()
    invert = message.flag("invert_match")
    empty = message.flag("treat_missing_header_as_empty")
    kind = message.has("present_match", "safe_regex_match", "range_match", *_OLD_KINDS)
    compared = message.message("string_match")
    if compared is not None:
        text = _string(compared)
        return None if text is None else HeaderMatch(name, text, invert, empty)
    if kind == "range_match":
        limits = message.message("range_match")
        wanted = IntegerRange(0, 0) if limits is None else IntegerRange(limits.whole("start"), limits.whole("end"))
        return HeaderMatch(name, wanted, invert, empty)
    if kind == "safe_regex_match":
        return HeaderMatch(name, _regex(message, kind), invert, empty)
    if kind in _OLD_KINDS:
        return HeaderMatch(name, _text(_OLD_KINDS[kind], message.text(kind)), invert, empty)
    known = ("name", "invert_match", "treat_missing_header_as_empty")
    if kind == "present_match":
        return HeaderMatch(name, None, invert is message.flag("present_match"))
    return HeaderMatch(name, None, invert) if message.only(*known) else None


def _query(message: Message) -> QueryMatch | None:
    name = message.text("name")
    compared = message.message("string_match")
    if compared is not None:
        text = _string(compared)
        return None if text is None else QueryMatch(name, text)
    if not message.only("name", "present_match"):
        return None
    return QueryMatch(name, None, invert=message.raw("present_match") is False)


def _string(found: Message) -> TextMatch | None:
    ignore_case = found.flag("ignore_case")
    kind = found.has("exact", "prefix", "suffix", "contains", "safe_regex")
    if kind == "safe_regex":
        return _regex(found, kind)
    if not kind:
        # protobuf leaves out an empty text, and with it which kind of text it was: all of them fit it alike.
        return TextMatch("exact", "", ignore_case) if found.only("ignore_case") else None
    return _text(kind, found.text(kind), ignore_case=ignore_case)


def _text(kind: str, value: str, *, ignore_case: bool = False) -> TextMatch | None:
    match kind:
        case "exact":
            return TextMatch("exact", value, ignore_case)
        case "prefix":
            return TextMatch("prefix", value, ignore_case)
        case "suffix":
            return TextMatch("suffix", value, ignore_case)
        case _:
            return TextMatch("contains", value, ignore_case)
