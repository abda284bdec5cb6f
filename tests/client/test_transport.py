"""What goes over the wire, and what is left of it on the caller's request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from meshaware import bind_headers, create_async_client, create_client, report
from meshaware.budgets import RouteTable
from meshaware.errors import SidecarUnavailable
from meshaware.settings import MeshSettings

from .conftest import Conversation, Peer, Script, answer

URL = "http://inventory/items"
CARRIED = {"x-request-id": "5a4e6c1e-2f0a-9b1c-8d2e-000000000001", "x-user-type": "premium"}


def settings_for(peer: Peer, **more: Any) -> MeshSettings:
    return MeshSettings(mesh="none", outbound_proxy=peer.url, **more)


@pytest.mark.anyio
async def test_headers_go_along_inside_the_mesh_once(peer: Callable[[Script], Peer]) -> None:
    """And `request.headers` is as the caller made it when the call is over."""
    upstream = peer(answer())
    async with create_async_client(settings_for(upstream), routes=RouteTable.empty()) as client:
        request = client.build_request("GET", URL)
        before = list(request.headers.raw)
        with bind_headers(CARRIED):
            await client.send(request)
    sent = upstream.headers()
    for name, value in CARRIED.items():
        assert [found for key, found in sent if key == name.encode()] == [value.encode()]
    assert request.headers.raw == before
    assert str(request.url) == URL


def test_a_header_the_caller_set_is_not_doubled(peer: Callable[[Script], Peer]) -> None:
    """The caller's own word wins over what is carried."""
    upstream = peer(answer())
    with create_client(settings_for(upstream), routes=RouteTable.empty()) as client, bind_headers(CARRIED):
        client.get(URL, headers={"X-User-Type": "basic"})
    assert [value for name, value in upstream.headers() if name == b"x-user-type"] == [b"basic"]


def test_the_host_is_the_one_that_was_called(peer: Callable[[Script], Peer]) -> None:
    """The sidecar routes on it, wherever the connection leads."""
    upstream = peer(answer())
    with create_client(settings_for(upstream), routes=RouteTable.empty()) as client:
        client.get("http://inventory.shop.svc:8080/items?a=1")
    assert (b"host", b"inventory.shop.svc:8080") in upstream.headers()
    assert upstream.requests[0].startswith(b"GET /items?a=1 HTTP/1.1\r\n")


def test_outside_the_mesh_nothing_goes_along(peer: Callable[[Script], Peer]) -> None:
    """A loopback address is outside unless it is listed; and the outbound proxy is not used."""
    upstream, sidecar = peer(answer()), peer(answer())
    with create_client(settings_for(sidecar), routes=RouteTable.empty()) as client, bind_headers(CARRIED):
        client.get(f"{upstream.url}/items")
    assert not {name for name, _ in upstream.headers()} & {b"x-request-id", b"x-user-type"}
    assert sidecar.requests == []


def test_a_host_header_that_leads_outside_takes_nothing_along(peer: Callable[[Script], Peer]) -> None:
    """Envoy routes on Host, so both it and the URL must be inside."""
    upstream = peer(answer())
    settings = MeshSettings(mesh="none", mesh_hosts=("127.0.0.1",))
    with create_client(settings, routes=RouteTable.empty()) as client, bind_headers(CARRIED):
        client.get(upstream.url, headers={"host": "api.example.com"})
        client.get(upstream.url)
    assert b"x-request-id" not in dict(upstream.headers(0))
    assert b"x-request-id" in dict(upstream.headers(1))


@pytest.mark.anyio
async def test_a_redirect_to_the_outside_carries_nothing(peer: Callable[[Script], Peer]) -> None:
    """httpx copies the request's headers to the target, and ours were never on it."""
    outside = peer(answer())
    location = f"location: {outside.url}/elsewhere\r\n".encode()
    inside = peer(answer(status=b"302 Found", headers=location))
    client = create_async_client(settings_for(inside), routes=RouteTable.empty(), follow_redirects=True)
    async with client:
        with bind_headers(CARRIED):
            response = await client.get(URL)
    assert response.status_code == 200
    assert b"x-request-id" in dict(inside.headers())
    assert not {name for name, _ in outside.headers()} & {b"x-request-id", b"x-user-type"}


@pytest.mark.anyio
async def test_a_carried_header_chooses_the_route(
    peer: Callable[[Script], Peer], routes: Callable[..., RouteTable]
) -> None:
    """The mesh matches the request as it leaves, and so do we."""
    upstream = peer(answer())
    table = routes(match=[{"headers": {"x-user-type": {"exact": "premium"}}}], timeout="3s")
    async with create_async_client(settings_for(upstream), routes=table) as client:
        plain = await client.get(URL)
        with bind_headers(CARRIED):
            premium = await client.get(URL)
    assert report(plain).route is None
    assert report(premium).route is not None
    assert report(premium).total == pytest.approx(3.25)


