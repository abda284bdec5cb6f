"""One VirtualService: its rules, the time they allow, and what Istio would refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from meshaware.budgets import Budget, Route, RouteTable
from meshaware.budgets.documents import read_documents
from meshaware.budgets.fields import Field
from meshaware.budgets.virtual_service import VirtualService, read_virtual_service
from meshaware.errors import ManifestError


def service(spec: str, metadata: str = "{name: inventory, namespace: shop}") -> VirtualService:
    (document,) = read_documents(f"metadata: {metadata}\nspec: {spec}\n", "routes.yaml")
    return read_virtual_service(Field(document.load(), document.place, document.line), "default")


def budget(rule: str) -> Budget:
    (read,) = service(f"{{hosts: [inventory], http: [{rule}]}}").rules
    return read.budget(None)


@pytest.mark.parametrize(
    ("rule", "allowed"),
    [
        # Istio retries twice where nothing is said, and never times out.
        ("{}", Budget(attempts=2)),
        ("{timeout: 3s}", Budget(timeout=3.0, attempts=2)),
        ("{timeout: , retries: , fault: }", Budget(attempts=2)),
        # Retries that are there and zero are switched off.
        ("{retries: {}}", Budget()),
        ("{retries: {attempts: 0}}", Budget()),
        ("{retries: {attempts: 0, retryOn: ''}}", Budget()),
        ("{retries: {attempts: 3}}", Budget(attempts=3)),
        (
            "{retries: {attempts: 2, perTryTimeout: 1s}, timeout: 3s}",
            Budget(timeout=3.0, attempts=2, per_try_timeout=1.0),
        ),
        (
            "{retries: {attempts: 1, retryOn: '5xx, reset,503,retriable-status-codes'}}",
            Budget(attempts=1, retry_on="5xx,reset,503"),
        ),
        ("{retries: {attempts: 1, retryOn: ''}}", Budget(attempts=1)),
        ("{retries: {attempts: 1, retryOn: retriable-status-codes}}", Budget(attempts=1, retry_on="")),
        ("{retries: {attempts: 1, backoff: 100ms, retryRemoteLocalities: true}}", Budget(attempts=1, backoff=0.1)),
        # Injected delays come on top, however rare they are.
        (
            "{timeout: 1s, fault: {delay: {fixedDelay: 5s, percentage: {value: 0.1}}}}",
            Budget(timeout=1.0, attempts=2, delay=5.0),
        ),
        ("{fault: {abort: {httpStatus: 500}}}", Budget(attempts=2)),
        ("{fault: {delay: {percentage: {value: 1}}}}", Budget(attempts=2)),
        # Envoy answers itself: nothing upstream is waited for.
        ("{redirect: {uri: /x}, timeout: 3s}", Budget()),
        ("{directResponse: {status: 503}, fault: {delay: {fixedDelay: 5s}}}", Budget(delay=5.0)),
        # Fields that are not about time do not matter.
        (
            "{timeout: 1s, mirror: {host: x}, rewrite: {uri: /}, route: [{destination: {host: x}}], new: 1}",
            Budget(timeout=1.0, attempts=2),
        ),
    ],
)
def test_the_time_that_a_rule_allows(rule: str, allowed: Budget) -> None:
    """By the facts of Istio's translation."""
    assert budget(rule) == allowed


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("{timeout: 0s}", "timeout: 0s: must be at least 1ms; leave it out to disable"),
        ("{timeout: 5}", "timeout: 5: must be a duration in text"),
        ("{retries: 3}", "retries: 3: must be a mapping"),
        ("{retries: {attempts: -1}}", "retries.attempts: -1: must be from 0 to 2147483647"),
        ("{retries: {attempts: '3'}}", "retries.attempts: 3: must be a whole number"),
        ("{retries: {attempts: 3, perTryTimeout: 0.5ms}}", "retries.perTryTimeout: 0.5ms: must be at least 1ms"),
        ("{retries: {perTryTimeout: 2s}}", "retries.perTryTimeout: 2s: needs attempts of at least 1"),
        ("{retries: {attempts: 0, retryOn: 5xx}}", "retries.retryOn: 5xx: needs attempts of at least 1"),
        (
            "{retries: {attempts: 0, retryRemoteLocalities: false}}",
            "retries.retryRemoteLocalities: false: needs attempts",
        ),
        (
            "{retries: {attempts: 1, retryOn: 503}}",
            "retries.retryOn: 503: must be a text; put the status code in quotes",
        ),
        ("{retries: {attempts: 1, retryOn: 5}}", "retries.retryOn: 5: must be a text; put it in quotes"),
        ("{retries: {attempts: 1, retryOn: on}}", "retries.retryOn: true: must be a text; put it in quotes"),
        (
            "{retries: {attempts: 1, retryOn: '5xx,sometimes'}}",
            "retries.retryOn: '5xx,sometimes': 'sometimes' is no condition of",
        ),
        ("{retries: {attempts: 1, retryOn: '42'}}", "retries.retryOn: 42: '42' is no condition of Envoy's"),
        ("{fault: {delay: {fixedDelay: 5}}}", "fault.delay.fixedDelay: 5: must be a duration in text"),
        ("{route: [], redirect: {}}", "spec.http[0]: a mapping: has route and redirect: must be one of route,"),
        ("{route: [], delegate: {name: x}}", "spec.http[0]: a mapping: has delegate and route: a rule that delegates"),
        ("{delegate: {namespace: x}}", "delegate.name: is missing: must be the name of a VirtualService"),
        ("{match: {uri: {prefix: /}}}", "match: a mapping: must be a list"),
        ("{name: 5}", "name: 5: must be a text"),
        ("5", "spec.http[0]: 5: must be a mapping"),
    ],
)
def test_a_rule_that_istio_refuses_is_refused(rule: str, said: str) -> None:
    """With file, document, line, path, value and rule."""
    with pytest.raises(ManifestError) as raised:
        budget(rule)
    assert said in str(raised.value)
    assert str(raised.value).startswith("routes.yaml, document 1, line 2: spec.http[0]")


