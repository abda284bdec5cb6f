"""How a client is put together: nothing that the caller gives bypasses our transports, and like clients share."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable
from pathlib import Path

import certifi
import httpx
import pytest

from meshaware import bind_headers, create_async_client, create_client
from meshaware.budgets import RouteTable
from meshaware.client.build import async_close_connections, close_connections
from meshaware.client.tls import shared_context
from meshaware.client.transport import AsyncMeshTransport, MeshTransport
from meshaware.settings import MeshSettings

from .conftest import Peer, Script, answer

NOWHERE = MeshSettings(mesh="none")
EMPTY = RouteTable.empty()
CARRIED = {"x-user-type": "premium"}


def inner(client: httpx.Client | httpx.AsyncClient) -> object:
    return vars(client)["_transport"]


def mounted(client: httpx.Client | httpx.AsyncClient) -> Iterable[object]:
    mounts: dict[object, object] = vars(client)["_mounts"]
    return mounts.values()


def echo(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json={"user": request.headers.get("x-user-type"), "host": request.headers["host"]})


def test_a_transport_of_the_caller_s_is_wrapped() -> None:
    """A mock sees what would have gone over the wire."""
    with create_client(NOWHERE, routes=EMPTY, transport=httpx.MockTransport(echo)) as client, bind_headers(CARRIED):
        assert client.get("http://inventory/").json()["user"] == "premium"
        assert client.get("http://example.com/").json()["user"] is None


@pytest.mark.anyio
async def test_mounts_of_the_caller_s_are_wrapped() -> None:
    """Each of them; one that is None stays out of the way."""
    mounts = {"http://inventory": httpx.MockTransport(echo), "http://orders": None}
    client = create_async_client(NOWHERE, routes=EMPTY, transport=httpx.MockTransport(echo), mounts=mounts)
    async with client:
        with bind_headers(CARRIED):
            assert (await client.get("http://inventory/")).json()["user"] == "premium"
            assert (await client.get("http://orders/")).json()["user"] == "premium"
            assert (await client.get("http://example.com/")).json()["user"] is None


def test_a_proxy_from_the_environment_is_for_the_outside(
    peer: Callable[[Script], Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inside the mesh it would bypass the sidecar."""
    proxy, sidecar = peer(answer(b"proxy")), peer(answer(b"sidecar"))
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    with create_client(MeshSettings(mesh="none", outbound_proxy=sidecar.url), routes=EMPTY) as client:
        assert client.get("http://inventory/").text == "sidecar"
        assert client.get("http://api.example.com/").text == "proxy"


def test_a_proxy_the_caller_named_serves_every_host(peer: Callable[[Script], Peer]) -> None:
    """That was asked for by name."""
    proxy = peer(answer(b"proxy"))
    with create_client(NOWHERE, routes=EMPTY, proxy=proxy.url) as client:
        assert client.get("http://inventory/").text == "proxy"
        assert client.get("http://api.example.com/").text == "proxy"


def test_every_transport_of_a_client_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the environment adds."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "example.com")
    with create_client(NOWHERE, routes=EMPTY) as client:
        assert isinstance(inner(client), MeshTransport)
        assert {type(each) for each in mounted(client)} == {MeshTransport, type(None)}


def test_the_factories_return_the_library_s_clients() -> None:
    """isinstance holds, so everything that takes an httpx client takes ours."""
    assert isinstance(create_client(NOWHERE, routes=EMPTY), httpx.Client)
    client = create_async_client(NOWHERE, routes=EMPTY, base_url="http://inventory:8080")
    assert isinstance(client, httpx.AsyncClient)
    assert isinstance(inner(client), AsyncMeshTransport)


def test_like_clients_share_their_certificates() -> None:
    """Loading them is what takes long; unlike clients do not share."""
    first = shared_context(httpx.create_ssl_context, True, None, trust_env=True, http2=False)
    assert shared_context(httpx.create_ssl_context, True, None, trust_env=True, http2=False) is first
    assert shared_context(httpx.create_ssl_context, True, None, trust_env=True, http2=True) is not first
    assert shared_context(httpx.create_ssl_context, False, None, trust_env=True, http2=False) is not first
    own = ssl.create_default_context()
    assert shared_context(httpx.create_ssl_context, own, None, trust_env=True, http2=False) is own


def test_another_bundle_in_the_environment_is_another_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """SSL_CERT_FILE counts unless trust_env is False."""
    first = shared_context(httpx.create_ssl_context, True, None, trust_env=True, http2=False)
    monkeypatch.setenv("SSL_CERT_FILE", certifi.where())
    assert shared_context(httpx.create_ssl_context, True, None, trust_env=True, http2=False) is not first


def test_the_second_client_loads_no_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the environment names proxies, each of which httpx would load them for again."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    create_client(NOWHERE, routes=EMPTY).close()
    loaded: list[object] = []

    def load(self: ssl.SSLContext, *files: object, **named: object) -> None:
        loaded.append((files, named))

    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", load)
    create_client(NOWHERE, routes=EMPTY).close()
    assert loaded == []


def test_manifests_come_from_the_settings_where_no_routes_are_given(tmp_path: Path) -> None:
    """MESHAWARE_ROUTES names them."""
    path = tmp_path / "vs.yaml"
    path.write_text(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: inventory}\n"
        "spec:\n  hosts: [inventory]\n  http:\n  - timeout: 2s\n    route: [{destination: {host: inventory}}]\n"
    )
    settings = MeshSettings(mesh="none", routes=(str(path),))
    with create_client(settings, transport=httpx.MockTransport(echo)) as client:
        response = client.get("http://inventory/")
    assert response.extensions["meshaware"].budget.timeout == 2.0


@pytest.mark.anyio
async def test_closed_connections_are_opened_anew(peer: Callable[[Script], Peer]) -> None:
    """A client whose connections were closed by one lifespan serves the next."""
    upstream = peer(answer())
    settings = MeshSettings(mesh="none", outbound_proxy=upstream.url)
    client = create_async_client(settings, routes=EMPTY)
    await client.get("http://inventory/")
    await async_close_connections(client)
    await client.get("http://inventory/")
    assert upstream.connections == 2
    await client.aclose()


def test_closed_synchronous_connections_too(peer: Callable[[Script], Peer]) -> None:
    """As the asynchronous ones."""
    upstream = peer(answer())
    client = create_client(MeshSettings(mesh="none", outbound_proxy=upstream.url), routes=EMPTY)
    client.get("http://inventory/")
    close_connections(client)
    client.get("http://inventory/")
    assert upstream.connections == 2
    client.close()
