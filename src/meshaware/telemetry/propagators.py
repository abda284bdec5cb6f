"""Which formats of trace context OpenTelemetry reads and writes: W3C and B3, unless somebody chose."""

from __future__ import annotations

from collections.abc import Mapping

from meshaware.errors import SettingsError

__all__ = ["install_propagators"]


def install_propagators(environ: Mapping[str, str]) -> bool:
    """
    Make W3C trace context, W3C baggage and B3 the process's formats, where nobody chose others.

    Istio's OpenTelemetry provider writes `traceparent`, its Zipkin provider `x-b3-*`; OpenTelemetry alone
    would answer a request that carries only the latter with a trace of its own. The order counts: the last
    format that can be read wins, so `traceparent` wins over a `b3` that contradicts it. The same as
    `OTEL_PROPAGATORS=b3multi,tracecontext,baggage`.

    Returns:
        False where `OTEL_PROPAGATORS` is set or the process has other formats than OpenTelemetry's default.

    Raises:
        SettingsError: `OTEL_PROPAGATORS` names a format that is not installed.
    """
    # OTEL_PROPAGATORS is read when the first of these is imported, which is not the time for an error.
    try:
        from opentelemetry import propagate  # noqa: PLC0415
    except ValueError as error:
        raise SettingsError(
            f"OTEL_PROPAGATORS={environ.get('OTEL_PROPAGATORS', '')[:200]!r} cannot be used: {error}"
            ' Accepted are "tracecontext", "baggage", "b3", "b3multi", "none" and what other packages add,'
            " with commas between"
        ) from error
    from opentelemetry.baggage.propagation import W3CBaggagePropagator  # noqa: PLC0415
    from opentelemetry.propagators.b3 import B3MultiFormat  # noqa: PLC0415
    from opentelemetry.propagators.composite import CompositePropagator  # noqa: PLC0415
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

    present = propagate.get_global_textmap()
    default = {"traceparent", "tracestate", "baggage"}
    if environ.get("OTEL_PROPAGATORS", "").strip():
        return False
    if type(present) is not CompositePropagator or present.fields != default:
        return False
    propagate.set_global_textmap(
        CompositePropagator([B3MultiFormat(), TraceContextTextMapPropagator(), W3CBaggagePropagator()])
    )
    return True
