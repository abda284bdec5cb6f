"""
As in a pod: nothing tells the application of a proxy, and the kernel takes its connections to Envoy all the same.

Skipped, with the reason, where the kernel or missing programs do not let it.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from meshaware.errors import LocalMeshError
from meshaware.sidecar.admin import fetch
from meshaware.testing import LocalMesh, LocalService, namespaces, why_no_redirect

WHY = why_no_redirect()
pytestmark = [
    pytest.mark.envoy,
    pytest.mark.skipif(WHY is not None, reason=f"no redirection here: {WHY}"),
]

SOURCE = str(Path(__file__).parents[2] / "src")
WITHIN = 30.0

ROUTES = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: inventory}
spec:
  hosts: [inventory]
  http:
  - name: slow
    match: [{uri: {prefix: /wait}}]
    timeout: %s
    route: [{destination: {host: inventory}}]
  - name: premium
    match: [{headers: {x-user-type: {exact: premium}}}]
    timeout: 7s
    route: [{destination: {host: inventory}}]
  - route: [{destination: {host: inventory}}]
"""

# A service as its team would write it: no address, no proxy, no mesh is named.
ORDERS = '''
    """The service `orders`."""

    from fastapi import FastAPI, Request

    from meshaware import Mesh, report

    app = FastAPI()
    mesh = Mesh()
    mesh.install(app, telemetry=False)
    client = mesh.async_client(base_url="http://inventory:8080")


    @app.get("/look-again")
    async def look_again() -> bool:
        await mesh.routes.async_refresh(max_age=0.0)
        return mesh.routes.live


    @app.get("/order/{path:path}")
    async def order(path: str) -> dict:
        response = await client.get(f"/{path}")
        call = report(response)
        return {
            "status": response.status_code,
            "inventory": response.json() if response.status_code == 200 else response.text,
            "timeout": call.budget.timeout if call.budget else None,
            "route": call.route.name if call.route else None,
            "proxy": None if call.reply is None else call.reply.reason,
        }
'''


def ask(service: LocalService, path: str, **headers: str) -> Any:
    """Send a request to an application through its sidecar, as a neighbour would; its JSON."""
    connection = http.client.HTTPConnection(service.sidecar.inbound_url.removeprefix("http://"), timeout=WITHIN)
    try:
        connection.request("GET", path, headers={"Host": f"{service.name}:8080", **headers})
        response = connection.getresponse()
        return json.loads(response.read())
    finally:
        connection.close()


