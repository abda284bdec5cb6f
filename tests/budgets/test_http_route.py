"""Gateway API HTTPRoutes: what istiod makes of one whose parent is a service."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from meshaware.budgets import Budget, Route, RouteTable
from meshaware.budgets.budget import DEFAULT_RETRY_ON
from meshaware.errors import ManifestError

Read = Callable[..., RouteTable]
TO = "backendRefs: [{name: inventory, port: 80}]"


def http_route(
    rules: str,
    *,
    name: str = "r",
    namespace: str = "shop",
    parent: str = 'group: "", kind: Service, name: inventory',
    version: str = "v1",
    metadata: str = "",
) -> str:
    return (
        f"---\napiVersion: gateway.networking.k8s.io/{version}\nkind: HTTPRoute\n"
        f"metadata: {{name: {name}, namespace: {namespace}{metadata}}}\n"
        f"spec:\n  parentRefs: [{{{parent}}}]\n  rules: [{rules}]\n"
    )


def found(routes: RouteTable, target: str = "/", host: str = "inventory", **asked: Any) -> Route:
    route = routes.match(asked.pop("method", "GET"), f"http://{host}{target}", asked.pop("headers", None))
    assert route is not None
    return route


def budget(read: Read, rule: str) -> Budget:
    return found(read(http_route(f"{{{TO}, {rule}}}" if rule else f"{{{TO}}}"), namespace="shop")).budget


DEFAULT = Budget(attempts=2)


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_both_versions_of_the_resource_are_read(read: Read, version: str) -> None:
    """They are the same; the route has the name that Istio gives it, and says where it stands."""
    text = http_route(f"{{timeouts: {{request: 3s}}, {TO}}}", version=version)
    route = found(read(text, namespace="shop"))
    assert (route.name, route.budget) == ("shop.r.0", Budget(timeout=3.0, attempts=2))
    assert route.origin.endswith("routes.yaml, document 1, line 7, spec.rules[0]")
    assert route.host == "inventory.shop.svc.cluster.local"


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ("", DEFAULT),
        ("timeouts: {request: 3s}", Budget(timeout=3.0, attempts=2)),
        ("timeouts: {request: 1h2m3s4ms}", Budget(timeout=3723.004, attempts=2)),
        ("timeouts: {request: 0s}", DEFAULT),
        ("timeouts: {request: 0h0ms}", DEFAULT),
        # Without retries asked for, the time of a try takes the place of the request's.
        ("timeouts: {backendRequest: 1s}", Budget(timeout=1.0, attempts=2)),
        ("timeouts: {request: 3s, backendRequest: 1s}", Budget(timeout=1.0, attempts=2)),
        ("timeouts: {request: 3s, backendRequest: 0s}", Budget(timeout=3.0, attempts=2)),
        ("timeouts: {request: 0s, backendRequest: 1s}", Budget(timeout=1.0, attempts=2)),
        (
            "timeouts: {request: 3s, backendRequest: 1s}, retry: {}",
            Budget(timeout=3.0, attempts=2, per_try_timeout=1.0),
        ),
        ("retry: {attempts: 4}", Budget(attempts=4)),
        ("retry: {attempts: 0}, timeouts: {backendRequest: 1s}", Budget()),
        (
            "retry: {attempts: 1, codes: [503, 500], backoff: 100ms}",
            Budget(attempts=1, retry_on=DEFAULT_RETRY_ON | {"503", "500"}, backoff=0.1),
        ),
        ("retry: {backoff: 0s}", DEFAULT),
    ],
)
def test_timeouts_and_retries_become_what_istio_makes_of_them(read: Read, rule: str, wanted: Budget) -> None:
    """convertHTTPRoute in Istio's conversion.go; what is left out is the mesh's default: two retries, no timeout."""
    assert budget(read, rule) == wanted


@pytest.mark.parametrize(
    ("match", "taken", "not_taken"),
    [
        ("{}", ["/", "/x"], []),
        ("{path: {value: /a}}", ["/a", "/a/", "/a/b", "/a?q=1"], ["/ab", "/A", "/"]),
        ("{path: {type: PathPrefix, value: /a/}}", ["/a", "/a/b"], ["/ab"]),
        ("{path: {type: PathPrefix, value: /}}", ["/", "/x"], []),
        ("{path: {type: Exact, value: /a}}", ["/a", "/a?q"], ["/a/", "/ab"]),
        ("{path: {type: RegularExpression, value: '/a[0-9]+'}}", ["/a1", "/a12?q"], ["/a", "/a1b"]),
        ("{queryParams: [{name: q, value: '1'}]}", ["/?q=1", "/x?p=2&q=1"], ["/", "/?q=2", "/?Q=1"]),
        ("{queryParams: [{name: q, type: RegularExpression, value: '[0-9]+'}]}", ["/?q=12"], ["/?q=a"]),
        ("{method: POST}", [], ["/"]),
        ("{method: GET}", ["/"], []),
    ],
)
def test_matches(read: Read, match: str, taken: list[str], not_taken: list[str]) -> None:
    """A prefix ends where a segment ends; a path that is left out is every path."""
    routes = read(http_route(f"{{name: it, matches: [{match}], {TO}}}"), namespace="shop")
    for target in taken:
        assert found(routes, target).name == "it"
    for target in not_taken:
        assert routes.match("GET", f"http://inventory{target}") is None


@pytest.mark.parametrize(
    ("header", "value", "met"),
    [
        ("{name: X-A, value: b}", "b", True),
        ("{name: x-a, value: b}", "bc", False),
        ("{name: x-a, type: RegularExpression, value: 'b.*'}", "bc", True),
        ("{name: x-a, type: RegularExpression, value: '*'}", "", True),
    ],
)
def test_headers(read: Read, header: str, value: str, met: bool) -> None:
    """Names ignore case."""
    routes = read(http_route(f"{{matches: [{{headers: [{header}]}}], {TO}}}"), namespace="shop")
    assert (routes.match("GET", "http://inventory/", {"x-a": value}) is not None) is met
    assert routes.match("GET", "http://inventory/") is None


def test_matches_of_a_rule_are_alternatives(read: Read) -> None:
    """Each becomes a route of its own."""
    routes = read(
        http_route(f"{{name: it, matches: [{{path: {{value: /a}}}}, {{method: PUT}}], {TO}}}"), namespace="shop"
    )
    assert found(routes, "/a").name == "it"
    assert found(routes, "/x", method="PUT").name == "it"
    assert routes.match("GET", "http://inventory/x") is None


def test_the_most_specific_match_wins_whatever_the_order(read: Read) -> None:
    """sortHTTPRoutes: exact before prefix before regex, the longer, with a method, more headers, more parameters."""
    ranked = [
        "{path: {type: Exact, value: /a/b}}",
        "{path: {type: Exact, value: /a}}",
        "{path: {value: /a/b}}",
        "{path: {value: /a}, method: GET}",
        "{path: {value: /a}, headers: [{name: x, value: '1'}, {name: y, value: '1'}]}",
        "{path: {value: /a}, headers: [{name: x, value: '1'}], queryParams: [{name: q, value: '1'}]}",
        "{path: {value: /a}, headers: [{name: x, value: '1'}]}",
        "{path: {value: /a}, queryParams: [{name: q, value: '1'}]}",
        "{path: {value: /a}}",
        "{}",
        "{path: {type: RegularExpression, value: '/a/.*'}}",
    ]
    rules = [f"{{name: r{number}, matches: [{match}], {TO}}}" for number, match in enumerate(ranked)]
    routes = read(http_route(", ".join(reversed(rules))), namespace="shop")
    assert [route.name for route in routes] == [f"r{number}" for number in range(len(ranked))]


def test_routes_of_a_service_are_merged(read: Read) -> None:
    """Unlike VirtualServices; of equal matches the older route's comes first, then by the order of reading."""
    old, new = (f", creationTimestamp: 202{year}-01-01T00:00:00Z" for year in (0, 1))
    prefix = "matches: [{path: {value: /a}}]"
    routes = read(
        http_route(f"{{name: new, {prefix}, {TO}}}, {{name: wide, {TO}}}", name="a", metadata=new)
        + http_route(
            f"{{name: old, {prefix}, {TO}}}, {{name: long, matches: [{{path: {{value: /a/b}}}}], {TO}}}", metadata=old
        ),
        namespace="shop",
    )
    assert [route.name for route in routes] == ["long", "old", "new", "wide"]


