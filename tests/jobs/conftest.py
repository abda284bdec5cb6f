"""A sidecar of Istio's as a job meets it: readiness, Envoy's admin and the agent, on one port."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from meshaware import MeshSettings

CLASSIC = '{"initContainers":["istio-init"],"containers":["istio-proxy"]}'


class Sidecar:
    """
    Notes what it is asked; it takes the word to go by POST only, as the agent does.

    Attributes:
        told: How often it was told to go.
        events: What happened, in order: the test adds its own.
        at_ready: Called when readiness is asked for, before the answer.
        at_quit: Called when it is told to go, before the answer.
    """

    def __init__(self) -> None:
        self.ready, self.quit_status = True, 200
        self.metadata: dict[str, Any] = {"ANNOTATIONS": {"sidecar.istio.io/status": CLASSIC}, "APP_CONTAINERS": "job"}
        self.events: list[str] = []
        self.at_ready: Callable[[], object] = int
        self.at_quit: Callable[[], object] = int
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/healthz/ready":
                    outer.at_ready()
                    self._answer(200 if outer.ready else 503)
                elif self.path == "/server_info":
                    self._answer(200, json.dumps({"node": {"metadata": outer.metadata}}).encode())
                elif self.path.startswith("/config_dump"):
                    self._answer(200, b'{"configs":[]}')
                else:
                    self._answer(405 if self.path == "/quitquitquit" else 404)

            def do_POST(self) -> None:
                outer.events.append("told" if self.path == "/quitquitquit" else self.path)
                outer.at_quit()
                self._answer(outer.quit_status, b"OK")

            def _answer(self, status: int, body: bytes = b"") -> None:
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class has it so)
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @property
    def told(self) -> int:
        return self.events.count("told")

    @property
    def environment(self) -> dict[str, str]:
        return {
            "MESHAWARE_MESH": "istio",
            "MESHAWARE_READY_URL": f"{self.url}/healthz/ready",
            "MESHAWARE_ADMIN_URL": self.url,
            "MESHAWARE_QUIT_URL": f"{self.url}/quitquitquit",
        }

    def settings(self, **more: Any) -> MeshSettings:
        given: dict[str, Any] = {
            "mesh": "istio",
            "ready_url": f"{self.url}/healthz/ready",
            "admin_url": self.url,
            "quit_url": f"{self.url}/quitquitquit",
            "routes": ("sidecar",),
            **more,
        }
        return MeshSettings(**given)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


@pytest.fixture(name="sidecar")
def _sidecar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sidecar]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    sidecar = Sidecar()
    yield sidecar
    sidecar.close()
