"""Budget and `timeout=` become one allowance: the table of the module's docstring, cell by cell."""

from __future__ import annotations

import httpx
import pytest

from meshaware.budgets import Budget
from meshaware.client.allowance import BUILT_IN, FROM_BUDGET, FromBudget, allow, default_allowances, from_budget
from meshaware.client.options import CallOptions

BUDGET = from_budget(5.25, "route")


def given(timeout: object) -> dict[str, float | None]:
    """What httpx makes of a `timeout=`, on its way from the client into a request."""
    return dict(httpx.Timeout(httpx.Timeout(timeout)).as_dict())  # type: ignore[arg-type]


def test_without_a_timeout_phases_and_total_are_the_budget() -> None:
    """The mark survives httpx's copying."""
    timeout = given(FROM_BUDGET)
    assert isinstance(timeout["read"], FromBudget)
    assert allow(BUDGET, timeout, None) is BUDGET
    assert BUDGET.total == BUDGET.head == 5.25
    assert dict(BUDGET.phases) == {"connect": 5.25, "read": 5.25, "write": 5.25, "pool": 5.25}


def test_a_connect_is_given_what_istio_gives_one() -> None:
    """A long budget is no reason to wait long for a connection."""
    assert from_budget(300, "route").phases["connect"] == 10.0


def test_a_number_is_the_caller_s_total_and_phases() -> None:
    """2.0 seconds, however long the budget is."""
    allowance = allow(BUDGET, given(2.0), None)
    assert (allowance.total, allowance.head, allowance.source) == (2.0, 2.0, "caller")
    assert allowance.phases["read"] == 2.0


def test_of_several_phases_the_largest_is_the_total() -> None:
    """httpx.Timeout(1, read=7): the call may take 7 s."""
    allowance = allow(BUDGET, given(httpx.Timeout(1.0, read=7.0)), None)
    assert allowance.total == 7.0
    assert dict(allowance.phases) == {"connect": 1.0, "read": 7.0, "write": 1.0, "pool": 1.0}


def test_none_means_no_phases_and_still_the_budget() -> None:
    """timeout=None must not become a call that hangs."""
    allowance = allow(BUDGET, given(None), None)
    assert allowance.total == 5.25
    assert set(allowance.phases.values()) == {None}
    assert allowance.source == "route"


def test_one_unbounded_phase_leaves_the_total_to_the_budget() -> None:
    """read=None says that reading has no bound of the caller's; the mesh's holds."""
    allowance = allow(BUDGET, given(httpx.Timeout(1.0, read=None)), None)
    assert allowance.total == 5.25
    assert allowance.phases["connect"] == 1.0
    assert allowance.phases["read"] is None


def test_an_option_replaces_the_budget() -> None:
    """call_options(timeout=20): a longer one as well, so no phase may end the call before."""
    allowance = allow(BUDGET, given(FROM_BUDGET), CallOptions(timeout=20.0))
    assert (allowance.total, allowance.source, allowance.ours) == (20.0, "caller", True)
    assert dict(allowance.phases) == {"connect": 10.0, "read": 20.0, "write": 20.0, "pool": 20.0}


def test_an_option_leaves_the_phases_of_the_caller_s() -> None:
    """They were asked for by name."""
    allowance = allow(BUDGET, given(httpx.Timeout(None, read=1.0)), CallOptions(timeout=20.0))
    assert (allowance.total, allowance.ours) == (20.0, False)
    assert dict(allowance.phases) == {"connect": None, "read": 1.0, "write": None, "pool": None}


@pytest.mark.parametrize("timeout", [FROM_BUDGET, 2.0, None])
def test_a_detached_call_has_no_total(timeout: float | None) -> None:
    """Whatever else was said; its phases stay."""
    allowance = allow(BUDGET, given(timeout), CallOptions(detached=True))
    assert allowance.total is None
    assert allowance.head is None
    assert allowance.phases == allow(BUDGET, given(timeout), None).phases


def test_a_request_made_by_hand_without_timeout_gets_the_budget() -> None:
    """`httpx.Request(...)` sent as it is has no timeout extension."""
    assert allow(BUDGET, None, None) is BUDGET


def test_by_default_headers_have_a_minute_and_streams_no_end() -> None:
    """60 s to the headers, 60 s for each silence, no length."""
    assert default_allowances(None, 0.25, "ceiling") == (BUILT_IN, BUILT_IN)
    assert (BUILT_IN.head, BUILT_IN.total, BUILT_IN.phases["read"]) == (60.0, None, 60.0)


def test_declared_numbers_stand_in_for_a_virtual_service() -> None:
    """They bound the whole of a call without a route, and not the streams of a route that bounds nothing."""
    without, unbounded = default_allowances(Budget(timeout=2.0), 0.25, "ceiling")
    assert (without.head, without.total, without.source) == (2.25, 2.25, "settings")
    assert (unbounded.head, unbounded.total) == (2.25, None)
