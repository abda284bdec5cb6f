"""An ASGI application served in a thread of the test's own process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from typing import Any

from meshaware.errors import LocalMeshError

__all__ = ["AppThread"]

_STARTS_WITHIN = 30.0
_STOPS_WITHIN = 5.0
# A handler that nobody waits for any more must not hold up the end of a test.
_DEFAULTS = {"log_config": None, "access_log": False, "timeout_graceful_shutdown": 1}


class AppThread:
    """uvicorn in a thread: `start` returns when it accepts requests, `stop` when it is gone."""

    def __init__(self, app: Any, listening: socket.socket, name: str, options: Mapping[str, Any]) -> None:
        try:
            # Only those who serve an application in their test need it.
            import uvicorn  # noqa: PLC0415
        except ImportError as error:
            raise LocalMeshError(
                "serve() needs uvicorn: install it, or run your server on the service's socket"
            ) from error
        self._name, self._socket = name, listening
        self._started = threading.Event()
        self._error: BaseException | None = None
        started = self._started

        class Server(uvicorn.Server):
            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets=sockets)
                started.set()

        arguments: dict[str, Any] = {**_DEFAULTS, **options}
        self._server = Server(uvicorn.Config(app, **arguments))
        self._stops_within = _STOPS_WITHIN + (arguments["timeout_graceful_shutdown"] or 0)
        self._thread = threading.Thread(target=self._run, name=f"app {name}", daemon=True)

    def start(self) -> None:
        """
        Start, and wait until requests are accepted.

        Raises:
            LocalMeshError: The application did not start; its own error is the cause.
        """
        self._thread.start()
        if not self._started.wait(_STARTS_WITHIN):
            self.stop()
            raise LocalMeshError(f"the application of {self._name} did not start within {_STARTS_WITHIN:g} seconds")
        if not self._server.started:
            self.stop()
            raise LocalMeshError(f"the application of {self._name} did not start: {self._why()}") from self._error

    def stop(self) -> None:
        """Shut down; connections that are still open after a while are cut."""
        self._server.should_exit = True
        self._thread.join(self._stops_within)
        if self._thread.is_alive():
            self._server.force_exit = True
            self._thread.join(_STOPS_WITHIN)
        self._socket.close()

    def _why(self) -> str:
        if self._error is None or isinstance(self._error, SystemExit):
            return "the log of uvicorn says why"
        return f"{type(self._error).__name__}: {self._error}"

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._socket])
        except BaseException as error:  # noqa: BLE001
            # SystemExit too: it says here that the lifespan failed.
            self._error = error
        finally:
            self._started.set()
