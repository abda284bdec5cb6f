"""
What the next service may count on: how long its answer is waited for, told in one header. Pure.

The smallest of what is left of the work in hand, of what the mesh can really take (the tight bound), of one try of it,
and of what the caller gives the call. The middle two run from the end of the upload, the first from now; so a request
whose upload may take long is told the first alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from meshaware.budgets import Budget
from meshaware.client.allowance import Allowance
from meshaware.deadline.header import read_milliseconds, write_milliseconds

__all__ = ["Teller", "bound_of", "promised"]

Pair = tuple[bytes, bytes]

# What is written at once: less than a socket's buffer holds.
_AT_ONCE = 1 << 16
_DIGITS = 5


def bound_of(budget: Budget | None) -> float | None:
    """
    Return how long the mesh waits for the answer to one try; None where it ends nothing.

    That is the timeout or the per-try timeout, whichever is less. An injected delay is waited out before the request
    goes on, and connecting before a try's clock starts, so neither is the next service's time.
    """
    if budget is None:
        return None
    return min((each for each in (budget.timeout, budget.per_try_timeout) if each is not None), default=None)


def promised(bound: float | None, allowance: Allowance) -> float | None:
    """
    Return how long the answer is waited for once the upload has ended; None where nobody says.

    Args:
        bound: The mesh's, from `bound_of`.
        allowance: What the call is given. A budget in it is longer than the bound, but the caller's own number counts.
    """
    own = allowance.total if allowance.source == "caller" else None
    if own is None or bound is None:
        return bound if own is None else own
    return min(bound, own)


class Teller:
    """
    Writes the deadline among the headers of requests that leave.

    Args:
        name: The header, lower-case.
    """

    __slots__ = ("_looked_at", "_name")

    def __init__(self, name: bytes) -> None:
        self._name = name
        self._looked_at = frozenset({name, b"content-length", b"transfer-encoding", b"upgrade"})

    def tell(self, raw: Sequence[Pair], answer: float | None, left: float | None, *, inside: bool) -> Sequence[Pair]:
        """
        Return a request's headers with the deadline, once; `raw` itself where there is nothing to change.

        A deadline that the caller of the client wrote can only be shortened; one that cannot be read is taken off.

        Args:
            raw: The headers in order, names in any case.
            answer: Seconds from the end of the upload, from `promised`.
            left: Seconds from now: what is left of the work in hand.
            inside: Whether the host is inside the mesh; outside nobody is told.
        """
        names = self._looked_at
        found = [(key, value) for name, value in raw if (key := name.lower()) in names]
        if found:
            return self._tell(raw, found, answer, left, inside=inside)
        seconds = left if answer is None or (left is not None and left < answer) else answer
        if seconds is None or not inside:
            return raw
        value = write_milliseconds(seconds)
        return raw if value is None else [*raw, (self._name, value)]

    def _tell(
        self, raw: Sequence[Pair], found: Sequence[Pair], answer: float | None, left: float | None, *, inside: bool
    ) -> Sequence[Pair]:
        written: list[bytes] = []
        numbers = [] if left is None else [left]
        at_once = True
        for name, value in found:
            if name == self._name:
                written.append(value)
            elif name == b"content-length":
                at_once = value.isdigit() and len(value) <= _DIGITS and int(value) <= _AT_ONCE
            elif name == b"transfer-encoding":
                at_once = False
            else:
                # What an upgrade leads to outlives the request.
                inside = False
        if at_once and answer is not None:
            numbers.append(answer)
        own = read_milliseconds(written[0]) if len(written) == 1 else None
        if own is not None:
            numbers.append(own)
        if written:
            raw = [pair for pair in raw if pair[0].lower() != self._name]
        told = write_milliseconds(min(numbers)) if numbers and inside else None
        return raw if told is None else [*raw, (self._name, told)]
