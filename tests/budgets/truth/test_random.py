"""
Random routes and upstreams: no call takes longer than was said, and those that can take as long as was said do.

`TRUTH_CASES` asks for more cases than the usual few and `TRUTH_SEED` for others; `pytest -s` shows how near they came.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import pytest

_CASES = int(os.environ.get("TRUTH_CASES") or 150)
_SEED = int(os.environ.get("TRUTH_SEED") or 4)
# So many calls run beside each other, and begin over so many seconds: they mostly wait, but not only.
_TOGETHER, _WITHIN = 150, 3.0

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(60 + _CASES // 5)]

# How late Envoy may be woken up, all timers of one call together.
_LATE = 0.03
# How near a bound is to a call that nothing ends before.
_SHARE, _MARGIN = 0.1, 0.05
_AGAIN = 3

_LATE_RETRIES = ("5xx", "gateway-error", "reset")
_OTHER_RETRIES = (
    "connect-failure",
    "refused-stream",
    "unavailable",
    "cancelled",
    "retriable-4xx",
    "reset-before-request",
    "503",
    "409",
)


def _ms(dice: random.Random, low: int, high: int) -> str:
    return f"{dice.randint(low, high)}ms"


def _rule(dice: random.Random) -> dict[str, Any]:
    """Any combination of fields that bounds a call."""
    rule: dict[str, Any] = {}
    if dice.random() < 0.55:
        rule["timeout"] = _ms(dice, 50, 400)
    retries: dict[str, Any] = {"attempts": dice.randint(0, 3)}
    if retries["attempts"]:
        if "timeout" not in rule or dice.random() < 0.5:
            retries["perTryTimeout"] = _ms(dice, 50, 250)
        if dice.random() < 0.7:
            names = dice.sample((*_LATE_RETRIES, *_OTHER_RETRIES), dice.randint(1, 3))
            retries["retryOn"] = ",".join(names)
        if dice.random() < 0.5:
            retries["backoff"] = _ms(dice, 1, 60)
    elif "timeout" not in rule:
        rule["timeout"] = _ms(dice, 50, 400)
    if dice.random() < 0.9:
        rule["retries"] = retries if retries["attempts"] or dice.random() < 0.5 else {}
    elif "timeout" not in rule:
        rule["timeout"] = _ms(dice, 50, 400)
    return rule


def _delayed(dice: random.Random, rule: dict[str, Any]) -> dict[str, Any]:
    if dice.random() < 0.2:
        rule["fault"] = {"delay": {"fixedDelay": _ms(dice, 20, 150), "percentage": {"value": 100}}}
    return rule


def _step(dice: random.Random, *, dribbles: bool) -> dict[str, Any]:
    does = dice.choice(("say nothing", "answer", "answer", "answer", "close", "reset", "dribble"))
    after = dice.choice((0.0, dice.uniform(0.0, 0.3)))
    if does == "answer":
        status = dice.choice((200, 404, 409, 500, 503, 503, 504))
        refusal = {"header": f"grpc-status: {dice.choice((1, 4, 8, 13, 14))}"} if dice.random() < 0.1 else {}
        return {"does": does, "after": after, "status": status, **refusal}
    if does == "dribble":
        return {"does": does, "after": after, "lasts": dice.uniform(0.1, 0.6) if dribbles else 0.0}
    return {"does": does, "after": after}


def _mixed(dice: random.Random) -> dict[str, Any]:
    """Any rule, before an upstream that may do anything, and something else at each try."""
    rule = _rule(dice)
    # Without a timeout nothing bounds a body: that is a rule of its own.
    steps = [_step(dice, dribbles="timeout" in rule) for _ in range(dice.randint(1, 4))]
    case: dict[str, Any] = {"rule": _delayed(dice, rule), "connect": dice.uniform(0.05, 0.3), "steps": steps}
    match dice.randrange(20):
        case 0:
            case["door"] = "refuses"
        case 1:
            case["door"] = "full"
        case 2 | 3 | 4 | 5:
            case["shakes"] = [dice.choice((0.0, math.inf, dice.uniform(0.0, 0.3))) for _ in range(dice.randint(1, 4))]
        case _:
            pass
    if dice.random() < 0.05:
        case |= {"steps": [{"does": "refuse the stream", "after": dice.uniform(0.0, 0.2)}], "shakes": ()}
    return case


def _reaching(dice: random.Random) -> dict[str, Any]:
    """A rule whose bound, whichever it is, its upstream makes Envoy use up: it says nothing, or never ends."""
    attempts = dice.randint(1, 3)
    timeout, retried = dice.randint(60, 400), dice.choice(_LATE_RETRIES)
    retries: dict[str, Any] = {"attempts": attempts, "retryOn": retried, "backoff": "1ms"}
    case: dict[str, Any] = {"rule": {"timeout": f"{timeout}ms"}, "steps": [{"does": "say nothing"}]}
    match dice.randrange(8):
        case 0:
            case["rule"]["retries"] = {**retries, "perTryTimeout": f"{timeout + dice.randint(0, 100)}ms"}
        case 1:
            case["rule"]["retries"] = {**retries, "perTryTimeout": f"{timeout // (attempts + 1) + 1}ms"}
        case 2:
            case["steps"] = [{"does": "dribble", "after": dice.uniform(0.0, timeout / 2000), "lasts": 1.0}]
        case 3:
            case |= {"door": "full", "connect": 0.6}
        case 4:
            # Handshakes that just succeed, each followed by a try that uses its time.
            connect = dice.uniform(0.1, 0.15)
            case |= {"connect": connect, "shakes": [0.8 * connect]}
            case["rule"] = {"retries": {**retries, "perTryTimeout": _ms(dice, 150, 250)}}
        case 5:
            # Connections that are never made until the last, whose try is not repeated.
            connect = dice.uniform(0.1, 0.2)
            case |= {"connect": connect, "shakes": [*[math.inf] * attempts, 0.8 * connect]}
            retries["retryOn"] = "connect-failure,refused-stream"
            case["rule"] = {"retries": {**retries, "perTryTimeout": _ms(dice, 50, 250)}}
        case 6:
            # Refusals when a try's time is almost over, under Istio's default, until the last try gets no answer.
            per_try = dice.randint(440, 500)
            refusal = dice.choice(({"does": "answer", "header": "grpc-status: 14"}, {"does": "refuse the stream"}))
            late = {**refusal, "after": per_try / 1000 - 0.05}
            case |= {"connect": 0.02, "steps": [*[late] * attempts, {"does": "say nothing"}]}
            del retries["retryOn"]
            case["rule"] = {"retries": {**retries, "perTryTimeout": f"{per_try}ms"}}
        case _:
            pass
    _delayed(dice, case["rule"])
    return case


def _cases() -> list[tuple[bool, dict[str, Any]]]:
    dice = random.Random(_SEED)
    return [(reaches, (_reaching if reaches else _mixed)(dice)) for reaches in (n % 3 == 0 for n in range(_CASES))]


def _policies(case: Mapping[str, Any]) -> Sequence[Literal["ceiling", "tight"]]:
    """`tight` takes a server at its word that refuses: it does so at once."""
    refuses = any(step["does"] == "refuse the stream" or "header" in step for step in case["steps"])
    return ("ceiling",) if refuses else ("ceiling", "tight")


def _wrong(taken: Any, *, reaches: bool) -> str:
    """What is wrong with a call's time, if anything is."""
    for policy in _policies(taken.case):
        if taken.seconds > taken.total(policy) + _LATE:
            return f"took {taken.seconds:.3f} s, longer than the {policy} bound of {taken.total(policy):.3f} s"
    bound = taken.total(_policies(taken.case)[-1])
    if reaches and taken.seconds < bound * (1 - _SHARE) - _MARGIN:
        return f"took {taken.seconds:.3f} s, far from the bound of {bound:.3f} s that it should reach"
    return ""


