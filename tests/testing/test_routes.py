"""VirtualServices to Envoy's routes, without an Envoy; what Envoys make of them is in test_routing.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from meshaware.errors import LocalMeshError
from meshaware.testing.manifests import Manifest
from meshaware.testing.routes import check_routes, route_configuration
from meshaware.testing.view import Client, View

TO = "route: [{destination: {host: inventory}}]"
Read = Callable[..., list[Manifest]]
DEFAULT_RETRIES = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"


def host_of(manifests: Sequence[Manifest], view: View, name: str) -> dict[str, Any] | None:
    """The virtual host of this name."""
    hosts = route_configuration(manifests, view)["virtual_hosts"]
    return next((host for host in hosts if host["name"].startswith(name)), None)


def routes_of(manifests: Sequence[Manifest], view: View) -> list[dict[str, Any]]:
    """The routes of `inventory`."""
    host = host_of(manifests, view, "inventory.")
    assert host is not None
    routes: list[dict[str, Any]] = host["routes"]
    return routes


def statuses(manifests: Sequence[Manifest], view: View) -> list[int]:
    """The direct responses of `inventory`'s routes: which rules there are."""
    return [route["direct_response"]["status"] for route in routes_of(manifests, view) if "direct_response" in route]


def answering(read: Read, status: int, more: str = "hosts: [inventory]") -> list[Manifest]:
    """A VirtualService that answers with this status."""
    return read(f"{more}\nhttp: [{{directResponse: {{status: {status}}}}}]")


def test_without_a_virtual_service_a_service_has_istios_default_route(view: View) -> None:
    """No timeout, two retries."""
    (route,) = routes_of([], view)
    assert route["name"] == "default"
    assert route["match"] == {"prefix": "/"}
    assert route["route"] == {
        "cluster": "outbound|8080||inventory.shop.svc.cluster.local",
        "timeout": "0s",
        "max_grpc_timeout": "0s",
        "retry_policy": {
            "retry_on": DEFAULT_RETRIES,
            "num_retries": 2,
            "retry_host_predicate": route["route"]["retry_policy"]["retry_host_predicate"],
            "host_selection_retry_max_attempts": 5,
        },
    }


def test_domains_are_those_of_istio(view: View) -> None:
    """The short name in its own namespace only, and no ports."""
    host = host_of([], view, "inventory.")
    assert host is not None
    full = "inventory.shop.svc.cluster.local"
    assert host["domains"] == [full, full + ".", "inventory", "inventory.shop.svc", "inventory.shop"]
    assert host["name"] == full + ":8080"
    elsewhere = host_of([], replace(view, client=Client("other", {})), "inventory.")
    assert elsewhere is not None
    assert "inventory" not in elsewhere["domains"]
    configuration = route_configuration([], view)
    assert configuration["ignore_port_in_host_matching"]
    assert [host["domains"] for host in configuration["virtual_hosts"][-2:]] == [["127.0.0.1", "[::1]"], ["*"]]


@pytest.mark.parametrize(
    ("hosts", "governs"),
    [
        ("inventory", True),
        ("inventory.shop.svc.cluster.local", True),
        ("'*.shop.svc.cluster.local'", True),
        ("'*'", True),
        ("inventory.shop", False),
        ("'*.other.svc.cluster.local'", False),
        ("orders", False),
    ],
)
def test_a_host_with_a_dot_is_taken_as_it_stands(read: Read, view: View, hosts: str, governs: bool) -> None:
    """`inventory.shop` is not completed, as in Istio."""
    assert bool(statuses(answering(read, 201, f"hosts: [{hosts}]"), view)) == governs


def test_the_nearest_of_several_virtual_services_governs_alone(read: Read, view: View) -> None:
    """Exact before wildcard, first before second: they do not merge."""
    wide, exact, second = (
        answering(read, 201, "hosts: ['*']"),
        answering(read, 202),
        answering(read, 203),
    )
    assert statuses(wide + exact + second, view) == [202]
    foreign = [replace_namespace(answering(read, 204, "hosts: [inventory.shop.svc.cluster.local]")[0], "other")]
    assert statuses(foreign + exact, view) == [204]
    assert statuses(exact + foreign, view) == [202]
    assert statuses(foreign, view) == [204]


