"""One budget: the seconds it comes to, what it refuses, and the largest of several."""

from __future__ import annotations

import math
import pickle
from dataclasses import FrozenInstanceError, replace
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaware.budgets import Budget, declared_budget
from meshaware.budgets.budget import DEFAULT_RETRY_ON, largest

SECONDS = st.floats(min_value=0.001, max_value=1e6)
CONDITIONS = st.frozensets(
    st.sampled_from([*sorted(DEFAULT_RETRY_ON), "5xx", "reset", "gateway-error", "503", "retriable-4xx"])
)
POLICIES: tuple[Literal["ceiling", "tight"], ...] = ("ceiling", "tight")
BUDGETS = st.builds(
    Budget,
    timeout=st.none() | SECONDS,
    attempts=st.integers(0, 20),
    per_try_timeout=st.none() | SECONDS,
    retry_on=CONDITIONS,
    connect_timeout=st.none() | st.floats(min_value=0, max_value=60),
    backoff=st.floats(min_value=0, max_value=10),
    delay=st.floats(min_value=0, max_value=100),
)


def test_the_card_and_the_tight_bound_of_one_route() -> None:
    """The ceiling is timeout + per-try timeout times attempts + buffer; the mesh itself ends at the timeout."""
    budget = Budget(timeout=3.0, attempts=2, per_try_timeout=1.0)
    assert budget.total(buffer=0.25) == 5.25
    assert budget.total() == 5.25
    assert budget.total(buffer=0.25, policy="tight") == 3.25
    assert budget.total(0.0) == 5.0


def test_a_timeout_alone_is_the_budget() -> None:
    """Whatever is retried in it."""
    assert Budget(timeout=3.0, attempts=10).total(0.0) == 3.0


def test_without_a_timeout_what_is_retried_decides() -> None:
    """Under 5xx each try may take its time; by Istio's default the first that does is the last."""
    retried = Budget(attempts=2, per_try_timeout=1.0, retry_on={"5xx"})
    assert retried.total(0.0, "tight") == pytest.approx(3.0 + 0.025 + 0.05)
    assert retried.total(0.0) == pytest.approx(3.075)
    ended = Budget(attempts=2, per_try_timeout=1.0)
    assert ended.total(0.0, "tight") == pytest.approx(1.0 + 0.025 + 0.05)
    assert ended.total(0.0) == pytest.approx(3.075)
    early = replace(ended, retry_on={"connect-failure"})
    assert early.total(0.0, "tight") == pytest.approx(1.0 + 0.025 + 0.05)
    assert early.total(0.0) == 3.0


@pytest.mark.parametrize("condition", [*sorted(DEFAULT_RETRY_ON - {"connect-failure"}), "internal"])
def test_the_ceiling_has_room_for_refusals_that_come_late(condition: str) -> None:
    """A server that thinks about a gRPC call or a stream until a try is almost over: each try and each wait counts."""
    budget = Budget(attempts=2, per_try_timeout=1.0, retry_on={condition}, connect_timeout=0.5, backoff=1.0)
    assert budget.total(0.0, "tight") == 1.0 + 3 * 0.5 + 1.0 + 2.0
    assert budget.total(0.0) == 3 * (1.0 + 0.5) + 1.0 + 2.0
    assert replace(budget, timeout=5.0).total(0.0) == 5.0 + 2 * 1.0


@pytest.mark.parametrize(
    "condition",
    ["5xx", "gateway-error", "reset", "retriable-4xx", "retriable-headers", "envoy-ratelimited", "503", "new-one"],
)
def test_whatever_may_be_retried_late_counts_in_full(condition: str) -> None:
    """A late answer that is retried costs a full try, and so does a condition that is not known here."""
    budget = Budget(attempts=1, per_try_timeout=2.0, retry_on={condition, "connect-failure"}, backoff=0.0)
    assert budget.total(0.0, "tight") == 4.0


@pytest.mark.parametrize(
    "condition", ["connect-failure", "refused-stream", "reset-before-request", "unavailable", "retriable-status-codes"]
)
def test_what_is_retried_early_counts_once(condition: str) -> None:
    """Before a try's clock runs, or only for gRPC, or (status codes that are not named) never."""
    budget = Budget(attempts=1, per_try_timeout=2.0, retry_on={condition}, backoff=0.0)
    assert budget.total(0.0, "tight") == 2.0


