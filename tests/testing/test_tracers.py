"""Istio's tracing providers, as Envoy is told of them."""

from __future__ import annotations

from typing import Any

import pytest

from meshaware.errors import LocalMeshError
from meshaware.testing import LocalMesh
from meshaware.testing.tracers import TraceContext, choose_tracing, collector_cluster, tracer


def chosen(**arguments: Any) -> Any:
    nothing: dict[str, Any] = {"otlp": None, "zipkin": None, "trace_context": None, "sampling": 100.0}
    return choose_tracing(**(nothing | arguments))


def test_no_collector_is_no_tracer() -> None:
    assert chosen() is None


@pytest.mark.parametrize(
    ("given", "option"),
    [(None, "USE_B3"), ("b3", "USE_B3"), ("b3-and-w3c", "USE_B3_WITH_W3C_PROPAGATION")],
)
def test_zipkins_tracer_is_what_istio_makes_of_it(given: TraceContext | None, option: str) -> None:
    """Identifiers of 128 bits, JSON of version 2, no span shared by two proxies, one decision for all."""
    written = tracer(chosen(zipkin="http://zipkin:9411", trace_context=given, sampling=1.0))
    assert written == {
        "provider": {
            "name": "envoy.tracers.zipkin",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.config.trace.v3.ZipkinConfig",
                "collector_service": {
                    "http_uri": {
                        "uri": "http://zipkin:9411/api/v2/spans",
                        "cluster": "trace_collector",
                        "timeout": "1s",
                    }
                },
                "collector_endpoint_version": "HTTP_JSON",
                "trace_id_128bit": True,
                "shared_span_context": False,
                "trace_context_option": option,
            },
        },
        "client_sampling": {"value": 100},
        "random_sampling": {"value": 1.0},
        "overall_sampling": {"value": 100},
    }


@pytest.mark.parametrize(
    ("url", "uri"),
    [
        ("http://zipkin", "http://zipkin/api/v2/spans"),
        ("http://zipkin:9411/", "http://zipkin:9411/api/v2/spans"),
        ("http://zipkin:9411/zipkin/api/v2/spans", "http://zipkin:9411/zipkin/api/v2/spans"),
    ],
)
def test_an_address_without_a_path_gets_zipkins(url: str, uri: str) -> None:
    """With one it is left alone."""
    service = tracer(chosen(zipkin=url))["provider"]["typed_config"]["collector_service"]
    assert service["http_uri"]["uri"] == uri


@pytest.mark.parametrize(("url", "port"), [("http://collector:4318", 4318), ("http://collector", 80)])
def test_the_collectors_cluster_is_where_the_address_says(url: str, port: int) -> None:
    (group,) = collector_cluster(chosen(otlp=url))["load_assignment"]["endpoints"]
    (endpoint,) = group["lb_endpoints"]
    address = endpoint["endpoint"]["address"]["socket_address"]
    assert address == {"address": "collector", "port_value": port}


@pytest.mark.parametrize("provider", ["otlp", "zipkin"])
@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:4318", "ftp://collector", "http://", "https://collector:4318", "http://[::1", "http://collector:70000"],
)
def test_a_collector_that_is_no_http_address_is_refused(provider: str, url: str) -> None:
    with pytest.raises(LocalMeshError) as caught:
        chosen(**{provider: url})
    assert str(caught.value) == f"{provider} {url!r} cannot be used: it takes http://host:port"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"otlp": "http://a", "zipkin": "http://b"}, "otlp 'http://a' and zipkin 'http://b' cannot both be used"),
        ({"trace_context": "b3-and-w3c"}, "trace_context 'b3-and-w3c' is for Zipkin: name its collector with zipkin="),
        ({"otlp": "http://a", "trace_context": "b3"}, "trace_context 'b3' is for Zipkin"),
        ({"zipkin": "http://a", "trace_context": "w3c"}, "trace_context 'w3c' cannot be used: it takes 'b3' or"),
        ({"otlp": "http://a", "sampling": 101}, "sampling 101 cannot be used: it takes a percentage, 0 to 100"),
        ({"zipkin": "http://a", "sampling": float("nan")}, "sampling nan cannot be used"),
    ],
)
def test_a_tracer_that_there_is_not_is_refused(arguments: dict[str, Any], says: str) -> None:
    """With what to write instead."""
    with pytest.raises(LocalMeshError) as caught:
        chosen(**arguments)
    assert says in str(caught.value)


@pytest.mark.envoy
def test_a_mesh_refuses_it_before_anything_is_started() -> None:
    with pytest.raises(LocalMeshError, match="zipkin 'zipkin:9411' cannot be used"):
        LocalMesh(zipkin="zipkin:9411")
