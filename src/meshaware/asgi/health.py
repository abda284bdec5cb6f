"""The two endpoints that the kubelet asks: whether the process lives, and whether to send it traffic."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from meshaware.asgi.drain import Drain
from meshaware.asgi.types import ASGIApp, Receive, Scope, Send
from meshaware.budgets import RouteSource, RouteTable
from meshaware.budgets.sources import SidecarRoutes
from meshaware.errors import SettingsError
from meshaware.sidecar.readiness import ReadinessGate

__all__ = ["HealthEndpoints", "readiness"]

_OK, _METHOD_NOT_ALLOWED, _UNAVAILABLE = 200, 405, 503
_METHODS = ("GET", "HEAD")


def readiness(gate: ReadinessGate, routes: RouteTable | RouteSource, drain: Drain) -> tuple[bool, Mapping[str, object]]:
    """Whether to send traffic, and what else readiness says of a service; asks nobody."""
    state = gate.state
    table = routes if isinstance(routes, RouteTable) else routes.current
    known: dict[str, object] = {"count": len(table)}
    if isinstance(routes, SidecarRoutes):
        age = routes.age
        known |= {"live": routes.live, "age_s": None if age is None else round(age, 1)}
    told = {"mesh": state.flavour, "gate": state.describe(), "routes": known, "draining": drain.begun}
    return gate.is_open and not drain.begun, told


class HealthEndpoints:
    """
    Answers liveness and readiness itself, as JSON; everything else goes to the application.

    Liveness is 200 for as long as the process answers at all: a proxy that is not ready is no reason to
    restart the application. Readiness is 200 or 503, as `report` says. Neither touches the network. Methods
    other than `GET` and `HEAD` get 405.

    Args:
        app: The application.
        livez: Path of liveness.
        readyz: Path of readiness.
        report: Whether to send traffic, and what else the answer says; called each time, so it must be quick.

    Raises:
        SettingsError: A path does not begin with `/`, or both are the same.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        livez: str = "/livez",
        readyz: str = "/readyz",
        report: Callable[[], tuple[bool, Mapping[str, object]]],
    ) -> None:
        for name, path in (("livez", livez), ("readyz", readyz)):
            if not path.startswith("/"):
                raise SettingsError(f"{name}={path[:64]!r} is no path; write one that begins with /")
        if livez == readyz:
            raise SettingsError(f"livez and readyz are both {livez[:64]!r}; write two different paths")
        self.app = app
        self._livez = livez
        self._readyz = readyz
        self._report = report

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = _path(scope) if scope["type"] == "http" else None
        if path not in (self._livez, self._readyz):
            await self.app(scope, receive, send)
        elif scope["method"] not in _METHODS:
            await _answer(send, _METHOD_NOT_ALLOWED, b"", [(b"allow", b"GET, HEAD")])
        else:
            status, content = self._livez_answer() if path == self._livez else self._readyz_answer()
            body = json.dumps(content, separators=(",", ":")).encode()
            headers = [(b"content-type", b"application/json")]
            await _answer(send, status, body, headers, head=scope["method"] == "HEAD")

    def _livez_answer(self) -> tuple[int, dict[str, object]]:
        return _OK, {"live": True}

    def _readyz_answer(self) -> tuple[int, dict[str, object]]:
        ready, details = self._report()
        return _OK if ready else _UNAVAILABLE, {"ready": ready, **details}


def _path(scope: Scope) -> str:
    # A server that is told a root path puts it in front of the path.
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


async def _answer(
    send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]], *, head: bool = False
) -> None:
    common = [(b"cache-control", b"no-store"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *common]})
    await send({"type": "http.response.body", "body": b"" if head else body})