def test_connecting_comes_on_top_of_every_try() -> None:
    """A try's clock starts when the upstream connection stands."""
    budget = Budget(attempts=2, per_try_timeout=1.0, connect_timeout=10.0, backoff=0.0)
    assert budget.total(0.0, "tight") == 31.0
    assert replace(budget, retry_on={"reset"}).total(0.0, "tight") == 33.0
    assert replace(budget, timeout=5.0).total(0.0, "tight") == 5.0


@pytest.mark.parametrize(
    ("attempts", "waited"),
    [(0, 0), (1, 1), (2, 3), (3, 7), (4, 15), (5, 25), (6, 35), (1000, 9975), (4_294_967_295, 42949672925)],
)
def test_the_back_off_doubles_up_to_ten_times_its_base(attempts: int, waited: int) -> None:
    """1, 2, 4, 8 and then 10 times, as Envoy's bounds are; without adding up four thousand million of them."""
    budget = Budget(attempts=attempts, per_try_timeout=1.0, backoff=1.0)
    assert budget.total(0.0, "tight") == 1.0 + waited


def test_an_injected_delay_comes_before_everything() -> None:
    """The fault filter waits before the router's clock starts."""
    budget = Budget(timeout=3.0, attempts=2, per_try_timeout=1.0, delay=5.0)
    assert budget.total(0.0) == 10.0
    assert budget.total(0.0, "tight") == 8.0


@pytest.mark.parametrize("budget", [Budget(), Budget(attempts=3, connect_timeout=10.0), Budget(delay=5.0)])
@pytest.mark.parametrize("policy", POLICIES)
def test_without_timeouts_there_is_no_bound(budget: Budget, policy: Literal["ceiling", "tight"]) -> None:
    """Retries, connecting and delays bound nothing by themselves."""
    assert budget.total(0.25, policy) is None


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"timeout": -1.0}, "timeout: -1.0: must be finite and not negative"),
        ({"timeout": math.nan}, "timeout: nan: must be finite"),
        ({"timeout": math.inf}, "timeout: inf: must be finite"),
        ({"timeout": 0}, "timeout: 0: must be more than 0; leave it out where the mesh sets none"),
        ({"timeout": 10**400}, "timeout: a number of more than 32 digits: must be finite"),
        ({"per_try_timeout": 0.0}, "per_try_timeout: 0.0: must be more than 0"),
        ({"per_try_timeout": -math.inf}, "per_try_timeout: -inf: must be finite and not negative"),
        ({"attempts": -1}, "attempts: -1: must be a number of retries, from 0 to 4294967295"),
        ({"attempts": 1 << 32}, "attempts: 4294967296: must be a number of retries"),
        ({"connect_timeout": -0.1}, "connect_timeout: -0.1: must be finite and not negative"),
        ({"backoff": -1}, "backoff: -1: must be finite and not negative"),
        ({"delay": math.nan}, "delay: nan: must be finite and not negative"),
    ],
)
def test_a_number_that_no_mesh_can_have_is_refused(arguments: dict[str, Any], error: str) -> None:
    """The error has the field, the value and the rule."""
    with pytest.raises(ValueError, match="must be") as raised:
        Budget(**arguments)
    assert error in str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"timeout": "3s"}, "timeout: '3s': must be a number of seconds"),
        ({"timeout": True}, "timeout: True: must be a number of seconds"),
        ({"attempts": 2.0}, "attempts: 2.0: must be a whole number"),
        ({"attempts": True}, "attempts: True: must be a whole number"),
        ({"backoff": None}, "backoff: None: must be a number of seconds"),
    ],
)
def test_what_is_no_number_is_refused(arguments: dict[str, Any], error: str) -> None:
    """A text or a truth value is a mistake, even where Python could count with it."""
    with pytest.raises(TypeError) as raised:
        Budget(**arguments)
    assert str(raised.value) == error


def test_a_buffer_and_a_policy_are_checked_too() -> None:
    """At the place where they are given."""
    with pytest.raises(ValueError, match=r"^buffer: -1: must be finite"):
        Budget().total(-1)
    with pytest.raises(ValueError, match=r"^policy: 'loose': must be"):
        Budget().total(policy="loose")  # type: ignore[arg-type]


