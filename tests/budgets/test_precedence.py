"""
The half of routing that istiod does, a row a rule, each with its source in Istio.

These are readings of Istio's code, of 1.31 and its neighbours; no running istiod was asked. Each row has the manifests,
the caller, and who governs which call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pytest

from meshaware.budgets import RouteTable

OLD = "2020-01-01T00:00:00Z"
NEW = "2024-01-01T00:00:00Z"


class Row(NamedTuple):
    """
    A rule of istiod's.

    Attributes:
        rule: What it says.
        source: Where it is in Istio.
        manifests: What there is.
        governs: Who governs a call to a host: the name of a rule, None for nobody, several where it cannot be told.
        caller: Arguments of `from_manifests`.
    """

    rule: str
    source: str
    manifests: str
    governs: Mapping[str, str | None]
    caller: Mapping[str, Any] = {}


def vs(
    name: str, hosts: str = "inventory", *, namespace: str = "shop", spec: str = "", created: str = "", http: str = ""
) -> str:
    """A VirtualService with one rule that has its name, unless it is given rules."""
    when = f", creationTimestamp: {created}" if created else ""
    return (
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\n"
        f"metadata: {{name: {name}, namespace: {namespace}{when}}}\n"
        f"spec: {{hosts: [{hosts}], {spec} http: [{http or f'{{name: {name}}}'}]}}\n"
    )


def delegate(name: str, match: str, *, spec: str = "", namespace: str = "shop") -> str:
    """A VirtualService without hosts."""
    return vs(name, "", namespace=namespace, spec=spec, http=f"{{name: {name}, match: [{match}]}}")


FULL = "inventory.shop.svc.cluster.local"
ROWS = [
    Row(
        "a host without a dot is a service of the VirtualService's namespace",
        "ResolveShortnameToFQDN, pilot/pkg/model/config.go",
        vs("it"),
        {
            "inventory": None,
            "inventory.shop": "it",
            "inventory.shop.svc": "it",
            FULL: "it",
            f"{FULL}.": "it",
            "inventory.front": None,
        },
        {"namespace": "front"},
    ),
    Row(
        "within the namespace the short name will do",
        "generateVirtualHostDomains, pilot/pkg/networking/core/httproute.go",
        vs("it"),
        {"inventory": "it", "INVENTORY": "it", "inventory.": None, "inventory.shop": "it", "inventory:8080": "it"},
    ),
    Row(
        "a host with any dot stands as it is, so a partial name is no service",
        "ResolveShortnameToFQDN, pilot/pkg/model/config.go",
        vs("it", "inventory.shop"),
        {"inventory": None, FULL: None, "inventory.shop": "it"},
    ),
    Row(
        "the cluster's domain is the mesh's",
        "ResolveShortnameToFQDN, pilot/pkg/model/config.go",
        vs("it"),
        {"inventory": "it", "inventory.shop.svc.corp": "it", FULL: None},
        {"cluster_domain": "corp"},
    ),
    Row(
        "without gateways it is for the mesh; with some, only if mesh is among them",
        "getGatewayNames, pilot/pkg/model/push_context.go",
        vs("none", "a")
        + vs("mesh", "b", spec="gateways: [shop/edge, mesh],")
        + vs("edge", "c", spec="gateways: [edge],"),
        {"a": "none", "b": "mesh", "c": None},
    ),
    Row(
        "a match for other gateways is left out; the rules after it count",
        "sourceMatchHTTP, pilot/pkg/networking/core/route/route.go",
        vs("it", http="{name: edge, match: [{gateways: [edge]}]}, {name: rest}"),
        {"inventory": "rest"},
    ),
    Row(
        "a match for the mesh does not ask for labels and namespace",
        "sourceMatchHTTP, pilot/pkg/networking/core/route/route.go",
        vs("it", http="{name: mesh, match: [{gateways: [mesh], sourceLabels: {app: x}, sourceNamespace: y}]}"),
        {"inventory": "mesh"},
        {"source_labels": {}, "source_namespace": "shop"},
    ),
    Row(
        "sourceLabels are a part of the workload's",
        "sourceMatchHTTP, pilot/pkg/networking/core/route/route.go",
        vs("it", http="{name: web, match: [{sourceLabels: {app: web}}]}, {name: rest}"),
        {"inventory": "web"},
        {"source_labels": {"app": "web", "version": "v1"}},
    ),
    Row(
        "other labels, other rules",
        "sourceMatchHTTP, pilot/pkg/networking/core/route/route.go",
        vs("it", http="{name: web, match: [{sourceLabels: {app: web}}]}, {name: rest}"),
        {"inventory": "rest"},
        {"source_labels": {"app": "job"}},
    ),
    Row(
        "labels that are not known may be any",
        "none: istiod knows them",
        vs("it", http="{name: web, match: [{sourceLabels: {app: web}}]}, {name: rest}"),
        {"inventory": "web, rest"},
    ),
    Row(
        "sourceNamespace is the workload's namespace",
        "sourceMatchHTTP, pilot/pkg/networking/core/route/route.go",
        vs("it", http="{name: shop, match: [{sourceNamespace: shop}]}, {name: rest}"),
        {"inventory": "shop"},
        {"source_namespace": "shop"},
    ),
    Row(
        "a rule for another namespace is left out",
        "sourceMatchHTTP, pilot/pkg/networking/core/route/route.go",
        vs("it", http="{name: back, match: [{sourceNamespace: back}]}, {name: rest}"),
        {"inventory": "rest"},
        {"source_namespace": "shop"},
    ),
    Row(
        "port is the listener's, which is the port that is called",
        "translateRoute, pilot/pkg/networking/core/route/route.go",
        vs("it", http="{name: on-8080, match: [{port: 8080}]}, {name: rest}"),
        {"inventory:8080": "on-8080", "inventory": "rest", "inventory:9090": "rest"},
    ),
    Row(
        "matches of a rule are alternatives, in order; what comes after one for everything is dropped",
        "BuildHTTPRoutesForVirtualService, pilot/pkg/networking/core/route/route.go",
        vs("it", http="{name: it, match: [{name: a, port: 1}, {name: all}, {name: b}]}, {name: rest}"),
        {"inventory:1": "it.a", "inventory": "it.all"},
    ),
    Row(
        "exportTo: nothing is everywhere, a dot is its own namespace",
        "initVirtualServices, pilot/pkg/model/push_context.go",
        vs("all", "a") + vs("own", "b", spec="exportTo: ['.'],") + vs("named", "c", spec="exportTo: [front],"),
        {"a.shop": "all", "b.shop": None, "c.shop": "named"},
        {"namespace": "front"},
    ),
    Row(
        "exportTo: a tilde is nowhere, whatever else is named; a star is everywhere all the same",
        "initVirtualServices, pilot/pkg/model/push_context.go",
        vs("none", "a", spec="exportTo: ['~', shop],") + vs("star", "b", spec="exportTo: ['~', '*'],"),
        {"a": None, "b": "star"},
    ),
    Row(
        "of two for a host the older has it, and they are not merged",
        "sortConfigByCreationTime and buildVirtualHost (duplicate domain)",
        vs("new", created=NEW) + vs("old", created=OLD, http="{name: old, match: [{uri: {exact: /x}}]}"),
        {"inventory": None},
    ),
    Row(
        "of the same age the first by name, then by namespace",
        "sortConfigByCreationTime, pilot/pkg/model/config.go",
        vs("b", created=OLD)
        + vs("a", FULL, created=OLD, namespace="z", http="{name: z}")
        + vs("a", FULL, created=OLD, namespace="y", http="{name: y}"),
        {"inventory": "y"},
    ),
    Row(
        "private to the caller's namespace, then exported to it, then public; the age only within",
        "SelectVirtualServices, pilot/pkg/model/virtualservice.go",
        vs("public", created=OLD)
        + vs("named", FULL, namespace="stock", spec="exportTo: [shop],", created=NEW)
        + vs("private", spec="exportTo: ['.'],", created=NEW),
        {"inventory": "private"},
    ),
    Row(
        "exported to it by name comes before an older public one",
        "SelectVirtualServices, pilot/pkg/model/virtualservice.go",
        vs("public", created=OLD) + vs("named", FULL, namespace="stock", spec="exportTo: [shop],", created=NEW),
        {"inventory": "named"},
    ),
    Row(
        "a public one of the caller's own namespace has no precedence over an older public one elsewhere",
        "SelectVirtualServices, pilot/pkg/model/virtualservice.go",
        vs("own", created=NEW) + vs("elsewhere", FULL, namespace="stock", created=OLD),
        {"inventory": "elsewhere"},
    ),
    Row(
        "a more specific host has its calls, whatever the rank",
        "computeWildcardHostVirtualServiceIndex, pilot/pkg/model/sidecar.go",
        vs("wide", "'*.shop.svc.cluster.local'", spec="exportTo: ['.'],", created=OLD)
        + vs("wider", "'*.cluster.local'", created=OLD)
        + vs("exact", created=NEW),
        {"inventory": "exact", "orders": "wide", "orders.stock.svc": "wider"},
    ),
    Row(
        "one without a rule for this caller leaves the host to the next of that name",
        "buildSidecarVirtualHostsForVirtualService (no routes matched)",
        vs("edge", created=OLD, http="{name: edge, match: [{gateways: [edge]}]}") + vs("rest", created=NEW),
        {"inventory": "rest"},
    ),
    Row(
        "one without a rule for this port leaves the port to the next of that name",
        "buildSidecarVirtualHostsForVirtualService, which is asked for each port",
        vs("old", created=OLD, http="{name: on-8080, match: [{port: 8080}]}, {name: on-81, match: [{port: 81}]}")
        + vs(
            "mid",
            created="2022-01-01T00:00:00Z",
            http="{name: mid-8080, match: [{port: 8080}]}, {name: mid-82, match: [{port: 82}]}",
        )
        + vs("new", created=NEW),
        {
            "inventory:8080": "on-8080",
            "inventory:81": "on-81",
            "inventory:82": "mid-82",
            "inventory": "new",
            "inventory:9": "new",
        },
    ),
    Row(
        "and so does one whose only rules may not be for this caller: either may govern",
        "none: istiod knows",
        vs("web", created=OLD, http="{name: web, match: [{sourceLabels: {app: web}}]}") + vs("rest", created=NEW),
        {"inventory": "web, rest"},
    ),
    Row(
        "but not to a wildcard",
        "separateVSHostsAndServices: the most specific one is looked for before its rules",
        vs("edge", http="{name: edge, match: [{gateways: [edge]}]}") + vs("wide", "'*.shop.svc.cluster.local'"),
        {"inventory": None, "orders": "wide"},
    ),
    Row(
        "a delegate is found in the root's namespace unless it names one",
        "mergeVirtualServicesIfNeeded, pilot/pkg/model/virtualservice.go",
        vs("root", http="{delegate: {name: leaf}}") + delegate("leaf", "{}"),
        {"inventory": "leaf"},
    ),
    Row(
        "names of root and delegate are joined",
        "mergeHTTPRoute, pilot/pkg/model/virtualservice.go",
        vs("root", http="{name: root, match: [{name: a}], delegate: {name: leaf, namespace: stock}}")
        + delegate("leaf", "{name: b}", namespace="stock"),
        {"inventory": "root-leaf.a-b"},
    ),
    Row(
        "a delegate that is not exported to the root's namespace is passed over; here no bound is assumed of it",
        "mergeVirtualServicesIfNeeded, pilot/pkg/model/virtualservice.go",
        vs("root", http="{name: root, delegate: {name: leaf, namespace: stock}}, {name: rest}")
        + delegate("leaf", "{}", namespace="stock", spec="exportTo: ['.'],"),
        {"inventory": "root, rest"},
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.rule)
def test_a_rule_of_istiods(read: Callable[..., RouteTable], row: Row) -> None:
    """Who governs which call."""
    assert row.source
    routes = read(row.manifests, **{"namespace": "shop", **row.caller})
    said = {host: _governing(routes, host) for host in row.governs}
    assert said == row.governs


def _governing(routes: RouteTable, host: str) -> str | None:
    route = routes.match("GET", f"http://{host}/")
    if route is None:
        return None
    _, _, names = route.note.partition("the largest budget of ")
    return names.removesuffix(" holds") or route.name


@pytest.mark.parametrize(
    ("root", "leaf", "kept"),
    [
        ("sourceNamespace: a", "sourceNamespace: a", True),
        ("sourceNamespace: a", "sourceNamespace: b", False),
        ("sourceNamespace: a", "uri: {exact: /x}", False),
        ("uri: {exact: /x}", "sourceNamespace: a", True),
        ("sourceLabels: {app: a}", "sourceLabels: {app: a, v: b}", True),
        ("sourceLabels: {app: a}", "sourceLabels: {app: b}", False),
        ("sourceLabels: {app: a}", "sourceLabels: {v: b}", True),
        ("gateways: [mesh, edge]", "gateways: [mesh]", True),
        ("gateways: [mesh]", "gateways: [mesh, edge]", False),
        ("gateways: [mesh]", "uri: {exact: /x}", True),
        ("uri: {prefix: ''}", "uri: {prefix: /x}", False),
        ("headers: {a: {regex: '*'}}", "headers: {a: {exact: x}}", False),
        ("scheme: {exact: http}", "scheme: {exact: https}", False),
        ("authority: {prefix: a}", "authority: {exact: ab}", True),
    ],
)
def test_a_delegates_match_must_not_be_wider_than_the_roots(
    read: Callable[..., RouteTable], root: str, leaf: str, kept: bool
) -> None:
    """hasConflict and stringMatchConflict, pilot/pkg/model/virtualservice.go; what differs is dropped."""
    text = vs("root", http=f"{{match: [{{{root}}}], delegate: {{name: leaf}}}}") + delegate("leaf", f"{{{leaf}}}")
    assert len(read(text, namespace="shop")) == int(kept)
