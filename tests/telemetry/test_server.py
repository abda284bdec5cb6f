"""Server spans: one a request, inside the mesh layer, outside the application's middleware."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI, WebSocket
from fastapi.testclient import TestClient
from opentelemetry import trace
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.trace import SpanKind
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket as StarletteWebSocket

from meshaware.errors import SettingsError
from meshaware.telemetry.server import instrument_app

HEALTH = ("/livez", "/readyz")


class MeshLayer:
    """Stands where the mesh layer stands, and notes whether a span is live when a request reaches it."""

    def __init__(self, app: Any, live: list[bool]) -> None:
        self.app = app
        self.live = live

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            self.live.append(trace.get_current_span().get_span_context().is_valid)
        await self.app(scope, receive, send)


def shop() -> FastAPI:
    app = FastAPI()

    @app.get("/items/{item}")
    def read(item: str) -> dict[str, object]:  # pyright: ignore[reportUnusedFunction]
        return {"item": item, "live": trace.get_current_span().get_span_context().is_valid}

    @app.get("/livez")
    def live() -> None:  # pyright: ignore[reportUnusedFunction]
        pass

    @app.get("/broken")
    def broken() -> None:  # pyright: ignore[reportUnusedFunction]
        raise LookupError("no such shelf")

    @app.websocket("/ws")
    async def talk(websocket: WebSocket) -> None:  # pyright: ignore[reportUnusedFunction]
        await websocket.accept()
        await websocket.close()

    return app


def wrap(app: Any, live: list[bool]) -> None:
    """Put a mesh layer around the stack the way `Mesh.install` does."""
    build = app.build_middleware_stack
    app.build_middleware_stack = lambda: MeshLayer(build(), live)


def get(app: Any, *paths: str, **headers: str) -> list[Any]:
    with TestClient(app, raise_server_exceptions=False) as client:
        return [client.get(path, headers=headers) for path in paths]


def test_a_request_makes_one_server_span_with_its_route(spans: Any) -> None:
    app = shop()
    assert instrument_app(app, spans.provider)

    (response,) = get(app, "/items/42")

    assert response.json() == {"item": "42", "live": True}
    (span,) = spans.finished
    assert (span.name, span.kind) == ("GET /items/{item}", SpanKind.SERVER)
    assert span.attributes["http.route"] == "/items/{item}"


def test_an_inbound_trace_goes_on(spans: Any) -> None:
    app = shop()
    instrument_app(app, spans.provider)

    get(app, "/items/42", traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")

    assert format(spans.finished[0].context.trace_id, "032x") == "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize("first", ["layer", "telemetry"])
def test_the_mesh_layer_is_outside_whichever_comes_first(spans: Any, first: str) -> None:
    app, live = shop(), list[bool]()
    if first == "layer":
        wrap(app, live)
    instrument_app(app, spans.provider)
    if first == "telemetry":
        wrap(app, live)

    get(app, "/items/42")

    assert live == [False]
    assert spans.names() == ["GET /items/{item}"]


def test_users_middleware_is_inside_the_span(spans: Any) -> None:
    app, live = shop(), list[bool]()
    app.add_middleware(MeshLayer, live=live)
    instrument_app(app, spans.provider)

    get(app, "/items/42")

    assert live == [True]


def test_an_application_that_was_started_already_is_instrumented_all_the_same(spans: Any) -> None:
    app, live = shop(), list[bool]()
    wrap(app, live)
    get(app, "/items/42")
    assert spans.names() == []

    instrument_app(app, spans.provider)
    get(app, "/items/42")

    assert live == [False, False]
    assert spans.names() == ["GET /items/{item}"]


def test_native_telemetry_of_fastapi_does_not_double_spans(spans: Any) -> None:
    """FastAPI has its own since 0.142, which begins as soon as the process has a provider."""
    trace.set_tracer_provider(spans.provider)
    app, live = shop(), list[bool]()
    app.mount("/mounted", shop())
    instrument_app(app, spans.provider)
    wrap(app, live)

    get(app, "/items/42", "/mounted/items/43")

    assert spans.names() == ["GET /items/{item}", "GET /mounted"]


@pytest.mark.parametrize("exports", [False, True])
def test_native_telemetry_is_told_that_it_steps_aside_unless_it_exports(spans: Any, *, exports: bool) -> None:
    """So that it does not look for OpenTelemetry's layer in every request."""
    trace.set_tracer_provider(spans.provider)
    app: Any = FastAPI(telemetry={"auto_configure": exports})
    native = getattr(app, "_native_telemetry")  # noqa: B009 (pyright minds the other way)
    assert native.enabled()
    instrument_app(app, spans.provider)
    assert native.enabled() is exports