@pytest.mark.parametrize(
    ("spec", "metadata", "said"),
    [
        ("{}", "{}", "line 1: metadata.name: is missing: must be the name of the VirtualService"),
        ("{}", "", "line 1: metadata: is missing: must have at least a name"),
        ("{}", "{name: 5}", "line 1: metadata.name: 5: must be a text; put it in quotes"),
        ("", "{name: x}", "line 1: spec: is missing: must have hosts and http rules"),
        ("[]", "{name: x}", "line 2: spec: a list: must be a mapping"),
        ("{hosts: inventory}", "{name: x}", "line 2: spec.hosts: inventory: must be a list"),
        ("{hosts: [http://inventory]}", "{name: x}", "spec.hosts[0]: http://inventory: must be a host name such as"),
        ("{hosts: ['inventory:80']}", "{name: x}", "spec.hosts[0]: inventory:80: must be a host name such as"),
        ("{hosts: ['']}", "{name: x}", "spec.hosts[0]: '': must be a host name such as"),
        ("{hosts: ['*shop']}", "{name: x}", "spec.hosts[0]: *shop: must have its star alone or as the first label"),
        ("{hosts: ['a.*']}", "{name: x}", "spec.hosts[0]: a.*: must have its star alone or as the first label"),
        ("{http: {}}", "{name: x}", "spec.http: a mapping: must be a list"),
        ("{exportTo: '*'}", "{name: x}", "spec.exportTo: *: must be a list"),
        ("{gateways: [1]}", "{name: x}", "spec.gateways[0]: 1: must be a text"),
        ("{}", "{name: x, creationTimestamp: 5}", "metadata.creationTimestamp: 5: must be a text"),
    ],
)
def test_a_document_that_istio_refuses_is_refused(spec: str, metadata: str, said: str) -> None:
    """Also above its rules."""
    with pytest.raises(ManifestError) as raised:
        service(spec, metadata)
    assert said in str(raised.value)


def test_what_a_document_says_of_itself() -> None:
    """A date may be quoted or not; without a namespace it is where the caller is."""
    read = service(
        "{hosts: [inventory, '*.eu'], gateways: [mesh], exportTo: ['.'], http: [{name: a}]}",
        "{name: inventory, creationTimestamp: 2024-01-02T03:04:05Z}",
    )
    assert read == service(
        "{hosts: [inventory, '*.eu'], gateways: [mesh], exportTo: ['.'], http: [{name: a}]}",
        "{name: inventory, namespace: default, creationTimestamp: '2024-01-02T03:04:05Z'}",
    )
    assert (read.namespace, read.created) == ("default", "2024-01-02T03:04:05Z")
    assert (read.hosts, read.gateways, read.export_to) == (("inventory", "*.eu"), ("mesh",), (".",))
    assert read.rules[0].label == "default/inventory[0]"
    assert read.rules[0].origin == "routes.yaml, document 1, line 2, spec.http[0]"