def test_what_is_private_to_the_client_comes_first(read: Read, view: View) -> None:
    """Then what is exported to its namespace by name, then what is public, as Istio ranks them."""
    host = "hosts: [inventory.shop.svc.cluster.local]"
    public = answering(read, 201)
    named = [replace_namespace(answering(read, 202, f"{host}\nexportTo: [shop]")[0], "other")]
    private = answering(read, 203, "hosts: [inventory]\nexportTo: ['.']")
    nowhere = answering(read, 204, "hosts: [inventory]\nexportTo: ['~', shop]")
    assert statuses(public + named + private, view) == [203]
    assert statuses(public + named, view) == [202]
    assert statuses(nowhere + public, view) == [201]
    wide = answering(read, 205, "hosts: ['*.shop.svc.cluster.local']\nexportTo: ['.']")
    assert statuses(wide + public, view) == [201]


def test_one_without_rules_for_the_client_leaves_the_host_to_the_next(read: Read, view: View) -> None:
    """Of that very name, not to a wildcard."""
    none = read("hosts: [inventory]\nhttp: [{match: [{port: 9}], directResponse: {status: 201}}]")
    assert statuses(none + answering(read, 202), view) == [202]
    assert statuses(none + answering(read, 203, "hosts: ['*.shop.svc.cluster.local']"), view) == []


def replace_namespace(manifest: Manifest, namespace: str) -> Manifest:
    return manifest._replace(namespace=namespace)


@pytest.mark.parametrize(
    ("line", "namespace", "applies"),
    [
        ("gateways: [mesh]", "shop", True),
        ("gateways: [ingress]", "shop", False),
        ("gateways: [ingress, mesh]", "shop", True),
        ("exportTo: ['.']", "shop", True),
        ("exportTo: ['.']", "other", False),
        ("exportTo: [other]", "other", True),
        ("exportTo: ['~']", "shop", False),
    ],
)
def test_gateways_and_export_decide_for_whom_it_is(
    read: Read, view: View, line: str, namespace: str, applies: bool
) -> None:
    """As istiod does before a sidecar sees anything."""
    asking = replace(view, client=Client(namespace, {}))
    assert bool(statuses(answering(read, 201, f"hosts: [inventory]\n{line}"), asking)) == applies


def test_a_host_that_is_no_service_is_routed_under_its_own_name(read: Read, view: View) -> None:
    """A wildcard too; but not a second name of a service."""
    spec = "hosts: [api.example.com, '*.example.org', inventory.shop]"
    configuration = route_configuration(answering(read, 201, spec), view)
    names = [host["name"] for host in configuration["virtual_hosts"]]
    assert names == [
        "inventory.shop.svc.cluster.local:8080",
        "*.example.org:80",
        "api.example.com:80",
        "allow_any",
        "block_all",
    ]


@pytest.mark.parametrize(
    ("condition", "here"),
    [
        ("sourceLabels: {app: orders}", True),
        ("sourceLabels: {app: orders, version: v9}", False),
        ("sourceNamespace: shop", True),
        ("sourceNamespace: other", False),
        ("port: 8080", True),
        ("port: 9090", False),
        ("gateways: [mesh], sourceNamespace: other", True),
        ("gateways: [ingress]", False),
    ],
)
def test_conditions_on_the_sender_are_decided_beforehand(read: Read, view: View, condition: str, here: bool) -> None:
    """A rule whose matches are all for others is left out; with gateways the source is not looked at."""
    spec = f"hosts: [inventory]\nhttp: [{{match: [{{{condition}}}], directResponse: {{status: 201}}}}]"
    assert bool(statuses(read(spec), view)) == here


def test_each_entry_of_a_match_is_a_route_with_its_own_name(read: Read, view: View) -> None:
    """`rule.entry`, as Istio joins them."""
    spec = """
hosts: [inventory]
http:
- name: rule
  match: [{name: entry, uri: {exact: /a}}, {uri: {prefix: /b}, ignoreUriCase: true}, {uri: {regex: /c.*}}]
  route: [{destination: {host: inventory}}]
- match: [{name: alone}]
  route: [{destination: {host: inventory}}]
"""
    routes = routes_of(read(spec), view)
    assert [route.get("name") for route in routes] == ["rule.entry", "rule", "rule", ".alone"]
    assert [route["match"] for route in routes] == [
        {"path": "/a", "case_sensitive": True},
        {"prefix": "/b", "case_sensitive": False},
        {"safe_regex": {"regex": "/c.*"}, "case_sensitive": True},
        {"prefix": "/", "case_sensitive": True},
    ]


