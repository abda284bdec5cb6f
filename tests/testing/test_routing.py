"""What real Envoys do with the routes that LocalMesh renders: the oracle for everything that reads the same YAML."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

pytestmark = pytest.mark.envoy


def test_a_call_goes_through_both_sidecars_to_the_application(shop: Any) -> None:
    """The caller's answer is marked by its own sidecar; the callee sees Istio's request headers."""
    answer = shop.call("/plain")
    assert (answer.status, answer.headers["server"]) == (200, "envoy")
    assert int(answer.headers["x-envoy-upstream-service-time"]) >= 0
    assert answer.seen["headers"]["x-envoy-attempt-count"] == "1"
    assert answer.seen["headers"]["x-forwarded-proto"] == "http"
    assert uuid.UUID(answer.seen["headers"]["x-request-id"]).version == 4


def test_the_inbound_listener_calls_itself_istio_envoy(shop: Any, get: Any) -> None:
    answer = get(shop.inventory.sidecar.inbound_url, "inventory")
    assert (answer.status, answer.headers["server"]) == (200, "istio-envoy")


def test_an_incoming_request_id_is_kept(shop: Any) -> None:
    """As behind a sidecar, which is no edge."""
    answer = shop.call("/plain", headers={"x-request-id": "not-a-uuid"})
    assert answer.seen["headers"]["x-request-id"] == "not-a-uuid"


@pytest.mark.parametrize(
    "host",
    [
        "inventory",
        "inventory:8080",
        "inventory.default",
        "inventory.default.svc.cluster.local.",
        "INVENTORY.default.svc",
    ],
)
def test_a_service_is_reached_by_every_name_that_istio_gives_it(shop: Any, host: str) -> None:
    assert shop.call("/plain", host=host).seen["by"] == "v1"


def test_from_another_namespace_the_short_name_means_nothing(shop: Any, get: Any) -> None:
    outbound = shop.stranger.sidecar.outbound_url
    assert get(outbound, "inventory").status == 502
    assert get(outbound, "inventory.default").status == 200


def test_a_request_target_with_a_host_is_understood_as_by_a_proxy(shop: Any) -> None:
    """And wins over the `Host` header."""
    answer = shop.call("http://inventory:8080/plain?a=1", host="wrong.example")
    assert (answer.seen["path"], answer.seen["headers"]["host"]) == ("/plain", "inventory:8080")


def test_a_host_outside_the_mesh_is_answered_502_without_being_looked_up(shop: Any) -> None:
    """As with Istio's REGISTRY_ONLY."""
    answer = shop.call("/", host="www.example.com")
    assert (answer.status, answer.body) == (502, b"")


def test_a_loopback_address_is_passed_through(shop: Any) -> None:
    """As with Istio's ALLOW_ANY, and no further."""
    assert shop.call("/plain", host=shop.inventory.app_address).seen["by"] == "v1"


def test_a_timeout_ends_the_call_with_504(shop: Any) -> None:
    answer = shop.call("/wait/2")
    assert (answer.status, answer.body) == (504, b"upstream request timeout")
    assert 0.28 < answer.seconds < 1.6


def test_without_a_timeout_the_mesh_waits(shop: Any) -> None:
    """There is no default of Envoy's left: only the route says how long."""
    assert shop.call("/other").status == 200
    entry = shop.tester.sidecar.admin("/config_dump?resource=dynamic_route_configs").decode()
    assert '"timeout": "0s"' in entry


@pytest.mark.parametrize(
    ("case", "path", "status", "tries"),
    [
        ("retry-5xx", "/fail/9/500", 500, [1, 2, 3, 4]),
        ("retry-5xx", "/fail/2/500", 200, [1, 2, 3]),
        ("retry-codes", "/fail/9/503", 503, [1, 2, 3]),
        ("retry-codes", "/fail/9/500", 500, [1]),
        ("no-retries", "/fail/9/503", 503, [1]),
        ("default", "/fail/9/503", 503, [1]),
    ],
)
def test_attempts_are_retries_and_come_on_top_of_the_first_try(
    shop: Any, case: str, path: str, status: int, tries: list[int]
) -> None:
    """Counted where they arrive."""
    name = uuid.uuid4().hex
    answer = shop.call(path, headers={"x-case": case, "x-request-id": name})
    assert (answer.status, shop.v1.tries(name)) == (status, tries)


@pytest.mark.parametrize(("case", "tries", "least"), [("per-try-5xx", [1, 2, 3], 0.28), ("per-try-default", [1], 0.08)])
def test_a_per_try_timeout_is_retried_only_where_retry_on_says_5xx(
    shop: Any, case: str, tries: list[int], least: float
) -> None:
    """With Istio's default retryOn it is a shorter timeout and nothing else."""
    name = uuid.uuid4().hex
    answer = shop.call("/", headers={"x-case": case, "x-request-id": name})
    assert (answer.status, shop.v1.tries(name)) == (504, tries)
    assert least < answer.seconds < 1.6


