"""What is said of Envoy's routing, asked of a real one: the same routes, the same requests, the same answers."""

from __future__ import annotations

import http.client
import random
from collections.abc import Callable
from contextlib import closing
from typing import Any

import httpx
import pytest

from meshaware.budgets import RouteTable

pytestmark = pytest.mark.envoy

_SEED = 20
_HOSTS = 12
_ROUTES = 12
_REQUESTS = 2500

_PATHS = (
    "/",
    "/a",
    "/a/b",
    "/A/B",
    "/ab",
    "/a/1",
    "/a/12",
    "/items/42",
    "/items/42/",
    "/b;v=1",
    "/%41",
    "/a/../b",
    "/a%2Fb",
    "/x|y",
)
_PATTERNS = (
    "/[a-z]+",
    "/a/.*",
    "/items/\\d+",
    "/(a|b)(/.*)?",
    "(?i)/A",
    "/a/[0-9]{1,2}",
    ".*",
    "/[^/]+/?",
    "^/a$|/b",
    "/a.b",
    "",
)
_TEXTS = ("1", "12", "a", "A", "ab", "", "a,b", "42")
_NAMES = ("x-user", "x-n", "x-kind", "user-agent", "x-envoy-max-retries", "te", "x-request-id", "cookie")
_DOMAINS = (
    "inventory",
    "inventory.shop",
    "*.shop",
    "*.a.shop",
    "*-b.shop",
    "inventory.*",
    "in*",
    "INVENTORY.example.com",
    "*",
)
_CALLED = (
    *(domain.replace("*", "x") for domain in _DOMAINS),
    "inventory:8080",
    "Inventory.Shop:1",
    "y.a.shop",
    "a-b.shop",
    "inventory.",
    ".shop",
    "shop",
    "[::1]:80",
    "inventory.x.shop",
)


def _text(
    dice: random.Random, *, kinds: tuple[str, ...] = ("exact", "prefix", "suffix", "contains", "safe_regex")
) -> Any:
    kind = dice.choice(kinds)
    if kind == "safe_regex":
        return {"safe_regex": {"regex": dice.choice(("[a-z]+", "1?2?", ".*a.*", "(?i)a", "\\d+"))}}
    value = dice.choice(_TEXTS)
    if kind != "exact" and not value:
        kind = "exact"
    return {kind: value, "ignore_case": dice.random() < 0.3}


def _header(dice: random.Random) -> dict[str, Any]:
    name = dice.choice((*_NAMES, ":method", ":authority", ":path", ":scheme", "host"))
    header: dict[str, Any] = {"name": name, "invert_match": dice.random() < 0.3}
    match dice.randrange(4):
        case 0:
            header["present_match"] = dice.random() < 0.7
        case 1:
            header["range_match"] = {"start": dice.randrange(5), "end": dice.randrange(50)}
        case _:
            header["string_match"] = _text(dice)
            header["treat_missing_header_as_empty"] = dice.random() < 0.3
    return header


def _query(dice: random.Random) -> dict[str, Any]:
    name = dice.choice(("q", "r", ""))
    condition = {"present_match": dice.random() < 0.7} if dice.random() < 0.4 else {"string_match": _text(dice)}
    return {"name": name or "q", **condition}


def _match(dice: random.Random) -> dict[str, Any]:
    kind = dice.choice(("prefix", "path", "path_separated_prefix", "safe_regex"))
    value = dice.choice(_PATHS)
    match: dict[str, Any] = {"case_sensitive": dice.random() < 0.7}
    if kind == "safe_regex":
        match = {"safe_regex": {"regex": dice.choice(_PATTERNS[:-1])}}
    elif kind == "path_separated_prefix":
        match[kind] = value.rstrip("/").replace("|", "") or "/a"
    else:
        match[kind] = value
    if dice.random() < 0.5:
        match["headers"] = [_header(dice) for _ in range(dice.randint(1, 2))]
    if dice.random() < 0.3:
        match["query_parameters"] = [_query(dice)]
    if dice.random() < 0.05:
        match["grpc"] = {}
    return match


def _answering(name: str, match: dict[str, Any]) -> dict[str, Any]:
    # A header that only Envoy adds to a reply tells the route apart even where a gRPC answer has no body.
    return {
        "name": name,
        "match": match,
        "direct_response": {"status": 200},
        "response_headers_to_add": [{"header": {"key": "x-route", "value": name}}],
    }


def _config(dice: random.Random, *, ignore_port: bool) -> dict[str, Any]:
    hosts: list[dict[str, Any]] = []
    for number, domain in enumerate(_DOMAINS):
        routes = [_answering(f"{number}-{route}", _match(dice)) for route in range(_ROUTES)]
        if dice.random() < 0.7:
            routes.append(_answering(f"{number}-rest", {"prefix": "/"}))
        hosts.append({"name": f"host-{number}", "domains": [domain], "routes": routes})
    dice.shuffle(hosts)
    return {"name": "outbound", "virtual_hosts": hosts, "ignore_port_in_host_matching": ignore_port}


def _request(dice: random.Random) -> tuple[str, str, str, list[tuple[str, str]]]:
    path = dice.choice(_PATHS)
    if dice.random() < 0.4:
        path += "?" + "&".join(f"{dice.choice('qrs')}={dice.choice(_TEXTS)}" for _ in range(dice.randint(1, 2)))
    headers = [(dice.choice(_NAMES), dice.choice(_TEXTS)) for _ in range(dice.randrange(4))]
    if dice.random() < 0.05:
        headers.append(("content-type", "application/grpc+proto"))
    return dice.choice(("GET", "POST", "DELETE")), dice.choice(_CALLED), path, headers


def _ask(connection: http.client.HTTPConnection, request: tuple[str, str, str, list[tuple[str, str]]]) -> str | None:
    method, host, path, headers = request
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in (("Host", host), ("Content-Length", "0"), *headers):
        connection.putheader(name, value)
    connection.endheaders()
    response = connection.getresponse()
    response.read()
    return response.headers.get("x-route")


@pytest.mark.parametrize("ignore_port", [True, False])
@pytest.mark.parametrize("normalize_path", [True, False])
def test_the_same_request_takes_the_same_route(
    start_envoy: Callable[..., Any], *, normalize_path: bool, ignore_port: bool
) -> None:
    """Random routes and requests: where a table is sure of a route, Envoy takes it; else it is among those in play."""
    dice = random.Random(_SEED + 2 * normalize_path + ignore_port)
    envoy = start_envoy(_config(dice, ignore_port=ignore_port), normalize_path=normalize_path)
    table = RouteTable.from_config_dump(envoy.admin("/config_dump?resource=dynamic_route_configs"))
    sure = 0
    with closing(envoy.connect("outbound")) as connection:
        for _ in range(_REQUESTS):
            request = _request(dice)
            method, host, path, headers = request
            said = _ask(connection, request)
            ours = table.match_parts(method, host, path, httpx.Headers(headers))
            if ours is not None and ours.note:
                assert said is None or said in ours.note.replace(",", " ").split(), request
                continue
            sure += 1
            assert (None if ours is None else ours.name) == said, request
    assert sure > _REQUESTS * 0.7