@pytest.mark.parametrize(
    ("exported", "own", "other"),
    [
        ("[]", True, True),
        ("['*']", True, True),
        ("['.']", True, False),
        ("['~']", False, False),
        ("[other]", False, True),
    ],
)
def test_whom_it_is_exported_to(exported: str, own: bool, other: bool) -> None:
    """Everywhere by default, `.` its own namespace, `~` nowhere."""
    read = service(f"{{exportTo: {exported}}}")
    assert (read.visible("shop"), read.visible("other")) == (own, other)


_MILLISECONDS = st.integers(1, 10_000_000)
_RETRY_ON = st.frozensets(
    st.sampled_from(["5xx", "reset", "gateway-error", "503", "connect-failure", "unavailable"]), min_size=1
)


@given(
    timeout=st.none() | _MILLISECONDS,
    retries=st.none()
    | st.fixed_dictionaries(
        {"attempts": st.integers(1, 50)},
        optional={"perTryTimeout": _MILLISECONDS, "retryOn": _RETRY_ON, "backoff": _MILLISECONDS},
    ),
    delay=st.none() | _MILLISECONDS,
)
def test_a_budget_that_is_written_as_a_manifest_is_read_back(
    timeout: int | None, retries: dict[str, Any] | None, delay: int | None
) -> None:
    """Through YAML, whatever the numbers."""
    rule: dict[str, Any] = {}
    wanted: dict[str, Any] = {"attempts": 2}
    if timeout is not None:
        rule["timeout"], wanted["timeout"] = f"{timeout}ms", timeout / 1000
    if retries is not None:
        rule["retries"] = written = dict(retries)
        wanted["attempts"] = retries["attempts"]
        for key, name in (("perTryTimeout", "per_try_timeout"), ("backoff", "backoff")):
            if key in retries:
                written[key], wanted[name] = f"{retries[key] / 1000:.3f}s", retries[key] / 1000
        if "retryOn" in retries:
            written["retryOn"] = ",".join(sorted(retries["retryOn"]))
            wanted["retry_on"] = retries["retryOn"]
    if delay is not None:
        rule["fault"], wanted["delay"] = {"delay": {"fixedDelay": f"{delay}ms"}}, delay / 1000
    assert budget(yaml.safe_dump(rule, default_flow_style=True, width=10**6).strip()) == Budget(**wanted)


def test_redirects_and_fixed_responses_are_routes_without_an_upstream(read: Callable[..., RouteTable]) -> None:
    """They say so, and bound nothing."""
    routes = read("""
        apiVersion: networking.istio.io/v1
        kind: VirtualService
        metadata: {name: x}
        spec:
          hosts: [x]
          http:
          - {match: [{uri: {exact: /old}}], redirect: {uri: /new}}
          - {match: [{uri: {exact: /no}}], directResponse: {status: 404}}
          - {route: [{destination: {host: x}}]}
    """)
    routed: list[Route] = [route for path in ("/old", "/no", "/") if (route := routes.match("GET", f"http://x{path}"))]
    assert [route.action for route in routed] == ["redirect", "direct_response", "route"]
    assert [route.budget.total() for route in routed] == [None, None, None]


def test_a_route_is_named_as_envoy_names_it(read: Callable[..., RouteTable]) -> None:
    """By the rule and the element of `match`; after the VirtualService where the rule has no name."""
    routes = read(
        """
        apiVersion: networking.istio.io/v1
        kind: VirtualService
        metadata: {name: x, namespace: shop}
        spec:
          hosts: [x]
          http:
          - name: rule
            match: [{name: a, uri: {exact: /a}}, {uri: {exact: /b}}]
          - match: [{uri: {exact: /c}}]
    """,
        namespace="shop",
    )
    found = [routes.match("GET", f"http://x/{path}") for path in "abc"]
    assert [route and route.name for route in found] == ["rule.a", "rule", "shop/x[1]"]
    assert routes.match("GET", "http://x/d") is None
