"""For structlog, which is not imported here: a processor is whatever can be called as one."""

from __future__ import annotations

import sys
from collections.abc import MutableMapping
from functools import cache
from typing import Any, cast

from meshaware.logs.fields import MeshFields
from meshaware.settings import MeshSettings, Workload

__all__ = ["MeshProcessor", "add_mesh_fields"]


class MeshProcessor:
    """
    Adds to each event the fields that are known; what an event has already, it keeps.

    Put it before the processors that replace `exc_info`.

    Args:
        settings: What is known of this workload; default `MeshSettings()`.

    Raises:
        SettingsError: Without `settings`, where a variable or file has a value that cannot be used.
    """

    __slots__ = ("_fields",)

    def __init__(self, settings: MeshSettings | None = None) -> None:
        self._fields = MeshFields((MeshSettings() if settings is None else settings).workload)

    def __call__(self, logger: Any, method_name: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Add the fields to the event, and return it."""
        del logger, method_name
        return _add(self._fields, event_dict)


def add_mesh_fields(logger: Any, method_name: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """
    `MeshProcessor()` as a plain function: `structlog.configure(processors=[add_mesh_fields, ...])`.

    The environment is read at the first event. Where it holds settings that cannot be used, the fields of this workload
    are left out: an event is no place for that error.

    Args:
        logger: Not looked at.
        method_name: Not looked at.
        event_dict: The event; the fields are added to it.
    """
    del logger, method_name
    return _add(_default_fields(), event_dict)


def _add(fields: MeshFields, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in fields(_error(event.get("exc_info"))).items():
        event.setdefault(name, value)
    return event


def _error(exc_info: object) -> object:
    if exc_info is True:
        return sys.exception()
    if isinstance(exc_info, tuple):
        _, error, *_ = cast("tuple[object, ...]", (*exc_info, None, None))
        return error
    return exc_info


@cache
def _default_fields() -> MeshFields:
    try:
        workload = MeshSettings().workload
    except Exception:  # noqa: BLE001 (the application meets it where it makes its own settings)
        workload = Workload()
    return MeshFields(workload)
