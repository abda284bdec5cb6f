"""
What the standard `OTEL_*` variables ask for, read and checked before anything is built.

Pure: a mapping goes in, a plan comes out. The SDK itself answers a bad value with a log line and a default,
or with an error that names no variable; here it is an error that names the variable, the value and what is
accepted. Only variables that are used are checked. An empty value counts as unset, as the specification has
it (https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple, cast
from urllib.parse import unquote, urlsplit

from meshaware.errors import SettingsError

__all__ = [
    "Batching",
    "Compression",
    "Periods",
    "Plan",
    "Protocol",
    "SignalName",
    "declared_resource",
    "excluded_urls",
    "read_plan",
    "sdk_disabled",
]

SignalName = Literal["traces", "metrics", "logs"]
Protocol = Literal["http/protobuf", "grpc"]
Compression = Literal["none", "gzip", "deflate"]

_OTLP: Mapping[str, Protocol | None] = {
    "otlp": None,
    "otlp_proto_http": "http/protobuf",
    "otlp_proto_grpc": "grpc",
}
_RATIO_SAMPLERS = ("traceidratio", "parentbased_traceidratio")
_SAMPLERS = ("always_on", "always_off", "parentbased_always_on", "parentbased_always_off", *_RATIO_SAMPLERS)
_BATCHING = {
    "max_queue_size": "MAX_QUEUE_SIZE",
    "max_export_batch_size": "MAX_EXPORT_BATCH_SIZE",
    "schedule_delay_millis": "SCHEDULE_DELAY",
    "export_timeout_millis": "EXPORT_TIMEOUT",
}
_PERIODS = {
    "export_interval_millis": "OTEL_METRIC_EXPORT_INTERVAL",
    "export_timeout_millis": "OTEL_METRIC_EXPORT_TIMEOUT",
}
_METRIC_CHOICES = {
    "OTEL_METRICS_EXEMPLAR_FILTER": ("always_on", "always_off", "trace_based"),
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": ("cumulative", "delta", "lowmemory"),
}
_EACH = {"traces": "each span", "metrics": "each metric", "logs": "each log record"}
_DIGITS = 10
_FILES = ("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE")
_DEFAULT_TIMEOUT = 10.0
_SHOWN = 80


class Batching(NamedTuple):
    """How spans and log records are batched, `OTEL_BSP_*` and `OTEL_BLRP_*`, by the SDK's names."""

    max_queue_size: int = 2048
    max_export_batch_size: int = 512
    schedule_delay_millis: int = 5000
    export_timeout_millis: int = 30000


class Periods(NamedTuple):
    """How often metrics are sent, `OTEL_METRIC_EXPORT_*`, by the SDK's names."""

    export_interval_millis: int = 60000
    export_timeout_millis: int = 30000


class Plan(NamedTuple):
    """Where one signal goes, and who says so."""

    exporters: tuple[str, ...]
    """`otlp`, `console`, or the name of an installed exporter's entry point; empty: nothing is exported."""
    reason: str
    """The variable that decided, with its value, or the one that is missing."""
    protocol: Protocol = "http/protobuf"
    endpoint: str = ""
    """
    What the OTLP exporter is given: the complete URL for http/protobuf, the collector's address for grpc.
    """
    timeout: float = _DEFAULT_TIMEOUT
    """Seconds for one export, retries included."""
    compression: Compression = "none"
    batching: Batching = Batching()
    periods: Periods = Periods()
    signal: SignalName = "traces"

    @property
    def target(self) -> str:
        """Where it goes in words that are fit for a log: without user, password and query."""
        return " and ".join(
            f"{_without_secrets(self.endpoint)} ({self.protocol})" if name == "otlp" else name
            for name in self.exporters
        )


def sdk_disabled(environ: Mapping[str, str]) -> bool:
    """
    Say whether `OTEL_SDK_DISABLED` switches everything off.

    Raises:
        SettingsError: The value is neither true nor false.
    """
    return _flag(environ, "OTEL_SDK_DISABLED")


