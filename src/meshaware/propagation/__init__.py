"""
Which headers of a request go on with the calls it causes, and to whom.

    names      the names: sets of them, what is dangerous to carry, what cannot be carried
    w3c, b3    whether a value is what its specification says
    fitness    of what came in, what may go out
    headers    HeaderSet: which names this service carries
    hosts      HostPolicy: who is inside the mesh; HostList: who is listed
    position   where in which trace a request stands; telling: a span as headers, in every format
    outgoing   what a request gets, given what it has and what is carried
    outside    what a request to a host outside the mesh must not take along
    spans      OpenTelemetry's live span, and what its headers were
    context    what this task or thread carries: bind_headers, outbound_headers
    inbound    what can be asked about the request: who called
    threads    how threads and executors come to carry it

Nothing here does I/O, and nothing outside the standard library is imported before it is in use.
"""

from __future__ import annotations

__all__: list[str] = []
