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
from collections.abc import Callable
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


def _patterns() -> st.SearchStrategy[str]:
    atoms = st.sampled_from(["a", "b", "/", "1", ".", "[ab]", "[^/]", "\\d", "\\w", "(a|b)", "(?:/a)"])
    pieces = st.builds(str.__add__, atoms, st.sampled_from(["", "", "*", "+", "?", "{1,2}", "*?"]))
    return st.sampled_from(_PATTERNS) | st.lists(pieces, min_size=1, max_size=4).map("".join)


def _texts() -> st.SearchStrategy[dict[str, Any]]:
    plain = st.builds(
        lambda kind, value, ignore_case: {kind if value else "exact": value, "ignore_case": ignore_case},
        st.sampled_from(["exact", "prefix", "suffix", "contains"]),
        st.sampled_from((*_VALUES, "GET", "inventory", "http", "/a")),
        st.booleans(),
    )
    return plain | _patterns().map(lambda pattern: {"safe_regex": {"regex": pattern}})


def _header_matches() -> st.SearchStrategy[dict[str, Any]]:
    kinds = st.one_of(
        st.booleans().map(lambda present: {"present_match": present}),
        st.builds(
            lambda start, length: {"range_match": {"start": start, "end": start + length}},
            st.integers(-5, 15),
            st.integers(0, 40),
        ),
        st.builds(
            lambda text, empty: {"string_match": text, "treat_missing_header_as_empty": empty},
            _texts(),
            st.booleans(),
        ),
        st.just(dict[str, Any]()),
    )
    return st.builds(
        lambda name, invert, kind: {"name": name, "invert_match": invert, **kind},
        st.sampled_from(_NAMES + _PSEUDO),
        st.booleans(),
        kinds,
    )


def _query_matches() -> st.SearchStrategy[dict[str, Any]]:
    kinds = st.booleans().map(lambda present: {"present_match": present}) | _texts().map(
        lambda text: {"string_match": text}
    )
    return st.builds(lambda name, kind: {"name": name, **kind}, st.sampled_from("qrQ"), kinds)


def _paths() -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(_SEGMENTS), max_size=3).map(lambda segments: "/" + "/".join(segments))


def _path_matches() -> st.SearchStrategy[dict[str, Any]]:
    return st.one_of(
        st.builds(lambda kind, path: {kind: path}, st.sampled_from(["prefix", "path"]), _paths()),
        _paths().map(lambda path: {"path_separated_prefix": path.rstrip("/") or "/a"}),
        _patterns().map(lambda pattern: {"safe_regex": {"regex": pattern}}),
        st.just({"prefix": ""}),
    )


def _seldom(conditions: st.SearchStrategy[Any], most: int) -> st.SearchStrategy[list[Any]]:
    return st.one_of(st.just([]), st.just([]), st.lists(conditions, min_size=1, max_size=most))


def _matches() -> st.SearchStrategy[dict[str, Any]]:
    return st.builds(
        lambda path, sensitive, headers, query, grpc: {
            **path,
            "case_sensitive": sensitive,
            "headers": headers,
            "query_parameters": query,
            **({"grpc": {}} if grpc else {}),
        },
        _path_matches(),
        st.booleans(),
        _seldom(_header_matches(), 2),
        _seldom(_query_matches(), 1),
        st.integers(0, 19).map(lambda number: number == 19),
    )


_ACTIONS: tuple[dict[str, Any], ...] = (
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
    parameters = st.builds("{}{}{}".format, st.sampled_from(["q", "r", "Q", ""]), st.sampled_from(["=", "=", ""]), values)
    return st.lists(parameters, min_size=1, max_size=3).map(lambda each: "?" + "&".join(each))


def _requests(config: dict[str, Any]) -> st.SearchStrategy[Asked]:
    """Requests, most of them to the hosts and paths of a configuration."""
    domains = [domain for host in config["virtual_hosts"] for domain in host["domains"]]
    matches = [route["match"] for host in config["virtual_hosts"] for route in host["routes"]]
    written = {match.get(kind, "") for match in matches for kind in ("prefix", "path", "path_separated_prefix")}
    near = [path for path in sorted(written) if path.startswith("/")]
    hosts = st.sampled_from([*(domain.replace("*", "x") for domain in domains), *domains[:1]]).map(
        lambda host: host.replace("*", "y.a")
    )
    paths = st.builds(
        "{}{}".format, st.sampled_from(near or ["/a"]), st.sampled_from(["", "", "/", "/a", "b", ";v=1", "/../a"])
    )
    headers = st.tuples(
        st.sampled_from(_NAMES[:-1]), st.sampled_from((*_VALUES, "trailers", "http", "https", "trailers,deflate"))
    )
    # With an empty x-forwarded-proto Envoy takes no route at all and answers 404: no budget is too long for that.
    headers = headers.filter(lambda header: header != ("x-forwarded-proto", ""))
    grpc = st.sampled_from(["application/grpc", "application/grpc+proto", "application/grpcx", "text/plain"])
    return st.builds(
        lambda method, host, port, path, query, headers, content: Asked(
            method, host + port, path + query, (*headers, *content)
        ),
        st.sampled_from(_METHODS),
        hosts | hosts | st.sampled_from(_HOSTS),
        st.sampled_from(["", "", ":80", ":8080"]),
        paths | _paths(),
        st.just("") | _queries(),
        st.lists(headers, max_size=3),
        st.just(()) | grpc.map(lambda kind: (("content-type", kind),)),
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
        assert said is None or said in ours.note.replace(",", " ").split(), (asked, said, ours)
        return "in doubt"
    assert (None if ours is None else ours.name) == said, (asked, said, ours)
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
        suppress_health_check=list(HealthCheck),
    )
    @given(_cases())
    def compare(case: tuple[dict[str, Any], list[Asked]]) -> None:
        config, requests = case
        table = oracle.take(config)
        for asked in requests:
            try:
                count[_compare(table, asked, *oracle.ask(asked))] += 1
            except AssertionError:
                print(config, *table, sep="\n")
                raise

    with contextlib.closing(oracle):
        compare()
    print(f"{count.total()} pairs: {dict(count)}")
    assert count["sure"] > 0.4 * count.total()
    assert count["in doubt"] + count["refused"] < 0.3 * count.total()
    assert count.total() >= _EXAMPLES * _REQUESTS * 0.9
