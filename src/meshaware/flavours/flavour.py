"""What a mesh can do differently, as data: the one shape that every file of this room fills in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from meshaware.flavours.quit import NO_SIDECAR, Quit

__all__ = ["ENVOY_STATES", "NOBODY", "Flavour", "Heard", "Mark", "Sign"]

ENVOY_STATES = re.compile(rb"^(LIVE|DRAINING|PRE_INITIALIZING|INITIALIZING)\n?$")
"""What an Envoy answers to `/ready` at its admin."""


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


class Heard(NamedTuple):
    """
    What came of a knock at a port of this host.

    Attributes:
        said: `refused`; `unreached`, where no connection came about in time; `listening`, where nothing was asked;
            `answered`; `silent`, of one that accepts and does not answer; or what was wrong with the answer.
        status: The HTTP status, of an answer.
        body: Its body.
    """

    said: str
    status: int = 0
    body: bytes = b""


NOBODY = Heard("refused")
"""Nobody listens."""


class Sign(NamedTuple):
    """
    What is heard at a port of this host where a mesh's proxy runs; it is one sign of several that prove it together.

    Attributes:
        port: The port.
        path: What to ask for; None: nothing is asked, it is enough to connect.
        statuses: Which HTTP statuses count.
        body: What the body must be.
        silent: Whether one who accepts and does not answer counts too: a proxy without CPU, where no other program
            would listen.
        closed: Whether it is the sign that nobody listens.
    """

    port: int
    path: str | None = None
    statuses: tuple[int, ...] = (200, 503)
    body: re.Pattern[bytes] = re.compile(b"")
    silent: bool = False
    closed: bool = False

    def fits(self, heard: Heard) -> bool:
        """Whether this is what was heard."""
        if self.closed:
            return heard.said == "refused"
        if self.path is None:
            return heard.said not in ("refused", "unreached")
        if heard.said == "silent":
            return self.silent
        return heard.said == "answered" and heard.status in self.statuses and self.body.search(heard.body) is not None


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
        tells_hosts: Whether these routes go by the names that callers use, so that it can be told which hosts it knows.
        one_trace_format: Whether the proxy advances one format of trace headers and leaves the others stale.
        container: The proxy's container in the pod, for messages; None where the pod has none.
        marks: What shows that a pod is in this mesh; one is enough.
        native_marks: What shows that Kubernetes started the proxy before the application and ends it afterwards.
        classic_marks: What shows that it is a container beside the application's.
        proofs: What shows on this host's ports that the proxy is there: one set of signs is enough, all of it.
        peer_header: The header in which the proxy says who called, and which it takes away where it cannot say;
            None where a request may reach the application with whatever the caller put there.
        tells_timeout: Whether `x-envoy-expected-rq-timeout-ms`, where it arrives, was written by an Envoy that ends the
            request then: that of the caller or the own one.
        quit: How it is let go when a job is over.
        drain: Seconds from SIGTERM to the stop of a service, in which its callers' proxies learn that it goes.
    """

    name: str
    title: str
    ready_url: str | None = None
    ready_fallback_url: str | None = None
    admin_url: str | None = None
    has_routes: bool = False
    retries: int = 0
    tells_hosts: bool = False
    one_trace_format: bool = False
    container: str | None = None
    marks: tuple[Mark, ...] = ()
    native_marks: tuple[Mark, ...] = ()
    classic_marks: tuple[Mark, ...] = ()
    proofs: tuple[tuple[Sign, ...], ...] = ()
    peer_header: str | None = None
    tells_timeout: bool = False
    quit: Quit = NO_SIDECAR
    # Istio kills a classic sidecar 5 s after SIGTERM; work in hand and telemetry, 2 s at most, come after the drain.
    drain: float = 2.0

    def native(self, labels: Mapping[str, str], annotations: Mapping[str, str]) -> bool | None:
        """Whether the proxy is a native sidecar, by the pod's labels and annotations; None where they do not tell."""
        if any(mark.fits(labels, annotations) for mark in self.native_marks):
            return True
        return False if any(mark.fits(labels, annotations) for mark in self.classic_marks) else None

    def proved(self, heard: Mapping[int, Heard]) -> tuple[Sign, ...]:
        """The set of signs that was heard, by port; empty if none was complete."""
        return next(
            (signs for signs in self.proofs if all(sign.fits(heard.get(sign.port, NOBODY)) for sign in signs)), ()
        )

    @property
    def is_mesh(self) -> bool:
        """Whether it is one: `none` and `unknown` are not."""
        return bool(self.marks)

    @property
    def gates(self) -> bool:
        """Whether there is anything to wait for before the first call."""
        return self.ready_url is not None
