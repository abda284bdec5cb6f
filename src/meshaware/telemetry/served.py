"""Which request a log record belongs to, and who sent that: what the trace does not say."""

from __future__ import annotations

from collections.abc import Mapping

from meshaware.propagation.context import current
from meshaware.propagation.inbound import marked
from meshaware.propagation.names import REQUEST_ID
from meshaware.propagation.spans import arrival, tracing_here

__all__ = ["served_request"]

# As much as the fields of `meshaware.logs` show.
_LONGEST = 256
_NOTHING: Mapping[bytes, bytes] = {}


def served_request(error: object = None) -> dict[str, str]:
    """
    Return `request_id` and `peer` as far as they are known here, by the names that `meshaware.logs` has for them.

    Args:
        error: The exception that is logged. Outside a request it may tell which one it came from.
    """
    told: dict[str, str] = {}
    carried = current()
    if carried is None and error is not None:
        carried = marked(error)
    came = _NOTHING
    if carried is not None:
        came = carried.cargo.came
        if (peer := carried.peer) is not None:
            told["peer"] = _cut(peer.name)
    elif tracing_here() and (arrived := arrival()) is not None:
        came = arrived.came
    if (request_id := came.get(REQUEST_ID)) is not None:
        told["request_id"] = _cut(request_id.decode("latin-1"))
    return told


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
