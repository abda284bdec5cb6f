"""
The resource for OpenTelemetry that is set up without meshaware: `OTEL_EXPERIMENTAL_RESOURCE_DETECTORS=meshaware`.

The entry point `meshaware` of the group `opentelemetry_resource_detector` leads here.
"""

from __future__ import annotations

import logging
import os

from opentelemetry.sdk.resources import Resource, ResourceDetector

from meshaware.errors import SettingsError
from meshaware.settings import MeshSettings
from meshaware.telemetry.resource import mesh_name, resource_attributes
from meshaware.telemetry.variables import declared_resource

__all__ = ["MeshResourceDetector"]

_log = logging.getLogger("meshaware.telemetry")
# The SDK asks for traces, metrics and logs each, and once more in every forked child.
_told: set[str] = set()


class MeshResourceDetector(ResourceDetector):
    """
    Finds the same resource attributes as `setup_telemetry`: of the variables and the pod's own files, no network.

    What `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME` declare wins, in whatever order the detectors stand.
    """

    def detect(self) -> Resource:
        """Return what is known; nothing, and one line in the log, where the settings cannot be read."""
        try:
            settings = MeshSettings()
            workload = settings.workload
            declared = declared_resource(os.environ)
            return Resource(dict(resource_attributes(workload, declared, mesh_name(settings, workload))))
        except SettingsError as error:
            if self.raise_on_error:
                raise
            if (message := str(error)) not in _told:
                _told.add(message)
                _log.warning("telemetry: the resource lacks what meshaware knows: %s", message)
            return Resource.get_empty()
