"""Files and directories: which documents count, and which of them wins a host."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from meshaware.budgets import RouteTable, manifests
from meshaware.errors import ManifestError


def document(
    name: str, timeout: str, *, hosts: str = "[inventory]", metadata: str = "", spec: str = "", version: str = "v1"
) -> str:
    return (
        f"apiVersion: networking.istio.io/{version}\nkind: VirtualService\n"
        f"metadata: {{name: {name}{metadata}}}\nspec: {{hosts: {hosts}{spec}, http: [{{timeout: {timeout}}}]}}\n"
    )


def timeout(routes: RouteTable, host: str = "inventory") -> float | None:
    route = routes.match("GET", f"http://{host}/")
    return None if route is None else route.budget.timeout


@pytest.mark.parametrize("version", ["v1", "v1beta1", "v1alpha3"])
def test_every_version_of_the_resource_is_read(read: Callable[..., RouteTable], version: str) -> None:
    """They are the same."""
    assert timeout(read(document("a", "3s", version=version))) == 3.0


def test_a_file_may_have_many_documents(read: Callable[..., RouteTable]) -> None:
    """Empty ones and other kinds among them; what is passed over is counted."""
    routes = read(
        "---\n"
        + document("a", "1s", hosts="[a]")
        + "---\n---\nkind: Service\n---\nkind: Service\n---\nvalues: 1\n---\n"
        + "apiVersion: gateway.solo.io/v1\nkind: VirtualService\n---\n"
        + document("b", "2s", hosts="[b]")
    )
    assert (timeout(routes, "a"), timeout(routes, "b")) == (1.0, 2.0)
    assert [route.origin.rpartition("/")[2] for route in routes] == [
        "routes.yaml, document 1, line 5, spec.http[0]",
        "routes.yaml, document 7, line 20, spec.http[0]",
    ]
    assert routes.skipped == {"Service": 2, "no kind": 1, "VirtualService of gateway.solo.io/v1": 1}


@pytest.mark.parametrize("kind", ["List", "VirtualServiceList"])
def test_a_list_is_as_good_as_its_items(read: Callable[..., RouteTable], kind: str) -> None:
    """As `kubectl get -o yaml` writes them."""
    routes = read(f"""
        apiVersion: v1
        kind: {kind}
        items:
        - {{kind: Service}}
        - apiVersion: networking.istio.io/v1
          kind: VirtualService
          metadata: {{name: a}}
          spec: {{hosts: [a], http: [{{timeout: 1s}}]}}
    """)
    (route,) = routes
    assert route.origin.endswith("routes.yaml, document 1, items[1], line 9, spec.http[0]")
    assert routes.skipped == {"Service": 1}


def test_an_item_of_a_list_of_virtual_services_need_not_say_its_kind(read: Callable[..., RouteTable]) -> None:
    """The API server leaves it out."""
    routes = read("""
        apiVersion: networking.istio.io/v1
        kind: VirtualServiceList
        items:
        - metadata: {name: a}
          spec: {hosts: [a], http: [{timeout: 1s}]}
    """)
    assert timeout(routes, "a") == 1.0


def test_json_is_read_too(tmp_path: Path) -> None:
    """As `kubectl get -o json` writes it."""
    (tmp_path / "a.json").write_text(
        '{\n\t"apiVersion": "networking.istio.io/v1",\n\t"kind": "VirtualService",\n\t"metadata": {"name": "a"},\n'
        '\t"spec": {"hosts": ["a"], "http": [{"timeout": "1.5s"}]}\n}\n'
    )
    routes = RouteTable.from_manifests(tmp_path)
    assert timeout(routes, "a") == 1.5
    assert next(iter(routes)).origin == f"{tmp_path / 'a.json'}, document 1, line 5, spec.http[0]"


def test_a_directory_is_read_with_all_below_it(tmp_path: Path) -> None:
    """YAML and JSON, sorted, hidden names left out."""
    for name, seconds in (
        ("b.yaml", 2),
        ("a.yml", 1),
        ("sub/c.YAML", 3),
        (".hidden/d.yaml", 4),
        (".e.yaml", 5),
        ("f.txt", 6),
        ("sub/deep/g.json", 7),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(document(path.stem, f"{seconds}s", hosts=f"[{path.stem.strip('.')}]"))
    routes = RouteTable.from_manifests(tmp_path)
    assert [route.budget.timeout for route in routes] == [1.0, 2.0, 3.0, 7.0]
    assert RouteTable.from_manifests([tmp_path / "sub", str(tmp_path / "f.txt")]) != routes
    assert [
        route.budget.timeout for route in RouteTable.from_manifests([tmp_path / "sub", str(tmp_path / "f.txt")])
    ] == [
        3.0,
        7.0,
        6.0,
    ]


def test_a_mounted_config_map_is_read_once(tmp_path: Path) -> None:
    """Its files are links into a hidden directory of copies; a link that leads back is not followed for ever."""
    copies = tmp_path / "..2024_01_01"
    (copies / "sub").mkdir(parents=True)
    (copies / "a.yaml").write_text(document("a", "1s", hosts="[a]"))
    (copies / "sub" / "b.yaml").write_text(document("b", "2s", hosts="[b]"))
    (tmp_path / "..data").symlink_to(copies)
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")
    (tmp_path / "sub").symlink_to("..data/sub")
    (copies / "sub" / "again").symlink_to(tmp_path)
    routes = RouteTable.from_manifests(tmp_path)
    assert (timeout(routes, "a"), timeout(routes, "b")) == (1.0, 2.0)
    assert len(routes) == 2
    assert routes.skipped == {}


def test_no_paths_are_no_routes() -> None:
    """Nothing was asked for."""
    assert RouteTable.from_manifests([]) == RouteTable.from_manifests(())
    assert len(RouteTable.from_manifests([])) == 0


def test_a_path_that_is_missing_is_named(tmp_path: Path) -> None:
    """A typing mistake must not become a service without budgets."""
    with pytest.raises(ManifestError, match=r"nowhere/routes.yaml: there is no such file or directory$"):
        RouteTable.from_manifests(tmp_path / "nowhere" / "routes.yaml")


def test_a_path_without_virtual_services_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not an error: a directory may be empty before its first route is written."""
    (tmp_path / "service.yaml").write_text("kind: Service\n")
    with caplog.at_level(logging.WARNING, "meshaware.routes"):
        routes = RouteTable.from_manifests(tmp_path)
    assert len(routes) == 0
    assert caplog.messages == [f"no VirtualService in {tmp_path}; read there so far: 1 of kind Service"]
    caplog.clear()
    RouteTable.from_manifests(tmp_path / ".")
    (tmp_path / "service.yaml").write_text("")
    RouteTable.from_manifests(tmp_path)
    assert caplog.messages[-1].endswith("read there so far: nothing at all")


