"""
How a layer and a lifespan are put around an application of Starlette's family without changing its code.

Starlette builds its middleware stack at the first request and FastAPI's telemetry looks through it by each layer's
`.app`; so a layer is put around the stack when it is built, and shows what it wraps.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from typing import Any, Protocol

from meshaware.asgi.types import ASGIApp

__all__ = ["Application", "around_lifespan", "around_stack", "handle_errors", "within_lifespan"]

Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]


class Application(Protocol):
    """What Starlette and FastAPI applications have in common and `Mesh.install` needs."""

    middleware_stack: Any

    @property
    def router(self) -> Any:
        """The router; it holds the lifespan."""
        ...

    @property
    def exception_handlers(self) -> Any:
        """Handlers by error or status."""
        ...

    def build_middleware_stack(self) -> Any:
        """Build the stack; Starlette calls it once, with the first message."""
        ...


def around_stack(app: Application, layer: Callable[[ASGIApp], ASGIApp]) -> None:
    """
    Make `layer` the outermost one of the application's middleware stack.

    Raises:
        RuntimeError: The application has served a request already, so its stack is built.
    """
    if app.middleware_stack is not None:
        raise RuntimeError("the application has already served a request: install the mesh before it is started")
    build: Callable[[], ASGIApp] = app.build_middleware_stack

    def build_with_layer() -> ASGIApp:
        return layer(build())

    vars(app)["build_middleware_stack"] = build_with_layer


def around_lifespan(app: Application, outer: Callable[[], AbstractAsyncContextManager[None]]) -> None:
    """Run `outer` around the application's own lifespan; the state that it yields is passed on."""
    own: Lifespan = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(instance: Any) -> AsyncGenerator[Mapping[str, Any] | None]:
        async with outer(), own(instance) as state:
            yield state

    app.router.lifespan_context = lifespan


def within_lifespan(app: Application, inner: Callable[[], AbstractContextManager[None]]) -> None:
    """Run `inner` while the application serves: from behind its own start-up to before its own shutdown."""
    own: Lifespan = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(instance: Any) -> AsyncGenerator[Mapping[str, Any] | None]:
        async with own(instance) as state:
            with inner():
                yield state

    app.router.lifespan_context = lifespan


def handle_errors(app: Application, handlers: Mapping[type[Exception], Callable[..., Any]]) -> None:
    """Register handlers for errors the application has none for."""
    for error, handler in handlers.items():
        app.exception_handlers.setdefault(error, handler)