def read_plan(environ: Mapping[str, str], signal: SignalName = "traces", *, wanted: bool = False) -> Plan:
    """
    Decide where a signal goes.

    Without `OTEL_TRACES_EXPORTER` spans are exported only if an endpoint is configured: a service on a laptop
    has no collector at `localhost:4318`, and must not complain about it for ever. Metrics and logs are exported
    only if somebody asks for them: `OTEL_METRICS_EXPORTER`, `OTEL_LOGS_EXPORTER`, or the code, and for the code
    alone an endpoint has to be configured as well.

    Args:
        environ: The variables.
        signal: Which one.
        wanted: Whether the code asks for it.

    Raises:
        SettingsError: A variable has a value that cannot be used; the message names the variable, the value
            and what is accepted.
    """
    if sdk_disabled(environ):
        return Plan((), "OTEL_SDK_DISABLED=true", signal=signal)
    chooser = f"OTEL_{signal.upper()}_EXPORTER"
    asked = environ.get(chooser, "").strip()
    endpoint, endpoint_name = _first(environ, _otlp(signal, "ENDPOINT"))
    if not asked and signal != "traces" and not wanted:
        return Plan((), f"{chooser} is not set", signal=signal)
    if not asked and not endpoint:
        return Plan((), f"neither OTEL_EXPORTER_OTLP_ENDPOINT nor {chooser} is set", signal=signal)
    names = tuple(dict.fromkeys(name.strip() for name in asked.lower().split(",") if name.strip())) or ("otlp",)
    code = f"{signal}=True was given and " if wanted else ""
    reason = f"{chooser}={_shown(asked)}" if asked else f"{code}{endpoint_name} is set"
    if "none" in names:
        if len(names) > 1:
            raise _refusal(chooser, asked, '"none" alone, or the exporters to use without it')
        return Plan((), reason, signal=signal)
    plan = Plan(names, reason, batching=_batching(environ, signal), periods=_periods(environ, signal), signal=signal)
    _check_choices(environ, signal)
    chosen = [name for name in names if name in _OTLP]
    if not chosen:
        return plan
    if len(chosen) > 1:
        raise _refusal(chooser, asked, f"one OTLP exporter: more would send {_EACH[signal]} twice")
    protocol = _OTLP[chosen[0]] or _protocol(environ, signal)
    return plan._replace(
        exporters=tuple("otlp" if name in _OTLP else name for name in names),
        protocol=protocol,
        endpoint=_endpoint(endpoint, endpoint_name, protocol, signal),
        timeout=_timeout(environ, signal),
        compression=_checked_details(environ, protocol, signal),
    )


def declared_resource(environ: Mapping[str, str]) -> dict[str, str]:
    """
    Read the resource attributes that `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME` declare; the latter
    wins.

    Raises:
        SettingsError: An item is not `key=value`.
    """
    declared: dict[str, str] = {}
    for item in environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
        key, equals, value = (part.strip() for part in item.partition("="))
        if item.strip() and not (key and equals):
            raise _refusal(
                "OTEL_RESOURCE_ATTRIBUTES",
                item,
                'items such as "deployment.environment.name=staging", with commas between',
            )
        if value:
            declared[key] = unquote(value)
    if name := environ.get("OTEL_SERVICE_NAME", "").strip():
        declared["service.name"] = name
    return declared


def excluded_urls(environ: Mapping[str, str]) -> str:
    """
    Return regular expressions, with commas between, of URLs whose requests make no server spans.

    Raises:
        SettingsError: One is no regular expression.
    """
    value, name = _first(environ, ("OTEL_PYTHON_FASTAPI_EXCLUDED_URLS", "OTEL_PYTHON_EXCLUDED_URLS"))
    for pattern in value.split(","):
        try:
            re.compile(pattern.strip())
        except re.error as error:
            raise _refusal(name, pattern, f"regular expressions with commas between ({error})") from error
    return value


def _otlp(signal: SignalName, what: str) -> tuple[str, str]:
    return f"OTEL_EXPORTER_OTLP_{signal.upper()}_{what}", f"OTEL_EXPORTER_OTLP_{what}"


def _first(environ: Mapping[str, str], names: Iterable[str]) -> tuple[str, str]:
    """The first of these variables that is set, and its name."""
    return next(((value, name) for name in names if (value := environ.get(name, "").strip())), ("", ""))


def _flag(environ: Mapping[str, str], name: str) -> bool:
    value = environ.get(name, "").strip()
    if value.lower() not in ("", "true", "false"):
        raise _refusal(name, value, '"true" or "false"')
    return value.lower() == "true"


def _protocol(environ: Mapping[str, str], signal: SignalName) -> Protocol:
    value, name = _first(environ, _otlp(signal, "PROTOCOL"))
    if value in ("", "http/protobuf"):
        return "http/protobuf"
    if value == "grpc":
        return "grpc"
    raise _refusal(name, value, '"http/protobuf" (the default) or "grpc"')