def test_what_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the system's reason, or what is wrong with the bytes."""
    path = tmp_path / "routes.yaml"
    path.write_bytes(b"kind: \xff\n")
    with pytest.raises(ManifestError, match=r"routes.yaml: is not UTF-8: byte 6$"):
        RouteTable.from_manifests(path)
    path.write_bytes(b"\xef\xbb\xbf" + document("a", "1s").encode())
    assert timeout(RouteTable.from_manifests(path)) == 1.0
    monkeypatch.setattr(manifests, "_MAX_BYTES", 10)
    with pytest.raises(ManifestError, match=r"routes.yaml: is larger than 10 bytes$"):
        RouteTable.from_manifests(path)

    def fail(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", fail)
    with pytest.raises(ManifestError, match=r": cannot be read: Permission denied$"):
        RouteTable.from_manifests(tmp_path)
    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(ManifestError, match=r"routes.yaml: cannot be read: Permission denied$"):
        RouteTable.from_manifests(path)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    """A pipe that nobody writes to."""
    os.mkfifo(tmp_path / "routes.yaml")
    with pytest.raises(ManifestError, match="there is no such file or directory"):
        RouteTable.from_manifests(tmp_path / "routes.yaml")
    assert len(RouteTable.from_manifests(tmp_path)) == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n", "document 1, line 1: is a list: must be a mapping, such as a Kubernetes resource"),
        (
            "kind: VirtualService\n",
            "document 1, line 1: apiVersion: is missing: must be one of networking.istio.io/v1, ",
        ),
        (
            "apiVersion: networking.istio.io/v2\nkind: VirtualService\n",
            "apiVersion: networking.istio.io/v2: must be one of",
        ),
        (document("a", "0s"), "line 4: spec.http[0].timeout: 0s: must be at least 1ms; leave it out to disable"),
        (
            "a: 1\n---\n" + document("a", "1:30"),
            "document 2, line 6: spec.http[0].timeout: 90: must be a duration in text",
        ),
    ],
)
def test_an_invalid_document_is_an_error_that_names_it(read: Callable[..., RouteTable], text: str, said: str) -> None:
    """File, document, line, path, value and rule."""
    with pytest.raises(ManifestError) as raised:
        read(text)
    assert f"routes.yaml, {said}" in str(raised.value) or said in str(raised.value)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (", gateways: [ingress]", "for gateways only"),
        (", exportTo: ['~']", "not exported to default"),
        (", exportTo: ['other']", "not exported to default"),
    ],
)
def test_what_is_not_for_this_sidecar_is_passed_over(read: Callable[..., RouteTable], spec: str, reason: str) -> None:
    """And counted with the reason."""
    routes = read(document("a", "1s", spec=spec))
    assert timeout(routes) is None
    assert routes.skipped == {f"VirtualService {reason}": 1}


