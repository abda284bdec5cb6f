"""What a mesh can do differently, as data: the one shape that every file of this room fills in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

__all__ = ["Flavour", "Mark"]


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
        retries: How often the proxy makes a call again where no route says.
        one_trace_format: Whether the proxy advances one format of trace headers and leaves the others stale.
        container: The proxy's container in the pod, for messages; None where the pod has none.
        marks: What shows that a pod is in this mesh; one is enough.
        peer_header: The header in which the proxy says who called, and which it takes away where it cannot say;
            None where a request may reach the application with whatever the caller put there.
        tells_timeout: Whether `x-envoy-expected-rq-timeout-ms`, where it arrives, was written by an Envoy that ends the
            request then: that of the caller or the own one.
    """

    name: str
    title: str
    ready_url: str | None = None
    ready_fallback_url: str | None = None
    admin_url: str | None = None
    has_routes: bool = False
    retries: int = 0
    one_trace_format: bool = False
    container: str | None = None
    marks: tuple[Mark, ...] = ()
    peer_header: str | None = None
    tells_timeout: bool = False

    @property
    def gates(self) -> bool:
        """Whether there is anything to wait for before the first call."""
        return self.ready_url is not None
