"""VirtualService `retries` -> Envoy `RetryPolicy`. Pure; after Istio's retry.go (`ConvertPolicy`)."""

from __future__ import annotations

from typing import Any

from meshaware.testing.fields import Fields

__all__ = ["duration", "retry_policy"]

_BY_CODES = "retriable-status-codes"
_DEFAULT_ON = f"connect-failure,refused-stream,unavailable,cancelled,{_BY_CODES}"
_DEFAULT_ATTEMPTS = 2
_OTHER_HOSTS: dict[str, Any] = {
    "name": "envoy.retry_host_predicates.previous_hosts",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
    },
}


def duration(seconds: float) -> str:
    """Write seconds the way Envoy's JSON does."""
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def retry_policy(retries: Fields | None) -> dict[str, Any] | None:
    """
    Translate the `retries` of a rule; of an absent one Istio makes its default, of `attempts: 0` none at all.

    `attempts` counts the retries: the first try comes on top.
    """
    if retries is None:
        return _policy(_DEFAULT_ATTEMPTS)
    attempts = retries.integer("attempts") or 0
    per_try, on = retries.seconds("perTryTimeout"), retries.text("retryOn")
    back_off, ignore_previous = retries.seconds("backoff"), retries.flag("retryIgnorePreviousHosts")
    retries.finish()
    if attempts == 0:
        if per_try is not None or on is not None:
            retries.refuse("attempts", "with perTryTimeout or retryOn: Istio refuses a policy that retries never")
        return None
    policy = _policy(attempts)
    if on:
        policy |= _conditions(on)
    if per_try is not None:
        policy["per_try_timeout"] = duration(per_try)
    if back_off is not None:
        policy["retry_back_off"] = {"base_interval": duration(back_off)}
    if ignore_previous is False:
        del policy["retry_host_predicate"]
        del policy["host_selection_retry_max_attempts"]
    return policy


def _policy(attempts: int) -> dict[str, Any]:
    return {
        "retry_on": _DEFAULT_ON,
        "num_retries": attempts,
        "retry_host_predicate": [_OTHER_HOSTS],
        "host_selection_retry_max_attempts": 5,
    }


def _conditions(on: str) -> dict[str, Any]:
    words = [word.strip() for word in on.split(",") if word.strip()]
    codes = [int(word) for word in words if word.isdecimal()]
    names = [word for word in words if not word.isdecimal()]
    if not codes:
        return {"retry_on": ",".join(names)}
    if _BY_CODES not in names:
        names.append(_BY_CODES)
    return {"retry_on": ",".join(names), "retriable_status_codes": codes}
