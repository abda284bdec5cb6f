"""For the standard library's logging: fields on every record, and records as JSON."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime

from meshaware.logs.fields import FIELDS, MeshFields
from meshaware.settings import MeshSettings

__all__ = ["UNKNOWN", "MeshJsonFormatter", "MeshLogFilter"]

UNKNOWN = "-"
"""What a record has in a field that is not known."""

_UNKNOWN: dict[str, str | bool] = dict.fromkeys(FIELDS, UNKNOWN)
# What every record has, and what other formatters leave on it or want of it: uvicorn's message in colours.
_ALWAYS = frozenset(vars(logging.makeLogRecord({}))) | {"asctime", "message", "taskName", "color_message"}


class MeshLogFilter(logging.Filter):
    """
    Adds the fields to every record that passes, for use in any format: `%(request_id)s`, `%(peer)s`.

    | attribute | |
    |---|---|
    | `trace_id`, `span_id`, `trace_sampled` | the live span, or the caller's; `trace_sampled` is a bool |
    | `request_id` | `x-request-id` |
    | `workload`, `namespace`, `pod` | this workload |
    | `peer` | who called |

    Each is always there, `-` where it is not known. What a record has already, by `extra=`, it keeps. A filter works
    where it is put: on a handler it sees the records of all loggers, on a logger only those made by that one.

    Args:
        settings: What is known of this workload; default `MeshSettings()`.

    Raises:
        SettingsError: Without `settings`, where a variable or file has a value that cannot be used.
    """

    def __init__(self, settings: MeshSettings | None = None) -> None:
        super().__init__()
        self._fields = MeshFields((MeshSettings() if settings is None else settings).workload)

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields; every record passes."""
        known = record.__dict__
        if not _UNKNOWN.keys() <= known.keys():
            for name, value in (_UNKNOWN | self._fields(_error(record))).items():
                known.setdefault(name, value)
        return True


class MeshJsonFormatter(logging.Formatter):
    """
    Writes a record as one JSON object on one line.

    `timestamp` (RFC 3339, UTC), `level`, `logger`, `message`; of the fields those that are known; `exception` and
    `stack`; what the call gave in `extra=`, with `extra.` before a name that the line has already.
    What JSON cannot say is written as its `repr`, so that no value costs a line. It is ASCII, whatever is in it, and
    has no line break.

    It needs no `MeshLogFilter`, except where records go to another thread before they are formatted, as with
    `logging.handlers.QueueHandler`: there the filter belongs on that handler.

    Args:
        settings: What is known of this workload; default `MeshSettings()`.

    Raises:
        SettingsError: Without `settings`, where a variable or file has a value that cannot be used.
    """

    def __init__(self, settings: MeshSettings | None = None) -> None:
        super().__init__()
        self._fields = MeshFields((MeshSettings() if settings is None else settings).workload)

    def format(self, record: logging.LogRecord) -> str:
        """Write one record."""
        known = record.__dict__
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")
        line: dict[str, object] = {
            "timestamp": at.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if not _UNKNOWN.keys() <= known.keys():
            line.update(self._fields(_error(record)))
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            line["exception"] = record.exc_text
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        if not known.keys() <= _ALWAYS:
            _add_extra(line, known)
        return _to_json(line)


def _add_extra(line: dict[str, object], known: Mapping[str, object]) -> None:
    """Add what a call gave in `extra=`, and fields that a filter found: theirs over those found here."""
    for name, value in known.items():
        if name in _UNKNOWN:
            if value != UNKNOWN:
                line[name] = value
        elif name not in _ALWAYS:
            line[name if name not in line else f"extra.{name}"] = value


def _error(record: logging.LogRecord) -> BaseException | None:
    return record.exc_info[1] if record.exc_info else None


def _to_json(line: dict[str, object]) -> str:
    try:
        return _encode(line)
    except Exception:  # noqa: BLE001 (a circle, a key that is a tuple, NaN; a value may raise whatever it likes)
        return _encode({name: _plain(value) for name, value in line.items()})


def _plain(value: object) -> object:
    try:
        _encode(value)
    except Exception:  # noqa: BLE001
        return _repr(value)
    return value


def _repr(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001
        return f"<{type(value).__name__} without a repr>"


_encode = json.JSONEncoder(default=_repr, allow_nan=False).encode
