"""The rules behind the formulas, each shown by a real Envoy."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from statistics import fmean
from typing import Any

import pytest

pytestmark = pytest.mark.envoy

Measure = Callable[..., list[Any]]
# What a client adds to a budget by default covers how late a busy machine is.
_BUFFER = 0.25
# Envoy's timers count from when its loop woke up last, a little before they are set.
_EARLY = 0.01
_CONDITIONS = (
    "cancelled",
    "connect-failure",
    "deadline-exceeded",
    "envoy-ratelimited",
    "internal",
    "refused-stream",
    "reset-before-request",
    "resource-exhausted",
    "retriable-4xx",
    "retriable-headers",
    "unavailable",
    "503",
    "504",
)


def _lasts(taken: Any, least: float, policy: str = "tight") -> None:
    """It took that long at least, and was over before a client would have given up."""
    assert least - _EARLY <= taken.seconds <= taken.total(policy) + _BUFFER, taken


def test_a_per_try_timeout_is_retried_under_5xx_gateway_error_and_reset_alone(measure: Measure) -> None:
    """Under any other condition the first try that used its time ends the call, 504 among the codes or not."""

    def silent(condition: str) -> dict[str, Any]:
        return {"rule": {"retries": {"attempts": 2, "perTryTimeout": "150ms", "retryOn": condition}}}

    retried = [silent(condition) for condition in ("5xx", "gateway-error", "reset")]
    for taken in measure(*retried, *map(silent, _CONDITIONS)):
        tries = 3 if taken.case in retried else 1
        assert (taken.status, taken.attempts) == (504, tries), taken
        _lasts(taken, tries * 0.15)


def test_connecting_comes_on_top_of_each_try(measure: Measure) -> None:
    """A try's time begins when the connection stands, TLS and all; what never stands costs the connect timeout."""
    late, dead, unshaken, bounded = measure(
        {
            "rule": {"retries": {"attempts": 2, "perTryTimeout": "150ms", "retryOn": "5xx"}},
            "connect": 0.4,
            "shakes": [0.2],
        },
        {
            "rule": {"retries": {"attempts": 2, "perTryTimeout": "100ms", "retryOn": "connect-failure"}},
            "connect": 0.15,
            "door": "full",
        },
        {
            "rule": {"retries": {"attempts": 2, "perTryTimeout": "150ms"}},
            "connect": 0.2,
            "shakes": [math.inf, math.inf, 0.0],
        },
        {"rule": {"timeout": "250ms"}, "connect": 0.4, "door": "full"},
    )
    assert (late.status, late.attempts) == (504, 3)
    _lasts(late, 3 * (0.2 + 0.15))
    assert (dead.status, dead.attempts) == (503, 3)
    _lasts(dead, 3 * 0.15)
    assert (unshaken.status, unshaken.attempts) == (504, 3)
    _lasts(unshaken, 2 * 0.2 + 0.15)
    assert bounded.status == 504
    _lasts(bounded, 0.25)


def test_the_clock_starts_at_the_end_of_the_upload(measure: Measure) -> None:
    """An upload that takes longer than the timeout is none of the timeout's business."""
    whole, tries = measure(
        {"rule": {"timeout": "200ms"}},
        {"rule": {"retries": {"attempts": 1, "perTryTimeout": "150ms", "retryOn": "5xx"}}},
        upload=0.4,
    )
    assert (whole.status, tries.status) == (504, 504)
    # The client's end of the upload is a little before Envoy's.
    assert 0.2 - _EARLY <= whole.client <= whole.total("tight") + _BUFFER
    assert 0.3 - _EARLY <= tries.client <= tries.total("tight") + _BUFFER
    assert tries.attempts == 2


