"""Which request a log record belongs to, and who sent that: what the trace does not say."""

from __future__ import annotations

from meshaware.propagation.inbound import served
from meshaware.propagation.names import REQUEST_ID

__all__ = ["served_request"]

# As much as the fields of `meshaware.logs` show.
_LONGEST = 256


def served_request(error: object = None) -> dict[str, str]:
    """
    Return `request_id` and `peer` as far as they are known here, by the names that `meshaware.logs` has for them.

    Args:
        error: The exception that is logged. Outside a request it may tell which one it came from.
    """
    told: dict[str, str] = {}
    came, peer = served(error)
    if peer is not None:
        told["peer"] = _cut(peer.name)
    if (request_id := came.get(REQUEST_ID)) is not None:
        told["request_id"] = _cut(request_id.decode("latin-1"))
    return told


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