def in_the_pod(service: LocalService, script: str, *arguments: str) -> str:
    """What a program in the pod writes."""
    process = service.popen(
        [sys.executable, "-c", dedent(script), *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    out, _ = process.communicate(timeout=WITHIN)
    return str(out).strip()


def until(holds: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + WITHIN
    while not (answer := holds()):
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)
    return answer


GET = """
    import http.client, sys
    connection = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=20)
    try:
        connection.request("GET", sys.argv[3], headers={"Host": sys.argv[4]} if len(sys.argv) > 4 else {})
        response = connection.getresponse()
        print(response.status, response.read().decode())
    except OSError as error:
        print(type(error).__name__)
"""


class Shop:
    """`orders`, a process in its pod, whose sidecar starts when the test says so; `inventory`, served by the test."""

    def __init__(self, mesh: LocalMesh, directory: Path, upstream: Any) -> None:
        self.mesh, self.upstream = mesh, upstream
        self.inventory = mesh.add("inventory")
        self.orders = mesh.add("orders", start=False)
        mesh.start()
        self.inventory.serve(upstream)
        (directory / "orders.py").write_text(dedent(ORDERS))
        self.process = self.orders.popen(
            [
                sys.executable,
                "-m",
                "uvicorn",
                "orders:app",
                "--host",
                "0.0.0.0",
                "--port",
                str(self.orders.app_port),
                "--log-level",
                "error",
            ],
            cwd=str(directory),
            env={"PYTHONPATH": SOURCE},
        )

    def readyz(self) -> dict[str, Any]:
        """What the kubelet would hear."""
        status, _, body = in_the_pod(self.orders, GET, "localhost", "8080", "/readyz").partition(" ")
        return {"status": status, **(json.loads(body) if body else {})}


@pytest.fixture(scope="module")
def shop(envoy: str | None, tmp_path_factory: pytest.TempPathFactory, upstream: Any) -> Iterator[Shop]:
    with LocalMesh(ROUTES % "300ms", namespace="shop", envoy=envoy, redirect=True) as mesh:
        yield Shop(mesh, tmp_path_factory.mktemp("orders"), upstream)


@pytest.fixture(scope="module")
def upstream() -> Any:
    """`/wait/2` answers after two seconds, anything else at once, with the headers that arrived."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            _, what, *rest = scope["path"].split("/")
            if what == "wait":
                await asyncio.sleep(float(rest[0]))
            body = json.dumps({name.decode(): value.decode() for name, value in scope["headers"]})
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": body.encode()})

    return app


def test_a_service_in_a_pod_works_as_behind_a_proxy_setting(shop: Shop) -> None:
    """Gate, live routes, budgets and headers, in the order of a pod's life."""
    orders = shop.orders
    variables = orders.environment()
    assert not [name for name in variables if name.endswith(("_URL", "_PROXY"))]
    # The application is there before its sidecar: it serves, and is not ready.
    before = until(lambda: (said := shop.readyz())["status"] == "503" and said)
    assert (before["mesh"], before["gate"]["status"]) == ("istio", "waiting")
    # In this time a pod's calls fail, with Istio's redirection all of them.
    assert in_the_pod(orders, GET, "inventory", "8080", "/") == "ConnectionRefusedError"
    orders.sidecar.start()
    ready = until(lambda: (said := shop.readyz())["status"] == "200" and said["routes"]["live"] and said)
    assert ready["gate"]["status"] == "open"
    # Headers come through two sidecars on either way, and decide on the route and its timeout.
    order = ask(orders, "/order/items/42", **{"x-request-id": "0-1", "x-user-type": "premium"})
    assert (order["status"], order["route"], order["timeout"], order["proxy"]) == (200, "premium", 7.0, None)
    assert order["inventory"]["x-request-id"] == "0-1"
    assert order["inventory"]["x-user-type"] == "premium"
    assert order["inventory"]["x-envoy-attempt-count"] == "1"
    # The VirtualService's timeout reached the client, which waits for the sidecar's 504 and knows whose it is.
    order = ask(orders, "/order/wait/2")
    assert order == {
        "status": 504,
        "inventory": "upstream request timeout",
        "timeout": 0.3,
        "route": "slow",
        "proxy": "upstream request timeout",
    }
    # Envoy saw where the connections were meant to go: they did not ask for it, the kernel brought them.
    outbound = until(lambda: len(found := _outbound(orders)) == 2 and found)
    assert [(entry["path"], entry["flags"], entry["destination"]) for entry in outbound] == [
        ("/items/42", "-", "10.96.0.1:8080"),
        ("/wait/2", "UT", "10.96.0.1:8080"),
    ]
    inbound = [entry for entry in shop.inventory.sidecar.access_log() if entry["path"] == "/items/42"]
    assert [(entry["direction"], entry["destination"]) for entry in inbound] == [("inbound", "10.244.0.2:8080")]


def _outbound(service: LocalService) -> list[dict[str, Any]]:
    return [entry for entry in service.sidecar.access_log() if entry["direction"] == "outbound"]


def test_a_changed_timeout_reaches_the_running_service(shop: Shop) -> None:
    """By the live routes, as without redirection."""
    shop.orders.sidecar.start()
    until(lambda: shop.readyz()["status"] == "200")
    shop.mesh.apply(ROUTES % "6s")
    assert ask(shop.orders, "/look-again") is True
    assert ask(shop.orders, "/order/wait/0")["timeout"] == 6.0


def test_a_bare_client_is_caught_too(shop: Shop) -> None:
    """By every name of the service, and by its address; what is no service of the mesh gets no further."""
    inventory = shop.inventory
    for host in ("inventory", "inventory.shop", "inventory.shop.svc.cluster.local", "10.96.0.1"):
        assert in_the_pod(inventory, GET, host, "8080", "/items").startswith("200 "), host
    assert in_the_pod(inventory, GET, "203.0.113.7", "80", "/").startswith("502")
    assert in_the_pod(inventory, GET, "elsewhere.example", "80", "/") == "gaierror"
    # Not redirected: Istio's own ports, which are those that meshaware knows.
    assert in_the_pod(inventory, GET, "localhost", "15021", "/healthz/ready").startswith("200")
    assert in_the_pod(inventory, GET, "localhost", "15000", "/ready").startswith("200 LIVE")


def test_each_port_has_a_listener_and_routes_of_its_own(shop: Shop) -> None:
    """As Istio's; a service of another port is known as soon as it is added, and no other port leads anywhere."""
    other = shop.mesh.add("other", port=9090, namespace="side")
    other.serve(shop.upstream)
    caller = shop.inventory
    assert in_the_pod(caller, GET, "other.side", "9090", "/").startswith("200")
    assert in_the_pod(caller, GET, "inventory", "8080", "/").startswith("200")
    # A service is not at another's port, nor at one that nobody has; 80 is there always.
    assert in_the_pod(caller, GET, "inventory", "9090", "/").startswith("502")
    assert in_the_pod(caller, GET, "inventory", "80", "/").startswith("502")
    assert in_the_pod(caller, GET, "inventory", "7070", "/") in {"RemoteDisconnected", "ConnectionResetError"}
    dump = json.loads(caller.sidecar.admin("/config_dump?resource=dynamic_route_configs"))
    names = {config["route_config"]["name"] for config in dump["configs"]}
    assert names == {"http_proxy", "80", "8080", "9090"}
    assert b"0.0.0.0_9090::0.0.0.0:9090" in caller.sidecar.admin("/listeners")


def test_an_application_that_listens_on_loopback_only_is_not_reached(shop: Shop) -> None:
    """A mistake that a test without redirection would not find: Istio passes calls on to the pod's address."""
    lonely = shop.mesh.add("lonely")
    assert lonely.app_address == f"{lonely.environment()['POD_IP']}:8080"
    script = "import http.server; http.server.test(http.server.SimpleHTTPRequestHandler, port=8080, bind='127.0.0.1')"
    lonely.popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: in_the_pod(lonely, GET, "127.0.0.1", "8080", "/").startswith("200"))
    assert in_the_pod(shop.inventory, GET, "lonely", "8080", "/").startswith("503")


def test_the_test_itself_reaches_every_sidecar(shop: Shop) -> None:
    """It is in no pod: ports of loopback are relayed to it."""
    inventory = shop.inventory.sidecar
    assert fetch(inventory.ready_url).status == 200
    assert b"virtualOutbound" in inventory.admin("/listeners")
    host = {"Host": "inventory"}
    connection = http.client.HTTPConnection(inventory.outbound_url.removeprefix("http://"), timeout=WITHIN)
    connection.request("GET", "/items", headers=host)
    assert connection.getresponse().status == 200
    connection.close()


def test_a_proxy_of_this_machine_does_not_reach_into_a_pod(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable would send every call past the redirection."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "example.com")
    script = "import os; print([name for name in os.environ if name.lower().endswith('_proxy')])"
    assert in_the_pod(shop.inventory, script) == "[]"


def test_a_tracing_mesh_cannot_redirect() -> None:
    """Its collector would have to be in the pods."""
    with pytest.raises(LocalMeshError, match="redirect=True goes without otlp and zipkin"):
        LocalMesh(redirect=True, otlp="http://127.0.0.1:4318")


# --- leaving nothing behind


def network_of(process: object) -> str:
    return str(Path(f"/proc/{process}/ns/net").readlink())


def networks() -> dict[str, list[int]]:
    """The processes of every network namespace on this machine."""
    found: dict[str, list[int]] = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            found.setdefault(network_of(process.name), []).append(int(process.name))
        except OSError:
            continue
    return found


def test_a_stopped_mesh_leaves_no_process_and_no_network(envoy: str | None) -> None:
    """Also of a program that ignores SIGTERM, and of one that has left its parent."""
    with LocalMesh(envoy=envoy, redirect=True) as mesh:
        hello = mesh.add("hello")
        hello.popen(["sh", "-c", "(sleep 60 & ); exec sleep 60"])
        stubborn = hello.popen(["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"], stdout=-1)
        assert stubborn.stdout is not None
        assert stubborn.stdout.readline() == b"ready\n"
        stubborn.stdout.close()
        assert hello.socket.fileno() > 0
        network = network_of(hello.sidecar.pid)
        assert network != network_of("self")
        assert len(networks()[network]) >= 5
        directory = Path(hello.environment()["MESHAWARE_PODINFO"])
    assert not directory.exists()
    until(lambda: network not in networks())


def test_a_pod_that_cannot_be_set_up_leaves_nothing_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the mesh can still be stopped."""
    monkeypatch.setattr(namespaces, "_POD", "echo no room >&2; exit 1")
    before = set(networks())
    with LocalMesh(redirect=True) as mesh:
        with pytest.raises(LocalMeshError, match="cannot be set up: no room"):
            mesh.add("hello")
        assert mesh.services == ()
    until(lambda: set(networks()) <= before)


SCRIPT = """
import os, sys, time
from meshaware.testing import LocalMesh

mesh = LocalMesh(envoy=sys.argv[1] or None, redirect=True)
one = mesh.add("one")
mesh.start()
one.popen(["sleep", "60"])
print(os.readlink(f"/proc/{one.sidecar.pid}/ns/net"), flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("deadly", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_a_killed_test_leaves_no_network(envoy: str | None, deadly: int) -> None:
    """However it went: nobody had the chance to stop anything."""
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, envoy or ""],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": SOURCE},
    ) as process:
        assert process.stdout is not None
        network = process.stdout.readline().strip()
        assert network.startswith("net:[")
        process.send_signal(deadly)
    until(lambda: network not in networks())


UNPRIVILEGED = """
import os, subprocess, sys
from meshaware.testing import LocalMesh, why_no_redirect

assert os.geteuid() != 0
why = why_no_redirect()
if why is not None:
    print("skip", why)
    sys.exit()

async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})

with LocalMesh(envoy=sys.argv[1] or None, redirect=True) as mesh:
    hello, caller = mesh.add("hello"), mesh.add("caller", app=False)
    hello.serve(app, lifespan="off")
    get = "from urllib.request import urlopen; print(urlopen('http://hello:8080/', timeout=20).read().decode())"
    process = caller.popen([sys.executable, "-c", get], stdout=-1, stderr=-1, text=True)
    print(*process.communicate(timeout=30))
    print(*(entry["destination"] for entry in caller.sidecar.access_log()))
"""


def test_it_takes_no_root(envoy: str | None) -> None:
    """In a user namespace, which has one user: there the sidecar's connections bear a mark."""
    if os.geteuid() != 0:
        pytest.skip("every other test here shows it")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([SOURCE, *sys.path]), "TMPDIR": "/tmp"}
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in filter(None, [sys.executable, shutil.which(version, path="/usr/bin:/usr/local/bin")]):
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", python]
        done = subprocess.run(
            [*command, "-c", "import sys; exec(sys.stdin.read())", envoy or ""],
            input=UNPRIVILEGED,
            capture_output=True,
            text=True,
            timeout=50,
            cwd="/",
            env=environment,
            check=False,
        )
        # Its own files may be root's alone, or what it loads.
        if "Permission denied" not in done.stderr and "cannot open shared object file" not in done.stderr:
            break
    else:
        pytest.skip("there is no Python here that others than root may run")
    if done.stdout.startswith("skip"):
        pytest.skip(done.stdout)
    assert done.stderr == ""
    assert done.stdout.splitlines()[0].strip() == "hello"
    assert "10.96.0.1:8080" in done.stdout