def test_a_destination_has_the_port_it_names_or_its_services(read: Read, view: View) -> None:
    """Of an unknown service, that of the host that is routed."""
    spec = """
hosts: [inventory]
http:
- route:
  - {destination: {host: inventory, subset: v1}, weight: 1}
  - {destination: {host: inventory, port: {number: 9090}}, weight: 2}
  - {destination: {host: unknown}, weight: 3}
  - {destination: {host: other.example.com}, weight: 0}
"""
    (route,) = routes_of(read(spec), view)
    assert route["route"]["weighted_clusters"]["clusters"] == [
        {"name": "outbound|8080|v1|inventory.shop.svc.cluster.local", "weight": 1},
        {"name": "outbound|9090||inventory.shop.svc.cluster.local", "weight": 2},
        {"name": "outbound|8080||unknown.shop.svc.cluster.local", "weight": 3},
    ]


@pytest.mark.parametrize("first", ["", "match: [{uri: {prefix: /}}], ", "match: [{}, {uri: {exact: /a}}], "])
def test_what_comes_after_a_rule_that_takes_everything_is_left_out(read: Read, view: View, first: str) -> None:
    """But checked."""
    rest = "{match: [{method: {exact: PUT}}], directResponse: {status: 202}}"
    spec = f"hosts: [inventory]\nhttp: [{{{first}directResponse: {{status: 201}}}}, {rest}]"
    assert statuses(read(spec), view) == [201]
    with pytest.raises(LocalMeshError, match=r"spec\.http\[1\]\.corsPolicy"):
        check_routes(read(spec.replace("{status: 202}", "{status: 202}, corsPolicy: {}")), view)


def test_a_virtual_service_none_of_whose_rules_concern_a_client_is_as_absent(read: Read, view: View) -> None:
    """For a service its default route; a host that is none is not routed."""
    spec = "hosts: [inventory, a.example]\nhttp: [{match: [{sourceNamespace: x}], directResponse: {status: 201}}]"
    (route,) = routes_of(read(spec), view)
    assert route["name"] == "default"
    assert host_of(read(spec), view, "a.example") is None


def test_an_operation_is_named_by_host_port_and_path(read: Read, view: View) -> None:
    """Or by the VirtualService, where there is no single host."""
    to = "{destination: {host: inventory, port: {number: 90}}, weight: 1}"
    spec = f"""
hosts: [inventory]
http:
- {{match: [{{uri: {{exact: /a}}}}, {{uri: {{prefix: /b}}}}, {{uri: {{regex: /c+}}}}], route: [{to}]}}
- {{route: [{to}, {to}]}}
"""
    host = "inventory.shop.svc.cluster.local:90"
    assert [route["decorator"]["operation"] for route in routes_of(read(spec), view)] == [
        f"{host}/a",
        f"{host}/b*",
        f"{host}/c+",
        "it:8080/*",
    ]


@pytest.mark.parametrize(
    ("rule", "authority"),
    [
        ("rewrite: {authority: a}, headers: {request: {set: {host: b}}}, route: [{%s}]", "a"),
        ("headers: {request: {set: {host: b}, add: {Host: c}}}, route: [{%s}]", "b"),
        ("headers: {request: {add: {Host: c}}}, route: [{%s}]", "c"),
        ("headers: {request: {add: {Host: c}}}, route: [{%s, headers: {request: {set: {host: d}}}}]", "c"),
        ("route: [{%s, headers: {request: {set: {host: d}}}}]", "d"),
        ("route: [{%s, headers: {response: {set: {host: d}}}}]", None),
    ],
)
def test_of_several_authorities_one_wins(read: Read, view: View, rule: str, authority: str | None) -> None:
    """The rewrite's, then the rule's, then the destination's."""
    spec = f"hosts: [inventory]\nhttp: [{{{rule % 'destination: {host: inventory}'}}}]"
    (route,) = routes_of(read(spec), view)
    assert route["route"].get("host_rewrite_literal") == authority
    assert "response_headers_to_add" not in route


