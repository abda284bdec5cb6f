"""Config dumps: their shapes, what in them is outbound, and what is no dump."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaware.budgets import Budget, Route, RouteTable
from meshaware.errors import ConfigDumpError

_ADMIN = "type.googleapis.com/envoy.admin.v3"


def config(name: str, *domains: str, timeout: str = "2.500s", **more: Any) -> dict[str, Any]:
    """A route configuration as istiod makes it, with one virtual host."""
    host = {
        "name": f"{domains[0]}:80",
        "domains": list(domains),
        "routes": [
            {
                "name": "default",
                "match": {"prefix": "/"},
                "route": {"cluster": f"outbound|80||{domains[0]}", "timeout": timeout, "max_grpc_timeout": "0s"},
                "decorator": {"operation": f"{domains[0]}:80/*"},
            }
        ],
        "include_request_attempt_count": True,
    }
    return {
        "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        **({"name": name} if name else {}),
        "virtual_hosts": [host],
        "validate_clusters": False,
        "max_direct_response_body_size_bytes": 1048576,
        "ignore_port_in_host_matching": True,
        **more,
    }


def section(kind: str, **fields: Any) -> dict[str, Any]:
    return {"@type": f"{_ADMIN}.{kind}", **fields}


def dynamic(*configs: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"version_info": "1", "route_config": each, "last_updated": "2026-01-01T00:00:00.000Z"} for each in configs]


def flat(*configs: dict[str, Any], kind: str = "DynamicRouteConfig") -> bytes:
    return json.dumps({"configs": [section(f"RoutesConfigDump.{kind}", **each) for each in dynamic(*configs)]}).encode()


def full(routes: dict[str, Any] | None, *others: dict[str, Any], node: str | None = None) -> bytes:
    bootstrap = section("BootstrapConfigDump", bootstrap={} if node is None else {"node": {"id": node}})
    sections = [bootstrap, *others, *([] if routes is None else [section("RoutesConfigDump", **routes)])]
    return json.dumps({"configs": sections}, indent=1).encode()


def camel(value: Any) -> Any:
    """As `istioctl` writes what the admin port writes in snake case."""
    if isinstance(value, list):
        return [camel(item) for item in cast("Sequence[Any]", value)]
    if isinstance(value, dict):
        return {_camel(key): camel(item) for key, item in cast("Mapping[str, Any]", value).items()}
    return value


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def asked(table: RouteTable, url: str = "http://inventory:8080/") -> Route | None:
    return table.match("GET", url)


def timeouts(data: bytes | str, **more: Any) -> list[float | None]:
    return [route.budget.timeout for route in RouteTable.from_config_dump(data, **more)]


CONFIG = config("8080", "inventory")


@pytest.mark.parametrize(
    "data",
    [
        flat(CONFIG),
        flat(CONFIG).decode(),
        full({"dynamic_route_configs": dynamic(CONFIG)}),
        json.dumps(camel({"configs": [section("RoutesConfigDump", dynamic_route_configs=dynamic(CONFIG))]})),
        json.dumps([CONFIG]),
        json.dumps(camel([CONFIG])),
        json.dumps({"configs": [{"route_config": CONFIG}]}),
        full({"static_route_configs": dynamic(CONFIG)}),
        flat(CONFIG, kind="StaticRouteConfig"),
    ],
)
def test_every_shape_of_a_dump_says_the_same(data: bytes | str) -> None:
    """The whole of it, one resource of it, what `istioctl` makes of it; static routes where there are no others."""
    table = RouteTable.from_config_dump(data)
    assert table == RouteTable.from_config_dump(flat(CONFIG))
    route = asked(table)
    assert route is not None
    assert route == Route("default", Budget(timeout=2.5), "sidecar: route configuration 8080", "inventory:80")
    assert table.skipped == {}


@pytest.mark.parametrize(
    "data",
    [
        "{}",
        '{"configs": []}',
        b" {} \n",
        full(None),
        full({}),
        full({"dynamic_route_configs": [{"version_info": "1"}]}),
        "[]",
    ],
)
def test_a_sidecar_may_have_no_routes(data: bytes | str) -> None:
    """Before istiod has answered, or where nothing speaks HTTP."""
    assert len(RouteTable.from_config_dump(data)) == 0


def test_inbound_routes_are_left_out() -> None:
    """They are about calls to this workload, and match every host."""
    inbound = config("inbound|8080||", "*", timeout="0s")
    inbound["virtual_hosts"][0]["name"] = "inbound|http|8080"
    unnamed = {**inbound, "name": ""}
    table = RouteTable.from_config_dump(
        full({"static_route_configs": dynamic(inbound, unnamed), "dynamic_route_configs": dynamic(inbound)})
    )
    assert len(table) == 0
    assert table.skipped == {"inbound route configuration": 3}


def test_the_agents_own_routes_are_left_out() -> None:
    """Readiness and metrics, in every bootstrap of Istio's, without a name and for every host."""
    own = config("", "*")
    own["virtual_hosts"][0].update(
        name="backend", routes=[{"match": {"prefix": "/healthz/ready"}, "route": {"cluster": "agent"}}]
    )
    table = RouteTable.from_config_dump(full({"static_route_configs": dynamic(own)}))
    assert len(table) == 0
    assert table.skipped == {"route configuration of the agent's own": 1}


