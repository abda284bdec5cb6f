"""
The meter provider and the logger provider: those that somebody set, or ones of our own.

Both are chosen before either is made, so that a bad value is refused while nothing is set up yet.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from opentelemetry import _logs, metrics

from meshaware.telemetry.measures import Measures
from meshaware.telemetry.outlet import Outlet, State
from meshaware.telemetry.variables import Plan, read_plan, sdk_disabled

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

    from meshaware.telemetry.records import RecordHandler

__all__ = ["Choice", "Signals", "attach_handler", "choose", "detach_handler"]

Signal = Literal["metrics", "logs"]

_log = logging.getLogger("meshaware.telemetry")

# OpenTelemetry's stand-ins for a provider that nobody has set; it exports neither name.
_UNSET = ("_ProxyMeterProvider", "ProxyLoggerProvider")
_NOTHING = (metrics.NoOpMeterProvider, _logs.NoOpLoggerProvider)


class Choice(NamedTuple):
    """What is to be done about one signal: nothing, use the provider that is there, or make one as planned."""

    signal: Signal
    asked: bool | None
    state: State
    reason: str
    provider: Any = None
    plan: Plan | None = None


def choose(signal: Signal, environ: Mapping[str, str], *, asked: bool | None = None, given: Any = None) -> Choice:
    """
    Decide about one signal, and change nothing.

    Args:
        signal: Which one.
        environ: The variables.
        asked: What the code says; None leaves it to the variables and to what is there.
        given: The provider that the code gives.

    Raises:
        SettingsError: A variable that is used has a value that cannot be.
    """
    if sdk_disabled(environ):
        return Choice(signal, asked, "off", "OTEL_SDK_DISABLED=true")
    if asked is False:
        return Choice(signal, asked, "off", f"{signal}=False was given")
    provider = _present(signal) if given is None else given
    if isinstance(provider, _NOTHING):
        return Choice(signal, asked, "off", f"the provider is a {type(provider).__name__}")
    if given is None and type(provider).__name__ in _UNSET:
        plan = read_plan(environ, signal, wanted=asked is True)
        return Choice(signal, asked, "own" if plan.exporters else "off", plan.reason, plan=plan)
    word = "meter" if signal == "metrics" else "logger"
    reason = f"this process has a {word} provider already" if given is None else f"{word}_provider was given"
    wanted = asked is True or environ.get("OTEL_LOGS_EXPORTER", "").strip().lower() not in ("", "none")
    return Choice(signal, wanted, "shared", reason, provider)


class Signals:
    """What a process has set up for metrics and logs."""

    def __init__(self) -> None:
        self._outlets: dict[int, Outlet] = {}
        """By the identity of their providers, which they keep alive."""
        self._measures: dict[int, Measures] = {}

    def settle(self, choice: Choice, resource: Callable[[], Resource]) -> Outlet:
        """
        Do what was chosen; a provider that was set up before, by whomever, is not set up again.

        Raises:
            SettingsError: See `meshaware.telemetry.exporter`.
        """
        outlet = None
        if choice.state == "own" and choice.plan is not None:
            outlet = _make(choice.plan, resource())
            if outlet is None:
                choice = choose(choice.signal, os.environ, asked=choice.asked)
        if outlet is None and choice.provider is not None:
            outlet = self._outlets.get(id(choice.provider))
        if outlet is None:
            outlet = Outlet(choice.signal, choice.state, choice.reason, provider=choice.provider)
        if outlet.provider is not None and id(outlet.provider) not in self._outlets:
            self._outlets[id(outlet.provider)] = outlet
            _log.info(
                "telemetry (%s): %s go %s, because %s",
                outlet.state,
                outlet.signal,
                f"to {outlet.target}" if outlet.target else "where the provider sends them",
                outlet.reason,
            )
        self._use(outlet, choice)
        return outlet

    def _use(self, outlet: Outlet, choice: Choice) -> None:
        """Measure on the meter provider that was set up last; hand what is logged to the logger provider."""
        if outlet.provider is None and choice.asked is not False:
            return
        if outlet.signal == "metrics":
            for measures in self._measures.values():
                measures.stop()
            if outlet.provider is not None:
                if id(outlet.provider) not in self._measures:
                    self._measures[id(outlet.provider)] = Measures(outlet.provider)
                self._measures[id(outlet.provider)].listen()
        elif outlet.provider is None:
            detach_handler()
        elif outlet.state == "own" or choice.asked:
            attach_handler(outlet.provider)


def attach_handler(provider: Any) -> None:
    """
    Have what reaches the root logger handed to a provider, by one handler.

    Somebody else's handler that does the same is left to do it.
    """
    from meshaware.telemetry.records import RecordHandler  # noqa: PLC0415

    root = logging.getLogger()
    if any(type(handler).__module__.startswith("opentelemetry.") for handler in root.handlers):
        return
    present = _own_handlers(RecordHandler)
    if [handler.provider for handler in present] != [provider]:
        detach_handler()
        root.addHandler(RecordHandler(provider))


def detach_handler() -> None:
    """Take our handler off the root logger."""
    from meshaware.telemetry.records import RecordHandler  # noqa: PLC0415

    for handler in _own_handlers(RecordHandler):
        logging.getLogger().removeHandler(handler)


def _make(plan: Plan, resource: Resource) -> Outlet | None:
    """
    Make a provider as planned and the process's; None where somebody was faster.

    It does not shut itself down at exit, because the SDK's way to do that has no bound.
    """
    provider: Any = _meters(plan, resource) if plan.signal == "metrics" else _loggers(plan, resource)
    signal: Signal = "metrics" if plan.signal == "metrics" else "logs"
    set_provider: Callable[[Any], None] = (
        metrics.set_meter_provider if signal == "metrics" else _logs.set_logger_provider
    )
    set_provider(provider)
    if _present(signal) is not provider:
        provider.shutdown()
        return None
    before = detach_handler if signal == "logs" else None
    return Outlet(signal, "own", plan.reason, target=plan.target, provider=provider, before_shutdown=before)


def _own_handlers(kind: type[RecordHandler]) -> list[RecordHandler]:
    return [handler for handler in logging.getLogger().handlers if isinstance(handler, kind)]


def _present(signal: Signal) -> object:
    return metrics.get_meter_provider() if signal == "metrics" else _logs.get_logger_provider()


def _meters(plan: Plan, resource: Resource) -> Any:
    from opentelemetry.sdk.metrics import MeterProvider, TraceBasedExemplarFilter  # noqa: PLC0415

    from meshaware.telemetry.exporter import metric_readers  # noqa: PLC0415

    return MeterProvider(
        metric_readers(plan),
        resource,
        # The SDK refuses a variable that is there and empty.
        exemplar_filter=None if os.environ.get("OTEL_METRICS_EXEMPLAR_FILTER") else TraceBasedExemplarFilter(),
        shutdown_on_exit=False,
    )


def _loggers(plan: Plan, resource: Resource) -> Any:
    from opentelemetry.sdk._logs import LoggerProvider  # noqa: PLC0415

    from meshaware.telemetry.exporter import log_processors  # noqa: PLC0415

    processors = log_processors(plan)
    provider = LoggerProvider(resource, shutdown_on_exit=False)
    for processor in processors:
        provider.add_log_record_processor(processor)
    return provider
