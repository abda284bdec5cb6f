"""Whether the proxy is let go when a job is over: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from meshaware.flavours import Flavour
from meshaware.sidecar.farewell import Dismissal

__all__ = ["Outcome", "QuitPolicy", "objection"]

QuitPolicy = Literal["success", "always", "never"]
"""When a job lets its sidecar go: after a success, after a failure too, or not at all."""

Outcome = Literal["success", "failure", "terminated"]
"""How a job ended; terminated: by SIGTERM, which comes to the sidecar too."""


def objection(
    flavour: Flavour,
    policy: QuitPolicy,
    outcome: Outcome,
    *,
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    containers: Sequence[str] = (),
    shared: bool = False,
) -> Dismissal | None:
    """
    Return why the proxy is told nothing, or None: it is told to go.

    Args:
        flavour: The mesh.
        policy: What was asked for.
        outcome: How the job ended. A failed one may be started again in the same pod, and needs its sidecar then.
        labels: Those of the pod.
        annotations: Those of the pod; they may say that the kubelet ends the proxy.
        containers: The containers of the application, as far as they are known.
        shared: Whether the others among them do not matter.
    """
    if flavour.quit.url is None:
        return Dismissal(told=False, reason=f"{flavour.title}: {flavour.quit.note}")
    if flavour.native(labels, annotations):
        return Dismissal(told=False, reason=f"the sidecar ({flavour.title}) is a native one: the kubelet ends it")
    if policy == "never":
        return Dismissal(told=False, reason=f"the sidecar ({flavour.title}) stays: so it was asked for")
    if outcome == "failure" and policy != "always":
        why = "the job failed, and may be started again beside it"
        return _stays(flavour, why, "MESHAWARE_QUIT=always")
    if len(containers) > 1 and not shared:
        why = f"the pod has the containers {', '.join(containers)}, and another of them may need it"
        return _stays(flavour, why, "MESHAWARE_QUIT_SHARED=true")
    return None


def _stays(flavour: Flavour, why: str, otherwise: str) -> Dismissal:
    reason = f"the sidecar ({flavour.title}) was not let go: {why}; {otherwise} lets it go all the same"
    return Dismissal(told=False, reason=reason, refused=True)
