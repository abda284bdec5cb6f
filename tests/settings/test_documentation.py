"""`docs/settings.md`: its tables, its errors and its Deployment are what the code does."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from meshaware.durations import format_duration
from meshaware.errors import SettingsError
from meshaware.settings import MeshSettings, UnknownVariableWarning
from meshaware.settings.variables import VARIABLES

PAGE = (Path(__file__).parents[2] / "docs" / "settings.md").read_text()

Write = Callable[[str, str | bytes], Path]
Lines = Callable[[Mapping[str, str]], str]


def _block(language: str) -> str:
    match = re.search(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert match is not None
    return match[1]


def _default(value: object) -> str:
    if value is None or value == ():
        return "unset"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{format_duration(value)}`" if isinstance(value, float) else f"`{value}`"


def test_every_variable_stands_in_a_table_with_its_meaning_and_default() -> None:
    """And no other does."""
    settings = MeshSettings()
    rows: list[str] = []
    for variable in VARIABLES:
        if variable.field.startswith("workload."):
            names = ", ".join(f"`{name}`" for name in variable.conventional)
            rows.append(f"| `{variable.field.removeprefix('workload.')}` | `{variable.name}` | {names} |")
        else:
            default = _default(getattr(settings, variable.field))
            rows.append(f"| `{variable.name}` | `{variable.field}` | {default} | {variable.meaning} |")
    assert [line for line in PAGE.splitlines() if line.startswith("|") and "`MESHAWARE_" in line][1:] == rows


def _pod(template: Mapping[str, Any]) -> dict[str, Any]:
    """What the API server and the controllers make of the template: what the downward API can refer to."""
    labels = {**template["metadata"]["labels"], "pod-template-hash": "7d4b9c6f5b"}
    labels |= {"service.istio.io/canonical-name": "inventory", "service.istio.io/canonical-revision": "1.4.2"}
    fields: dict[str, Any] = {
        "metadata.name": "inventory-7d4b9c6f5b-x2x9q",
        "metadata.uid": "0f0c3b5e-6b7c-4b8e-9d51-3a0d5d2a9d11",
        "metadata.namespace": "shop",
        "metadata.labels": labels,
        "metadata.annotations": {
            "istio.io/rev": "default",
            "sidecar.istio.io/status": '{"initContainers":["istio-init","istio-proxy"],"containers":null}',
            "note": 'two\nlines, a "quote", a \\ and a \x07',
        },
        "spec.serviceAccountName": template["spec"]["serviceAccountName"],
        "spec.nodeName": "node-1",
        "status.podIP": "10.1.2.3",
    }
    return fields | {f"metadata.labels['{key}']": value for key, value in labels.items()}


def test_the_deployment_gives_a_pod_every_fact(
    monkeypatch: pytest.MonkeyPatch, write: Write, root: Path, kubelet_lines: Lines
) -> None:
    """The snippet's variables and files, as the kubelet fills them, leave nothing unknown."""
    template = yaml.safe_load(_block("yaml"))["spec"]["template"]
    pod = _pod(template)
    (container,) = template["spec"]["containers"]
    for variable in container["env"]:
        value = variable.get("value") or pod[variable["valueFrom"]["fieldRef"]["fieldPath"]]
        monkeypatch.setenv(variable["name"], value)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    write("/var/run/secrets/kubernetes.io/serviceaccount/namespace", "shop")
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    for volume in template["spec"]["volumes"]:
        for item in volume["downwardAPI"]["items"]:
            content = kubelet_lines(pod[item["fieldRef"]["fieldPath"]])
            write(f"{mounts[volume['name']]}/{item['path']}", content)

    settings = MeshSettings()

    # What other containers there are, only the sidecar knows.
    assert settings.workload.model_dump(exclude={"origins", "app_containers"}) == {
        "pod_name": "inventory-7d4b9c6f5b-x2x9q",
        "pod_uid": "0f0c3b5e-6b7c-4b8e-9d51-3a0d5d2a9d11",
        "namespace": "shop",
        "service_account": "inventory",
        "workload_name": "inventory",
        "service": "inventory",
        "version": "1.4.2",
        "node_name": "node-1",
        "pod_ip": "10.1.2.3",
        "cluster_id": "Kubernetes",
        "mesh_id": "cluster.local",
        "trust_domain": "cluster.local",
        "labels": pod["metadata.labels"],
        "annotations": pod["metadata.annotations"],
    }
    assert str(settings.workload.spiffe_id) == "spiffe://cluster.local/ns/shop/sa/inventory"
    assert settings.in_kubernetes is True
    facts = {name.removeprefix("workload."): origin for name, origin in settings.origins.items() if "." in name}
    assert facts == {
        "pod_name": "env POD_NAME",
        "pod_uid": "env POD_UID",
        "namespace": "env POD_NAMESPACE",
        "service_account": "env SERVICE_ACCOUNT",
        "workload_name": "env ISTIO_META_WORKLOAD_NAME",
        "service": "env OTEL_SERVICE_NAME",
        "version": "computed from label service.istio.io/canonical-revision",
        "node_name": "env NODE_NAME",
        "pod_ip": "env POD_IP",
        "cluster_id": "env ISTIO_META_CLUSTER_ID",
        "mesh_id": "env ISTIO_META_MESH_ID",
        "trust_domain": "env TRUST_DOMAIN",
        "labels": f"file {root}/etc/podinfo/labels",
        "annotations": f"file {root}/etc/podinfo/annotations",
        "app_containers": "default",
    }


def test_the_errors_read_as_the_page_shows_them(monkeypatch: pytest.MonkeyPatch, write: Write, root: Path) -> None:
    """Word for word."""
    monkeypatch.setenv("MESHAWARE_TIMEOUT", "15 seconds")
    monkeypatch.setenv("POD_IP", "inventory-0")
    write("/etc/podinfo/labels", 'tier="backend"\napp=inventory')
    with pytest.raises(SettingsError) as refused:
        MeshSettings(mesh="isto")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    lines = str(refused.value).replace(str(root), "").split("\n")
    shown = re.search(r"^meshaware\.errors\.SettingsError: (.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert shown is not None
    head, *rest = shown[1].rstrip().split("\n")
    assert head == lines[0]
    assert sorted(rest) == sorted(lines[1:])


def test_the_warning_reads_as_the_page_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Word for word."""
    monkeypatch.setenv("MESHAWARE_TIMOUT", "2s")
    with pytest.warns(UnknownVariableWarning) as seen:
        MeshSettings()
    assert f"\nUnknownVariableWarning: {seen[0].message}\n" in PAGE
