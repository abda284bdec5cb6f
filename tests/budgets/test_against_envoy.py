"""
What is said of Envoy, asked of a real one: patterns, dumps and time.

Which route a request takes is asked in `test_differential.py`.
"""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from meshaware.budgets import Budget, RouteTable
from meshaware.errors import ConfigDumpError

pytestmark = pytest.mark.envoy


def _answering(name: str, match: dict[str, Any]) -> dict[str, Any]:
    # A header that only Envoy adds to a reply tells the route apart even where a gRPC answer has no body.
    return {
        "name": name,
        "match": match,
        "direct_response": {"status": 200},
        "response_headers_to_add": [{"header": {"key": "x-route", "value": name}}],
    }


def _ask(connection: http.client.HTTPConnection, request: tuple[str, str, str, list[tuple[str, str]]]) -> str | None:
    method, host, path, headers = request
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in (("Host", host), ("Content-Length", "0"), *headers):
        connection.putheader(name, value)
    connection.endheaders()
    response = connection.getresponse()
    response.read()
    return response.headers.get("x-route")


def test_a_pattern_means_what_it_means_to_envoy(
    start_envoy: Callable[..., Any], re2_patterns: list[tuple[str, list[str], list[str]]]
) -> None:
    """Every pattern on every one of the texts, as a condition on a header."""
    patterns = [pattern for pattern, _, _ in re2_patterns]
    texts = sorted({text.strip() for _, matching, other in re2_patterns for text in (*matching, *other)})
    routes = [
        _answering(str(number), {"path": f"/{number}", "headers": [_matches("x-text", pattern)]})
        for number, pattern in enumerate(patterns)
    ]
    config = {"name": "outbound", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]}
    envoy = start_envoy(config)
    table = RouteTable.from_config_dump(envoy.admin("/config_dump"))
    with closing(envoy.connect("outbound")) as connection:
        for number, pattern in enumerate(patterns):
            for text in texts:
                said = _ask(connection, ("GET", "inventory", f"/{number}", [("x-text", text)]))
                ours = table.match("GET", f"http://inventory/{number}", {"x-text": text})
                assert (None if ours is None else ours.name) == said, (pattern, text)


def test_a_call_whose_x_forwarded_proto_is_empty_takes_no_route(start_envoy: Callable[..., Any]) -> None:
    """Envoy does not even look for one; any other value changes nothing here."""
    config = {
        "name": "outbound",
        "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [_answering("all", {"prefix": "/"})]}],
    }
    envoy = start_envoy(config)
    table = RouteTable.from_config_dump(envoy.admin("/config_dump"))
    with closing(envoy.connect("outbound")) as connection:
        for value, route in (("", None), ("http", "all"), ("x", "all")):
            headers = {"X-Forwarded-Proto": value}
            assert _ask(connection, ("GET", "inventory", "/", list(headers.items()))) == route
            ours = table.match("GET", "http://inventory/", headers)
            assert (None if ours is None else ours.name) == route
            explained = table.explain("GET", "http://inventory/", headers)
            assert explained.route == ours
            assert ("x-forwarded-proto is empty" in explained.why) is (route is None)


def _matches(name: str, pattern: str) -> dict[str, Any]:
    return {"name": name, "string_match": {"safe_regex": {"regex": pattern}}}


def test_budgets_are_read_as_envoy_prints_them(start_envoy: Callable[..., Any]) -> None:
    """All that bounds a call, from both shapes of the dump; connect timeouts are in the full one only."""
    fault = {"@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault"}
    route = {
        "name": "all",
        "match": {"prefix": "/"},
        "route": {
            "cluster": "upstream",
            "timeout": "2.5s",
            "retry_policy": {
                "retry_on": "reset,retriable-status-codes",
                "retriable_status_codes": [503],
                "num_retries": 3,
                "per_try_timeout": "0.25s",
                "retry_back_off": {"base_interval": "0.1s"},
            },
        },
        "typed_per_filter_config": {
            "envoy.filters.http.fault": {**fault, "delay": {"fixed_delay": "1.25s", "percentage": {"numerator": 50}}}
        },
    }
    silent = {"name": "silent", "match": {"prefix": "/silent"}, "route": {"cluster": "upstream"}}
    unbounded = {
        "name": "unbounded",
        "match": {"prefix": "/unbounded"},
        "route": {"cluster": "upstream", "timeout": "0s"},
    }
    config = {
        "name": "8080",
        "virtual_hosts": [{"name": "shop", "domains": ["inventory"], "routes": [silent, unbounded, route]}],
        "ignore_port_in_host_matching": True,
    }
    envoy = start_envoy(config)
    flat = RouteTable.from_config_dump(envoy.admin("/config_dump?resource=dynamic_route_configs"))
    full = RouteTable.from_config_dump(envoy.admin("/config_dump"))
    read = [(route.name, route.budget) for route in flat]
    assert read == [
        ("silent", Budget(timeout=15.0)),
        ("unbounded", Budget()),
        (
            "all",
            Budget(
                timeout=2.5,
                attempts=3,
                per_try_timeout=0.25,
                retry_on={"reset", "503"},
                backoff=0.1,
                delay=1.25,
            ),
        ),
    ]
    assert [(route.name, route.budget) for route in full] == [
        (name, replace(budget, connect_timeout=1.5)) for name, budget in read
    ]
    assert [route.origin for route in full] == ["sidecar: route configuration 8080"] * 3
    for table in (flat, full):
        taken = table.match("GET", "http://inventory:8080/items")
        assert taken is not None
        assert taken.name == "all"
        assert table.match("GET", "http://inventory/items") is None


