"""Where routes come from when the command line does not say, and from a sidecar when it does."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Generator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from meshaware.cli.sources import Asked, admin_url
from meshaware.settings import MeshSettings
from meshaware.testing import LocalMesh, LocalService
from meshaware.testing.ports import HeldPort

Run = Callable[..., tuple[int, str, str]]

URL = "http://inventory:8080/items/42"


@pytest.fixture(name="nobody")
def _nobody() -> Iterator[str]:
    """An admin address where nothing listens, and nothing will."""
    port = HeldPort()
    yield f"http://127.0.0.1:{port.number}"
    port.release()


@pytest.fixture(name="web", scope="module")
def _web(tmp_path_factory: pytest.TempPathFactory, inventory: str) -> Generator[LocalService]:
    """A workload of the namespace `shop`, in a real mesh with the routes of `inventory.yaml`."""
    path = tmp_path_factory.mktemp("routes") / "inventory.yaml"
    path.write_text(inventory)
    with LocalMesh(path, namespace="shop") as mesh:
        mesh.add("inventory")
        yield mesh.add("web")


def source(run: Run, *arguments: str) -> dict[str, Any]:
    """Where an answer's routes come from."""
    code, out, err = run("budget", "GET", URL, *arguments, "--json")
    assert (code, err) == (0, "")
    found: dict[str, Any] = json.loads(out)["source"]
    return found


def test_several_paths_may_be_named_at_once_or_one_after_the_other(run: Run, directory: Path) -> None:
    """Files and directories."""
    (directory / "more").mkdir()
    (directory / "more" / "also.yaml").write_text((directory / "inventory.yaml").read_text())
    assert source(run, "--manifests", "inventory.yaml", "more")["at"] == ["inventory.yaml", "more"]
    assert source(run, "--manifests", "more", "--manifests", "inventory.yaml")["at"] == ["more", "inventory.yaml"]