@pytest.mark.parametrize(
    ("namespace", "caller", "governs"),
    [
        ("shop", "shop", True),
        ("shop", "front", True),  # the service's own: for every caller
        ("front", "front", True),  # the caller's own: for callers there
        ("front", "back", False),
        ("front", "shop", False),
    ],
)
def test_a_route_is_the_services_or_the_callers(read: Read, namespace: str, caller: str, governs: bool) -> None:
    """buildSidecarVirtualHostsForVirtualService: of any other namespace it is for nobody."""
    parent = 'group: "", kind: Service, name: inventory, namespace: shop'
    routes = read(http_route(f"{{{TO}}}", namespace=namespace, parent=parent), namespace=caller)
    assert (routes.match("GET", "http://inventory.shop/") is not None) is governs


def test_the_callers_own_route_comes_before_the_services(read: Read) -> None:
    """And before older VirtualServices that are public; SelectVirtualServices since it knows of both."""
    parent = 'group: "", kind: Service, name: inventory, namespace: shop'
    old = ", creationTimestamp: 2020-01-01T00:00:00Z"
    service = http_route(f"{{name: service, {TO}}}", parent=parent, metadata=old)
    own = http_route(f"{{name: own, {TO}}}", namespace="front", parent=parent)
    virtual = (
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\n"
        f"metadata: {{name: v, namespace: shop{old}}}\nspec: {{hosts: [inventory], http: [{{name: virtual}}]}}\n"
    )
    assert found(read(service + virtual + own, namespace="front"), host="inventory.shop").name == "own"
    assert found(read(service + own, namespace="back"), host="inventory.shop").name == "service"


