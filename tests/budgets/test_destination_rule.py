"""DestinationRules: how long connecting may take, for the routes that lead there."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from meshaware.budgets import RouteTable
from meshaware.errors import ManifestError

Read = Callable[..., RouteTable]


def service(route: str = "[{destination: {host: inventory}}]", namespace: str = "shop") -> str:
    return (
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\n"
        f"metadata: {{name: v, namespace: {namespace}}}\n"
        f"spec: {{hosts: [inventory.shop.svc.cluster.local], http: [{{route: {route}}}]}}\n"
    )


def pool(seconds: int | None) -> str:
    return "connectionPool: {" + ("" if seconds is None else f"tcp: {{connectTimeout: {seconds}s}}") + "}"


def rule(
    spec: str = "",
    *,
    seconds: int = 1,
    host: str = "inventory.shop.svc.cluster.local",
    namespace: str = "shop",
    name: str = "d",
    metadata: str = "",
) -> str:
    policy = spec or f"trafficPolicy: {{{pool(seconds)}}}"
    return (
        "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\n"
        f"metadata: {{name: {name}, namespace: {namespace}{metadata}}}\nspec: {{host: '{host}', {policy}}}\n"
    )


def connect(read: Read, text: str, namespace: str = "shop", **arguments: object) -> float | None:
    route = read(text, namespace=namespace, **arguments).match("GET", "http://inventory.shop/")
    assert route is not None
    return route.budget.connect_timeout


@pytest.mark.parametrize("version", ["v1", "v1beta1", "v1alpha3"])
def test_a_rule_bounds_connecting_to_its_host(read: Read, version: str) -> None:
    """Alone it governs nothing, and is no route."""
    text = rule().replace("io/v1", f"io/{version}")
    assert connect(read, service() + text) == 1.0
    assert connect(read, text + service()) == 1.0
    assert len(read(text)) == 0
    assert read(text).skipped == {}


def test_where_no_rule_says_what_was_given_stands_in(read: Read) -> None:
    """The mesh's default is the mesh's to know."""
    assert connect(read, service()) is None
    assert connect(read, service(), connect_timeout=10.0) == 10.0
    assert connect(read, service() + rule(), connect_timeout=10.0) == 1.0
    assert connect(read, service() + rule("trafficPolicy: {}"), connect_timeout=10.0) == 10.0


_PORTS = (
    f"trafficPolicy: {{{pool(1)}, portLevelSettings: [{{port: {{number: 80}}, {pool(3)}}}, {{port: {{number: 81}}}}]}}"
)
_SUBSETS = (
    f"{_PORTS}, subsets: [{{name: v1}}, {{name: v2, trafficPolicy: {{{pool(5)}}}}},"
    f" {{name: v3, trafficPolicy: {{{pool(None)}}}}}]"
)
_PORTS_OF_SUBSETS = (
    f"trafficPolicy: {{{pool(1)}}}, subsets: [{{name: v1, trafficPolicy: {{{pool(2)},"
    f" portLevelSettings: [{{port: {{number: 80}}, {pool(4)}}}]}}}}]"
)


@pytest.mark.parametrize(
    ("spec", "destination", "wanted"),
    [
        (_PORTS, "port: {number: 80}", 3.0),
        (_PORTS, "port: {number: 8080}", 1.0),
        (_PORTS, "port: {number: 81}", 10.0),  # what a port has replaces all, and it has nothing
        (_SUBSETS, "port: {number: 8080}, subset: v1", 1.0),
        (_SUBSETS, "port: {number: 80}, subset: v2", 5.0),  # a subset's pool replaces the port's
        (_SUBSETS, "port: {number: 80}, subset: v3", 10.0),  # whole, even where it says nothing of connecting
        (_SUBSETS, "port: {number: 80}, subset: unknown", 3.0),
        (_PORTS_OF_SUBSETS, "port: {number: 80}, subset: v1", 4.0),
        (_PORTS_OF_SUBSETS, "port: {number: 81}, subset: v1", 2.0),
        (_PORTS_OF_SUBSETS, "subset: v1", 4.0),  # the port is the service's or the call's: the largest of all
        (_PORTS, "subset: ''", 10.0),
    ],
)
def test_ports_and_subsets(read: Read, spec: str, destination: str, wanted: float) -> None:
    """MergeTrafficPolicy: the rule's own, for the port; upon it the subset's, for the port."""
    text = service(f"[{{destination: {{host: inventory, {destination}}}}}]") + rule(spec)
    assert connect(read, text, connect_timeout=10.0) == wanted


@pytest.mark.parametrize(
    ("route", "wanted"),
    [
        ("[{destination: {host: inventory}, weight: 90}, {destination: {host: orders}, weight: 10}]", 5.0),
        ("[{destination: {host: inventory}, weight: 100}, {destination: {host: orders}, weight: 0}]", 1.0),
        ("[{destination: {host: inventory}, weight: 0}]", 1.0),
        ("[{destination: {host: inventory}, weight: 1}, {destination: {host: unknown}, weight: 1}]", 10.0),
        ("[{destination: {host: inventory.shop.svc.cluster.local}}]", 1.0),
        ("[{destination: {host: inventory.shop}}]", 10.0),  # any dot: as it stands
    ],
)
def test_of_several_destinations_the_largest_counts(read: Read, route: str, wanted: float) -> None:
    """Those without a weight aside, if there are several."""
    other = rule(seconds=5, host="orders", name="o")
    assert connect(read, service(route) + rule() + other, connect_timeout=10.0) == wanted


@pytest.mark.parametrize(
    ("rules", "caller", "wanted"),
    [
        # The caller's namespace, then the service's, then the root's.
        ([("front", 2), ("shop", 3), ("istio-system", 4)], "front", 2.0),
        ([("shop", 3), ("istio-system", 4)], "front", 3.0),
        ([("istio-system", 4)], "front", 4.0),
        ([("other", 5)], "front", None),
        ([("front", 2), ("shop", 3)], "shop", 3.0),
        ([("istio-system", 4), ("shop", 3)], "istio-system", 3.0),
    ],
)
def test_which_namespaces_rule_counts(
    read: Read, rules: list[tuple[str, int]], caller: str, wanted: float | None
) -> None:
    """destinationRule in Istio's push_context.go."""
    text = "".join(rule(seconds=seconds, namespace=namespace) for namespace, seconds in rules)
    assert connect(read, service() + text, namespace=caller) == wanted


