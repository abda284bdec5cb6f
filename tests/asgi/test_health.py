"""The two endpoints that the kubelet asks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

import pytest

from meshaware.asgi.health import HealthEndpoints
from meshaware.asgi.types import ASGIApp, Message, Receive, Scope, Send
from meshaware.errors import SettingsError

Report = Callable[[], tuple[bool, Mapping[str, object]]]

WAITING = {"gate": {"status": "waiting", "reason": "http://127.0.0.1:15021/healthz/ready: 503", "waited_ms": 1204}}


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Says that it was asked, and for what."""
    await send({"type": "application", "scope": scope})


def ready() -> tuple[bool, Mapping[str, object]]:
    return True, {"gate": {"status": "open", "reason": "not in Kubernetes", "waited_ms": 0}}


def not_ready() -> tuple[bool, Mapping[str, object]]:
    return False, WAITING


async def call(app: ASGIApp, path: str, method: str = "GET", **more: object) -> list[Message]:
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("a probe has no body to read")

    async def send(message: Message) -> None:
        sent.append(message)

    await app({"type": "http", "method": method, "path": path, **more}, receive, send)
    return sent


def headers_of(start: Message) -> dict[bytes, bytes]:
    return dict(start["headers"])


@pytest.mark.anyio
@pytest.mark.parametrize("report", [ready, not_ready], ids=["ready", "not ready"])
async def test_liveness_is_200_whatever_readiness_says(report: Report) -> None:
    """A proxy that is not ready is no reason to restart the application."""
    start, body = await call(HealthEndpoints(application, report=report), "/livez")
    assert start["status"] == 200
    assert json.loads(body["body"]) == {"live": True}


@pytest.mark.anyio
async def test_liveness_does_not_even_look_at_readiness() -> None:
    """Nothing can make it fail but the process itself."""

    def broken() -> tuple[bool, Mapping[str, object]]:
        raise AssertionError("not asked for")

    start, _ = await call(HealthEndpoints(application, report=broken), "/livez")
    assert start["status"] == 200


@pytest.mark.anyio
async def test_readiness_is_503_with_a_reason_until_it_is_ready() -> None:
    """The answer says what is waited for; afterwards it is 200."""
    state = [not_ready]
    app = HealthEndpoints(application, report=lambda: state[0]())
    start, body = await call(app, "/readyz")
    assert start["status"] == 503
    assert json.loads(body["body"]) == {"ready": False, **WAITING}
    state[0] = ready
    start, body = await call(app, "/readyz")
    assert start["status"] == 200
    assert json.loads(body["body"])["ready"] is True


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_answers_are_json_and_never_stored(path: str) -> None:
    """With a length, so that the connection can be kept."""
    start, body = await call(HealthEndpoints(application, report=not_ready), path)
    assert (start["type"], body["type"]) == ("http.response.start", "http.response.body")
    assert headers_of(start) == {
        b"content-type": b"application/json",
        b"cache-control": b"no-store",
        b"content-length": str(len(body["body"])).encode(),
    }


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_head_has_the_headers_of_get_and_no_body(path: str) -> None:
    """As HTTP wants it."""
    app = HealthEndpoints(application, report=not_ready)
    start, body = await call(app, path, "HEAD")
    assert start == (await call(app, path))[0]
    assert body["body"] == b""


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/livez", "/readyz"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_other_methods_are_not_allowed(path: str, method: str) -> None:
    """And do not reach the application either."""
    start, body = await call(HealthEndpoints(application, report=ready), path, method)
    assert start["status"] == 405
    assert headers_of(start)[b"allow"] == b"GET, HEAD"
    assert body["body"] == b""


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/", "/livez/", "/readyz/more", "/items", "/healthz"])
async def test_other_paths_go_to_the_application(path: str) -> None:
    """With their scope untouched."""
    (message,) = await call(HealthEndpoints(application, report=ready), path, "POST", extra=1)
    assert message == {"type": "application", "scope": {"type": "http", "method": "POST", "path": path, "extra": 1}}


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
async def test_what_is_no_http_goes_to_the_application(kind: str) -> None:
    """A websocket at the same path is the application's; a lifespan has no path at all."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": kind} if kind == "lifespan" else {"type": kind, "path": "/readyz"}
    await HealthEndpoints(application, report=ready)(scope, receive, send)
    assert sent == [{"type": "application", "scope": scope}]


@pytest.mark.anyio
async def test_paths_can_be_chosen() -> None:
    """The old ones are the application's then."""
    app = HealthEndpoints(application, livez="/healthz/live", readyz="/healthz/ready", report=not_ready)
    assert (await call(app, "/healthz/live"))[0]["status"] == 200
    assert (await call(app, "/healthz/ready"))[0]["status"] == 503
    assert (await call(app, "/livez"))[0]["type"] == "application"


ROOTS = [("/api", "/api/readyz"), ("/api", "/readyz"), ("", "/readyz"), ("/readyz", "/readyz")]


@pytest.mark.anyio
@pytest.mark.parametrize(("root", "path"), ROOTS)
async def test_a_root_path_does_not_hide_them(root: str, path: str) -> None:
    """A server that is told one puts it in front of the path; a probe may come with and without it."""
    app = HealthEndpoints(application, report=not_ready)
    assert (await call(app, path, root_path=root))[0]["status"] == 503


@pytest.mark.anyio
async def test_a_root_path_is_only_taken_from_the_front_as_a_whole() -> None:
    """`/apireadyz` is no path below `/api`."""
    app = HealthEndpoints(application, report=not_ready)
    assert (await call(app, "/ap/readyz", root_path="/a"))[0]["type"] == "application"


@pytest.mark.parametrize(
    ("livez", "readyz", "message"),
    [
        ("livez", "/readyz", "livez='livez' is no path; write one that begins with /"),
        ("/livez", "", "readyz='' is no path"),
        ("/health", "/health", "livez and readyz are both '/health'; write two different paths"),
    ],
)
def test_paths_that_cannot_be_told_apart_are_refused(livez: str, readyz: str, message: str) -> None:
    """When the application is built, not when the kubelet asks."""
    with pytest.raises(SettingsError, match=message):
        HealthEndpoints(application, livez=livez, readyz=readyz, report=ready)


def test_the_application_inside_can_be_seen() -> None:
    """As with any middleware: instrumentation walks along `.app`."""
    assert HealthEndpoints(application, report=ready).app is application
