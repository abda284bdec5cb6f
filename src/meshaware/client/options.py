"""What one call asks for, beyond what httpx's own arguments can say."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

__all__ = ["OPTIONS", "CallOptions", "call_options"]

OPTIONS = "meshaware.options"


class CallOptions(NamedTuple):
    """What `call_options` was given."""

    timeout: float | None = None
    deadline: float | None = None
    detached: bool = False


def call_options(
    *, timeout: float | None = None, deadline: float | None = None, detached: bool = False
) -> dict[str, Any]:
    """
    Say something about one call: `client.get(url, extensions=call_options(timeout=2.0))`.

    Args:
        timeout: Seconds that replace the budget of this call, from the moment the request is sent. What `timeout=` of
            the call or the client says of the phases (connect, read, write, pool) stays.
        deadline: An instant of `time.monotonic()` by which the call must be over, whatever it waits for; it can only
            shorten what the budget and the deadline of the work in hand allow.
        detached: Neither a total nor the deadline of the work in hand: for streams that outlive both.

    Raises:
        ValueError: A number that is negative, zero or not finite, or `detached` beside one of the others.
    """
    if timeout is not None and not (math.isfinite(timeout) and timeout > 0):
        raise ValueError(f"timeout={timeout!r}: must be a number of seconds above 0; leave it out to use the budget")
    if deadline is not None and not math.isfinite(deadline):
        raise ValueError(f"deadline={deadline!r}: must be an instant of time.monotonic(), such as time.monotonic() + 2")
    if detached and (timeout is not None or deadline is not None):
        raise ValueError("detached=True says that no total holds; it cannot stand beside timeout= or deadline=")
    return {OPTIONS: CallOptions(timeout, deadline, detached)}