def test_static_routes_count_only_where_there_are_no_dynamic_ones() -> None:
    """A sidecar has both; a plain Envoy of one's own may have static ones alone, without a name too."""
    static = config("", "*", timeout="1s")
    both = RouteTable.from_config_dump(
        full({"static_route_configs": dynamic(static), "dynamic_route_configs": dynamic(CONFIG)})
    )
    assert [route.budget.timeout for route in both] == [2.5]
    assert both.skipped == {"static route configuration": 1}
    alone = RouteTable.from_config_dump(full({"static_route_configs": dynamic(static)}))
    route = asked(alone, "http://anything:1234/")
    assert route is not None
    assert route.origin == "sidecar: route configuration unnamed"


def test_what_no_virtual_host_names_is_passed_on_or_refused() -> None:
    """By the mesh's outbound policy: without a timeout, or with an answer of Envoy's own."""
    for name, action, fields in (
        ("allow_any", "route", {"route": {"cluster": "PassthroughCluster", "timeout": "0s", "max_grpc_timeout": "0s"}}),
        ("block_all", "direct_response", {"direct_response": {"status": 502}}),
    ):
        everything = {"name": name, "domains": ["*"], "routes": [{"name": name, "match": {"prefix": "/"}, **fields}]}
        dump = {**CONFIG, "virtual_hosts": [*CONFIG["virtual_hosts"], everything]}
        route = asked(RouteTable.from_config_dump(flat(dump)), "http://api.example.com:8080/")
        assert route is not None
        assert (route.name, route.action, route.budget.total()) == (name, action, None)


def test_the_port_of_a_call_chooses_the_configuration() -> None:
    """And nothing governs a port that has none."""
    table = RouteTable.from_config_dump(flat(CONFIG, config("80", "inventory", timeout="1s")))
    on_8080, on_80 = asked(table), asked(table, "http://inventory/")
    assert on_8080 is not None
    assert on_80 is not None
    assert (on_8080.budget.timeout, on_80.budget.timeout) == (2.5, 1.0)
    assert asked(table, "http://inventory:9999/") is None


def test_a_service_of_its_own_configuration_is_found_by_its_short_names() -> None:
    """The namespace comes from the dump's node, or from the caller."""
    service = "inventory.shop.svc.cluster.local"
    own = config(f"{service}:8080", "*", timeout="3s")
    other = config("inventory.stock.svc.cluster.local:8080", "*", timeout="4s")
    node = "sidecar~10.0.0.1~orders-1.shop~shop.svc.cluster.local"
    for table in (
        RouteTable.from_config_dump(full({"dynamic_route_configs": dynamic(own, other)}, node=node)),
        RouteTable.from_config_dump(flat(own, other), namespace="shop"),
    ):
        for host, timeout in (
            ("inventory", 3.0),
            ("inventory.shop", 3.0),
            (service, 3.0),
            ("inventory.stock.svc", 4.0),
        ):
            route = asked(table, f"http://{host}:8080/")
            assert route is not None
            assert (route.budget.timeout, route.note) == (timeout, "")
    unknown = asked(RouteTable.from_config_dump(flat(own, other)))
    assert unknown is not None
    assert unknown.budget.timeout == 4.0
    assert unknown.note


@pytest.mark.parametrize("node", [None, "", "ingress", "a~b~c~", "a~b~c~.svc"])
def test_a_node_of_somebody_elses_tells_no_namespace(node: str | None) -> None:
    """Only Istio's agent writes it in that form."""
    assert RouteTable.from_config_dump(
        full({"dynamic_route_configs": dynamic(CONFIG)}, node=node)
    ) == RouteTable.from_config_dump(flat(CONFIG))


def test_old_dumps_have_domains_with_ports() -> None:
    """And do not ignore the port."""
    old = config("8080", "inventory", "inventory:8080", ignore_port_in_host_matching=False)
    assert asked(RouteTable.from_config_dump(flat(old))) is not None
    assert (
        asked(RouteTable.from_config_dump(flat(config("8080", "inventory", ignore_port_in_host_matching=False))))
        is None
    )


def test_parameters_of_a_path_may_be_left_aside() -> None:
    """Where the route configuration says so."""
    dump = config("8080", "inventory", ignore_path_parameters_in_path_matching=True)
    dump["virtual_hosts"][0]["routes"][0]["match"] = {"path": "/items"}
    assert asked(RouteTable.from_config_dump(flat(dump)), "http://inventory:8080/items;v=1") is not None


