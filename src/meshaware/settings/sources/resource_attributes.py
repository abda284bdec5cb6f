"""OpenTelemetry's resource attributes: what a team already tells its tracing holds for the mesh too."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote

from meshaware.settings.found import Found
from meshaware.settings.variables import RESOURCE_ATTRIBUTES

__all__ = ["find_resource_attributes"]

_VARIABLE = "OTEL_RESOURCE_ATTRIBUTES"


def find_resource_attributes(environ: Mapping[str, str]) -> dict[str, Found]:
    """
    What `OTEL_RESOURCE_ATTRIBUTES` says: `key=value` with commas between them, percent-encoded.

    Parts that are not `key=value` are passed over: OpenTelemetry's SDK reads the same variable and reports
    them.
    """
    attributes: dict[str, str] = {}
    for part in environ.get(_VARIABLE, "").split(","):
        key, _, value = part.partition("=")
        attributes[key.strip()] = unquote(value.strip())
    return {
        field: Found(attributes[key], f"env {_VARIABLE} {key}")
        for key, field in RESOURCE_ATTRIBUTES
        if attributes.get(key)
    }