def test_a_parent_may_be_for_one_port(read: Read) -> None:
    """The others are left to what else there is."""
    parent = 'group: "", kind: Service, name: inventory, port: 8080'
    routes = read(
        http_route(f"{{name: on-8080, {TO}}}", parent=parent) + http_route(f"{{name: any, {TO}}}"), namespace="shop"
    )
    assert found(routes, host="inventory:8080").name == "on-8080"
    assert found(routes).name == "any"


def test_a_parent_may_be_a_service_entry(read: Read) -> None:
    """If that is among the manifests, whatever the order; its hosts are then governed."""
    parent = "group: networking.istio.io, kind: ServiceEntry, name: api"
    entry = """---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api, namespace: shop}
spec: {hosts: [api.example.com], addresses: [192.0.2.7, 198.51.100.0/24]}
"""
    route = http_route(f"{{name: it, {TO}}}", parent=parent)
    routes = read(route + entry, namespace="shop")
    assert found(routes, host="api.example.com").name == "it"
    assert found(routes, host="192.0.2.7").name == "it"
    assert read(route, namespace="shop").skipped == {"HTTPRoute for a ServiceEntry that is not among the manifests": 1}


@pytest.mark.parametrize(
    ("parent", "reason"),
    [
        ("name: gateway", "for gateways only"),
        ("kind: Service, name: inventory", 'for a Service in the group of gateways: its parentRef lacks group: ""'),
    ],
)
def test_what_has_no_service_for_a_parent_is_passed_over(read: Read, parent: str, reason: str) -> None:
    """And counted; a Service without its group is what istiod does not take for one."""
    routes = read(http_route(f"{{{TO}}}", parent=parent), namespace="shop")
    assert len(routes) == 0
    assert routes.skipped == {f"HTTPRoute {reason}": 1}


@pytest.mark.parametrize(
    ("rule", "kind"),
    [
        (f"filters: [{{type: ExtensionRef, extensionRef: {{}}}}], {TO}", "ExtensionRef"),
        ("backendRefs: [{name: inventory, port: 80, filters: [{type: URLRewrite}]}]", "URLRewrite"),
    ],
)
def test_a_filter_that_istiod_does_not_know_has_it_make_no_route_at_all(read: Read, rule: str, kind: str) -> None:
    """Not even of the other rules."""
    routes = read(http_route(f"{{{rule}}}, {{{TO}}}"), namespace="shop")
    assert len(routes) == 0
    assert routes.skipped == {f"HTTPRoute with a filter of type {kind}, of which istiod makes no route": 1}