def test_a_mesh_may_have_another_root_namespace(read: Read) -> None:
    """Then its rules hold for every namespace, and those of istio-system for their own alone."""
    text = service() + rule(seconds=4, namespace="istio-system") + rule(seconds=5, namespace="mesh-root")
    assert connect(read, text, namespace="front") == 4.0
    assert connect(read, text, namespace="front", root_namespace="mesh-root") == 5.0
    assert connect(read, text, namespace="istio-system", root_namespace="mesh-root") == 4.0


@pytest.mark.parametrize(
    ("exported", "owner", "caller", "wanted"),
    [
        ("['.']", "shop", "front", None),
        ("['.']", "shop", "shop", 1.0),
        ("['.']", "front", "front", 1.0),
        ("[front]", "shop", "front", 1.0),
        ("[back]", "shop", "front", None),
        ("[back]", "front", "front", None),
        ("['*']", "shop", "front", 1.0),
        ("[shop]", "shop", "front", None),
    ],
)
def test_who_sees_a_rule(read: Read, exported: str, owner: str, caller: str, wanted: float | None) -> None:
    """setDestinationRules: everybody, unless exportTo says otherwise."""
    text = rule(f"trafficPolicy: {{{pool(1)}}}, exportTo: {exported}", namespace=owner)
    assert connect(read, service() + text, namespace=caller) == wanted


def test_the_most_specific_host_counts(read: Read) -> None:
    """Exact, then the longest wildcard, within the namespace that has any."""
    exact, near, far = rule(), rule(seconds=2, host="*.shop.svc.cluster.local"), rule(seconds=3, host="*.local")
    assert connect(read, service() + far + near + exact) == 1.0
    assert connect(read, service() + far + near) == 2.0
    assert connect(read, service() + far) == 3.0
    assert connect(read, service() + rule(seconds=3, host="*.example.com")) is None
    assert connect(read, service() + rule(seconds=4, host="inventory")) == 4.0


