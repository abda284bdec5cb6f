"""A call that is not begun: too little is left of the work in hand for an answer to come in time."""

from __future__ import annotations

from typing import Any

from meshaware.budgets import Route
from meshaware.client.allowance import Allowance
from meshaware.client.call import Call

__all__ = ["Unsent"]


class Unsent(Call):
    """
    One request that goes to no host.

    Attributes:
        had: Seconds that were left; negative where the deadline had passed.
        floor: With less than these no call is begun.
    """

    __slots__ = ("floor", "had")

    def __init__(self, request: Any, route: Route | None, allowance: Allowance, *, had: float, floor: float) -> None:
        super().__init__(request, route, allowance, None, None)
        self.had = had
        self.floor = floor
        self.until = self.end = self.marks[0][1]