def test_manifests_come_from_the_settings_where_none_are_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the namespace of the pod; an argument wins."""
    monkeypatch.setenv("MESHAWARE_ROUTES", "inventory.yaml")
    assert source(run) == {"kind": "manifests", "at": ["inventory.yaml"], "namespace": "default"}
    monkeypatch.setenv("POD_NAMESPACE", "shop")
    assert source(run)["namespace"] == "shop"
    assert source(run, "--namespace", "other")["namespace"] == "other"
    monkeypatch.setenv("MESHAWARE_ROUTES", "none.yaml")
    assert run("budget", "GET", URL)[0] == 65
    assert source(run, "--manifests", "inventory.yaml")["at"] == ["inventory.yaml"]


@pytest.mark.parametrize(
    ("arguments", "verdict"),
    [([], "yes"), (["--namespace", "shop"], "yes"), (["--namespace", "other"], "unknown")],
)
def test_labels_of_this_pod_count_for_a_caller_in_its_namespace(
    run: Run, directory: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], verdict: str
) -> None:
    """What labels a caller elsewhere has, is not known."""
    text = (directory / "inventory.yaml").read_text()
    (directory / "inventory.yaml").write_text(
        text.replace("hosts: [inventory]", "hosts: [inventory.shop.svc.cluster.local]").replace(
            "- uri: {prefix: /admin}", "- sourceLabels: {app: web}"
        )
    )
    monkeypatch.setenv("POD_NAMESPACE", "shop")
    monkeypatch.setenv("MESHAWARE_WORKLOAD__LABELS", "app=web")
    manifests = ("--manifests", "inventory.yaml", "--json")
    code, out, _ = run("budget", "GET", "http://inventory.shop/", *manifests, *arguments)
    assert code == 0
    assert json.loads(out)["searches"][0]["candidates"][0]["verdict"] == verdict


@pytest.mark.envoy
def test_the_sidecar_is_asked_for_its_routes(run: Run, web: LocalService) -> None:
    """And for the namespace, where nobody says it; the answer is what the manifests say."""
    url = web.sidecar.admin_url
    asked = ("--sidecar", "--admin-url", url)
    assert source(run, *asked) == {"kind": "sidecar", "at": [url], "namespace": "shop"}
    code, out, err = run("budget", "GET", URL, *asked, "--header", "x-user-type: premium")
    assert (code, err) == (0, "")
    assert f"routes   the sidecar at {url}, seen from the namespace shop\n" in out
    assert "route    premium\norigin   sidecar: VirtualService shop/inventory\n" in out
    assert "  1  admin: no  (sidecar: VirtualService shop/inventory)\n       uri prefix /admin: no, the path" in out
    live, read = (
        json.loads(run("budget", "GET", URL, *where, "--json")[1])
        for where in (asked, ("--manifests", "inventory.yaml", "--namespace", "shop"))
    )
    assert (live["budget"], live["totals"], live["timeline"]) == (read["budget"], read["totals"], read["timeline"])
    assert live["route"]["name"] == read["route"]["name"] == "everyone"


@pytest.mark.envoy
def test_in_a_pod_with_a_sidecar_nothing_need_be_said(process: Run, web: LocalService) -> None:
    """The settings tell where it answers; as for an application, it goes before manifests."""
    code, out, err = process("budget", "GET", URL, "--json", **web.environment())
    assert (code, err) == (0, "")
    assert json.loads(out)["source"] == {"kind": "sidecar", "at": [web.sidecar.admin_url], "namespace": "shop"}
    both = {**web.environment(), "MESHAWARE_ROUTES": "sidecar,inventory.yaml"}
    code, out, err = process("budget", "GET", URL, "--json", **both)
    assert (code, err) == (0, "")
    assert json.loads(out)["source"]["kind"] == "sidecar"


def test_a_sidecar_that_is_away_is_69(run: Run, nobody: str) -> None:
    """With what was asked, and why there is no answer."""
    code, out, err = run("budget", "GET", URL, "--sidecar", "--admin-url", nobody)
    assert (code, out) == (69, "")
    assert err.startswith(f"meshaware: the sidecar cannot be asked: GET {nobody}/config_dump?resource=")
    assert err.endswith(": connection refused: nothing listens there\n")


def test_manifests_hold_where_the_sidecar_of_the_settings_is_away(
    run: Run, nobody: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for an application, and it is said; not where the sidecar was asked for."""
    monkeypatch.setenv("MESHAWARE_ADMIN_URL", nobody)
    monkeypatch.setenv("MESHAWARE_ROUTES", "sidecar,inventory.yaml")
    code, out, err = run("budget", "GET", URL, "--namespace", "shop")
    assert code == 0
    assert "route    everyone\n" in out
    assert err.startswith("meshaware: warning: the sidecar cannot be asked: ")
    assert err.endswith("; the manifests of MESHAWARE_ROUTES hold then\n")
    assert run("budget", "GET", URL, "--namespace", "shop", "--sidecar")[0] == 69


def test_what_is_no_sidecar_is_65(run: Run) -> None:
    """Such as a service that answers at the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", "6")
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (as in the standard library)
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            code, out, err = run("budget", "GET", URL, "--sidecar", "--admin-url", url)
        finally:
            server.shutdown()
            thread.join(20)
    assert (code, out) == (65, "")
    assert err.startswith(f"meshaware: what answers at {url} is not a sidecar with routes: config dump: ")


def test_a_mesh_whose_proxy_tells_no_routes_is_78(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the address of an Envoy is given."""
    monkeypatch.setenv("MESHAWARE_MESH", "linkerd")
    code, _, err = run("budget", "GET", URL, "--sidecar")
    assert code == 78
    assert err == (
        "meshaware: --sidecar: the mesh is Linkerd (mesh=linkerd is set), and its proxy does not tell routes;"
        " give --manifests, or --admin-url of an Envoy\n"
    )
    assert run("budget", "GET", URL)[0] == 64


def test_outside_of_a_mesh_the_sidecar_is_looked_for_where_istio_has_it() -> None:
    """As behind `kubectl port-forward`."""
    assert admin_url(Asked(sidecar=True), MeshSettings()) == "http://localhost:15000"
    assert admin_url(Asked(), MeshSettings()) is None
    assert admin_url(Asked(), MeshSettings(mesh="consul")) == "http://localhost:19000"
    assert admin_url(Asked(), MeshSettings(admin_url="http://127.0.0.1:9901")) == "http://127.0.0.1:9901"
    given = Asked(sidecar=True, admin_url="http://127.0.0.1:1")
    assert admin_url(given, MeshSettings(admin_url="http://127.0.0.1:9901")) == "http://127.0.0.1:1"
