"""Routes of Envoy's own configuration: the time they allow, and what they are called."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaware.budgets import Budget
from meshaware.budgets.envoy_json import Message
from meshaware.budgets.envoy_route import Clusters, HostReader
from meshaware.budgets.route import VirtualHost
from meshaware.errors import ConfigDumpError

_FAULT = "envoy.filters.http.fault"


def virtual_host(
    fields: dict[str, Any],
    *,
    delay: float = 0.0,
    clusters: Clusters | None = None,
    connect_timeout: float | None = None,
) -> VirtualHost:
    message = Message({"name": "inventory.shop.svc.cluster.local:8080", "domains": ["inventory"], **fields}, "host")
    reader = HostReader(clusters or {}, connect_timeout)
    hosts = reader.hosts()
    reader.read(hosts, message, "8080", delay)
    return hosts[0]


def budget(
    sent: dict[str, Any], host: dict[str, Any] | None = None, route: dict[str, Any] | None = None, **more: Any
) -> Budget:
    routes = [{"match": {"prefix": "/"}, "route": sent, **(route or {})}]
    (entry,) = virtual_host({**(host or {}), "routes": routes}, **more).entries
    return entry.route.budget


def fault(seconds: str, *, wrapped: bool = False) -> dict[str, Any]:
    delay = {"delay": {"fixed_delay": seconds}}
    return {"typed_per_filter_config": {"other": {"delay": 1}, _FAULT: {"config": delay} if wrapped else delay}}


ISTIO = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"


@pytest.mark.parametrize(
    ("sent", "allowed"),
    [
        ({"timeout": "2.500s"}, Budget(timeout=2.5)),
        ({"timeout": "0s"}, Budget()),
        ({}, Budget(timeout=15.0)),  # Envoy's own default
        ({"timeout": "0s", "retry_policy": {"retry_on": ISTIO, "num_retries": 2}}, Budget(attempts=2)),
        (
            {"timeout": "0s", "retry_policy": {"retry_on": ISTIO, "num_retries": 2, "retriable_status_codes": [503]}},
            Budget(attempts=2, retry_on=f"{ISTIO.removesuffix(',retriable-status-codes')},503"),
        ),
        ({"timeout": "3s", "retry_policy": {"retry_on": "5xx", "per_try_timeout": "1s"}}, Budget(3.0, 1, 1.0, {"5xx"})),
        (
            {"timeout": "3s", "retryPolicy": {"retryOn": "5xx", "perTryTimeout": "0s", "numRetries": 4}},
            Budget(3.0, 4, None, {"5xx"}),
        ),
        ({"timeout": "3s", "retry_policy": {"retry_on": "5xx", "num_retries": 0}}, Budget(3.0)),
        (
            {"timeout": "3s", "retry_policy": {"num_retries": 3, "per_try_timeout": "1s"}},
            Budget(3.0, per_try_timeout=1.0),
        ),
        (
            {"timeout": "3s", "retry_policy": {"retry_on": "reset", "retriable_status_codes": [503]}},
            Budget(3.0, 1, None, {"reset"}),
        ),
        (
            {"timeout": "3s", "retry_policy": {"retry_on": "5xx", "retry_back_off": {"base_interval": "0.1s"}}},
            Budget(3.0, 1, None, {"5xx"}, backoff=0.1),
        ),
        (
            {"timeout": "3s", "retry_policy": {"retry_on": "5xx", "retry_back_off": {"max_interval": "2s"}}},
            Budget(3.0, 1, None, {"5xx"}, backoff=0.2),
        ),
        (
            {
                "timeout": "3s",
                "retry_policy": {"retry_on": "5xx", "rate_limited_retry_back_off": {"reset_headers": []}},
            },
            Budget(3.0, 1, None, {"5xx"}, backoff=300.0),
        ),
        (
            {
                "timeout": "3s",
                "retry_policy": {"retry_on": "5xx", "rate_limited_retry_back_off": {"max_interval": "7s"}},
            },
            Budget(3.0, 1, None, {"5xx"}, backoff=7.0),
        ),
        ({"timeout": "0s", "max_stream_duration": {"max_stream_duration": "4s"}}, Budget(4.0)),
        ({"timeout": "3s", "max_stream_duration": {"max_stream_duration": "4s"}}, Budget(3.0)),
        ({"timeout": "5s", "max_stream_duration": {"max_stream_duration": "4s"}}, Budget(4.0)),
        (
            {"timeout": "5s", "max_stream_duration": {"max_stream_duration": "0s", "grpc_timeout_header_max": "0s"}},
            Budget(5.0),
        ),
        ({"timeout": "5s", "internal_redirect_policy": {}, "retry_policy": {"per_try_timeout": "1s"}}, Budget()),
        (
            {
                "timeout": "0s",
                "hedge_policy": {"hedge_on_per_try_timeout": True},
                "retry_policy": {"retry_on": "5xx", "per_try_timeout": "1s"},
            },
            Budget(None, 1, None, {"5xx"}),
        ),
        (
            {
                "timeout": "9s",
                "hedge_policy": {"hedge_on_per_try_timeout": True},
                "retry_policy": {"retry_on": "5xx", "per_try_timeout": "1s"},
            },
            Budget(9.0, 1, 1.0, {"5xx"}),
        ),
        ({"timeout": "1s", "weighted_clusters": {"clusters": [{"name": "a", "weight": 1}]}}, Budget(1.0)),
        (
            {"timeout": "1s", "weighted_clusters": {"clusters": [{"name": "a", **fault("2s")}, {"name": "b"}]}},
            Budget(1.0, delay=2.0),
        ),
    ],
)
def test_the_time_that_a_route_allows(sent: dict[str, Any], allowed: Budget) -> None:
    """Never shorter than what Envoy may take by it."""
    assert budget(sent) == allowed


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ({"timeout": "9" * 30 + "s"}, "timeout: 1e+30: must be finite"),
        (
            {"retry_policy": {"retry_on": "5xx", "num_retries": 1 << 40}},
            "attempts: 1099511627776: must be a number of retries",
        ),
        ({"retry_policy": {"retry_on": "5xx", "num_retries": -1}}, "attempts: -1: must be a number of retries"),
    ],
)
def test_a_number_that_envoy_cannot_have_is_refused(sent: dict[str, Any], said: str) -> None:
    """With its place in the dump."""
    with pytest.raises(ConfigDumpError) as raised:
        budget(sent)
    assert str(raised.value).startswith(f"host.routes[0].route: {said}")


def test_what_the_virtual_host_says_holds_where_the_route_says_nothing() -> None:
    """Of retries and hedging."""
    host = {
        "retry_policy": {"retry_on": "5xx", "num_retries": 5, "per_try_timeout": "1s"},
        "hedge_policy": {"hedge_on_per_try_timeout": True},
    }
    assert budget({"timeout": "3s"}, host) == Budget(3.0, 5, 1.0, {"5xx"})
    assert budget({"timeout": "0s"}, host).total() is None
    own = {"timeout": "3s", "retry_policy": {"retry_on": "reset"}}
    assert budget(own, host) == Budget(3.0, 1, None, {"reset"})


def test_the_longest_injected_delay_counts() -> None:
    """Of the route, its virtual host and its route configuration."""
    assert budget({"timeout": "1s"}, fault("2s"), fault("3s", wrapped=True), delay=1.0).delay == 3.0
    assert budget({"timeout": "1s"}, fault("4s"), fault("3s")).delay == 4.0
    assert budget({"timeout": "1s"}, delay=5.0).delay == 5.0
    assert budget({"timeout": "1s"}, route={"typed_per_filter_config": {_FAULT: {"abort": {}}}}).delay == 0.0


def test_the_connect_timeout_is_that_of_the_slowest_cluster() -> None:
    """Of those that are known; else what the caller said."""
    clusters = {"a": 1.0, "b": 10.0}
    both = {"timeout": "0s", "weighted_clusters": {"clusters": [{"name": "a"}, {"name": "b"}]}}
    assert budget(both, clusters=clusters).connect_timeout == 10.0
    assert budget({"timeout": "0s", "cluster": "a"}, clusters=clusters).connect_timeout == 1.0
    assert budget({"timeout": "0s", "cluster": "c"}, clusters=clusters).connect_timeout is None
    assert budget({"timeout": "0s", "cluster": "c"}, clusters=clusters, connect_timeout=7.0).connect_timeout == 7.0


@pytest.mark.parametrize(
    ("fields", "name", "origin"),
    [
        ({"name": "default"}, "default", "sidecar: route configuration 8080"),
        ({}, "inventory.shop.svc.cluster.local:8080", "sidecar: route configuration 8080"),
        (
            {
                "metadata": {
                    "filter_metadata": {
                        "istio": {"config": "/apis/networking.istio.io/v1/namespaces/shop/virtual-service/inventory"}
                    }
                }
            },
            "shop/inventory",
            "sidecar: VirtualService shop/inventory",
        ),
        (
            {
                "name": "premium",
                "metadata": {
                    "filterMetadata": {
                        "other": {},
                        "istio": {
                            "config": "/apis/networking.istio.io/v1alpha3/namespaces/shop/virtual-service/inventory"
                        },
                    }
                },
            },
            "premium",
            "sidecar: VirtualService shop/inventory",
        ),
        (
            {"metadata": {"filter_metadata": {"istio": {"config": "elsewhere"}}}},
            "inventory.shop.svc.cluster.local:8080",
            "sidecar: route configuration 8080",
        ),
        ({"metadata": {}}, "inventory.shop.svc.cluster.local:8080", "sidecar: route configuration 8080"),
    ],
)
def test_a_route_is_named_after_what_it_was_made_from(fields: dict[str, Any], name: str, origin: str) -> None:
    """Its own name first."""
    (entry,) = virtual_host({"routes": [{"match": {"prefix": "/"}, "route": {"timeout": "1s"}, **fields}]}).entries
    assert (entry.route.name, entry.route.origin) == (name, origin)
    assert entry.route.host == "inventory.shop.svc.cluster.local:8080"


@pytest.mark.parametrize(
    ("fields", "action"),
    [
        ({"redirect": {"https_redirect": True}}, "redirect"),
        ({"direct_response": {"status": 502}}, "direct_response"),
        ({"non_forwarding_action": {}}, "route"),
        ({}, "route"),
    ],
)
def test_what_envoy_answers_itself_bounds_nothing(fields: dict[str, Any], action: str) -> None:
    """Nothing upstream is waited for."""
    (entry,) = virtual_host({"routes": [{"name": "x", "match": {"prefix": "/"}, **fields}]}).entries
    assert (entry.route.action, entry.route.budget) == (action, Budget())


def test_a_virtual_host_that_wants_tls_redirects_every_plain_call() -> None:
    """Before it looks at its routes."""
    host = virtual_host({"require_tls": "ALL", "routes": [{"match": {"prefix": "/"}, "route": {}}]})
    (entry,) = host.entries
    assert (entry.route.action, entry.route.name, entry.match.doubt) == ("redirect", host.name, "")
    assert len(virtual_host({"require_tls": "NONE", "routes": []}).entries) == 0


def test_a_tree_of_matchers_is_not_evaluated() -> None:
    """No bound is assumed for what it chooses."""
    (entry,) = virtual_host({"matcher": {"matcher_tree": {}}}).entries
    assert entry.route.budget == Budget()
    assert "a tree of matchers" in entry.match.doubt


_MATCHES = st.sampled_from([{"prefix": "/"}, {"path": "/x"}, {"prefix": "/", "headers": [{"name": "a"}]}])
_SENT = st.fixed_dictionaries(
    {"timeout": st.sampled_from(["0s", "1s", "2s"])},
    optional={
        "cluster": st.sampled_from(["c1", "c2", "c3"]),
        "retry_policy": st.sampled_from([{"retry_on": "5xx", "per_try_timeout": "1s"}, {"retry_on": "5xx"}]),
        "weighted_clusters": st.just({"clusters": [{"name": "c1", **fault("1s")}, {"name": "c3"}]}),
        "hedge_policy": st.just({"hedge_on_per_try_timeout": True}),
    },
)
_ANSWERS: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [{"redirect": {}}, {"direct_response": {"status": 200}}, {}]
)
_OWNERS = st.sampled_from(["a", "b"]).map(
    lambda name: {
        "filter_metadata": {"istio": {"config": f"/apis/x/namespaces/shop/virtual-service/{name}"}, "other": {}}
    }
)
_ROUTES: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"match": _MATCHES},
    optional={
        "name": st.sampled_from(["one", "two"]),
        "metadata": _OWNERS,
        "decorator": st.just({"operation": "x"}),
        "typed_per_filter_config": st.just(fault("2s")["typed_per_filter_config"]),
    },
)
_SENDS: st.SearchStrategy[dict[str, Any]] = _SENT.map(lambda sent: {"route": sent})
_WHOLE: st.SearchStrategy[dict[str, Any]] = st.tuples(_ROUTES, _SENDS | _ANSWERS).map(lambda both: both[0] | both[1])
_NAMED: dict[str, st.SearchStrategy[Any]] = {
    "name": st.sampled_from(["h1", "h2"]),
    "domains": st.just(["*"]),
    "routes": st.lists(_WHOLE, max_size=4),
}
_ABOVE: dict[str, st.SearchStrategy[Any]] = {
    "retry_policy": st.just({"retry_on": "reset", "num_retries": 3}),
    "typed_per_filter_config": st.just(fault("3s")["typed_per_filter_config"]),
    "hedge_policy": st.just({"hedge_on_per_try_timeout": True}),
}
_HOSTS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(_NAMED, optional=_ABOVE)


@given(
    st.lists(_HOSTS, max_size=6),
    st.sampled_from([0.0, 4.0]),
    st.sampled_from([{}, {"c1": 1.0}, {"c1": 1.0, "c3": 3.0}]),
    st.sampled_from([None, 9.0]),
)
def test_what_was_read_before_makes_no_difference(
    hosts: list[dict[str, Any]], delay: float, clusters: Clusters, connect_timeout: float | None
) -> None:
    """Whatever is remembered, each host says what it says alone."""
    together, apart = HostReader(clusters, connect_timeout), set[str]()
    all_of_them = together.hosts()
    for number, host in enumerate(hosts):
        text = json.dumps(host)
        alone = HostReader(clusters, connect_timeout)
        one = alone.hosts()
        together.read(all_of_them, Message(json.loads(text), "host"), "8080", delay)
        alone.read(one, Message(json.loads(text), "host"), "8080", delay)
        assert all_of_them[number] == one[0]
        apart |= alone.timed
    assert together.timed == apart


@pytest.mark.parametrize(
    ("route", "said"),
    [
        ({"name": 1}, "host.routes[0].name: 1: must be text"),
        ({"route": {"cluster": []}}, "host.routes[0].route.cluster: a list: must be text"),
        ({"metadata": "x"}, "host.routes[0].metadata: 'x': must be an object"),
        ({"route": 1}, "host.routes[0].route: 1: must be an object"),
    ],
)
def test_names_are_checked_too(route: dict[str, Any], said: str) -> None:
    """Though nothing is computed from them."""
    with pytest.raises(ConfigDumpError) as raised:
        virtual_host({"routes": [route]})
    assert str(raised.value) == said