@pytest.mark.parametrize(
    ("rule", "action"),
    [
        (f"filters: [{{type: RequestRedirect}}], {TO}", "redirect"),
        (f"filters: [{{type: RequestHeaderModifier}}], {TO}", "route"),
        ("name: none", "direct_response"),
        ("backendRefs: [{name: inventory, port: 80, weight: 0}]", "direct_response"),
    ],
)
def test_what_is_done_with_a_request(read: Read, rule: str, action: str) -> None:
    """Without a backend Envoy answers 500 by itself."""
    route = found(read(http_route(f"{{timeouts: {{request: 3s}}, {rule}}}"), namespace="shop"))
    assert route.action == action
    assert (route.budget.timeout == 3.0) is (action == "route")


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (
            "{timeouts: {request: 1.5s}}",
            "spec.rules[0].timeouts.request: 1.5s: must be a duration of whole h, m, s or ms",
        ),
        ("{timeouts: {request: 10}}", "spec.rules[0].timeouts.request: 10: must be a duration of whole"),
        ("{timeouts: {request: 1s1s1s1s1s}}", "timeouts.request: 1s1s1s1s1s: must be a duration"),
        (
            "{timeouts: {request: 1s, backendRequest: 2s}}",
            "spec.rules[0].timeouts.backendRequest: 2s: must not be longer than timeouts.request",
        ),
        ("{retry: {codes: [200]}}", "spec.rules[0].retry.codes[0]: 200: must be from 400 to 599"),
        ("{retry: {attempts: -1}}", "spec.rules[0].retry.attempts: -1: must be from 0 to"),
        ("{matches: [{path: {type: Prefix}}]}", "spec.rules[0].matches[0].path.type: Prefix: must be one of Exact,"),
        ("{matches: [{path: {value: a}}]}", "spec.rules[0].matches[0].path.value: a: must begin with /"),
        ("{matches: [{path: {value: /a//b}}]}", "matches[0].path.value: /a//b: must not have // in it"),
        ("{matches: [{path: {value: /a/..}}]}", "matches[0].path.value: /a/..: must not have /.. in it"),
        ("{matches: [{path: {type: RegularExpression, value: ''}}]}", "must not be empty"),
        ("{matches: [{method: get}]}", "spec.rules[0].matches[0].method: get: must be one of GET,"),
        ("{matches: [{headers: [{value: a}]}]}", "headers[0].name: is missing: must be the name that is compared"),
        ("{matches: [{headers: [{name: x}]}]}", "headers[0].value: is missing: must be the text that is compared"),
        ("{matches: [{headers: [{name: '', value: a}]}]}", "headers[0]: a mapping: has an empty name"),
        ("{matches: [{headers: [{name: x, value: ''}]}]}", "headers[0].value: '': must not be empty"),
        ("{backendRefs: [{name: inventory}]}", "spec.rules[0].backendRefs[0]: a mapping: must have a port"),
        (
            "{backendRefs: [{port: 80}]}",
            "spec.rules[0].backendRefs[0].name: is missing: must be the name of the backend",
        ),
        ("{filters: [{}]}", "spec.rules[0].filters[0].type: is missing: must be the type of the filter"),
    ],
)
def test_what_the_gateway_api_refuses_is_named_to_the_field(read: Read, rules: str, said: str) -> None:
    """File, document, line, path, value and rule."""
    with pytest.raises(ManifestError) as raised:
        read(http_route(rules), namespace="shop")
    assert "routes.yaml, document 1, line 7: " in str(raised.value)
    assert said in str(raised.value)


def test_other_groups_and_versions(read: Read) -> None:
    """A kind of the same name in another group is passed over; a version that is not known is a mistake."""
    linkerd = "apiVersion: policy.linkerd.io/v1beta3\nkind: HTTPRoute\n---\napiVersion: v1\nkind: GRPCRoute\n"
    assert read(linkerd).skipped == {"HTTPRoute of policy.linkerd.io/v1beta3": 1, "GRPCRoute": 1}
    with pytest.raises(ManifestError, match=r"apiVersion: gateway.networking.k8s.io/v1alpha2: must be one of"):
        read(http_route("", version="v1alpha2"))


def test_a_list_of_routes_and_fields_that_are_not_known(read: Read) -> None:
    """As `kubectl get httproutes -o yaml` writes them."""
    routes = read(
        """
        apiVersion: gateway.networking.k8s.io/v1
        kind: HTTPRouteList
        items:
        - metadata: {name: r, namespace: shop}
          status: {parents: []}
          spec:
            parentRefs: [{group: "", kind: Service, name: inventory, sectionName: http}]
            hostnames: [ignored.example.com]
            useDefaultGateways: All
            rules: [{sessionPersistence: {}, backendRefs: [{name: inventory, port: 80}]}]
        """,
        namespace="shop",
    )
    assert found(routes).name == "shop.r.0"


def test_connecting_is_bounded_by_the_backends_destination_rule(read: Read) -> None:
    """By the port that the backend names; of several, the largest."""
    rule = """---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: d, namespace: shop}
spec:
  host: inventory
  trafficPolicy:
    connectionPool: {tcp: {connectTimeout: 1s}}
    portLevelSettings: [{port: {number: 8080}, connectionPool: {tcp: {connectTimeout: 3s}}}]
"""
    for backends, seconds in (("80", 1.0), ("8080", 3.0)):
        text = http_route(f"{{backendRefs: [{{name: inventory, port: {backends}}}]}}") + rule
        assert found(read(text, namespace="shop")).budget.connect_timeout == seconds
