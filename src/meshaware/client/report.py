"""What became of a call: the route it took, the time it was given, and who answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, cast

from meshaware.budgets import Budget, Route
from meshaware.client.allowance import Source
from meshaware.sidecar.replies import Reply, classify

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["REPORT", "CallReport", "report"]

REPORT = "meshaware"


class CallReport:
    """
    What meshaware knows of one call.

    Attributes:
        route: The mesh's route that governs it, or None.
        budget: That route's budget, or None.
        source: Who set the time: `route`, `settings`, `default` (built in) or `caller`.
        total: Seconds the call might take from the end of the upload, body included; None if unbounded.
        deadline: The instant of `time.monotonic()` at which it would have been ended, or None.
        reply: Who answered in the application's place, and why; None where the application answered.
    """

    __slots__ = ("budget", "deadline", "reply", "route", "source", "total")

    def __init__(
        self, route: Route | None, source: Source, total: float | None, deadline: float | None, reply: Reply | None
    ) -> None:
        self.route = route
        self.budget: Budget | None = None if route is None else route.budget
        self.source: Source = source
        self.total = total
        self.deadline = deadline
        self.reply = reply

    def __repr__(self) -> str:
        name = None if self.route is None else self.route.name
        return f"CallReport(route={name!r}, source={self.source!r}, total={self.total!r}, reply={self.reply!r})"


class _Headers(Protocol):
    @property
    def raw(self) -> list[tuple[bytes, bytes]]: ...


class _Response(Protocol):
    """A response of httpx or of httpx2."""

    status_code: int
    headers: Any

    @property
    def extensions(self) -> Mapping[str, Any]: ...


def report(response: _Response) -> CallReport:
    """
    Tell what became of a call made by one of meshaware's clients.

    Once the body has been read, it tells more about an error than the headers alone could.

    Raises:
        LookupError: The response did not come through one of meshaware's clients.
    """
    found = response.extensions.get(REPORT)
    if not isinstance(found, CallReport):
        raise LookupError(  # noqa: TRY004 (nothing is of a wrong type; something is not there)
            "this response has no report: it did not come through a client made by meshaware"
        )
    if response.status_code >= 400:
        found.reply = classify(response.status_code, cast("_Headers", response.headers).raw, _body(response))
    return found


def _body(response: _Response) -> bytes | None:
    # `.content` raises while a streamed body is unread; the private attribute is what it would return.
    content = getattr(response, "_content", None)
    return content if isinstance(content, bytes) else None