def test_the_report_tells_route_budget_and_source(
    peer: Callable[[Script], Peer], routes: Callable[..., RouteTable]
) -> None:
    """Also as an extension of the response."""
    table = routes(timeout="3s", retries={"attempts": 2, "perTryTimeout": "1s"})
    with create_client(settings_for(peer(answer())), routes=table) as client:
        response = client.get(URL)
    told = report(response)
    assert told is response.extensions["meshaware"]
    assert told.route is not None
    assert (told.route.name, told.source, told.total, told.reply) == ("items", "route", 5.25, None)
    assert told.budget is told.route.budget
    assert told.route.budget.timeout == 3.0
    assert told.deadline is not None
    assert "items" in repr(told)


def test_the_tight_policy_is_what_envoy_can_really_take(
    peer: Callable[[Script], Peer], routes: Callable[..., RouteTable]
) -> None:
    """3 s and the buffer."""
    table = routes(timeout="3s", retries={"attempts": 2, "perTryTimeout": "1s"})
    with create_client(settings_for(peer(answer()), budget_policy="tight"), routes=table) as client:
        assert report(client.get(URL)).total == 3.25


def test_the_report_says_who_answered(peer: Callable[[Script], Peer]) -> None:
    """A 504 without upstream-service-time is the sidecar's own, and its body says why."""
    script = answer(
        b"upstream request timeout", b"504 Gateway Timeout", b"server: envoy\r\ncontent-type: text/plain\r\n"
    )
    with create_client(settings_for(peer(script)), routes=RouteTable.empty()) as client:
        reply = report(client.get(URL)).reply
    assert reply is not None
    assert reply.by == "sidecar"
    assert "timeout" in reply.reason


def test_a_streamed_error_is_told_by_its_headers(peer: Callable[[Script], Peer]) -> None:
    """The body is not read for the sake of a report."""
    script = answer(
        b"no healthy upstream", b"503 Service Unavailable", b"server: envoy\r\ncontent-type: text/plain\r\n"
    )
    with (
        create_client(settings_for(peer(script)), routes=RouteTable.empty()) as client,
        client.stream("GET", URL) as response,
    ):
        reply = report(response).reply
        assert reply is not None
        assert reply.by == "sidecar"
        assert not response.is_stream_consumed


def test_a_response_of_another_client_has_no_report() -> None:
    """The error says why."""
    with pytest.raises(LookupError, match="did not come through"):
        report(httpx.Response(200))


@pytest.mark.anyio
async def test_a_refused_connection_is_the_sidecar_s(peer: Callable[[Script], Peer]) -> None:
    """Inside the mesh only the sidecar takes connections: the error says that it did not, and stays httpx's own."""
    gone = peer(answer())
    settings = settings_for(gone)
    gone.close()
    async with create_async_client(settings, routes=RouteTable.empty()) as client:
        with pytest.raises(SidecarUnavailable, match=f"the sidecar at 127.0.0.1:{gone.port} did not take") as caught:
            await client.get(URL)
    assert isinstance(caught.value, httpx.ConnectError)
    assert caught.value.cause == "refused"
    assert str(caught.value.request.url) == URL


@pytest.mark.anyio
@pytest.mark.parametrize(("mesh", "ours"), [("istio", True), ("linkerd", True), ("ambient", False), ("none", False)])
async def test_a_refused_connection_is_the_sidecar_s_where_one_captures_traffic(
    mesh: Any, *, ours: bool, peer: Callable[[Script], Peer]
) -> None:
    """As in a pod, with nothing set but the mesh; ambient has no sidecar to blame."""
    gone = peer(answer())
    gone.close()
    settings = MeshSettings(mesh=mesh, mesh_hosts=("127.0.0.1",))
    async with create_async_client(settings, routes=RouteTable.empty()) as client:
        with pytest.raises(httpx.ConnectError) as caught:
            await client.get(gone.url)
    assert isinstance(caught.value, SidecarUnavailable) is ours
    with create_client(settings, routes=RouteTable.empty()) as synchronous, pytest.raises(httpx.ConnectError) as also:
        synchronous.get(gone.url)
    assert type(also.value) is type(caught.value)


def test_a_name_that_does_not_resolve_is_not_blamed_on_the_sidecar() -> None:
    """Nothing was refused."""
    settings = MeshSettings(mesh="istio", mesh_hosts=("nowhere.invalid",))
    with create_client(settings, routes=RouteTable.empty()) as client, pytest.raises(httpx.ConnectError) as caught:
        client.get("http://nowhere.invalid/")
    assert type(caught.value) is httpx.ConnectError