def test_what_the_one_destination_does_to_headers_comes_after_what_the_rule_does(read: Read, view: View) -> None:
    """On the same route; of several, each on its own."""
    one = "{destination: {host: inventory}, weight: 1, headers: {request: {set: {b: '2', host: x}, remove: [host, c]}}}"
    spec = "hosts: [inventory]\nhttp: [{headers: {request: {set: {a: '1'}}}, route: [%s]}]"
    (route,) = routes_of(read(spec % one), view)
    assert [each["header"]["key"] for each in route["request_headers_to_add"]] == ["a", "b"]
    assert route["request_headers_to_remove"] == ["c"]
    (route,) = routes_of(read(spec % f"{one}, {one}"), view)
    assert [each["header"]["key"] for each in route["request_headers_to_add"]] == ["a"]
    (cluster, _) = route["route"]["weighted_clusters"]["clusters"]
    assert (cluster["host_rewrite_literal"], cluster["request_headers_to_remove"]) == ("x", ["c"])


def test_a_mirror_of_nothing_is_none(read: Read, view: View) -> None:
    spec = f"hosts: [inventory]\nhttp: [{{mirror: {{host: a}}, mirrorPercentage: {{value: 0}}, {TO}}}]"
    (route,) = routes_of(read(spec), view)
    assert "request_mirror_policies" not in route["route"]


@pytest.mark.parametrize(
    ("retries", "policy"),
    [
        ("{attempts: 3}", {"num_retries": 3, "retry_on": DEFAULT_RETRIES}),
        ("{attempts: 1, retryOn: '5xx, reset'}", {"num_retries": 1, "retry_on": "5xx,reset"}),
        (
            "{attempts: 1, retryOn: '503,reset,429'}",
            {"num_retries": 1, "retry_on": "reset,retriable-status-codes", "retriable_status_codes": [503, 429]},
        ),
        (
            "{attempts: 1, retryOn: 'retriable-status-codes,503'}",
            {"num_retries": 1, "retry_on": "retriable-status-codes", "retriable_status_codes": [503]},
        ),
        (
            "{attempts: 2, perTryTimeout: 1.5s, backoff: 40ms}",
            {
                "num_retries": 2,
                "retry_on": DEFAULT_RETRIES,
                "per_try_timeout": "1.5s",
                "retry_back_off": {"base_interval": "0.04s"},
            },
        ),
        ("{attempts: 0}", None),
        ("{}", None),
    ],
)
def test_retries(read: Read, view: View, retries: str, policy: dict[str, Any] | None) -> None:
    """`attempts` are retries; codes go where Envoy wants them; nothing retried is no policy."""
    spec = f"hosts: [inventory]\nhttp: [{{retries: {retries}, route: [{{destination: {{host: inventory}}}}]}}]"
    (route,) = routes_of(read(spec), view)
    found = route["route"].get("retry_policy")
    if found is not None:
        assert found.pop("host_selection_retry_max_attempts") == 5
        assert [each["name"] for each in found.pop("retry_host_predicate")] == [
            "envoy.retry_host_predicates.previous_hosts"
        ]
    assert found == policy


def test_previous_hosts_may_be_tried_again(read: Read, view: View) -> None:
    spec = (
        "hosts: [inventory]\nhttp: [{retries: {attempts: 1, retryIgnorePreviousHosts: false},"
        " route: [{destination: {host: inventory}}]}]"
    )
    (route,) = routes_of(read(spec), view)
    assert route["route"]["retry_policy"] == {"num_retries": 1, "retry_on": DEFAULT_RETRIES}


def test_a_timeout_bounds_grpc_too(read: Read, view: View) -> None:
    """Any Go duration, in Envoy's seconds."""
    spec = "hosts: [inventory]\nhttp: [{timeout: 1m30s500ms, route: [{destination: {host: inventory}}]}]"
    (route,) = routes_of(read(spec), view)
    assert (route["route"]["timeout"], route["route"]["max_grpc_timeout"]) == ("90.5s", "90.5s")


def test_faults_and_their_shares(read: Read, view: View) -> None:
    """Of a million; all where none is said."""
    spec = """
hosts: [inventory]
http:
- match: [{uri: {exact: /a}}]
  fault: {delay: {fixedDelay: 7s, percentage: {value: 0.1}}, abort: {httpStatus: 500}}
  route: [{destination: {host: inventory}}]
- fault: {delay: {fixedDelay: 1s, percent: 50}, abort: {httpStatus: 500, percentage: {}}}
  route: [{destination: {host: inventory}}]
"""
    first, second = (
        route["typed_per_filter_config"]["envoy.filters.http.fault"] for route in routes_of(read(spec), view)
    )
    assert first["delay"] == {"fixed_delay": "7s", "percentage": {"numerator": 1000, "denominator": "MILLION"}}
    assert first["abort"] == {"http_status": 500, "percentage": {"numerator": 1_000_000, "denominator": "MILLION"}}
    assert second["delay"]["percentage"]["numerator"] == 500_000
    assert second["abort"]["percentage"]["numerator"] == 0