def test_connect_timeouts_come_from_the_clusters() -> None:
    """Of the full dump; Envoy's own default is 5 s. Else from the caller."""
    clusters = section(
        "ClustersConfigDump",
        static_clusters=[{"cluster": {"name": "outbound|80||a", "connect_timeout": "1s"}}, {"last_updated": "x"}],
        dynamic_active_clusters=[{"cluster": {"name": "outbound|80||b"}}],
    )
    configs = dynamic(config("1", "a"), config("2", "b"), config("3", "c"))
    table = RouteTable.from_config_dump(full({"dynamic_route_configs": configs}, clusters), connect_timeout=10.0)
    assert [route.budget.connect_timeout for route in table] == [1.0, 5.0, 10.0]
    assert [route.budget.connect_timeout for route in RouteTable.from_config_dump(flat(CONFIG))] == [None]


def test_a_delay_of_the_configuration_counts_for_all_of_its_routes() -> None:
    """Injected by the fault filter."""
    filters = {"envoy.filters.http.fault": {"delay": {"fixed_delay": "2s"}}}
    (route,) = RouteTable.from_config_dump(flat(config("8080", "inventory", typed_per_filter_config=filters)))
    assert route.budget.delay == 2.0


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "config dump: is not JSON: Expecting value at line 1; begins ''"),
        (
            b"not found in config dump",
            "config dump: is not JSON: Expecting value at line 1; begins 'not found in config dump'",
        ),
        (b"<html>" + b"x" * 500, f"config dump: is not JSON: Expecting value at line 1; begins '<html>{'x' * 54}'"),
        (b"\xff\xfe", "config dump: is not UTF-8: byte 0"),
        (flat(CONFIG)[:-1], f"config dump: is cut off after {len(flat(CONFIG)) - 1} bytes, at line 1"),
        (flat(CONFIG)[:300], "config dump: is cut off after 300 bytes, at line 1"),
        (b'{"configs": [tru', "config dump: is not JSON: "),
        (b"{} {}", "config dump: is not JSON: Extra data at line 1"),
        (b"[" * 100_000, "config dump: is not JSON that Envoy writes: "),
        (b'{"configs": ' + b"9" * 5000 + b"}", "config dump: is not JSON that Envoy writes: "),
        (b'"text"', "config dump: 'text': must be an object"),
        (b"null", "config dump: None: must be an object"),
        (b'{"configs": {}}', "config dump.configs: an object: must be a list"),
        (b'{"configs": [1]}', "config dump.configs[0]: 1: must be an object"),
        (b"[1]", "[0].route_config: 1: must be an object"),
        (
            b'{"workloads": [], "policies": []}',
            "config dump: has no \"configs\" but 'workloads', 'policies': this is no config dump",
        ),
        (
            json.dumps({"configs": [section("EndpointsConfigDump"), section("ClustersConfigDump"), {}]}).encode(),
            "config dump: has no routes, only EndpointsConfigDump, ClustersConfigDump, something without a type; ask",
        ),
        (
            flat(config("8080", "inventory", timeout="5 s")),
            "config dump.configs[0].route_config.virtual_hosts[0].routes[0].route.timeout: '5 s': must be a duration",
        ),
    ],
)
def test_what_is_no_dump_is_refused(data: bytes, said: str) -> None:
    """With what it looks like instead."""
    with pytest.raises(ConfigDumpError) as raised:
        RouteTable.from_config_dump(data)
    assert str(raised.value).startswith(said)
    assert len(str(raised.value)) < 400


def test_a_dump_that_is_too_large_is_refused_unread() -> None:
    """64 MiB unless it is said; the error names the smaller question."""
    with pytest.raises(ConfigDumpError, match=r"is larger than 10 bytes; ask for /config_dump\?resource="):
        RouteTable.from_config_dump(flat(CONFIG), max_bytes=10)
    with pytest.raises(ConfigDumpError, match="is larger than 67108864 bytes"):
        RouteTable.from_config_dump(b" " * (64 * 1024 * 1024 + 1))


_KEYS = [
    *("configs", "@type", "route_config", "name", "virtual_hosts", "domains", "routes", "match", "prefix", "route"),
    *(
        "timeout",
        "retry_policy",
        "retry_on",
        "headers",
        "string_match",
        "exact",
        "metadata",
        "filter_metadata",
        "istio",
    ),
    "num_retries",
]
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["", "/", "1s", "*", "8080", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(_KEYS),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(_JSON, st.sampled_from(["whole", "routes", "host", "route"]))
def test_any_json_is_read_or_refused(value: Any, where: str) -> None:
    """A reply is not ours: nothing but a table or a ConfigDumpError comes of it."""
    dump = json.loads(flat(CONFIG))
    within = dump["configs"][0]["route_config"]
    match where:
        case "whole":
            dump = value
        case "routes":
            dump["configs"][0]["route_config"] = value
        case "host":
            within["virtual_hosts"][0] = value
        case _:
            within["virtual_hosts"][0]["routes"][0] = value
    with contextlib.suppress(ConfigDumpError):
        table = RouteTable.from_config_dump(json.dumps(dump))
        table.match("GET", "http://inventory:8080/items?x=1", {"x-a": "1"})
        assert str(table)


def test_budgets_of_a_dump_are_those_that_were_written() -> None:
    """In the order of the dump."""
    assert timeouts(flat(config("1", "a", timeout="0.001s"), config("2", "b", timeout="0s"), config("3", "c"))) == [
        0.001,
        None,
        2.5,
    ]