def test_conditions_are_a_set_however_they_are_written() -> None:
    """As Istio writes them, or as any collection; order and spaces do not matter."""
    assert (
        Budget(retry_on="5xx, reset,,503")
        == Budget(retry_on={"503", "5xx", "reset"})
        == Budget(retry_on=["reset", "503", "5xx"])
    )
    assert Budget(retry_on="").retry_on == frozenset()


def test_a_budget_is_a_value() -> None:
    """Frozen, hashable, picklable, printed by what it says."""
    budget = Budget(timeout=3, attempts=2, per_try_timeout=1, retry_on="reset,5xx")
    assert repr(budget) == "Budget(timeout=3.0, attempts=2, per_try_timeout=1.0, retry_on={'5xx', 'reset'})"
    assert eval(repr(budget)) == budget
    assert repr(Budget()) == "Budget()"
    assert eval(repr(Budget(retry_on=""))) == Budget(retry_on="")
    assert hash(budget) == hash(replace(budget))
    assert pickle.loads(pickle.dumps(budget)) == budget
    with pytest.raises(FrozenInstanceError):
        budget.timeout = 4.0  # type: ignore[misc]


def test_variables_declare_a_budget_or_none() -> None:
    """For a service that has no YAML; retries alone bound nothing."""
    assert declared_budget(2.0, 1, 0.5) == Budget(timeout=2.0, attempts=1, per_try_timeout=0.5)
    assert declared_budget(per_try_timeout=0.5) == Budget(per_try_timeout=0.5)
    assert declared_budget() is None
    assert declared_budget(attempts=3) is None


@given(BUDGETS, st.floats(0, 60))
def test_the_ceiling_is_never_under_the_tight_bound_nor_that_under_the_timeout(budget: Budget, buffer: float) -> None:
    """Law 1: a client never gives up while Envoy may still be at it."""
    ceiling, tight = budget.total(buffer), budget.total(buffer, "tight")
    if ceiling is None or tight is None:
        assert ceiling is tight is None
        assert budget.timeout is None
        assert budget.per_try_timeout is None
        return
    assert ceiling >= tight >= buffer
    assert tight >= (budget.timeout or budget.per_try_timeout or 0.0) + budget.delay
    assert math.isfinite(ceiling)


@given(BUDGETS, st.data(), st.sampled_from(POLICIES))
def test_more_of_anything_is_never_less_time(
    budget: Budget, data: st.DataObject, policy: Literal["ceiling", "tight"]
) -> None:
    """The total is monotone in each field."""
    field = data.draw(
        st.sampled_from(["timeout", "attempts", "per_try_timeout", "retry_on", "connect_timeout", "backoff", "delay"])
    )
    now = getattr(budget, field)
    if field == "retry_on":
        more: Any = now | data.draw(CONDITIONS)
    elif field == "attempts":
        more = now + data.draw(st.integers(0, 20))
    elif now is None and field == "timeout":
        return  # from none to some is from unbounded to bounded
    else:
        more = (now or 0.001) + data.draw(st.floats(0, 100))
    before, after = budget.total(0.25, policy), replace(budget, **{field: more}).total(0.25, policy)
    if before is None:
        assert field == "per_try_timeout" or after is None
    else:
        assert after is not None
        assert after >= before * (1 - 1e-12)


@given(st.lists(BUDGETS, min_size=1, max_size=4))
def test_the_largest_budget_is_under_none_of_them(budgets: list[Budget]) -> None:
    """Under neither policy, so that it can stand in for any of them; unbounded if one of them is."""
    found = largest(budgets)
    for policy in POLICIES:
        totals = [budget.total(0.0, policy) for budget in budgets]
        total = found.total(0.0, policy)
        if None in totals:
            assert total is None
        else:
            assert total is not None
            assert total >= max(each for each in totals if each is not None)


def test_the_largest_budget_is_one_of_them_where_one_is() -> None:
    """It is only made up where the policies disagree about which is the largest."""
    short, long = Budget(timeout=1.0), Budget(timeout=2.0, attempts=1)
    assert largest([short, long, short]) is long
    assert largest([short]) is short
    assert largest([long, Budget(attempts=1)]) == Budget(attempts=1)
    by_card = Budget(timeout=2.0, attempts=9, per_try_timeout=1.0)
    by_timeout = Budget(timeout=4.0, delay=1.0)
    assert largest([by_card, by_timeout]) == Budget(timeout=4.0, attempts=9, per_try_timeout=1.0, delay=1.0)
