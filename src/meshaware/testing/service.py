"""One workload of the local mesh: an application's socket, and the sidecar before it."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from meshaware.errors import LocalMeshError
from meshaware.settings import MeshSettings
from meshaware.testing.places import AppPort, Place
from meshaware.testing.pod import Pod, podinfo
from meshaware.testing.processes import ProcessGroup, end
from meshaware.testing.serving import AppThread
from meshaware.testing.sidecar import Sidecar

__all__ = ["LocalService"]

_ENDED_WITHIN = 5.0
_PROXIES = frozenset({"http_proxy", "https_proxy", "all_proxy", "no_proxy"})
_FACTS = {
    "pod_name": "POD_NAME",
    "namespace": "POD_NAMESPACE",
    "pod_ip": "POD_IP",
    "node_name": "NODE_NAME",
    "service_account": "SERVICE_ACCOUNT",
}


class LocalService:
    """
    One workload: what `LocalMesh.add` returns.

    Attributes:
        name: The service it belongs to.
        version: Its label `version`.
        port: The port of the service, as callers name it: `http://inventory:8080`.
        sidecar: Its Envoy.
    """

    def __init__(
        self,
        pod: Pod,
        port: int,
        sidecar: Sidecar,
        *,
        place: Place,
        directory: Path,
        variables: Mapping[str, str],
        group: ProcessGroup,
    ) -> None:
        self.name, self.version, self.namespace = pod.service, pod.version, pod.namespace
        self.port, self.sidecar = port, sidecar
        self._pod, self._place, self._directory, self._variables = pod, place, directory, variables
        self._group = group
        self._processes: list[subprocess.Popen[Any]] = []
        self._socket: socket.socket | None = None
        self._serving: AppThread | None = None

    def __repr__(self) -> str:
        return f"<LocalService {self.name}.{self.namespace}, version {self.version}>"

    @property
    def pod_name(self) -> str:
        """The name of the pod that this workload would be."""
        return self._pod.name

    @property
    def labels(self) -> dict[str, str]:
        """The labels of the pod, the injector's included."""
        return self._pod.labels

    @property
    def app_address(self) -> str:
        """
        `127.0.0.1:port`, where the sidecar expects the application.

        The port is held for it, and refuses until the application listens there (`uvicorn --port`). With redirection it
        is the pod's address and the service's port: `popen` starts a program there, which has to listen at every
        address (`uvicorn --host 0.0.0.0`), as Istio's inbound calls come to the pod's own.
        """
        return self._app().address

    @property
    def app_port(self) -> int:
        """The port of `app_address`."""
        return self._app().number

    @property
    def socket(self) -> socket.socket:
        """
        A listening, inheritable socket at `app_address`: for `uvicorn.Server.run(sockets=[...])` or any
        server that takes one. (`uvicorn --fd` takes it for a Unix socket, and leaves Nagle's algorithm on.)

        It listens from the first use of this attribute on: requests then wait for the application to accept
        them, where they were refused. A closed one is replaced by a new one at the same address.
        """
        if self._socket is None or self._socket.fileno() < 0:
            self._socket = self._app().listen()
        return self._socket

    def environment(self) -> dict[str, str]:
        """
        What a good Deployment tells the application, for `subprocess` together with `os.environ`.

        The downward API's facts, `MESHAWARE_*` addresses in place of Istio's fixed ports and of iptables, and
        the directory of labels and annotations. It holds before the sidecar is started, and after a restart. With
        redirection there are no addresses: the ports in the pod are Istio's, and nothing has to be told where to go.
        """
        addresses = {
            "MESHAWARE_MESH": "istio",
            "MESHAWARE_OUTBOUND_PROXY": self.sidecar.outbound_url,
            "MESHAWARE_READY_URL": self.sidecar.ready_url,
            "MESHAWARE_ADMIN_URL": self.sidecar.admin_url,
        }
        return {
            **self._pod.variables(),
            **({} if self._pod.redirected else addresses),
            "MESHAWARE_PODINFO": str(self._podinfo()),
            **self._variables,
        }

    def popen(
        self, command: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None, **options: Any
    ) -> subprocess.Popen[Any]:
        """
        Start a program where the application of this workload is: with redirection, in its pod.

        Its environment is this process's without proxies, `environment`, and `env`, of which the last wins. When the
        mesh stops, it is ended with SIGTERM, and killed after 5 seconds.

        Args:
            command: The program and its arguments.
            env: Further variables.
            cwd: Its working directory; by default this process's.
            options: Further arguments of `subprocess.Popen`.

        Raises:
            OSError: It cannot be started; with redirection, it ends with 127 instead.
        """
        inherited = {name: value for name, value in os.environ.items() if name.lower() not in _PROXIES}
        directory = cwd or os.getcwd()  # noqa: PTH109 (text is wanted)
        before = self._place.application(directory) if self._place.application else ()
        environment = {**inherited, **self.environment(), **(env or {})}
        process = self._group.popen([*before, *command], env=environment, cwd=directory, **options)
        self._processes.append(process)
        return process

    def settings(self, **arguments: Any) -> MeshSettings:
        """
        The settings that `environment` makes, for an application in this process, which has one environment.

        Args:
            arguments: Further arguments of `MeshSettings`; they win.

        Raises:
            SettingsError: One of the arguments cannot be used.
        """
        variables = self._pod.variables()
        given: dict[str, Any] = {
            "mesh": "istio",
            "outbound_proxy": self.sidecar.outbound_url,
            "ready_url": self.sidecar.ready_url,
            "admin_url": self.sidecar.admin_url,
            "podinfo": str(self._podinfo()),
            "workload": {fact: variables[name] for fact, name in _FACTS.items()},
        }
        return MeshSettings(**(given | arguments))

    def serve(self, app: Any, **options: Any) -> None:
        """
        Serve an ASGI application in a thread of this process, until the mesh stops or `stop_serving`.

        Args:
            app: The application.
            options: Arguments of `uvicorn.Config`, which must be installed.

        Raises:
            LocalMeshError: It did not start; its own error is the cause.
        """
        if self._serving is not None:
            raise LocalMeshError(f"{self!r} serves an application already: call stop_serving() first")
        serving = AppThread(app, self.socket, f"{self.name} {self.version}", options)
        serving.start()
        self._serving = serving

    def stop_serving(self) -> None:
        """Shut down what `serve` started, its lifespan included; the port refuses from then on."""
        serving, self._serving = self._serving, None
        if serving is not None:
            serving.stop()

    def close(self) -> None:
        """End what `popen` started, and close the application's socket; `LocalMesh` does it when it stops."""
        for process in self._processes:
            end(process, _ENDED_WITHIN)
        if self._socket is not None:
            self._socket.close()

    def _app(self) -> AppPort:
        if self._place.app is None:
            raise LocalMeshError(f"{self!r} was added with app=False: it has no address of an application")
        return self._place.app

    def _podinfo(self) -> Path:
        directory = self._directory / "podinfo"
        directory.mkdir(exist_ok=True)
        for name, pairs in (("labels", self._pod.labels), ("annotations", self._pod.annotations)):
            (directory / name).write_text(podinfo(pairs), encoding="utf-8")
        return directory