@pytest.mark.parametrize(
    "spec", [", gateways: [mesh, ingress]", ", gateways: []", ", exportTo: ['.']", ", exportTo: [default]"]
)
def test_what_is_for_the_mesh_counts(read: Callable[..., RouteTable], spec: str) -> None:
    """Also what is for a gateway besides."""
    assert timeout(read(document("a", "1s", spec=spec))) == 1.0


def test_without_http_rules_there_are_no_routes(read: Callable[..., RouteTable]) -> None:
    """TCP and TLS have no budgets."""
    routes = read("""
        apiVersion: networking.istio.io/v1
        kind: VirtualService
        metadata: {name: a}
        spec: {hosts: [inventory], tls: [{match: [{port: 443}]}]}
    """)
    assert len(routes) == 0
    assert timeout(routes) is None


def test_a_host_without_a_dot_belongs_to_the_namespace_of_its_document(read: Callable[..., RouteTable]) -> None:
    """The caller's own if the document has none."""
    text = document("a", "1s", metadata=", namespace: other") + "---\n" + document("b", "2s")
    routes = read(text, namespace="shop")
    assert timeout(routes, "inventory") == 2.0
    assert timeout(routes, "inventory.other") == 1.0
    assert timeout(routes, "inventory.shop.svc.cluster.local") == 2.0
    assert timeout(read(text, namespace="other"), "inventory") == 1.0
    corp = read(text, namespace="shop", cluster_domain="corp")
    assert timeout(corp, "inventory.shop.svc.corp") == 2.0
    assert timeout(corp, "inventory.shop.svc.cluster.local") is None


def test_a_host_with_a_dot_stands_for_itself(read: Callable[..., RouteTable]) -> None:
    """So "inventory.shop" is no short name, as little as it is one for istiod."""
    routes = read(document("a", "1s", hosts="[inventory.shop, Api.Example.com., '*.eu']"), namespace="shop")
    assert timeout(routes, "inventory.shop") == 1.0
    assert timeout(routes, "inventory") is None
    assert timeout(routes, "inventory.shop.svc.cluster.local") is None
    assert timeout(routes, "API.example.com") == 1.0
    assert timeout(routes, "api.example.com.") == 1.0
    assert timeout(routes, "a.b.eu") == 1.0
    assert timeout(routes, "eu") is None


def test_of_two_for_a_host_the_older_wins(read: Callable[..., RouteTable]) -> None:
    """They are not merged; without dates the one that is read first is the older."""
    old, new = (f", creationTimestamp: 202{year}-01-01T00:00:00Z" for year in (0, 1))
    assert timeout(read(document("a", "1s") + "---\n" + document("b", "2s"))) == 1.0
    assert timeout(read(document("b", "1s") + "---\n" + document("a", "2s"))) == 1.0
    routes = read(document("a", "1s", metadata=new) + "---\n" + document("b", "2s", metadata=old))
    assert timeout(routes) == 2.0
    assert routes.skipped == {"VirtualService for a host that another one has": 1}
    assert timeout(read(document("b", "1s", metadata=old) + "---\n" + document("a", "2s", metadata=old))) == 2.0
    assert timeout(read(document("a", "1s") + "---\n" + document("b", "2s", metadata=new))) == 2.0


