"""Which mesh this process is in, from what is known without asking anybody."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from meshaware.flavours.flavour import Flavour
from meshaware.flavours.none import NONE
from meshaware.flavours.table import FLAVOURS, USUAL
from meshaware.flavours.unknown import UNKNOWN

__all__ = ["Detected", "detect"]


class Detected(NamedTuple):
    """
    A mesh and what speaks for it.

    Attributes:
        flavour: The mesh; `unknown` where only a proxy that answers would tell.
        reason: What says so, for people.
        settled: Whether the question is answered.
        native: Whether the proxy is a native sidecar, which Kubernetes starts before the application and ends after
            it; None where the pod's annotations do not tell.
    """

    flavour: Flavour
    reason: str
    settled: bool
    native: bool | None = None


def detect(
    setting: str,
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    in_kubernetes: bool,  # noqa: FBT001
    *,
    proxy_declared: bool = False,
) -> Detected:
    """
    Tell which mesh this process is in; pure.

    No mesh puts a variable into the application's container, so there is only: what was asked for, the pod's
    labels and annotations where the application mounts them, and where the process runs.

    Args:
        setting: `MeshSettings.mesh`; anything but `auto` is believed.
        labels: All labels of the pod; empty if they are not known.
        annotations: All annotations of the pod; empty if they are not known.
        in_kubernetes: Whether this process runs in a pod.
        proxy_declared: Whether the address of a proxy is set (`MESHAWARE_READY_URL`): then there is one.

    Raises:
        ValueError: The setting names no mesh.
    """
    if setting != "auto":
        if setting not in FLAVOURS:
            known = ", ".join(["auto", *FLAVOURS])
            raise ValueError(f"mesh={setting[:64]!r} is no mesh that meshaware knows; write one of {known}")
        flavour = FLAVOURS[setting]
        return Detected(flavour, f"mesh={setting} is set", settled=True, native=flavour.native(labels, annotations))
    for flavour in FLAVOURS.values():
        for mark in flavour.marks:
            if mark.fits(labels, annotations):
                native = flavour.native(labels, annotations)
                return Detected(flavour, f"the pod has the {mark.kind} {mark.name}", settled=True, native=native)
    if proxy_declared:
        return Detected(USUAL, "the address of a proxy is set and no other mesh shows", settled=True)
    if labels or annotations:
        return Detected(NONE, "the pod's labels and annotations name no mesh", settled=True)
    if in_kubernetes:
        return Detected(UNKNOWN, "in Kubernetes, but the pod's labels and annotations are not known", settled=False)
    return Detected(NONE, "not in Kubernetes, and no mesh is set", settled=True)
