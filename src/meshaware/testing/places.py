"""Where a workload is: on 127.0.0.1 beside all others, or in a pod of its own whose connections are redirected."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from meshaware.testing.bootstrap import Ports
from meshaware.testing.namespaces import Node, PodNamespace, PodPort
from meshaware.testing.ports import LOOPBACK, HeldPort
from meshaware.testing.redirect import ISTIO_PORTS, Exemption

__all__ = ["AppPort", "Place", "in_pod", "on_loopback"]


class AppPort(Protocol):
    """A port for an application: `HeldPort`, or `PodPort`."""

    number: int

    @property
    def address(self) -> str:
        """`address:port`."""
        ...

    def listen(self) -> socket.socket:
        """Return a new socket that listens there and can be handed to another process."""
        ...


class Place(NamedTuple):
    """
    Where one workload is.

    Attributes:
        reached: The sidecar's ports, as they are reached from here.
        listens: The sidecar's ports, as it listens, and that of the application.
        app: The application's port; None where there is no application.
        endpoint: Where other sidecars find the workload.
        held: The ports of 127.0.0.1 that are to be released.
        sidecar: What a command begins with, to run as the sidecar.
        application: The same for the application, by working directory.
        pod: The pod; None on loopback.
        exemption: How the pod's rules tell the sidecar's own connections; None on loopback, where there are none.
    """

    reached: Ports
    listens: Ports
    app: AppPort | None
    endpoint: tuple[str, int]
    held: Sequence[HeldPort]
    sidecar: Sequence[str] = ()
    application: Callable[[str], Sequence[str]] | None = None
    pod: PodNamespace | None = None
    exemption: Exemption | None = None


def on_loopback(*, app: bool) -> Place:
    """At ports of 127.0.0.1 that the kernel chooses."""
    held = [HeldPort() for _ in range(5 if app else 4)]
    ports = Ports(*(each.number for each in held))
    return Place(ports, ports, held[-1] if app else None, (LOOPBACK, ports.inbound), held)


def in_pod(node: Node, number: int, directory: Path, port: int, *, app: bool) -> Place:
    """
    In a pod: Istio's ports in there, and relays from 127.0.0.1.

    Raises:
        LocalMeshError: It could not be set up.
    """
    held = [HeldPort() for _ in ISTIO_PORTS]
    try:
        pod = PodNamespace(node, number, directory, list(zip(held, ISTIO_PORTS, strict=True)))
    except BaseException:
        for each in held:
            each.release()
        raise

    def beginning(cwd: str) -> list[str]:
        return pod.entering(f"--wd={cwd}")

    return Place(
        reached=Ports(*(each.number for each in held)),
        listens=Ports(*ISTIO_PORTS, app=port if app else None),
        app=PodPort(pod, port) if app else None,
        endpoint=(pod.address, port),
        held=held,
        sidecar=pod.command_of_sidecar(),
        application=beginning,
        pod=pod,
        exemption=node.exemption,
    )