def test_the_timeout_includes_retries_and_the_body(measure: Measure) -> None:
    """It ends a call between two tries as well as in the middle of a response, whose status is out already."""
    retries, body = measure(
        {
            "rule": {"timeout": "350ms", "retries": {"attempts": 50, "retryOn": "5xx"}},
            "steps": [{"does": "answer", "status": 503, "after": 0.05}],
        },
        {"rule": {"timeout": "300ms"}, "steps": [{"does": "dribble", "lasts": 2.0}]},
    )
    assert retries.status == 504
    assert retries.attempts > 2
    _lasts(retries, 0.35)
    assert (body.status, body.whole) == (200, False)
    _lasts(body, 0.3)
    # Envoy keeps the connection for another second (delayed_close_timeout), in silence.
    assert body.client > 0.3 + 2 * _BUFFER


def test_without_a_timeout_nothing_bounds_the_body(measure: Measure) -> None:
    """A per-try timeout is over with the headers: what is said without a timeout is how long those may take."""
    (taken,) = measure({
        "rule": {"retries": {"attempts": 1, "perTryTimeout": "150ms"}},
        "steps": [{"does": "dribble", "lasts": 1.2}],
        "connect": 0.2,
    })  # fmt: skip
    assert (taken.status, taken.whole, taken.attempts) == (200, True, 1)
    assert taken.seconds > taken.total("ceiling") + 0.2


def test_a_late_answer_that_is_retried_costs_its_try_in_full(measure: Measure) -> None:
    """Nothing is said of a condition that comes early, unless it cannot come late."""
    cases = [
        {
            "rule": {"retries": {"attempts": 3, "perTryTimeout": "600ms", "retryOn": condition}},
            "steps": [{"does": "answer", "after": 0.3, "status": status}],
            "connect": 0.1,
        }
        for condition, status in (("5xx", 500), ("gateway-error", 502), ("retriable-4xx", 409), ("418", 418))
    ]
    for taken in measure(*cases):
        assert (taken.status, taken.attempts) == (taken.case["steps"][0]["status"], 4), taken
        _lasts(taken, 4 * 0.3)
        assert taken.total("tight") >= 4 * (0.6 + 0.1)


def test_waiting_for_a_free_connection_is_in_the_timeout_and_in_no_try(measure: Measure) -> None:
    """Where a DestinationRule allows few connections, calls queue; without a timeout, nobody can say for how long."""
    retries = {"attempts": 1, "perTryTimeout": "300ms", "retryOn": "connect-failure"}
    calls = measure(
        {"rule": {"retries": retries}, "connect": 0.1, "connections": 1},
        {"rule": {"timeout": "200ms"}, "connections": 1},
        times=3,
    )
    tries, bounded = calls[::2], calls[1::2]
    assert [taken.status for taken in calls] == [504] * 6
    assert max(taken.seconds for taken in tries) > tries[0].total("tight") + 0.3
    for taken in bounded:
        _lasts(taken, 0.2)


def test_an_injected_delay_comes_before_the_timeout(measure: Measure) -> None:
    """The timeout does not cover it, shorter as it may be."""
    delay = {"delay": {"fixedDelay": "300ms", "percentage": {"value": 100}}}
    before, tries = measure(
        {"rule": {"timeout": "200ms", "fault": delay}},
        {"rule": {"fault": delay, "retries": {"attempts": 1, "perTryTimeout": "100ms", "retryOn": "reset"}}},
    )
    assert (before.status, before.budget.delay) == (504, 0.3)
    _lasts(before, 0.5)
    _lasts(tries, 0.5)


def test_a_per_try_timeout_as_long_as_the_timeout_is_ignored(measure: Measure) -> None:
    """One try that lasts for the timeout, whatever is retried."""
    cases = [
        {"rule": {"timeout": "200ms", "retries": {"attempts": 3, "perTryTimeout": per_try, "retryOn": "5xx"}}}
        for per_try in ("200ms", "300ms")
    ]
    for taken in measure(*cases):
        assert (taken.status, taken.attempts) == (504, 1)
        _lasts(taken, 0.2)