def _endpoint(value: str, name: str, protocol: Protocol, signal: SignalName) -> str:
    if not value:
        return "http://localhost:4317" if protocol == "grpc" else f"http://localhost:4318/v1/{signal}"
    wanted = 'an absolute URL such as "http://otel-collector.observability:4318"'
    # gRPC's own addresses carry no scheme: `otel-collector:4317`, with TLS unless ..._INSECURE=true.
    text = value if "://" in value or protocol != "grpc" else f"https://{value}"
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        raise _refusal(name, _without_secrets(value), wanted) from error
    if not usable:
        raise _refusal(name, _without_secrets(value), wanted)
    if protocol == "grpc" or f"_{signal.upper()}_" in name:
        return value
    return f"{value.removesuffix('/')}/v1/{signal}"


def _timeout(environ: Mapping[str, str], signal: SignalName) -> float:
    value, name = _first(environ, _otlp(signal, "TIMEOUT"))
    if not value:
        return _DEFAULT_TIMEOUT
    seconds = _number(value)
    if not 0 < seconds < math.inf:
        raise _refusal(name, value, 'seconds above 0, such as "5": the Python SDK counts seconds here')
    return seconds


def _checked_details(environ: Mapping[str, str], protocol: Protocol, signal: SignalName) -> Compression:
    for what in _FILES:
        path, name = _first(environ, _otlp(signal, what))
        if path and not os.access(path, os.R_OK):
            raise _refusal(name, path, "the path of a PEM file that this process may read")
    for name in _otlp(signal, "INSECURE"):
        _flag(environ, name)
    value, name = _first(environ, _otlp(signal, "COMPRESSION"))
    accepted = ("none", "gzip") if protocol == "grpc" else ("none", "gzip", "deflate")
    if value and value.lower() not in accepted:
        raise _refusal(name, value, " or ".join(f'"{each}"' for each in accepted) + f" for {protocol}")
    return cast("Compression", value.lower() or "none")


def _check_sampler(environ: Mapping[str, str]) -> None:
    value = environ.get("OTEL_TRACES_SAMPLER", "").strip()
    if value and value.lower() not in _SAMPLERS:
        raise _refusal("OTEL_TRACES_SAMPLER", value, ", ".join(f'"{name}"' for name in _SAMPLERS))
    argument = environ.get("OTEL_TRACES_SAMPLER_ARG", "").strip()
    if value.lower() in _RATIO_SAMPLERS and argument and not 0 <= _number(argument) <= 1:
        raise _refusal("OTEL_TRACES_SAMPLER_ARG", argument, 'a ratio from "0.0" to "1.0"')


def _check_choices(environ: Mapping[str, str], signal: SignalName) -> None:
    if signal == "traces":
        _check_sampler(environ)
    for name, accepted in _METRIC_CHOICES.items() if signal == "metrics" else ():
        value = environ.get(name, "").strip()
        if value and value.lower() not in accepted:
            raise _refusal(name, value, ", ".join(f'"{each}"' for each in accepted))


def _batching(environ: Mapping[str, str], signal: SignalName) -> Batching:
    if signal == "metrics":
        return Batching()
    prefix = "OTEL_BSP_" if signal == "traces" else "OTEL_BLRP_"
    # The specification sends log records after a second.
    default = Batching() if signal == "traces" else Batching(schedule_delay_millis=1000)
    batching = default._replace(**_counts(environ, {field: prefix + name for field, name in _BATCHING.items()}))
    if batching.max_export_batch_size > batching.max_queue_size:
        limit = f"at most {prefix}MAX_QUEUE_SIZE, which is {batching.max_queue_size}"
        raise _refusal(f"{prefix}MAX_EXPORT_BATCH_SIZE", str(batching.max_export_batch_size), limit)
    return batching


def _periods(environ: Mapping[str, str], signal: SignalName) -> Periods:
    return Periods(**_counts(environ, _PERIODS)) if signal == "metrics" else Periods()


def _counts(environ: Mapping[str, str], names: Mapping[str, str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for field, name in names.items():
        if value := environ.get(name, "").strip():
            if not (value.isascii() and value.isdigit() and len(value) < _DIGITS and int(value)):
                raise _refusal(name, value, "a whole number above 0")
            counts[field] = int(value)
    return counts


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _without_secrets(url: str) -> str:
    scheme, separator, rest = url.rpartition("://")
    authority, slash, path = rest.partition("?")[0].partition("/")
    return f"{scheme}{separator}{authority.rpartition('@')[2]}{slash}{path}"


def _shown(value: str) -> str:
    return repr(value) if len(value) <= _SHOWN else f"{value[:_SHOWN]!r}... ({len(value)} characters)"


def _refusal(name: str, value: str, wanted: str) -> SettingsError:
    return SettingsError(f"{name}={_shown(value)} cannot be used: accepted is {wanted}")