def test_a_mounted_application_makes_no_span_where_the_outer_one_is_to_make_none(spans: Any) -> None:
    trace.set_tracer_provider(spans.provider)
    app = shop()
    app.mount("/mounted", shop())
    instrument_app(app, spans.provider, excluded_urls="/mounted")
    get(app, "/mounted/items/43")
    assert spans.names() == []


def test_health_endpoints_and_excluded_urls_make_no_spans(spans: Any) -> None:
    app = shop()
    instrument_app(app, spans.provider, HEALTH, "/items/quiet,/items/silent$")

    get(app, "/livez", "/items/quiet1", "/items/silent", "/items/livez")

    assert spans.names() == ["GET /items/{item}"]


def test_without_exclusions_nothing_is_excluded(spans: Any) -> None:
    app = shop()
    instrument_app(app, spans.provider)

    get(app, "/livez")

    assert spans.names() == ["GET /livez"]


@pytest.mark.parametrize("path", ["/livez/", "/livez2", "/items/livez", "/Livez", "/live", "/livez%0a"])
def test_a_quiet_path_is_that_path_alone(spans: Any, path: str) -> None:
    app = shop()
    instrument_app(app, spans.provider, HEALTH)
    get(app, path)
    assert len(spans.finished) == 1


def test_a_quiet_path_is_so_below_what_a_proxy_puts_before_it(spans: Any) -> None:
    app = shop()
    instrument_app(app, spans.provider, HEALTH)
    with TestClient(app, root_path="/shop") as client:
        for path in ("/shop/livez", "/livez", "/shop/items/1"):
            client.get(path)
    assert spans.names() == ["GET /items/{item}"]


def test_an_exception_is_in_the_span(spans: Any) -> None:
    app = shop()
    instrument_app(app, spans.provider)

    (response,) = get(app, "/broken")

    assert response.status_code == 500
    assert [event.attributes["exception.message"] for event in spans.finished[0].events] == ["no such shelf"]


def test_a_websocket_makes_a_span(spans: Any) -> None:
    app = shop()
    instrument_app(app, spans.provider)

    with TestClient(app) as client, client.websocket_connect("/ws"):
        pass

    assert spans.names() == ["HTTP /ws"]


def test_an_application_is_instrumented_once(spans: Any, caplog: pytest.LogCaptureFixture) -> None:
    app = shop()

    assert instrument_app(app, spans.provider)
    assert not instrument_app(app, spans.provider)
    get(app, "/items/42")

    assert len(spans.finished) == 1
    assert not caplog.records


def test_an_application_that_somebody_instrumented_stays_as_it_is(spans: Any) -> None:
    app = shop()
    FastAPIInstrumentor.instrument_app(app, tracer_provider=spans.provider)

    assert not instrument_app(app, spans.provider)
    get(app, "/items/42")

    assert spans.names().count("GET /items/{item}") == 1


def test_uninstrumenting_gives_the_application_its_stack_back(spans: Any) -> None:
    app, live = shop(), list[bool]()
    wrap(app, live)
    instrument_app(app, spans.provider)
    FastAPIInstrumentor.uninstrument_app(app)

    get(app, "/items/42")

    assert live == [False]
    assert spans.finished == []


def starlette_shop() -> Starlette:
    async def read(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(trace.get_current_span().get_span_context().is_valid))

    async def talk(websocket: StarletteWebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    routes = [
        Route("/items/{item}", read),
        WebSocketRoute("/ws", talk),
        Mount("/more", routes=[Route("/x", read)]),
    ]
    return Starlette(routes=routes)


@pytest.mark.parametrize("first", ["layer", "telemetry"])
def test_a_starlette_application_makes_the_same_spans(spans: Any, first: str) -> None:
    app, live = starlette_shop(), list[bool]()
    if first == "layer":
        wrap(app, live)
    assert instrument_app(app, spans.provider, HEALTH)
    assert not instrument_app(app, spans.provider, HEALTH)
    if first == "telemetry":
        wrap(app, live)

    with TestClient(app) as client:
        assert client.get("/items/42").text == "True"
        assert client.get("/more/x").text == "True"
        client.get("/nowhere")
        client.get("/livez")
        client.request("STEAL", "/nowhere")
        with client.websocket_connect("/ws"):
            pass

    assert not any(live)
    assert spans.names() == ["GET", "GET /items/{item}", "GET /more", "HTTP", "HTTP /ws"]


@pytest.mark.parametrize("app", [MeshLayer(None, []), object(), print])
def test_what_is_no_application_is_refused(spans: Any, app: Any) -> None:
    with pytest.raises(SettingsError, match=r"give the FastAPI application itself, not what wraps it"):
        instrument_app(app, spans.provider)
