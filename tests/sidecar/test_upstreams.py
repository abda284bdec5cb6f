"""Which upstreams a proxy has routes for: by hostile documents, by bytes, and by a real Envoy of a LocalMesh."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event
from time import monotonic
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaware import MeshSettings, ReadinessGate
from meshaware.errors import SidecarNotReady, SidecarUnavailable
from meshaware.settings.upstreams import Upstream, parse_upstream
from meshaware.sidecar.attempts import Fetch
from meshaware.sidecar.exchange import AdminReply
from meshaware.sidecar.upstreams import Upstreams
from meshaware.sidecar.waiting import Answer
from meshaware.testing import LocalMesh

ADMIN = "http://localhost:15000"
WHERE = f"{ADMIN}/config_dump"
Wait = Callable[..., bool]


@pytest.fixture(params=["sync", "asyncio", "trio"])
def wait(request: pytest.FixtureRequest) -> Wait:
    """The ways to wait."""

    def wait(gate: ReadinessGate, timeout: float | None = None, **options: Any) -> bool:
        if request.param == "sync":
            return gate.wait(timeout, **options)
        return anyio.run(partial(gate.async_wait, timeout, **options), backend=request.param)

    return wait


def config(name: str, **hosts: list[str]) -> dict[str, Any]:
    virtual_hosts = [{"name": name, "domains": domains} for name, domains in hosts.items()]
    return {"route_config": {"name": name, "virtual_hosts": virtual_hosts}}


def dump(*configs: dict[str, Any]) -> bytes:
    return json.dumps({"configs": configs}).encode()


class Proxy:
    """Answers what an attempt asks, and counts it."""

    def __init__(self, *stamps: bytes, dumps: list[bytes]) -> None:
        self.stamps, self.dumps = list(stamps), dumps
        self.asked: list[str] = []

    def ask(self, upstreams: Upstreams) -> Answer:
        attempt = upstreams.attempt(ADMIN, monotonic() + 1)
        try:
            step = next(attempt)
            while True:
                assert isinstance(step, Fetch)
                self.asked.append(step.url)
                left = self.stamps if "&mask=" in step.url else self.dumps
                step = attempt.send(AdminReply(200, left.pop(0)))
        except StopIteration as end:
            answer: Answer = end.value
            return answer


def wanted(*names: str) -> Upstreams:
    return Upstreams(map(parse_upstream, names))


def known(name: str, body: bytes) -> bool:
    return Proxy(b"1", dumps=[body]).ask(wanted(name)).said == "ready"


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("inventory:8080", True),
        ("INVENTORY:8080", True),
        ("inventory.shop.svc.cluster.local:8080", True),
        ("inventory:8081", False),
        ("orders:8080", False),
        ("ventory:8080", False),
        ("old:8080", True),
        ("a.example.com:8080", True),
        ("b.a.example.com:8080", True),
        ("example.com:8080", False),
        ("dual:9090", True),
        ("dual:8080", False),
        ("proxied:80", True),
        ("proxied:81", False),
        ("any:1", True),
    ],
)
def test_a_domain_of_the_port_is_a_route(name: str, there: bool) -> None:
    """As Istio's sidecars have them; a virtual host for everything else is no sign of an upstream."""
    body = dump(
        config(
            "8080",
            inventory=["inventory", "inventory.shop.svc.cluster.local", "inventory.shop.svc.cluster.local."],
            old=["old", "old:8080"],
            wild=["*.example.com"],
            allow_any=["*"],
        ),
        config("dual.shop.svc.cluster.local:9090", dual=["dual"]),
        config("http_proxy", **{"proxied.shop.svc.cluster.local:80": ["proxied"], "any": ["any"]}),
    )
    assert known(name, body) is there


def test_only_what_is_missing_is_named_and_asked_for() -> None:
    """What has once been there is not asked for again."""
    upstreams = wanted("a:80", "b:81", "b:81")
    proxy = Proxy(b"1", b"2", dumps=[dump(config("80", a=["a"])), dump(config("81", b=["b"]))])
    assert proxy.ask(upstreams) == (WHERE, "no route yet for b:81")
    assert upstreams.missing == (Upstream("b", 81),)
    assert proxy.ask(upstreams) == (WHERE, "ready")
    assert "name_regex=(.*:)?(80|81)|http_proxy" in proxy.asked[0]
    assert "name_regex=(.*:)?(81)|http_proxy" in proxy.asked[-1]


def test_routes_are_read_only_when_they_have_moved() -> None:
    """One small question a step, as long as nothing moves."""
    upstreams = wanted("a:80")
    proxy = Proxy(b"1", b"1", b"1", b"2", dumps=[dump(), dump(config("80", a=["a"]))])
    said = [proxy.ask(upstreams).said for _ in range(4)]
    assert said == ["no route yet for a:80"] * 3 + ["ready"]
    assert [("&mask=" in url) for url in proxy.asked] == [True, False, True, True, True, False]


@pytest.mark.parametrize(
    ("came", "said"),
    [
        (AdminReply(503, b""), "503"),
        (AdminReply(200, b""), "no route yet for a:80"),
        (SidecarUnavailable("no", "refused"), "refused"),
        (SidecarUnavailable("no", "timeout"), "silent"),
        (SidecarUnavailable("no", "too_large"), "too long an answer"),
    ],
    ids=str,
)
@pytest.mark.parametrize("question", [0, 1])
def test_a_proxy_that_does_not_tell_is_asked_again(
    came: AdminReply | SidecarUnavailable, said: str, question: int
) -> None:
    """Whichever of the two questions it was."""
    attempt = wanted("a:80").attempt(ADMIN, monotonic() + 1)
    next(attempt)
    with pytest.raises(StopIteration) as end:
        if question:
            attempt.send(AdminReply(200, b"1"))
        elif isinstance(came, AdminReply) and came.status == 200:
            attempt.send(came)
        attempt.send(came)
    assert end.value.value == (WHERE, said)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["8080", "*", "a:8080"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["configs", "route_config", "name", "virtual_hosts", "domains", "x"]), inner, max_size=4
        )
    ),
    max_leaves=20,
)


