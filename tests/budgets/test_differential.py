"""
Which route a request takes, told by meshaware and by a real Envoy with the same routes.

hypothesis makes route configurations and requests; each configuration is given to a running Envoy, as a sidecar gets
its own from istiod, and read back from its admin port. Any disagreement is a failure, and is shrunk to a small one.
`DIFFERENTIAL_EXAMPLES` says how many configurations are tried; `nox -s differential` tries thousands.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from meshaware.budgets import RouteTable

pytestmark = pytest.mark.envoy

_EXAMPLES = int(os.environ.get("DIFFERENTIAL_EXAMPLES", "100"))
_IN_DEPTH = "DIFFERENTIAL_EXAMPLES" in os.environ
_REQUESTS = 40
_PATIENCE = 20.0

_SEGMENTS = ("a", "b", "A", "ab", "1", "12", "items", "42", "", "..", ".", "%41", "%2F", "b;v=1", "x|y", "a.b", "-")
_VALUES = ("", "1", "12", "a", "A", "ab", "a,b", "42", "-3", "0x1", "007", "b a")
_NAMES = (
    "x-user",
    "x-n",
    "x-kind",
    "user-agent",
    "cookie",
    "te",
    "x-request-id",
    "x-forwarded-proto",
    "x-envoy-max-retries",
    "content-type",
)
_PSEUDO = (":method", ":authority", ":path", ":scheme", "host")
_METHODS = ("GET", "POST", "DELETE", "PATCH")
_PATTERNS = (
    ".*",
    "[a-z]+",
    "/a/.*",
    "/items/\\d+",
    "/(a|b)(/.*)?",
    "(?i)/A",
    "(?i:/a)/B",
    "/a/[0-9]{1,2}",
    "/[^/]+/?",
    "^/a$|/b",
    "/a.b",
    "1?2?",
    ".*a.*",
    "\\d+",
    "[[:alpha:]]+",
    "a{1,2}b?",
    "\\bab?\\b",
    "[aé]+",
    "(?P<name>a)+,?b*",
    "\\Qa.b\\E",
    "(GET|POST)",
    "https?",
    "inventory.*",
)
_DOMAINS = (
    "inventory",
    "inventory.shop",
    "INVENTORY.example.com",
    "10.0.0.1",
    "[::1]",
    "*.shop",
    "*.a.shop",
    "*-b.shop",
    "*shop",
    "inventory.*",
    "inventory.a.*",
    "in*",
    "*",
)
_HOSTS = (
    "inventory",
    "Inventory.Shop",
    "inventory.example.com",
    "inventory.",
    "inventory.x.shop",
    "inventory.a.b",
    "10.0.0.1",
    "[::1]",
    "a.shop",
    "x.a.shop",
    "y-b.shop",
    ".shop",
    "shop",
    "xshop",
    "internal",
    "in",
    "elsewhere.org",
)


class Asked(NamedTuple):
    """One request."""

    method: str
    host: str
    path: str
    headers: tuple[tuple[str, str], ...]


Match = dict[str, Any]


def _patterns() -> st.SearchStrategy[str]:
    atoms = st.sampled_from(["a", "b", "/", "1", ".", "[ab]", "[^/]", "\\d", "\\w", "(a|b)", "(?:/a)"])
    pieces = st.builds(str.__add__, atoms, st.sampled_from(["", "", "*", "+", "?", "{1,2}", "*?"]))
    return st.sampled_from(_PATTERNS) | st.lists(pieces, min_size=1, max_size=4).map("".join)


def _text(kind: str, value: str, ignore_case: bool) -> Match:
    return {kind if value else "exact": value, "ignore_case": ignore_case}


def _regex(pattern: str) -> Match:
    return {"safe_regex": {"regex": pattern}}


def _texts() -> st.SearchStrategy[Match]:
    values = st.sampled_from((*_VALUES, "GET", "inventory", "http", "/a"))
    plain = st.builds(_text, st.sampled_from(["exact", "prefix", "suffix", "contains"]), values, st.booleans())
    return plain | _patterns().map(_regex)


def _present(present: bool) -> Match:
    return {"present_match": present}


def _range(start: int, length: int) -> Match:
    return {"range_match": {"start": start, "end": start + length}}


def _compared(text: Match, empty: bool) -> Match:
    return {"string_match": text, "treat_missing_header_as_empty": empty}


def _header(name: str, invert: bool, kind: Match) -> Match:
    return {"name": name, "invert_match": invert, **kind}


def _header_matches() -> st.SearchStrategy[Match]:
    kinds = st.one_of(
        st.builds(_present, st.booleans()),
        st.builds(_range, st.integers(-5, 15), st.integers(0, 40)),
        st.builds(_compared, _texts(), st.booleans()),
        st.just(Match()),
    )
    return st.builds(_header, st.sampled_from(_NAMES + _PSEUDO), st.booleans(), kinds)


def _parameter(name: str, text: Match | bool) -> Match:
    return {"name": name, **(_present(text) if isinstance(text, bool) else {"string_match": text})}


def _query_matches() -> st.SearchStrategy[Match]:
    return st.builds(_parameter, st.sampled_from("qrQ"), st.booleans() | _texts())


def _joined(segments: Sequence[str]) -> str:
    return "/" + "/".join(segments)


def _paths() -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(_SEGMENTS), max_size=3).map(_joined)


def _path(kind: str, path: str) -> Match:
    return {kind: (path.rstrip("/") or "/a") if kind == "path_separated_prefix" else path}


def _path_matches() -> st.SearchStrategy[Match]:
    return st.one_of(
        st.builds(_path, st.sampled_from(["prefix", "path", "path_separated_prefix"]), _paths()),
        _patterns().map(_regex),
        st.just(Match(prefix="")),
    )


def _seldom(conditions: st.SearchStrategy[Match], most: int) -> st.SearchStrategy[list[Match]]:
    none = st.just(list[Match]())
    return none | none | st.lists(conditions, min_size=1, max_size=most)


def _match(path: Match, sensitive: bool, headers: list[Match], query: list[Match], luck: int) -> Match:
    grpc = {"grpc": Match()} if luck == 0 else {}
    return {**path, "case_sensitive": sensitive, "headers": headers, "query_parameters": query, **grpc}


def _matches() -> st.SearchStrategy[Match]:
    headers, query = _seldom(_header_matches(), 2), _seldom(_query_matches(), 1)
    return st.builds(_match, _path_matches(), st.booleans(), headers, query, st.integers(0, 19))


_ACTIONS: tuple[Match, ...] = (
    {"direct_response": {"status": 200}},
    {"direct_response": {"status": 404}},
    {"redirect": {"path_redirect": "/elsewhere"}},
    {"redirect": {"https_redirect": True}},
    {"route": {"cluster": "upstream"}},
    {"route": {"weighted_clusters": {"clusters": [{"name": "upstream", "weight": 1}, {"name": "none", "weight": 2}]}}},
)


def _route(name: str, match: dict[str, Any], action: dict[str, Any]) -> dict[str, Any]:
    # Only Envoy adds this header to a reply, whatever it does with the request.
    told = {"response_headers_to_add": [{"header": {"key": "x-route", "value": name}}]}
    return {"name": name, "match": match, **action, **told}


@st.composite
def _configurations(draw: st.DrawFn) -> dict[str, Any]:
    """A route configuration, without the name."""
    domains = draw(st.lists(st.sampled_from(_DOMAINS), min_size=1, max_size=5, unique=True))
    hosts: list[dict[str, Any]] = []
    while domains:
        taken = draw(st.integers(1, len(domains)))
        routes = draw(st.lists(st.tuples(_matches(), st.sampled_from(_ACTIONS)), min_size=1, max_size=5))
        if draw(st.booleans()):
            routes.append(({"prefix": "/"}, _ACTIONS[0]))
        named = [_route(f"{len(hosts)}-{number}", *route) for number, route in enumerate(routes)]
        hosts.append({"name": f"host-{len(hosts)}", "domains": domains[:taken], "routes": named})
        domains = domains[taken:]
    return {
        "virtual_hosts": hosts,
        "ignore_port_in_host_matching": draw(st.booleans()),
        "ignore_path_parameters_in_path_matching": draw(st.booleans()),
    }


def _queries() -> st.SearchStrategy[str]:
    values = st.sampled_from((*_VALUES[:-1], "a=b", "%61"))
    parameters = st.builds(
        "{}{}{}".format, st.sampled_from(["q", "r", "Q", ""]), st.sampled_from(["=", "=", ""]), values
    )
    return st.lists(parameters, min_size=1, max_size=3).map("&".join).map("?{}".format)


def _asked(method: str, host: str, path: str, headers: list[tuple[str, str]], content: str) -> Asked:
    kind = [("content-type", content)] if content else []
    return Asked(method, host, path, (*headers, *kind))


def _requests(config: dict[str, Any]) -> st.SearchStrategy[Asked]:
    """Requests, most of them to the hosts and paths of a configuration."""
    domains = [domain for host in config["virtual_hosts"] for domain in host["domains"]]
    matches = [route["match"] for host in config["virtual_hosts"] for route in host["routes"]]
    written = {match.get(kind, "") for match in matches for kind in ("prefix", "path", "path_separated_prefix")}
    near = [path for path in sorted(written) if path.startswith("/")]
    hosts = st.sampled_from([domain.replace("*", star) for domain in domains for star in ("x", "y.a")])
    paths = st.builds(
        "{}{}".format, st.sampled_from(near or ["/a"]), st.sampled_from(["", "", "/", "/a", "b", ";v=1", "/../a"])
    )
    headers = st.tuples(
        st.sampled_from(_NAMES[:-1]), st.sampled_from((*_VALUES, "trailers", "http", "https", "trailers,deflate"))
    )
    # With an empty x-forwarded-proto Envoy takes no route at all and answers 404: no budget is too long for that.
    headers = headers.filter(("x-forwarded-proto", "").__ne__)
    grpc = st.sampled_from(["application/grpc", "application/grpc+proto", "application/grpcx", "text/plain"])
    return st.builds(
        _asked,
        st.sampled_from(_METHODS),
        st.builds(str.__add__, hosts | hosts | st.sampled_from(_HOSTS), st.sampled_from(["", "", ":80", ":8080"])),
        st.builds(str.__add__, paths | _paths(), st.just("") | _queries()),
        st.lists(headers, max_size=3),
        st.just("") | grpc,
    )


@st.composite
def _cases(draw: st.DrawFn) -> tuple[dict[str, Any], list[Asked]]:
    config = draw(_configurations())
    return config, draw(st.lists(_requests(config), min_size=_REQUESTS, max_size=_REQUESTS))


class _Oracle:
    """A running Envoy that takes one configuration after the other."""

    def __init__(self, start_envoy: Callable[..., Any], *, normalize_path: bool) -> None:
        self._numbers = itertools.count(1)
        self._envoy = start_envoy(self._named({"virtual_hosts": []}, "0"), normalize_path=normalize_path)
        self._connection: http.client.HTTPConnection = self._envoy.connect("outbound")

    @staticmethod
    def _named(config: dict[str, Any], version: str) -> dict[str, Any]:
        mark = _route(version, {"prefix": "/"}, {"direct_response": {"status": 200}})
        marked = {"name": "mark", "domains": ["mark.invalid"], "routes": [mark]}
        return {**config, "name": "outbound", "virtual_hosts": [*config["virtual_hosts"], marked]}

    def take(self, config: dict[str, Any]) -> RouteTable:
        """Have Envoy take a configuration; returns what its admin port says of it."""
        version = str(next(self._numbers))
        self._envoy.reroute(self._named(config, version))
        until = time.monotonic() + _PATIENCE
        while self.ask(Asked("GET", "mark.invalid", "/", ())) != (200, version):
            assert time.monotonic() < until, f"Envoy does not take {config}"
        return RouteTable.from_config_dump(self._envoy.admin("/config_dump?resource=dynamic_route_configs"))

    def ask(self, asked: Asked) -> tuple[int, str | None]:
        """The status and the route of a request."""
        connection = self._connection
        try:
            connection.putrequest(asked.method, asked.path, skip_host=True, skip_accept_encoding=True)
            for name, value in (("host", asked.host), ("content-length", "0"), *asked.headers):
                connection.putheader(name, value)
            connection.endheaders()
            response = connection.getresponse()
            response.read()
        except BaseException:
            connection.close()
            raise
        return response.status, response.headers.get("x-route")

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()


def _compare(table: RouteTable, asked: Asked, status: int, said: str | None) -> str:
    """Whether both agree, and how sure the table is."""
    ours = table.match_parts(asked.method, asked.host, asked.path, httpx.Headers(list(asked.headers)))
    if status == 400 and said is None:
        return "refused"
    if ours is not None and ours.note:
        assert said is None or said in ours.note.replace(",", " ").split(), (asked, said, ours, list(table))
        return "in doubt"
    assert (None if ours is None else ours.name) == said, (asked, said, ours, list(table))
    return "no route" if said is None else "sure"


@pytest.mark.timeout(0 if _IN_DEPTH else 60)
@pytest.mark.parametrize("normalize_path", [True, False])
def test_the_same_request_takes_the_same_route(start_envoy: Callable[..., Any], *, normalize_path: bool) -> None:
    """Where a table is sure of a route, Envoy takes it; where it is not, the route is among those in play."""
    oracle = _Oracle(start_envoy, normalize_path=normalize_path)
    count: Counter[str] = Counter()

    @settings(
        max_examples=_EXAMPLES,
        derandomize=not _IN_DEPTH,
        database=None,
        deadline=None,
        phases=(Phase.generate,),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )
    @given(_cases())
    def compare(case: tuple[dict[str, Any], list[Asked]]) -> None:
        config, requests = case
        table = oracle.take(config)
        for asked in requests:
            count[_compare(table, asked, *oracle.ask(asked))] += 1

    with contextlib.closing(oracle):
        compare()
    print(f"{count.total()} pairs: {dict(count)}")  # noqa: T201 (what `nox -s differential` is asked for)
    assert count["sure"] > 0.3 * count.total()
    assert count["in doubt"] + count["refused"] < 0.3 * count.total()
    assert count.total() >= _EXAMPLES * _REQUESTS * 0.9