def test_what_is_for_the_namespace_alone_wins_over_what_is_for_all(read: Callable[..., RouteTable]) -> None:
    """Then what is exported to it by name, whatever the dates."""
    host = "[inventory.shop.svc.cluster.local]"
    old = ", namespace: stock, creationTimestamp: 2020-01-01T00:00:00Z"
    public = document("public", "1s", hosts=host, metadata=old)
    named = document("named", "2s", hosts=host, metadata=", namespace: stock", spec=", exportTo: [shop]")
    private = document("private", "3s", hosts=host, metadata=", namespace: shop", spec=", exportTo: ['.']")
    assert timeout(read(f"{public}---\n{named}---\n{private}", namespace="shop")) == 3.0
    assert timeout(read(f"{public}---\n{named}", namespace="shop")) == 2.0
    assert timeout(read(f"{public}---\n{named}---\n{private}", namespace="stock"), "inventory.shop") == 1.0


def test_one_that_has_no_rule_for_this_caller_leaves_the_host_to_the_next(read: Callable[..., RouteTable]) -> None:
    """istiod makes no virtual host of it either."""
    first = document("a", "1s").replace("{timeout: 1s}", "{match: [{gateways: [ingress]}], timeout: 1s}")
    assert timeout(read(first + "---\n" + document("b", "2s"))) == 2.0


def test_one_that_has_no_rule_for_this_caller_still_hides_a_wildcard(read: Callable[..., RouteTable]) -> None:
    """istiod looks for the most specific host before it looks for rules: such a service has its default route."""
    none = document("a", "1s").replace("{timeout: 1s}", "{match: [{gateways: [ingress]}], timeout: 1s}")
    wide = document("b", "2s", hosts="['*.svc.cluster.local']")
    routes = read(f"{none}---\n{wide}")
    assert timeout(routes, "inventory") is None
    assert timeout(routes, "orders") == 2.0
    narrow = none.replace("[inventory]", "['*.default.svc.cluster.local']")
    same = document("c", "3s", hosts="['*.default.svc.cluster.local']")
    routes = read(f"{narrow}---\n{wide}---\n{same}")
    assert timeout(routes, "orders") is None
    assert timeout(routes, "orders.stock.svc") == 2.0
    assert routes.skipped == {"VirtualService for a host that another one has": 1}


def test_a_document_has_several_hosts(read: Callable[..., RouteTable]) -> None:
    """Each may be won by another."""
    routes = read(document("a", "1s", hosts="[a, b]") + "---\n" + document("b", "2s", hosts="[b, c]"))
    assert [timeout(routes, host) for host in "abc"] == [1.0, 1.0, 2.0]


def test_connecting_may_be_given_where_nothing_else_bounds_it(read: Callable[..., RouteTable]) -> None:
    """A VirtualService does not say; a DestinationRule would."""
    text = document("a", "1s").replace("{timeout: 1s}", "{retries: {attempts: 1, perTryTimeout: 1s, retryOn: 5xx}}")
    for connect_timeout, total in ((None, 2.025), (10.0, 22.025)):
        route = read(text, connect_timeout=connect_timeout).match("GET", "http://inventory/")
        assert route is not None
        assert route.budget.total(0.0, "tight") == pytest.approx(total)


def test_the_port_of_a_call_decides(read: Callable[..., RouteTable]) -> None:
    """`match.port` is the port that is called."""
    routes = read("""
        apiVersion: networking.istio.io/v1
        kind: VirtualService
        metadata: {name: a}
        spec: {hosts: [a], http: [{match: [{port: 8080}], timeout: 1s}, {timeout: 2s}]}
    """)
    assert timeout(routes, "a:8080") == 1.0
    assert timeout(routes, "a") == 2.0