def test_an_envoy_without_http_has_an_empty_table(start_envoy: Callable[..., Any]) -> None:
    """Its full dump has no section of routes, and what it answers to a question about them is no dump."""
    envoy = start_envoy()
    assert len(RouteTable.from_config_dump(envoy.admin("/config_dump"))) == 0
    with pytest.raises(ConfigDumpError, match=r"is not JSON: .*dynamic_route_configs not found"):
        RouteTable.from_config_dump(envoy.admin("/config_dump?resource=dynamic_route_configs"))
    with pytest.raises(ConfigDumpError, match="is cut off after"):
        RouteTable.from_config_dump(envoy.admin("/config_dump")[:-100])


_DEFAULT = "connect-failure,refused-stream,unavailable,cancelled"


@pytest.mark.parametrize(
    ("timeout", "retries", "delay", "least"),
    [
        ("0.4s", None, None, 0.4),
        ("0.3s", {"retry_on": "5xx", "num_retries": 3, "per_try_timeout": "0.2s"}, None, 0.3),
        ("0.2s", {"retry_on": "5xx", "num_retries": 3, "per_try_timeout": "0.2s"}, None, 0.2),
        ("0s", {"retry_on": "5xx", "num_retries": 2, "per_try_timeout": "0.2s"}, None, 0.6),
        ("0s", {"retry_on": "gateway-error", "num_retries": 1, "per_try_timeout": "0.3s"}, None, 0.6),
        ("0s", {"retry_on": "reset", "num_retries": 4, "per_try_timeout": "0.1s"}, None, 0.5),
        ("0s", {"retry_on": _DEFAULT, "num_retries": 5, "per_try_timeout": "0.2s"}, None, 0.2),
        ("0.2s", None, "0.3s", 0.5),
    ],
)
def test_envoy_takes_no_longer_than_the_budget_says(
    start_envoy: Callable[..., Any], timeout: str, retries: dict[str, Any] | None, delay: str | None, least: float
) -> None:
    """With an upstream that takes connections and says nothing: a 504 within the tight bound, and not long before."""
    fault = {"@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault"}
    filters = {"envoy.filters.http.fault": {**fault, "delay": {"fixed_delay": delay, "percentage": {"numerator": 100}}}}
    route: dict[str, Any] = {
        "name": "silent",
        "match": {"prefix": "/"},
        "route": {"cluster": "upstream", "timeout": timeout, **({"retry_policy": retries} if retries else {})},
        "typed_per_filter_config": filters if delay else {},
    }
    config = {"name": "outbound", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]}
    with socket.create_server(("127.0.0.1", 0)) as silent:
        envoy = start_envoy(config, upstream=silent.getsockname()[1])
        (read,) = RouteTable.from_config_dump(envoy.admin("/config_dump?resource=dynamic_route_configs"))
        with closing(envoy.connect("outbound")) as connection:
            connection.connect()
            began = time.monotonic()
            connection.request("GET", "/", headers={"Host": "inventory"})
            assert connection.getresponse().status == 504
            taken = time.monotonic() - began
    tight, ceiling = read.budget.total(0.0, "tight"), read.budget.total(0.0)
    assert tight is not None
    assert ceiling is not None
    assert least - 0.02 <= taken < tight + 0.5
    assert least <= tight <= ceiling
