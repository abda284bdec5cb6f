"""
What the next service may count on: how long its answer is waited for, told in one header. Pure.

The smallest of what is left of the work in hand, of what the mesh can really take (the tight bound), of one try of it,
and of what the caller gives the call. The middle two run from the end of the upload, the first from now; so a request
whose upload may take long is told the first alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from meshaware.budgets import Budget
from meshaware.client.allowance import Allowance
from meshaware.deadline.header import read_milliseconds, write_milliseconds

__all__ = ["Promise", "bound_of", "promised", "told"]

Pair = tuple[bytes, bytes]

# What is written at once: less than a socket's buffer holds.
_AT_ONCE = 1 << 16
_DIGITS = 5


class Promise(NamedTuple):
    """
    What bounds a call, in seconds; None is no bound.

    Attributes:
        answer: From the end of the upload: after that nobody wants the answer.
        left: From now: what is left of the work in hand.
    """

    answer: float | None
    left: float | None


def bound_of(budget: Budget | None) -> float | None:
    """
    Return how long the mesh waits for the answer to one try; None where it ends nothing.

    That is the timeout or the per-try timeout, whichever is less. An injected delay is waited out before the request
    goes on, and connecting before a try's clock starts, so neither is the next service's time.
    """
    if budget is None:
        return None
    return min((each for each in (budget.timeout, budget.per_try_timeout) if each is not None), default=None)


def promised(bound: float | None, allowance: Allowance, left: float | None) -> Promise:
    """
    Put together what bounds a call.

    Args:
        bound: The mesh's, from `bound_of`.
        allowance: What the call is given. A budget in it is longer than the bound, but the caller's own number counts.
        left: What is left of the work in hand.
    """
    own = allowance.total if allowance.source == "caller" else None
    return Promise(own if bound is None else bound if own is None else min(bound, own), left)


def told(raw: Sequence[Pair], name: bytes, promise: Promise | None) -> Sequence[Pair]:
    """
    Return a request's headers with the deadline, once; `raw` itself where there is nothing to change.

    A deadline that the caller of the client wrote can only be shortened; one that cannot be read is taken off.

    Args:
        raw: The headers in order, names in any case.
        name: The header, lower-case.
        promise: What bounds the call; None: nobody is told, as outside the mesh.
    """
    written: list[bytes] = []
    at_once = True
    for key, value in raw:
        key = key.lower()  # noqa: PLW2901 (the loop is what each call pays)
        if key == name:
            written.append(value)
        elif key == b"content-length":
            at_once = value.isdigit() and len(value) <= _DIGITS and int(value) <= _AT_ONCE
        elif key == b"transfer-encoding":
            at_once = False
        elif key == b"upgrade":
            # What comes of it outlives the request.
            promise = None
    number = None if promise is None else _number(promise, written, at_once=at_once)
    if written:
        raw = [pair for pair in raw if pair[0].lower() != name]
    return raw if number is None else [*raw, (name, number)]


def _number(promise: Promise, written: Sequence[bytes], *, at_once: bool) -> bytes | None:
    numbers = [promise.left] if promise.left is not None else []
    if at_once and promise.answer is not None:
        numbers.append(promise.answer)
    own = read_milliseconds(written[0]) if len(written) == 1 else None
    if own is not None:
        numbers.append(own)
    return write_milliseconds(min(numbers)) if numbers else None
