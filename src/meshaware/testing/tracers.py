"""Istio's tracing providers -> what Envoy is told about its tracer, and the cluster of the collector. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args
from urllib.parse import SplitResult, urlsplit

from meshaware.errors import LocalMeshError
from meshaware.testing.clusters import static_cluster

__all__ = ["RUNTIME", "TraceContext", "Tracing", "choose_tracing", "collector_cluster", "tracer"]

TraceContext = Literal["b3", "b3-and-w3c"]
"""In which headers Istio's Zipkin provider tells of a trace: its `traceContextOption`."""

_Provider = Literal["otlp", "zipkin"]

RUNTIME = {
    f"tracing.{name}.{setting}": value
    for name in ("opentelemetry", "zipkin")
    for setting, value in (("min_flush_spans", 1), ("flush_interval_ms", 100))
}
"""Envoy otherwise keeps spans for up to five seconds."""

_TYPE = "type.googleapis.com/envoy.config.trace.v3."
_CLUSTER = "trace_collector"
_EXPORT_WITHIN = "1s"
# Where each protocol expects spans; the latter is also Istio's default.
_OTLP_PATH, _ZIPKIN_PATH = "/v1/traces", "/api/v2/spans"
_OPTIONS: dict[TraceContext, str] = {"b3": "USE_B3", "b3-and-w3c": "USE_B3_WITH_W3C_PROPAGATION"}


@dataclass(frozen=True, slots=True)
class Tracing:
    """
    Where spans go, in whose name, and how many of them.

    Attributes:
        provider: The argument of `LocalMesh` that named the collector.
        collector: Its address, over plain HTTP.
        service_name: Whose spans they are.
        sampling: How many requests are traced where nobody has decided yet, in percent.
        trace_context: For Zipkin: in which headers.
    """

    provider: _Provider
    collector: str
    service_name: str
    sampling: float
    trace_context: TraceContext = "b3"

    def __post_init__(self) -> None:
        _address(self.provider, self.collector)
        if not 0 <= self.sampling <= 100:
            raise LocalMeshError(f"sampling {self.sampling!r} cannot be used: it takes a percentage, 0 to 100")


def choose_tracing(
    *, otlp: str | None, zipkin: str | None, trace_context: TraceContext | None, sampling: float
) -> Tracing | None:
    """
    Return what the arguments of `LocalMesh` ask for, still in nobody's name; None where no collector is named.

    Raises:
        LocalMeshError: Two collectors, one that is no `http://` address, or a `trace_context` that there is
            not or that goes with another tracer.
    """
    if trace_context is not None and trace_context not in get_args(TraceContext):
        raise LocalMeshError(f"trace_context {trace_context!r} cannot be used: it takes 'b3' or 'b3-and-w3c'")
    if zipkin is None:
        if trace_context is not None:
            raise LocalMeshError(f"trace_context {trace_context!r} is for Zipkin: name its collector with zipkin=")
        return None if otlp is None else Tracing("otlp", otlp, "", sampling)
    if otlp is not None:
        raise LocalMeshError(f"otlp {otlp!r} and zipkin {zipkin!r} cannot both be used: a sidecar has one tracer")
    return Tracing("zipkin", zipkin, "", sampling, trace_context or "b3")


def tracer(tracing: Tracing) -> dict[str, Any]:
    """Return `tracing` of a connection manager, as Istio writes it for a sidecar."""
    kind = _opentelemetry(tracing) if tracing.provider == "otlp" else _zipkin(tracing)
    return {
        "provider": kind,
        "client_sampling": {"value": 100},
        "random_sampling": {"value": tracing.sampling},
        "overall_sampling": {"value": 100},
    }


def collector_cluster(tracing: Tracing) -> dict[str, Any]:
    """Return the cluster that the tracer sends its spans to."""
    url = _address(tracing.provider, tracing.collector)
    return static_cluster(_CLUSTER, [(str(url.hostname), url.port or 80)], type="STRICT_DNS")


def _opentelemetry(tracing: Tracing) -> dict[str, Any]:
    return {
        "name": "envoy.tracers.opentelemetry",
        "typed_config": {
            "@type": f"{_TYPE}OpenTelemetryConfig",
            "service_name": tracing.service_name,
            "http_service": _http_service(tracing.collector.rstrip("/") + _OTLP_PATH),
        },
    }


def _zipkin(tracing: Tracing) -> dict[str, Any]:
    url = _address(tracing.provider, tracing.collector)
    path = url.path if url.path.strip("/") else _ZIPKIN_PATH
    # Zipkin's name of a service is that of Envoy's node, and Istio lets no two proxies share a span.
    return {
        "name": "envoy.tracers.zipkin",
        "typed_config": {
            "@type": f"{_TYPE}ZipkinConfig",
            "collector_service": _http_service(f"http://{url.netloc}{path}"),
            "collector_endpoint_version": "HTTP_JSON",
            "trace_id_128bit": True,
            "shared_span_context": False,
            "trace_context_option": _OPTIONS[tracing.trace_context],
        },
    }


def _http_service(uri: str) -> dict[str, Any]:
    return {"http_uri": {"uri": uri, "cluster": _CLUSTER, "timeout": _EXPORT_WITHIN}}


def _address(argument: str, collector: str) -> SplitResult:
    refusal = LocalMeshError(f"{argument} {collector!r} cannot be used: it takes http://host:port")
    try:
        url = urlsplit(collector)
        # Only reading it finds a port that is none.
        port = url.port
    except ValueError as error:
        raise refusal from error
    if url.scheme != "http" or not url.hostname or port == 0:
        raise refusal
    return url
