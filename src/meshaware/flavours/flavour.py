"""What a mesh can do differently, as data: the one shape that every file of this room fills in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

__all__ = ["Flavour", "Mark", "Quit", "Refusal"]


class Mark(NamedTuple):
    """
    A label or an annotation that shows which mesh a pod is in.

    Attributes:
        kind: Where to look.
        name: Its name.
        value: What must be found somewhere in its value.
    """

    kind: Literal["label", "annotation"]
    name: str
    value: re.Pattern[str]

    def fits(self, labels: Mapping[str, str], annotations: Mapping[str, str]) -> bool:
        """Whether these labels and annotations of a pod bear the mark."""
        found = (labels if self.kind == "label" else annotations).get(self.name)
        return found is not None and self.value.search(found) is not None


class Refusal(NamedTuple):
    """
    An answer of a proxy that does not go.

    Attributes:
        status: The HTTP status.
        body: The complete body, but for white space around it; None: whatever the body.
        meaning: What it means, and what to do about it.
    """

    status: int
    body: bytes | None
    meaning: str


class Quit(NamedTuple):
    """
    How the proxy of a job is let go, so that the pod can end.

    Attributes:
        url: Where it takes a POST that makes it go; None: nothing is to be said to it.
        note: What comes after that; without a URL, why there is nothing to say.
        refusals: What its other answers mean; the first that fits counts.
    """

    url: str | None
    note: str
    refusals: tuple[Refusal, ...] = ()


_NOBODY = Quit(None, "there is no sidecar in the pod")


@dataclass(frozen=True, slots=True)
class Flavour:
    """
    One mesh, or the absence of one.

    Attributes:
        name: As `MESHAWARE_MESH` has it.
        title: As a person has it.
        ready_url: Answers 2xx once the proxy beside this process takes calls; None: nothing to wait for.
        ready_fallback_url: Asked where nothing listens at `ready_url`, or None.
        admin_url: Envoy's admin, without a path; None if the proxy is no Envoy or keeps its admin to itself.
        has_routes: Whether that admin's `/config_dump` tells the routes of outbound calls.
        one_trace_format: Whether the proxy advances one format of trace headers and leaves the others stale.
        container: The proxy's container in the pod, for messages; None where the pod has none.
        marks: What shows that a pod is in this mesh; one is enough.
        peer_header: The header in which the proxy says who called, and which it takes away where it cannot say;
            None where a request may reach the application with whatever the caller put there.
        quit: How it is let go when a job is over.
        native_marks: What shows that the kubelet runs the proxy as a native sidecar, and ends it itself after the
            application; one is enough.
    """

    name: str
    title: str
    ready_url: str | None = None
    ready_fallback_url: str | None = None
    admin_url: str | None = None
    has_routes: bool = False
    one_trace_format: bool = False
    container: str | None = None
    marks: tuple[Mark, ...] = ()
    peer_header: str | None = None
    quit: Quit = _NOBODY
    native_marks: tuple[Mark, ...] = ()

    @property
    def gates(self) -> bool:
        """Whether there is anything to wait for before the first call."""
        return self.ready_url is not None

    def is_native(self, labels: Mapping[str, str], annotations: Mapping[str, str]) -> bool:
        """Whether these labels and annotations of a pod say that the kubelet ends the proxy itself."""
        return any(mark.fits(labels, annotations) for mark in self.native_marks)
