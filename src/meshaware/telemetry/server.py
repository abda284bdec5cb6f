"""
OpenTelemetry's layer around an application: inside the mesh layer, outside the application's own middleware.

The instrumentation packages are imported only when there is an application.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, MutableMapping
from importlib import import_module
from typing import Any, cast

from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from meshaware.errors import SettingsError
from meshaware.telemetry.watch import watch_of

__all__ = ["exports_natively", "instrument_app"]

_MARK = "_is_instrumented_by_opentelemetry"
# A server span says that a message was received or sent; two more spans that say it again help nobody.
_NOISE = ["receive", "send"]

Layer = Callable[[Any], Any]


def instrument_app(
    app: Any,
    provider: TracerProvider,
    quiet: Collection[str] = (),
    excluded_urls: str = "",
    *,
    meters: MeterProvider | None = None,
) -> bool:
    """
    Have each request to a FastAPI or Starlette application make one server span.

    It may be called before or after somebody wraps the middleware stack: the layer goes where the
    application's own stack begins. FastAPI's native telemetry (0.142 and newer) steps aside by itself, and is
    told to in FastAPI applications that are mounted.

    Args:
        app: The application.
        provider: Where the spans go.
        quiet: Paths whose requests make no spans.
        excluded_urls: Further URLs whose requests make none: regular expressions with commas between.
        meters: What counts the requests; None: the process's, if there is one.

    Returns:
        False where the application was instrumented already.

    Raises:
        SettingsError: The object is no such application.
    """
    if not (hasattr(app, "build_middleware_stack") and hasattr(app, "router")):
        raise SettingsError(
            f"app={repr(app)[:200]} cannot be instrumented: give the FastAPI application itself, not what"
            " wraps it; wrap any other ASGI application in"
            " opentelemetry.instrumentation.asgi.OpenTelemetryMiddleware"
        )
    if getattr(app, _MARK, False):
        return False
    arguments: dict[str, Any] = {
        "tracer_provider": provider,
        "meter_provider": meters,
        "excluded_urls": excluded_urls,
        "exclude_spans": _NOISE,
    }
    is_fastapi = any(cls.__module__.partition(".")[0] == "fastapi" for cls in type(app).__mro__)
    build: Callable[[], Any] = app.build_middleware_stack
    layer = _fastapi_layer(app, arguments) if is_fastapi else _starlette_layer(app, arguments)
    layer = _with_bypass(layer, provider, frozenset(quiet), counted=meters is not None)
    app.build_middleware_stack = lambda: _insert(build(), layer)
    if app.middleware_stack is not None:
        app.middleware_stack = _insert(app.middleware_stack, layer)
    _settle(app)
    return True


def _insert(stack: Any, layer: Layer) -> Any:
    """Put a layer around the ServerErrorMiddleware that a stack begins with, under the layers of others."""
    errors: type[Any] = import_module("starlette.middleware.errors").ServerErrorMiddleware
    parent, core = None, stack
    while not isinstance(core, errors) and hasattr(core, "app"):
        parent, core = core, core.app
    if parent is None or not isinstance(core, errors):
        return layer(stack)
    parent.app = layer(core)
    return stack


def _with_bypass(layer: Layer, provider: TracerProvider, quiet: frozenset[str], *, counted: bool) -> Layer:
    # Imports what reads OTEL_PROPAGATORS, which by now has been looked at.
    from meshaware.telemetry.bypass import ServerBypass, heeds_the_mesh  # noqa: PLC0415

    # Who counts requests is to see each of them; whether the process's meter provider does is asked each time.
    heed, watch = not counted and heeds_the_mesh(provider), watch_of(provider)
    saw = None if watch is None else watch.saw
    return lambda core: ServerBypass(layer(core), core, quiet=quiet, heed=heed, saw=saw)


def _fastapi_layer(app: Any, arguments: Mapping[str, Any]) -> Layer:
    """
    Let the instrumentation change the application, and take from it what it makes of a stack.

    It wraps what `build_middleware_stack` returned before, and insists on the application's own stack; that is
    handed to it here, also when somebody wrapped the stack first.
    """
    build = app.build_middleware_stack
    cores: list[Any] = []
    app.build_middleware_stack = cores.pop
    try:
        contrib = import_module("opentelemetry.instrumentation.fastapi")
        contrib.FastAPIInstrumentor.instrument_app(app, **arguments)
        instrumented: Callable[[], Any] = app.build_middleware_stack
    finally:
        app.build_middleware_stack = build

    def layer(core: Any) -> Any:
        cores.append(core)
        # Before 0.66b0 the instrumentation looks here; `uninstrument_app` puts back what it finds here.
        app._original_build_middleware_stack = cores.pop  # noqa: SLF001
        try:
            return instrumented()
        finally:
            app._original_build_middleware_stack = build  # noqa: SLF001

    app._original_build_middleware_stack = build  # noqa: SLF001

    return layer


def _starlette_layer(app: Any, arguments: Mapping[str, Any]) -> Layer:
    middleware = import_module("opentelemetry.instrumentation.asgi").OpenTelemetryMiddleware
    full = import_module("starlette.routing").Match.FULL
    sanitize: Callable[[str], str] = import_module("opentelemetry.util.http").sanitize_method

    def details(scope: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
        method = sanitize(scope.get("method", "")).replace("_OTHER", "HTTP")
        for route in app.routes:
            if route.matches(scope)[0] is full and (path := getattr(route, "path", None)):
                return f"{method} {path}", {"http.route": path}
        return method, {}

    setattr(app, _MARK, True)
    return lambda core: middleware(core, default_span_details=details, **arguments)


def _settle(app: Any) -> None:
    """
    Tell FastAPI's own telemetry what it would find out for every request: that it steps aside.

    As `FastAPI(telemetry={"tracing": False, "metrics": False, "logs": False})` does. An application whose
    telemetry exports by itself keeps what it asked for.
    """
    native = getattr(app, "_telemetry", None)
    if isinstance(native, MutableMapping) and not exports_natively(app):
        cast("MutableMapping[str, object]", native).update(tracing=False, metrics=False, logs=False)


def exports_natively(app: Any) -> bool:
    """Say whether FastAPI adds an exporter of its own when it starts, as `FASTAPI_OTEL_AUTO_CONFIGURE` asks it to."""
    native = getattr(app, "_telemetry", None)
    return isinstance(native, Mapping) and cast("Mapping[str, object]", native).get("auto_configure") is True
