"""The tracer provider: the one that somebody set, or one of our own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import DEFAULT_ON

from meshaware.telemetry.exporter import span_processors
from meshaware.telemetry.resource import resource_attributes
from meshaware.telemetry.variables import declared_resource

if TYPE_CHECKING:
    from meshaware.settings import Workload
    from meshaware.telemetry.variables import Plan

__all__ = ["install_provider", "make_provider", "make_resource"]


def make_resource(workload: Workload, environ: Mapping[str, str]) -> Resource:
    """
    Name this workload, for every signal alike.

    Raises:
        SettingsError: See `declared_resource`.
    """
    # What the variables declare is handed over as well: the SDK lets attributes from code win over its
    # variables.
    return Resource.create(dict(resource_attributes(workload, declared_resource(environ))))


def make_provider(plan: Plan, workload: Workload, environ: Mapping[str, str]) -> TracerProvider:
    """
    Build a tracer provider that names this workload and exports as planned.

    It does not shut itself down at exit, because the SDK's way to do that has no bound.

    Raises:
        SettingsError: See `span_processors` and `declared_resource`.
    """
    resource = make_resource(workload, environ)
    processors = span_processors(plan)
    provider = TracerProvider(
        # The SDK complains of a variable that is there and empty.
        sampler=None if environ.get("OTEL_TRACES_SAMPLER") else DEFAULT_ON,
        resource=resource,
        shutdown_on_exit=False,
    )
    for processor in processors:
        provider.add_span_processor(processor)
    return provider


def install_provider(provider: TracerProvider) -> bool:
    """Make this the process's tracer provider; where somebody was faster, shut it down and return False."""
    trace.set_tracer_provider(provider)
    if trace.get_tracer_provider() is provider:
        return True
    provider.shutdown()
    return False