def test_rules_of_one_host_are_merged(read: Read) -> None:
    """mergeDestinationRule: the oldest policy that there is, and the subsets of all, the oldest of a name."""
    old, new = (f", creationTimestamp: 202{year}-01-01T00:00:00Z" for year in (0, 1))
    first = rule(f"subsets: [{{name: v1, trafficPolicy: {{{pool(2)}}}}}]", metadata=old, name="z")
    second = rule(
        f"trafficPolicy: {{{pool(3)}}}, subsets: [{{name: v1, trafficPolicy: {{{pool(4)}}}}}, {{name: v2}}]",
        metadata=new,
        name="a",
    )
    third = rule(seconds=9, metadata=new, name="b")
    text = third + second + first
    assert connect(read, service() + text) == 3.0
    assert connect(read, service("[{destination: {host: inventory, subset: v1}}]") + text) == 2.0
    assert connect(read, service("[{destination: {host: inventory, subset: v2}}]") + text) == 3.0
    assert connect(read, service() + rule(seconds=5) + rule(seconds=6, name="a")) == 5.0


def test_a_rule_may_select_workloads(read: Read) -> None:
    """Those of its own namespace; where the caller's labels are not known it may hold or not: the largest counts."""
    selecting = rule(f"trafficPolicy: {{{pool(7)}}}, workloadSelector: {{matchLabels: {{app: web}}}}", name="s")
    text = service() + rule() + selecting
    assert connect(read, text, source_labels={"app": "web", "v": "1"}) == 7.0
    assert connect(read, text, source_labels={"app": "other"}) == 1.0
    assert connect(read, text) == 7.0
    assert connect(read, text, namespace="front", source_labels={"app": "web"}) == 1.0
    assert connect(read, service() + selecting, connect_timeout=10.0) == 10.0
    assert connect(read, service() + selecting, connect_timeout=10.0, source_labels={"app": "other"}) == 10.0


def test_a_redirect_leads_nowhere(read: Read) -> None:
    """So nothing is connected to."""
    text = service().replace("route: [{destination: {host: inventory}}]", "redirect: {uri: /x}")
    assert connect(read, text + rule()) is None


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (f"trafficPolicy: {{{pool(0)}}}", "connectionPool.tcp.connectTimeout: 0s: must be at least 1ms"),
        (
            "trafficPolicy: {connectionPool: {tcp: {connectTimeout: 5}}}",
            "tcp.connectTimeout: 5: must be a duration in text",
        ),
        ("trafficPolicy: {portLevelSettings: [{}]}", "portLevelSettings[0].port: is missing: must have the number"),
        ("trafficPolicy: {portLevelSettings: [{port: {number: 0}}]}", "port.number: 0: must be from 1 to 65535"),
        ("subsets: [{}]", "spec.subsets[0].name: is missing: must be the name of the subset"),
        ("exportTo: '*'", "spec.exportTo: *: must be a list"),
        ("workloadSelector: {matchLabels: {app: 1}}", "workloadSelector.matchLabels.app: 1: must be a text"),
    ],
)
def test_what_istio_refuses_is_named_to_the_field(read: Read, spec: str, said: str) -> None:
    """File, document, line, path, value and rule; fields that are not known are left alone."""
    with pytest.raises(ManifestError) as raised:
        read(rule(spec))
    assert "routes.yaml, document 1, line 5: spec." in str(raised.value)
    assert said in str(raised.value)
    assert len(read(rule("trafficPolicy: {loadBalancer: {simple: NEW}, unknown: 1}"))) == 0


def test_a_rule_needs_a_host_and_a_known_version(read: Read) -> None:
    """As a VirtualService does."""
    with pytest.raises(ManifestError, match=r"spec.host: is missing: must be the host that it is for"):
        read("apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: d}\nspec: {}\n")
    with pytest.raises(ManifestError, match=r"apiVersion: networking.istio.io/v2: must be one of"):
        read(rule().replace("io/v1", "io/v2"))


@pytest.mark.parametrize(
    ("route", "said"),
    [
        ("[{}]", "spec.http[0].route[0].destination: is missing: must have the host that the rule leads to"),
        ("[{destination: {}}]", "route[0].destination.host: is missing"),
        ("[{destination: {host: a, port: {number: -1}}}]", "destination.port.number: -1: must be from 0 to 65535"),
        ("[{destination: {host: a}, weight: -1}]", "route[0].weight: -1: must be from 0"),
    ],
)
def test_a_destination_is_checked(read: Read, route: str, said: str) -> None:
    """As Istio's webhook checks it."""
    with pytest.raises(ManifestError) as raised:
        read(service(route))
    assert said in str(raised.value)