def test_redirects_rewrites_headers_and_mirrors(read: Read, view: View) -> None:
    """What is easy to say in Envoy's words."""
    spec = """
hosts: [inventory]
http:
- match: [{uri: {exact: /moved}}]
  redirect: {uri: /new, authority: a.example, scheme: https, port: 8443, redirectCode: 302}
  headers: {request: {set: {host: ignored}}}
- match: [{uri: {exact: /gone}}]
  directResponse: {status: 410, body: {}}
- match: [{uri: {regex: /old.*}}]
  rewrite: {uri: /new}
  route: [{destination: {host: inventory}, headers: {request: {set: {Host: b.example}}}}]
- match: [{uri: {prefix: /host}}]
  rewrite: {authority: c.example}
  route: [{destination: {host: inventory}}]
- headers: {request: {set: {":authority": d.example, x: "1"}}, response: {add: {y: "2"}, remove: [z]}}
  mirrors: [{destination: {host: inventory, subset: v2}, percentage: {value: 10}}, {destination: {host: other}}]
  route: [{destination: {host: inventory}}]
"""
    moved, gone, old, host, last = routes_of(read(spec), view)
    assert moved["redirect"] == {
        "response_code": "FOUND",
        "path_redirect": "/new",
        "host_redirect": "a.example",
        "scheme_redirect": "https",
        "port_redirect": 8443,
    }
    assert gone["direct_response"] == {"status": 410, "body": {"inline_string": ""}}
    assert old["route"]["prefix_rewrite"] == "/new"
    assert (old["route"]["host_rewrite_literal"], "cluster" in old["route"]) == ("b.example", True)
    assert host["route"]["host_rewrite_literal"] == "c.example"
    assert last["route"]["host_rewrite_literal"] == "d.example"
    overwrite, append = "OVERWRITE_IF_EXISTS_OR_ADD", "APPEND_IF_EXISTS_OR_ADD"
    assert last["request_headers_to_add"] == [{"header": {"key": "x", "value": "1"}, "append_action": overwrite}]
    assert last["response_headers_to_add"] == [{"header": {"key": "y", "value": "2"}, "append_action": append}]
    assert last["response_headers_to_remove"] == ["z"]
    shares = [
        each["runtime_fraction"]["default_value"]["numerator"] for each in last["route"]["request_mirror_policies"]
    ]
    assert shares == [100_000, 1_000_000]


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        (f"{{corsPolicy: {{}}, {TO}}}", r"spec\.http\[0\]\.corsPolicy: LocalMesh does not support this field"),
        ("{delegate: {name: other}}", r"spec\.http\[0\]\.route: a rule needs a route"),
        (f"{{timeout: 0s, {TO}}}", r"spec\.http\[0\]\.timeout: '0s' is less than 1ms, which Istio refuses"),
        (f"{{timeout: 5, {TO}}}", r"spec\.http\[0\]\.timeout: 5 is no text: put it in quotes"),
        (f"{{timeout: soon, {TO}}}", r"spec\.http\[0\]\.timeout: 'soon' is not a duration"),
        (f"{{retries: {{attempts: 0, retryOn: 5xx}}, {TO}}}", r"retries\.attempts: 0 with perTryTimeout or retryOn"),
        (f"{{retries: {{attempts: -1}}, {TO}}}", r"retries\.attempts: -1 is no whole number from 0 on"),
        (f"{{retries: {{attempts: 1, retryRemoteLocalities: true}}, {TO}}}", r"retries\.retryRemoteLocalities: Local"),
        (f"{{match: [{{uri: {{exact: /, prefix: /}}}}], {TO}}}", r"match\[0\]\.uri: one of exact, prefix and regex"),
        (f"{{match: [{{headers: {{x: {{exact: true}}}}}}], {TO}}}", r"match\[0\]\.headers\.x\.exact: True is no text"),
        (f"{{match: [{{headers: {{1: {{exact: a}}}}}}], {TO}}}", r"match\[0\]\.headers\.1: 1 is no text"),
        (f'{{match: [{{headers: {{"@request.auth.claims.a": {{exact: b}}}}}}], {TO}}}', "LocalMesh checks no tokens"),
        (f"{{match: [{{statPrefix: a}}], {TO}}}", r"match\[0\]\.statPrefix: LocalMesh does not support this field"),
        (f"{{match: [{{port: 70000000000}}], {TO}}}", r"match\[0\]\.port: 70000000000 is no whole number"),
        (f"{{match: [{{gateways: [1]}}], {TO}}}", r"match\[0\]\.gateways\[0\]: 1 is no text"),
        (f"{{match: {{}}, {TO}}}", r"spec\.http\[0\]\.match: a mapping is no list"),
        (f"{{match: [{{ignoreUriCase: maybe}}], {TO}}}", r"ignoreUriCase: 'maybe' is neither true nor false"),
        (f"{{fault: {{delay: {{}}}}, {TO}}}", r"fault\.delay\.fixedDelay: a fixedDelay is needed"),
        (f"{{fault: {{abort: {{grpcStatus: A}}}}, {TO}}}", r"fault\.abort\.httpStatus: is no status|a status"),
        (f"{{fault: {{abort: {{httpStatus: 500, percent: 101}}}}, {TO}}}", r"percent: 101 is no number from 0 to 100"),
        ("{redirect: {redirectCode: 300}}", r"redirect\.redirectCode: 300 is none of 301, 302, 303, 307, 308"),
        ("{directResponse: {status: 99}}", r"directResponse\.status: 99 is no status from 200 to 599"),
        (
            "{route: [{destination: {host: a}}, {destination: {host: b}}]}",
            "weights of several destinations add up to 0",
        ),
        ("{route: [{weight: 1}]}", r"route\[0\]\.destination: a destination is needed"),
        ("{route: [{destination: {subset: v1}}]}", r"route\[0\]\.destination\.host: a host is needed"),
        (f"{{mirror: {{host: a}}, mirrors: [], {TO}}}", "mirror and mirrors exclude each other"),
    ],
)
def test_what_is_not_supported_or_valid_is_refused_by_name(read: Read, view: View, rule: str, problem: str) -> None:
    """Also where the rule would govern nobody in this mesh."""
    for hosts in ("inventory", "elsewhere.example"):
        with pytest.raises(LocalMeshError, match=problem):
            check_routes(read(f"hosts: [{hosts}]\nhttp: [{rule}]"), view)


