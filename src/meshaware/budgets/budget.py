"""
How long the mesh may take for one call, and how long a client must therefore wait. Pure.

The numbers follow Envoy's router: https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/router_filter
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields, replace
from typing import Literal

__all__ = ["DEFAULT_RETRY_ON", "Budget", "declared_budget", "full_tries", "largest", "waits"]

DEFAULT_RETRY_ON = frozenset({"connect-failure", "refused-stream", "unavailable", "cancelled"})
"""What Istio retries where a VirtualService does not say; 503 has not been among it since 1.24."""

# Conditions that Envoy sees before a try's clock has begun, or (the status codes, when none are named) never.
_EARLY = frozenset({"connect-failure", "reset-before-request", "retriable-status-codes"})
# Conditions that only a server can meet that refuses a gRPC call or an HTTP/2 stream, as a rule at once. All that is
# not listed here, unknown names included, can cost a full try each time; a per-try timeout itself is retried under 5xx,
# gateway-error and reset only.
_REFUSALS = frozenset(
    {"refused-stream", "unavailable", "cancelled", "deadline-exceeded", "internal", "resource-exhausted"}
)
_ONCE = _EARLY | _REFUSALS

# Envoy doubles the bound of its random back-off with each retry, up to ten times the base.
_DOUBLINGS = (1, 2, 4, 8)
_CAP = 10

# The longest duration protobuf knows, ten thousand years: Envoy cannot be told more.
_MAX_SECONDS = 315_576_000_000.0
_MAX_ATTEMPTS = (1 << 32) - 1
_WRITABLE = 10**32


@dataclass(frozen=True, slots=True, repr=False)
class Budget:
    """
    What the mesh allows one call; seconds throughout, and None where the mesh sets no bound.

    | | |
    |---|---|
    | `Budget()` | unbounded: the mesh ends nothing |
    | `Budget(timeout=3.0)` | 3 s for everything, retries and back-off included |
    | `Budget(timeout=3.0, attempts=2, per_try_timeout=1.0)` | the same 3 s, in tries of 1 s at most |
    | `Budget(attempts=2, per_try_timeout=1.0, retry_on={"5xx"})` | three tries of 1 s each, and the waits between |

    Args:
        timeout: The route's timeout: from the end of the request to the end of the response, retries included.
        attempts: Retries, as Istio counts them: `attempts=2` is three tries.
        per_try_timeout: The bound of one try.
        retry_on: What is retried; a comma-separated text, as Istio writes it, or any collection of names.
        connect_timeout: What connecting to an upstream may take before a try's clock starts; None counts 0.
        backoff: The base of Envoy's random back-off between tries.
        delay: An injected delay (`fault.delay`): Envoy waits it out before the timeout starts.

    Raises:
        ValueError: A number is negative, not finite or too large, or a timeout is 0, which Envoy would take for none.
        TypeError: A value is not a number.
    """

    timeout: float | None = None
    attempts: int = 0
    per_try_timeout: float | None = None
    retry_on: Collection[str] = DEFAULT_RETRY_ON
    connect_timeout: float | None = None
    backoff: float = 0.025
    delay: float = 0.0

    def __post_init__(self) -> None:
        for name in ("timeout", "per_try_timeout"):
            _set(self, name, _timeout(name, getattr(self, name)))
        if self.connect_timeout is not None:
            _set(self, "connect_timeout", _seconds("connect_timeout", self.connect_timeout))
        for name in ("backoff", "delay"):
            _set(self, name, _seconds(name, getattr(self, name)))
        _set(self, "attempts", _count("attempts", self.attempts))
        _set(self, "retry_on", _conditions(self.retry_on))

    def total(self, buffer: float = 0.25, policy: Literal["ceiling", "tight"] = "ceiling") -> float | None:
        """
        The seconds a client waits for a call, from the end of the request to the end of the response.

        With T = timeout, n = attempts, p = per-try timeout, C = connect timeout, b = back-off bounds, D = delay:

        - `tight` is what Envoy can really take: D + T. Without T, it is D + (n+1)(C+p) + sum(b) where what is retried
          can cost a full try, and D + (n+1)C + p + sum(b) where, as by Istio's default, a try that used its time is the
          last. The latter takes a server at its word: one that refuses a gRPC call or an HTTP/2 stream does so at once.
        - `ceiling` is never under the sum a VirtualService suggests, D + (T or p) + p * n, and never under tight.
          Without T it is D + (n+1)(C+p) + sum(b) at least wherever such a refusal is retried, and so has room for one
          that comes when a try's time is almost over.

        Without T, a bound holds until the response's headers: nothing in the mesh bounds the body.

        Args:
            buffer: Added on top, so that the mesh's own answer about a timeout arrives before the client gives up.
            policy: `ceiling` or `tight`.

        Returns:
            None if the mesh sets neither a timeout nor a per-try timeout.

        Raises:
            ValueError: `buffer` is negative or not finite, or the policy is unknown.
        """
        extra = _seconds("buffer", buffer) + self.delay
        if policy not in ("ceiling", "tight"):
            raise ValueError(f'policy: {policy!r}: must be "ceiling" or "tight"')
        total = self._ceiling() if policy == "ceiling" else self._longest(full_tries(self))
        return None if total is None else total + extra

    def _ceiling(self) -> float | None:
        longest = self._longest(1 if _EARLY.issuperset(self.retry_on) else self.attempts + 1)
        if longest is None:
            return None
        per_try = self.per_try_timeout or 0.0
        return max((self.timeout or per_try) + per_try * self.attempts, longest)

    def _longest(self, full: int) -> float | None:
        """What Envoy can take where so many tries use up their time."""
        if self.timeout is not None:
            return self.timeout
        if self.per_try_timeout is None:
            return None
        connecting = (self.attempts + 1) * (self.connect_timeout or 0.0)
        return full * self.per_try_timeout + connecting + waits(self, self.attempts)

    def __repr__(self) -> str:
        """Only what differs from the default, in a fixed order."""
        said: list[str] = []
        for field in fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                said.append(f"{field.name}={_set_repr(self.retry_on) if field.name == 'retry_on' else repr(value)}")
        return f"Budget({', '.join(said)})"


def full_tries(budget: Budget) -> int:
    """How many tries can use up the per-try timeout: all, or only the last where such a try is not retried."""
    return 1 if _ONCE.issuperset(budget.retry_on) else budget.attempts + 1


def waits(budget: Budget, retries: int) -> float:
    """The most seconds that Envoy waits before the first so many retries, all of them together."""
    return budget.backoff * _doubled(retries)


def declared_budget(
    timeout: float | None = None, attempts: int = 0, per_try_timeout: float | None = None
) -> Budget | None:
    """
    The budget that variables declare for a service that has no manifests.

    Args:
        timeout: `MESHAWARE_TIMEOUT`, in seconds.
        attempts: `MESHAWARE_ATTEMPTS`.
        per_try_timeout: `MESHAWARE_PER_TRY_TIMEOUT`, in seconds.

    Returns:
        None if neither timeout is declared: retries alone bound nothing.
    """
    if timeout is None and per_try_timeout is None:
        return None
    return Budget(timeout=timeout, attempts=attempts, per_try_timeout=per_try_timeout)


def largest(budgets: Iterable[Budget]) -> Budget:
    """
    The budget that is never shorter than any of those given, under either policy.

    It is one of them where one of them is the largest under both; else it is made of their largest parts.
    """
    given = list(dict.fromkeys(budgets))
    for budget in given:
        if budget.total() is None or all(_covers(budget, other) for other in given):
            return budget
    return Budget(
        timeout=max(replace(budget, delay=0.0).total(0.0, "tight") or 0.0 for budget in given),
        attempts=max(budget.attempts for budget in given),
        per_try_timeout=max(budget.per_try_timeout or 0.0 for budget in given) or None,
        retry_on=frozenset[str]().union(*(budget.retry_on for budget in given)),
        connect_timeout=max(budget.connect_timeout or 0.0 for budget in given) or None,
        backoff=max(budget.backoff for budget in given),
        delay=max(budget.delay for budget in given),
    )


def _covers(budget: Budget, other: Budget) -> bool:
    for policy in ("ceiling", "tight"):
        mine, theirs = budget.total(0.0, policy), other.total(0.0, policy)
        if mine is not None and (theirs is None or theirs > mine):
            return False
    return True


def _doubled(attempts: int) -> int:
    return sum(_DOUBLINGS[:attempts]) + _CAP * max(0, attempts - len(_DOUBLINGS))


def _set(budget: Budget, name: str, value: object) -> None:
    object.__setattr__(budget, name, value)


def _timeout(name: str, value: object) -> float | None:
    if value is None:
        return None
    seconds = _seconds(name, value)
    if seconds == 0:
        raise ValueError(f"{name}: {value!r}: must be more than 0; leave it out where the mesh sets none")
    return seconds


def _seconds(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}: {value!r}: must be a number of seconds")
    if not 0 <= value <= _MAX_SECONDS or math.isnan(value):
        raise ValueError(f"{name}: {_short(value)}: must be finite and not negative, {_MAX_SECONDS:.0f} s at most")
    return float(value)


def _count(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: {value!r}: must be a whole number")
    if not 0 <= value <= _MAX_ATTEMPTS:
        raise ValueError(f"{name}: {_short(value)}: must be a number of retries, from 0 to {_MAX_ATTEMPTS}")
    return value


def _conditions(value: Collection[str]) -> frozenset[str]:
    names = value.split(",") if isinstance(value, str) else value
    return frozenset(name.strip() for name in names if name.strip())


def _short(value: float) -> str:
    # An int's digits are text without bound, and Python refuses to write the longest.
    return "a number of more than 32 digits" if _WRITABLE <= abs(value) < math.inf else repr(value)


def _set_repr(names: Collection[str]) -> str:
    return f"{{{', '.join(map(repr, sorted(names)))}}}" if names else "()"