def test_retries_are_two_unless_they_are_switched_off(measure: Measure) -> None:
    """No word about retries means Istio's two; `attempts: 0` and `retries: {}` mean none."""
    default, zero, empty = measure(
        {"rule": {"timeout": "2s"}, "door": "refuses"},
        {"rule": {"timeout": "2s", "retries": {"attempts": 0}}, "door": "refuses"},
        {"rule": {"timeout": "2s", "retries": {}}, "door": "refuses"},
    )
    assert [taken.attempts for taken in (default, zero, empty)] == [3, 1, 1]
    assert [taken.budget.attempts for taken in (default, zero, empty)] == [2, 0, 0]
    assert [taken.status for taken in (default, zero, empty)] == [503] * 3


def test_the_back_off_is_random_below_bounds_that_double_up_to_ten_times_the_base(measure: Measure) -> None:
    """Of sixty calls, each wait is below its bound, and the longest comes near it."""
    case = {
        "rule": {"retries": {"attempts": 6, "perTryTimeout": "5s", "retryOn": "5xx", "backoff": "60ms"}},
        "steps": [{"does": "answer", "status": 503}],
        "connect": 0.25,
    }
    calls = measure(*[case] * 60, within=0.5)
    bounds = [0.06, 0.12, 0.24, 0.48, 0.6, 0.6]
    waits = [[later - sooner for sooner, later in pairwise(taken.arrivals)] for taken in calls]
    for bound, waited in zip(bounds, zip(*waits, strict=True), strict=True):
        # Were it another bound, half or double, the mean of so many could not be here.
        assert 0.3 * bound < fmean(waited) < 0.7 * bound + 0.01, (bound, waited)
        assert 0.6 * bound < max(waited) < bound + _BUFFER, (bound, waited)
    for taken in calls:
        assert taken.seconds <= sum(bounds) + _BUFFER
        assert taken.total("tight") - 7 * (5.0 + 0.25) == pytest.approx(sum(bounds))


def test_a_refusal_that_comes_late_costs_its_try_in_full_and_is_within_the_ceiling(measure: Measure) -> None:
    """A server may think about a gRPC call, or an HTTP/2 stream, until its time is almost over, and then refuse."""
    refusals: list[dict[str, Any]] = [
        *({"does": "answer", "after": 0.35, "header": f"grpc-status: {status}"} for status in (1, 4, 8, 13, 14)),
        {"does": "refuse the stream", "after": 0.35},
    ]
    retry_on = "cancelled,deadline-exceeded,resource-exhausted,internal,unavailable,refused-stream"
    retries = {"attempts": 2, "perTryTimeout": "500ms", "backoff": "100ms", "retryOn": retry_on}
    cases = [
        {"rule": {"retries": retries}, "steps": [refusal, refusal, {"does": "say nothing"}], "connect": 0.08}
        for refusal in refusals
    ]
    for taken in measure(*cases * 3):
        assert (taken.status, taken.attempts) == (504, 3), taken
        _lasts(taken, 2 * 0.35 + 0.5, "ceiling")
        assert taken.total("ceiling") == pytest.approx(3 * (0.08 + 0.5) + 0.3)


def test_by_default_a_late_refusal_is_within_the_ceiling_and_not_within_tight(measure: Measure) -> None:
    """Istio's default retries `unavailable` and a refused stream, with 400 ms between two tries here."""
    retries = {"attempts": 1, "perTryTimeout": "300ms", "backoff": "400ms"}
    refusals: list[dict[str, Any]] = [
        {"does": "answer", "after": 0.2, "header": "grpc-status: 14"},
        {"does": "refuse the stream", "after": 0.2},
    ]
    cases = [
        {"rule": {"retries": retries}, "steps": [refusal, {"does": "say nothing"}], "connect": 0.05}
        for refusal in refusals
    ]
    calls = measure(*cases * 10)
    for taken in calls:
        assert (taken.status, taken.attempts) == (504, 2), taken
        _lasts(taken, 0.2 + 0.3, "ceiling")
        assert taken.total("ceiling") == pytest.approx(2 * (0.05 + 0.3) + 0.4)
        assert taken.total("tight") == pytest.approx(2 * 0.05 + 0.3 + 0.4)
    # `tight` takes the server at its word, which refuses at once as a rule. Two tries, and what is waited between them.
    assert max(taken.seconds for taken in calls) > calls[0].total("tight")