def test_a_header_chooses_the_version(shop: Any) -> None:
    assert shop.call("/plain", headers={"x-user-type": "premium"}).seen["by"] == "v2"
    assert shop.call("/plain", headers={"x-user-type": "premium plus"}).seen["by"] == "v1"


def test_weights_divide_the_calls(shop: Any) -> None:
    """And what is set on one destination happens there only."""
    answers = [shop.call("/weighted") for _ in range(60)]
    assert {answer.seen["by"] for answer in answers} == {"v1", "v2"}
    assert all((answer.headers.get("x-side") == "right") == (answer.seen["by"] == "v2") for answer in answers)
    assert {shop.call("/one-sided").seen["by"] for _ in range(10)} == {"v2"}


def test_a_delay_comes_before_the_timeout_and_is_not_part_of_it(shop: Any) -> None:
    answer = shop.call("/delay")
    assert answer.status == 200
    assert 0.28 < answer.seconds < 1.6


def test_an_abort_is_answered_by_the_sidecar(shop: Any) -> None:
    answer = shop.call("/abort")
    assert (answer.status, answer.body) == (418, b"fault filter abort")
    assert shop.call("/abort/never").status == 200


def test_a_redirect_and_a_direct_response(shop: Any) -> None:
    moved, teapot = shop.call("/old"), shop.call("/teapot")
    assert (moved.status, moved.headers["location"]) == (308, "http://elsewhere/new")
    assert (teapot.status, teapot.body) == (418, b"short and stout")


def test_rewrites_and_header_operations(shop: Any) -> None:
    answer = shop.call("/shelf/7?a=1", headers={"x-secret": "s", "x-set": "0"})
    seen = answer.seen
    assert (seen["path"], seen["query"], seen["headers"]["host"]) == ("/7", "a=1", "warehouse")
    assert (seen["headers"]["x-set"], seen["headers"]["x-added"]) == ("1", "2")
    assert "x-secret" not in seen["headers"]
    assert answer.headers["x-answered"] == "yes"
    assert "x-upstream" not in answer.headers
    assert shop.call("/item/42").seen["path"] == "/number/42"


def test_a_mirror_receives_a_copy_and_the_caller_does_not_notice(shop: Any, wait_for: Any) -> None:
    name = uuid.uuid4().hex
    assert shop.call("/mirrored", headers={"x-request-id": name}).seen["by"] == "v1"
    assert wait_for(lambda: shop.v2.tries(name)) == [1]


def test_a_subset_that_does_not_exist_is_503_without_a_body(shop: Any) -> None:
    answer = shop.call("/no-such-subset")
    assert (answer.status, answer.body) == (503, b"")


def test_a_service_whose_application_is_not_there_is_503(shop: Any) -> None:
    """Its port refuses, as a pod's does; the caller's sidecar gets that from the callee's."""
    answer = shop.call("/", host="nobody-home")
    assert answer.status == 503
    assert b"connection failure" in answer.body


def test_a_path_that_no_rule_matches_is_404(shop: Any) -> None:
    """A VirtualService without a catch-all has no route for the rest; its host need not be a service."""
    host = "one-page.default.svc.cluster.local"
    assert shop.call("/page", host=host).status == 200
    answer = shop.call("/other", host=host)
    assert (answer.status, answer.body) == (404, b"")


@pytest.mark.parametrize(
    ("path", "more", "matches"),
    [
        ("/from-tester", {}, True),
        ("/from-shop", {}, False),
        ("/without", {}, True),
        ("/without", {"headers": {"x-skip": ""}}, False),
        ("/without-value", {}, True),
        ("/without-value", {"headers": {"x-skip": "no"}}, True),
        ("/without-value", {"headers": {"x-skip": "yes"}}, False),
        ("/query?page=12&deep", {}, True),
        ("/query?page=12&deep=1", {}, True),
        ("/query?page=12", {}, False),
        ("/query?page=x&deep", {}, False),
        ("/case/1", {"method": "PUT"}, True),
        ("/case/1", {"method": "POST"}, False),
        ("/case/1", {"method": "PUT", "host": "INVENTORY.default"}, False),
        ("/any-value", {"headers": {"x-any": "thing"}}, True),
        ("/any-value", {}, False),
    ],
)
def test_conditions_of_a_match(shop: Any, path: str, more: dict[str, Any], matches: bool) -> None:
    """All of one entry have to hold."""
    assert (shop.call(path, **more).status in {201, 203}) == matches


def test_the_source_of_a_call_is_decided_for_each_sidecar(shop: Any, get: Any) -> None:
    outbound = shop.stranger.sidecar.outbound_url
    assert get(outbound, "inventory.default", "/from-shop").status == 202
    assert get(outbound, "inventory.default", "/from-tester").status == 200


def test_a_route_has_istios_name_and_metadata(shop: Any, get: Any) -> None:
    """Readers of `/config_dump` find what they find beside a pod."""
    dump = shop.tester.sidecar.admin("/config_dump?resource=dynamic_route_configs").decode()
    assert '"name": "short.quick"' in dump
    assert '"config": "/apis/networking.istio.io/v1/namespaces/default/virtual-service/inventory"' in dump