def test_outside_a_refused_connection_is_plain_httpx(peer: Callable[[Script], Peer]) -> None:
    """Nothing is known about it that httpx does not say."""
    gone = peer(answer())
    gone.close()
    with (
        create_client(MeshSettings(mesh="none"), routes=RouteTable.empty()) as client,
        pytest.raises(httpx.ConnectError) as caught,
    ):
        client.get(gone.url)
    assert type(caught.value) is httpx.ConnectError


def test_nothing_is_retried(peer: Callable[[Script], Peer]) -> None:
    """The mesh retries; a second owner would multiply the tries."""
    upstream = peer(answer(b"no", b"503 Service Unavailable"))
    with create_client(settings_for(upstream), routes=RouteTable.empty()) as client:
        assert client.get(URL).status_code == 503
    assert len(upstream.requests) == 1


@pytest.mark.anyio
async def test_a_trace_callback_of_the_caller_s_is_still_called(peer: Callable[[Script], Peer]) -> None:
    """We listen to the same events, and pass them on."""
    heard: list[str] = []

    async def trace(name: str, info: Any) -> None:
        heard.append(name)

    async with create_async_client(settings_for(peer(answer())), routes=RouteTable.empty()) as client:
        await client.get(URL, extensions={"trace": trace})
    assert "http11.send_request_body.complete" in heard


def test_a_synchronous_trace_callback_too(peer: Callable[[Script], Peer]) -> None:
    """We listen to the same events, and pass them on."""
    heard: list[str] = []
    with create_client(settings_for(peer(answer())), routes=RouteTable.empty()) as client:

        def trace(name: str, info: Any) -> None:
            heard.append(name)

        client.get(URL, extensions={"trace": trace})
    assert "http11.send_request_body.complete" in heard


def test_a_large_body_arrives_whole(peer: Callable[[Script], Peer]) -> None:
    """Writes are sliced so that each can be bounded; nothing is lost between the slices."""
    body = bytes(range(256)) * 2048
    upstream = peer(answer())
    with create_client(settings_for(upstream), routes=RouteTable.empty()) as client:
        client.post(URL, content=body)
    assert upstream.requests[0].partition(b"\r\n\r\n")[2] == body


@pytest.mark.anyio
async def test_keep_alive_is_kept(peer: Callable[[Script], Peer]) -> None:
    """Ten calls, one connection."""
    upstream = peer(answer())
    async with create_async_client(settings_for(upstream), routes=RouteTable.empty()) as client:
        for _ in range(10):
            await client.get(URL)
    assert upstream.connections == 1


def test_an_empty_conversation_is_the_library_s_error(peer: Callable[[Script], Peer]) -> None:
    """Errors that are not about time or the sidecar pass unchanged."""

    def hang_up(conversation: Conversation) -> None:
        conversation.read_request()

    with (
        create_client(settings_for(peer(hang_up)), routes=RouteTable.empty()) as client,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        client.get(URL)


def test_a_tracer_around_the_client_tells_the_mesh_and_nobody_else(peer: Callable[[Script], Peer]) -> None:
    """OpenTelemetry writes the span on every request; outside, ours takes it off again, redirects included."""
    outside = peer(answer())
    inside = peer(answer(status=b"302 Found", headers=f"location: {outside.url}/x\r\n".encode()))
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with create_client(settings_for(inside), routes=RouteTable.empty(), follow_redirects=True) as client:
        HTTPXClientInstrumentor.instrument_client(client, tracer_provider=provider)
        client.get(URL)
        client.get(outside.url)
    spans = exporter.get_finished_spans()
    assert len(spans) == 3
    first = spans[0].get_span_context()
    assert first is not None
    assert dict(inside.headers())[b"traceparent"][36:52] == b"%016x" % first.span_id
    assert all(b"traceparent" not in dict(outside.headers(number)) for number in range(2))


@pytest.mark.anyio
async def test_a_call_has_one_client_span_also_where_httpx_is_instrumented_as_a_whole(
    peer: Callable[[Script], Peer],
) -> None:
    """The layer around our client makes it; the one inside is told to stay quiet."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    HTTPXClientInstrumentor().instrument(tracer_provider=provider)
    try:
        async with create_async_client(settings_for(peer(answer())), routes=RouteTable.empty()) as client:
            HTTPXClientInstrumentor.instrument_client(client, tracer_provider=provider)
            await client.get(URL)
    finally:
        HTTPXClientInstrumentor().uninstrument()
    assert len(exporter.get_finished_spans()) == 1
