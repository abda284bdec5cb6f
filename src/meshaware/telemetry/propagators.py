"""Which formats of trace context OpenTelemetry reads and writes: W3C and B3 to the letter, unless somebody chose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from meshaware.errors import SettingsError

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

__all__ = ["install_propagators", "installed"]

_installed: list[object] = [None]


def install_propagators(
    environ: Mapping[str, str], provider: TracerProvider | None = None, *, one: bool = False, local: bool = False
) -> bool:
    """
    Make `TraceFormat` and `BaggageFormat` the process's formats, where nobody chose others.

    Istio's OpenTelemetry provider writes `traceparent`, its Zipkin provider `x-b3-*`; OpenTelemetry alone
    would answer a request that carries only the latter with a trace of its own.

    Args:
        environ: The process's variables.
        provider: As for `TraceFormat`.
        one: As for `TraceFormat`.
        local: As for `TraceFormat`.

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
            ' Accepted are "tracecontext", "baggage", "b3", "b3multi", "meshaware", "none" and what other packages'
            " add, with commas between"
        ) from error
    from opentelemetry.propagators.composite import CompositePropagator  # noqa: PLC0415

    from meshaware.telemetry.formats import BaggageFormat, TraceFormat  # noqa: PLC0415

    present = propagate.get_global_textmap()
    default = {"traceparent", "tracestate", "baggage"}
    if environ.get("OTEL_PROPAGATORS", "").strip():
        return False
    if type(present) is not CompositePropagator or present.fields != default:
        return False
    ours = CompositePropagator([TraceFormat(provider, one=one, local=local), BaggageFormat()])
    propagate.set_global_textmap(ours)
    _installed[:] = [ours]
    return True


def installed() -> object:
    """Return the formats that `install_propagators` made the process's; None where it did not."""
    return _installed[0]