@given(st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()))
def test_whatever_is_dumped_gives_an_answer(body: bytes) -> None:
    """A document that makes no sense has no routes."""
    assert Proxy(b"1", dumps=[body]).ask(wanted("no-such:8080")) == (WHERE, "no route yet for no-such:8080")


def test_nested_to_death_is_no_document() -> None:
    """Python's parser would stop there."""
    assert not known("a:80", b"[" * 200_000)


# A real Envoy

Start = Callable[..., ReadinessGate]


@pytest.fixture(scope="module")
def mesh() -> Iterator[Any]:
    """A tester and one service; more are added by tests."""
    local = LocalMesh()
    local.add("inventory", namespace="shop")
    tester = local.add("tester", namespace="shop")
    with local:
        yield local, tester


@pytest.mark.envoy
def test_a_known_upstream_opens_the_gate(wait: Wait, mesh: Any) -> None:
    """By any of its names; named by the setting or by the caller."""
    _, tester = mesh
    gate = ReadinessGate(tester.settings(wait_for=["inventory:8080", "inventory.shop.svc.cluster.local:8080"]))
    before = gate.state
    assert before.status == "waiting"
    assert wait(gate, 20)
    assert gate.state.status == "open"
    assert gate.is_open
    assert wait(gate, 20, upstreams=["inventory.shop:8080"])
    assert wait(gate, 20, upstreams="tester:8080, inventory:8080")


@pytest.mark.envoy
def test_an_upstream_that_never_comes_is_named(wait: Wait, mesh: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The proxy is ready all the same, and the error says so."""
    _, tester = mesh
    gate = ReadinessGate(tester.settings())
    assert wait(gate, 20)
    with pytest.raises(SidecarNotReady) as caught:
        wait(gate, 0.2, upstreams=["nowhere:8080"])
    url = f"{tester.sidecar.admin_url}/config_dump"
    assert str(caught.value).startswith(
        "the sidecar (Istio) takes calls, but not all routes that were waited for came in"
    )
    assert f"last: {url}: no route yet for nowhere:8080. To check next: is there a service" in str(caught.value)
    assert gate.is_open, "what one caller waits for closes nobody else's gate"
    assert wait(gate, 0.1, fatal=False, upstreams=["nowhere:8080"]) is False
    assert any("no route yet for nowhere:8080" in record.getMessage() for record in caplog.records)


@pytest.mark.envoy
def test_an_upstream_that_comes_later_opens_it(wait: Wait) -> None:
    """Its route is learned by the proxy while somebody waits."""
    local = LocalMesh()
    tester = local.add("tester", namespace="shop")
    with local, ThreadPoolExecutor() as pool:
        gate = ReadinessGate(tester.settings(wait_for="late:8080"))
        waited = pool.submit(wait, gate, 40)
        end, pause = monotonic() + 20, Event()
        while "no route yet for late:8080" not in gate.state.reason:
            assert monotonic() < end
            pause.wait(0.005)
        assert gate.state.status == "waiting"
        local.add("late", namespace="shop")
        assert waited.result(40)
        assert gate.is_open


# Where nothing tells


@pytest.mark.parametrize("mesh_name", ["none", "ambient"])
def test_without_a_proxy_there_is_nothing_to_wait_for(
    wait: Wait, mesh_name: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The same code runs on a laptop, without a word."""
    caplog.set_level(logging.DEBUG, "meshaware")
    gate = ReadinessGate(MeshSettings(mesh=mesh_name, wait_for="inventory:8080"))
    assert gate.is_open
    assert wait(gate, upstreams=["orders:8080"])
    assert caplog.records == []


def test_a_proxy_that_does_not_tell_its_routes_is_waited_for_and_no_more(
    wait: Wait, ports: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Linkerd's has no such question; somebody who asked for it is told."""
    caplog.set_level(logging.INFO, "meshaware")
    ports.listen(4191, {"GET /ready": b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"})
    gate = ReadinessGate(MeshSettings(mesh="linkerd", wait_for="inventory:8080"))
    assert wait(gate, 20)
    assert [record.getMessage() for record in caplog.records] == [
        "not waiting for routes: Linkerd: nothing tells whether there are routes for inventory:8080"
    ]


def test_a_mesh_that_is_found_first_is_asked_as_it_can(wait: Wait, ports: Any) -> None:
    """What can be told is known only once the mesh is."""
    ports.listen(4191, {"GET /live": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nlive\n",
                        "GET /ready": b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"})  # fmt: skip
    gate = ReadinessGate(MeshSettings(in_kubernetes=True, wait_for="inventory:8080"))
    assert not gate.is_open
    assert wait(gate, 20)
    assert gate.flavour.name == "linkerd"


def test_an_upstream_that_is_none_is_refused_before_anybody_is_asked(wait: Wait) -> None:
    """With what is accepted."""
    with pytest.raises(ValueError, match="upstreams as host:port, such as inventory:8080"):
        wait(ReadinessGate(MeshSettings(mesh="none")), upstreams=["inventory"])