def test_a_rule_for_nobody_here_is_refused_all_the_same(read: Read, view: View) -> None:
    spec = "hosts: [inventory]\nhttp: [{match: [{sourceNamespace: other}], corsPolicy: {}, route: []}]"
    with pytest.raises(LocalMeshError, match=r"spec\.http\[0\]\.route: "):
        check_routes(read(spec), view)


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("http: []", r"spec\.hosts: a VirtualService that is no delegate needs hosts"),
        ("hosts: [a]\ntcp: [{}]", r"spec\.tcp: LocalMesh does not support this field"),
        ("hosts: a", r"spec\.hosts: 'a' is no list"),
    ],
)
def test_the_head_is_checked(read: Read, view: View, spec: str, problem: str) -> None:
    with pytest.raises(LocalMeshError, match=problem):
        route_configuration(read(spec), view)


def test_a_port_has_the_routes_of_its_services_and_its_name(read: Read, view: View) -> None:
    """Where each port has a listener; hosts that are no services are at 80, Istio's port of those that name none."""
    (inventory,) = view.services
    other = replace(inventory, name="other", host="other.shop.svc.cluster.local", port=9090, address="10.96.0.2")
    both = replace(view, services=[inventory, other])
    manifests = answering(read, 201, "hosts: [outside.example]")

    def hosts(port: int | None) -> tuple[str, list[str]]:
        configuration = route_configuration(manifests, both, port)
        return configuration["name"], [host["name"] for host in configuration["virtual_hosts"]]

    always = ["allow_any", "block_all"]
    assert hosts(None) == (
        "http_proxy",
        [f"{inventory.host}:8080", f"{other.host}:9090", "outside.example:80", *always],
    )
    assert hosts(8080) == ("8080", [f"{inventory.host}:8080", *always])
    assert hosts(9090) == ("9090", [f"{other.host}:9090", *always])
    assert hosts(80) == ("80", ["outside.example:80", *always])


def test_a_service_that_has_an_address_is_called_by_it_too(view: View) -> None:
    """As Istio has it."""
    (inventory,) = view.services
    host = host_of([], replace(view, services=[replace(inventory, address="10.96.0.1")]), "inventory.")
    assert host is not None
    assert host["domains"][-1] == "10.96.0.1"
