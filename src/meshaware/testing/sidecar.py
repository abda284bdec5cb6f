"""One Envoy process: started, asked whether it has taken its configuration, stopped."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from meshaware.durations import format_duration
from meshaware.errors import LocalMeshError, SidecarUnavailable
from meshaware.sidecar.admin import fetch
from meshaware.testing.bootstrap import READY_PATH, Ports, port_listener
from meshaware.testing.discovery import REFUSALS_QUERY, Resources, accepted_version, publish, refusals
from meshaware.testing.ports import LOOPBACK
from meshaware.testing.processes import ProcessGroup, end

__all__ = ["Sidecar", "SidecarPlan"]

_OK = 200
_LAST = 20
_STOPPED_WITHIN = 5.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.05


class SidecarPlan(NamedTuple):
    """
    All that one sidecar is made from.

    Attributes:
        ports: Where it is reached from here.
        before: What the command begins with, to run it elsewhere.
    """

    name: str
    envoy: Path
    directory: Path
    ports: Ports
    config: Mapping[str, Any]
    group: ProcessGroup
    start_timeout: float
    before: Sequence[str] = ()


class Sidecar:
    """
    The Envoy of one workload.

    Its ports are the same from before it is first started until the mesh is stopped, however often it is
    stopped, killed and started again in between. While it does not run, they refuse connections.
    """

    def __init__(self, plan: SidecarPlan) -> None:
        self._plan = plan
        self._process: subprocess.Popen[bytes] | None = None
        self._versions: dict[Resources, str] = {}
        self._given: dict[Resources, list[dict[str, Any]]] = {}
        self._refused = 0
        self._lock = threading.RLock()
        # Never set: a pause on it is a pause, between two questions to a process that cannot call us.
        self._pause = threading.Event()

    def __repr__(self) -> str:
        return f"<Sidecar of {self._plan.name}, {'running' if self.running else 'not running'}>"

    @property
    def admin_url(self) -> str:
        """Envoy's admin, Istio's `http://127.0.0.1:15000`."""
        return _url(self._plan.ports.admin)

    @property
    def ready_url(self) -> str:
        """
        Istio's `http://127.0.0.1:15021/healthz/ready`.

        Connections are refused until routes and clusters are loaded, and then it is 200.
        """
        return _url(self._plan.ports.ready) + READY_PATH

    @property
    def outbound_url(self) -> str:
        """Where the application's calls go: as to an HTTP proxy, or with the callee as `Host`."""
        return _url(self._plan.ports.outbound)

    @property
    def inbound_url(self) -> str:
        """Where the mesh's calls to the application come in."""
        return _url(self._plan.ports.inbound)

    @property
    def pid(self) -> int | None:
        """The process id, None while it does not run."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    @property
    def running(self) -> bool:
        """Whether the process runs."""
        return self.pid is not None

    def start(self, *, wait: bool = True) -> None:
        """
        Start Envoy, with the configuration as it is now; nothing happens when it runs.

        Args:
            wait: Return only when it is ready.

        Raises:
            LocalMeshError: It ended, or was not ready in time; the message ends with its last lines.
        """
        with self._lock:
            if not self.running:
                self._launch()
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        """
        Wait until the readiness port says so and the configuration is the newest that was handed over.

        Raises:
            LocalMeshError: As for `start`.
        """
        self._until("ready", self._is_ready)
        self.wait_configured()

    def stop(self, *, wait: bool = True) -> None:
        """
        End Envoy as Kubernetes would, with SIGTERM; after 5 seconds it is killed.

        Args:
            wait: Return only when it is gone; otherwise call it again later, to be sure.
        """
        with self._lock:
            if self._process is None:
                return
            if wait:
                end(self._process, _STOPPED_WITHIN)
            elif self._process.poll() is None:
                self._process.terminate()

    def kill(self) -> None:
        """Kill Envoy: connections break, ports refuse, nothing is said to anybody."""
        with self._lock:
            if self._process is not None:
                end(self._process, _STOPPED_WITHIN, kill=True)

    def port_listener(self, port: int) -> dict[str, Any]:
        """The listener for redirected connections to one port, to be handed over with `configure`."""
        return port_listener(self._plan.directory, port)

    def configure(self, resources: Resources, items: list[dict[str, Any]]) -> None:
        """Hand over clusters or routes; a running Envoy takes them at once, `wait_configured` says when."""
        with self._lock:
            self._given[resources] = items
            self._versions[resources] = publish(self._plan.directory, resources, items)

    def given(self, resources: Resources) -> list[dict[str, Any]] | None:
        """What `configure` handed over last; None before the first time, when there is no file yet."""
        return self._given.get(resources)

    def wait_configured(self) -> None:
        """
        Wait until Envoy has taken what was handed over last; nothing to wait for while it does not run.

        Raises:
            LocalMeshError: Envoy refused it, or ended; the message ends with what it said.
        """
        if self.running:
            self._until("configured with what it was given last", self._is_configured)

    def admin(self, path: str, *, method: str = "GET") -> bytes:
        """
        Ask Envoy's admin, such as `/config_dump` or `/stats`, and return the body.

        Raises:
            SidecarUnavailable: There was no reply.
            LocalMeshError: The status was not 200.
        """
        reply = fetch(self.admin_url + path, timeout=5.0, max_bytes=1 << 24, method=method)
        if reply.status != _OK:
            raise LocalMeshError(f"{self.admin_url}{path}: status {reply.status}: {reply.body[:200]!r}")
        return reply.body

    def logs(self, last: int | None = None) -> list[str]:
        """What Envoy wrote, over all starts: its last lines, or all of them."""
        lines = _read(self._plan.directory / "envoy.log").splitlines()
        return lines if last is None else lines[-last:] if last > 0 else []

    def access_log(self) -> list[dict[str, Any]]:
        """
        What Envoy logged of each request so far, oldest first.

        An entry has `direction` (`outbound` or `inbound`), `method`, `authority`, `path`, `status`, `flags`
        (Envoy's, such as `UT`), `details`, `route`, `cluster`, `destination` (the address that was connected to),
        `attempts`, `milliseconds`, `request_id` and `traceparent`. Envoy writes it when the request is over, and up to
        50 ms later.
        """
        text = _read(self._plan.directory / "access.log")
        # The last line may be half written.
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def _launch(self) -> None:
        plan, self._refused = self._plan, 0
        config = plan.directory / "envoy.json"
        # JSON, not YAML, in which a cluster named "y" would be a boolean.
        config.write_text(json.dumps(plan.config, indent=1), encoding="utf-8")
        command = [*plan.before, str(plan.envoy), "--config-path", str(config), *_OPTIONS]
        try:
            self._process = plan.group.spawn(command, log=plan.directory / "envoy.log")
        except OSError as error:
            raise LocalMeshError(f"the sidecar of {plan.name}: {plan.envoy} cannot be run: {error}") from error

    def _is_ready(self) -> bool:
        return fetch(self.ready_url).status == _OK

    def _is_configured(self) -> bool:
        if all(
            accepted_version(resources, self.admin(resources.query)) == version
            for resources, version in self._versions.items()
        ):
            return True
        refused = refusals(self.admin(REFUSALS_QUERY))
        if refused > self._refused:
            self._refused = refused
            raise self._failed("refused what it was given")
        return False

    def _until(self, what: str, holds: Callable[[], bool]) -> None:
        deadline, pause = time.monotonic() + self._plan.start_timeout, _FIRST_PAUSE
        while True:
            if not self.running:
                code = self._process.returncode if self._process else "none, it was never started"
                raise self._failed(f"ended (exit code {code}) before it was {what}")
            try:
                if holds():
                    return
            except SidecarUnavailable:
                pass
            if time.monotonic() > deadline:
                raise self._failed(f"was not {what} within {format_duration(self._plan.start_timeout)}")
            self._pause.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _failed(self, what: str) -> LocalMeshError:
        lines = self.logs(_LAST)
        said = "".join(f"\n  {line}" for line in lines) if lines else " nothing"
        return LocalMeshError(f"the sidecar of {self._plan.name} {what}; Envoy said last:{said}")


_OPTIONS = (
    # No shared memory to be left behind, and no base id to clash over, when there is no hot restart.
    "--disable-hot-restart",
    "--concurrency",
    "1",
    "--log-level",
    "warning",
    # File access logs are otherwise written every ten seconds.
    "--file-flush-interval-msec",
    "50",
    # max_grpc_timeout, which Istio sets on every route.
    "--skip-deprecated-logs",
    # Istio's drainDuration: so long a listener that drains takes new connections.
    "--drain-time-s",
    "45",
)


def _url(port: int) -> str:
    return f"http://{LOOPBACK}:{port}"


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