def test_no_call_takes_longer_than_was_said(running: Callable[..., Any]) -> None:
    """Under either policy; and the tight bound is near what a call takes that nothing ends before."""
    drawn = _cases()
    least, latest, behind = {"ceiling": math.inf, "tight": math.inf}, 0.0, 0.0
    repeated: list[str] = []

    async def judge(batch: Sequence[tuple[bool, dict[str, Any]]]) -> list[Any]:
        async with running([case for _, case in batch]) as mesh:
            calls: list[Any] = await mesh.measure(range(len(batch)), within=_WITHIN)
            for number, (reaches, _) in enumerate(batch):
                # A busy machine is late once; what is wrong is wrong each time.
                for _ in range(_AGAIN):
                    wrong = _wrong(calls[number], reaches=reaches)
                    if not wrong:
                        break
                    repeated.append(wrong)
                    (calls[number],) = await mesh.measure([number])
                wrong = _wrong(calls[number], reaches=reaches)
                assert not wrong, f"TRUTH_SEED={_SEED} TRUTH_CASES={_CASES}: {wrong}: {calls[number]}"
            return calls

    for first in range(0, len(drawn), _TOGETHER):
        for taken in asyncio.run(judge(drawn[first : first + _TOGETHER])):
            behind = max(behind, taken.client - taken.seconds if taken.whole else 0.0)
            for policy in _policies(taken.case):
                least[policy] = min(least[policy], taken.total(policy) / max(taken.seconds, 0.001))
                latest = max(latest, taken.seconds - taken.total(policy))
    ratios = ", ".join(f"{policy} {ratio:.3f}" for policy, ratio in least.items())
    late = f"{latest * 1000:.0f} ms late at most, the client {behind * 1000:.0f} ms later"
    sys.stdout.write(f"{len(drawn)} cases: said / taken at least {ratios}; {late}; repeated: {repeated}\n")
