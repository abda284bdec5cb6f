"""
What log lines say of the request, the trace, the caller and this workload.

    fields      which values, cleaned and bounded
    stdlib      a filter and a JSON formatter for the standard library's logging
    structlog   a processor
"""

from __future__ import annotations

from meshaware.logs.fields import FIELDS, MeshFields
from meshaware.logs.stdlib import MeshJsonFormatter, MeshLogFilter
from meshaware.logs.structlog import MeshProcessor, add_mesh_fields

__all__ = ["FIELDS", "MeshFields", "MeshJsonFormatter", "MeshLogFilter", "MeshProcessor", "add_mesh_fields"]
