"""
From Python's logging to OpenTelemetry's log records: the handler on the root logger.

The SDK's own handler is deprecated. This one never exports what the export itself has to say, holds no lock, and hands
over nothing that an exporter could refuse: one value that cannot be encoded costs a whole batch.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping, Sequence
from typing import cast

from opentelemetry._logs import Logger, LoggerProvider, LogRecord, SeverityNumber
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.util.types import AnyValue

from meshaware.telemetry.served import served_request

__all__ = ["RecordHandler", "severity"]

# What every record has; all else was given by `extra=` or by a filter.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_OURS = ("opentelemetry", "meshaware.telemetry")
# What a `MeshLogFilter` leaves on a record, and what it writes where it does not know.
_FIELDS = frozenset(("trace_id", "span_id", "trace_sampled", "request_id", "workload", "namespace", "pod", "peer"))
_UNKNOWN = "-"
_DEEPEST = 4
_INT64 = 1 << 63


class RecordHandler(logging.Handler):
    """
    Hands each record to a logger provider, with the trace it was logged in.

    Not those of `opentelemetry` and `meshaware.telemetry`, nor any that is logged while something is exported: each
    failed export would be the cause of the next one.

    Where it is the only handler, as in a process that never configured logging, warnings and errors still go to
    stderr, as they do without any handler.

    Args:
        provider: Whoever made it.
    """

    def __init__(self, provider: LoggerProvider) -> None:
        super().__init__()
        self.provider = provider
        self._loggers: dict[str, Logger] = {}

    def createLock(self) -> None:  # noqa: N802 - logging's name
        """Hold none: what a signal handler logs, or another thread, must not wait for what was interrupted."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Hand one record over, unless a filter or this handler itself has a reason not to."""
        # From Python 3.12 on a filter may put another record in the place of the one that came.
        kept = cast("bool | logging.LogRecord", self.filter(record))
        if not kept:
            return False
        record = record if isinstance(kept, bool) else kept
        if not _of_the_export(record.name) and is_instrumentation_enabled():
            self.emit(record)
        last = logging.lastResort
        if last is not None and record.levelno >= last.level and self._alone(record.name):
            last.handle(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """Hand one record over."""
        try:
            self._logger(record.name).emit(_translated(record))
        except Exception:  # noqa: BLE001 - logging never raises in the code that logs
            self.handleError(record)

    def _logger(self, name: str) -> Logger:
        logger = self._loggers.get(name)
        if logger is None:
            logger = self._loggers[name] = self.provider.get_logger(name)
        return logger

    def _alone(self, name: str) -> bool:
        logger: logging.Logger | None = logging.getLogger(name)
        while logger is not None:
            if any(handler is not self for handler in logger.handlers):
                return False
            logger = logger.parent
        return True


def severity(level: int) -> SeverityNumber:
    """Python's level in OpenTelemetry's numbers: each ten has four of them, the last for all that is left."""
    if level <= 0:
        return SeverityNumber.UNSPECIFIED
    tens, ones = divmod(min(level, 53), 10)
    return SeverityNumber(1 + 4 * tens + min(ones, 3))


def _of_the_export(name: str) -> bool:
    return name.startswith(_OURS) and any(name == ours or name.startswith(f"{ours}.") for ours in _OURS)


def _translated(record: logging.LogRecord) -> LogRecord:
    error = None if record.exc_info is None else record.exc_info[1]
    attributes: dict[str, AnyValue] = {
        **served_request(error),
        "code.file.path": record.pathname,
        "code.function.name": record.funcName,
        "code.line.number": record.lineno,
    }
    for name, value in vars(record).items():
        if name not in _STANDARD and value is not None and not (name in _FIELDS and value == _UNKNOWN):
            attributes[_text(name)] = _plain(value)
    if error is not None:
        kind = type(error)
        of_python = kind.__module__ == "builtins"
        attributes["exception.type"] = kind.__qualname__ if of_python else f"{kind.__module__}.{kind.__qualname__}"
        attributes["exception.message"] = _text(str(error))
        attributes["exception.stacktrace"] = _text("".join(traceback.format_exception(error)))
    return LogRecord(
        timestamp=int(record.created * 1e9),
        severity_number=severity(record.levelno),
        severity_text=record.levelname,
        body=_text(record.getMessage()),
        attributes=attributes,
    )


def _text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-8", "backslashreplace").decode()
    return value


def _plain(value: object, depth: int = 0) -> AnyValue:
    """Make of any value one that can be encoded; what is nested too deeply is written as text."""
    if isinstance(value, str):
        return _text(value)
    if value is None or isinstance(value, bool | float | bytes):
        return value
    if isinstance(value, int):
        return value if -_INT64 <= value < _INT64 else str(value)
    if depth < _DEEPEST and isinstance(value, Mapping):
        pairs = cast("Mapping[object, object]", value).items()
        return {_text(str(key)): _plain(each, depth + 1) for key, each in pairs}
    if depth < _DEEPEST and isinstance(value, Sequence | set | frozenset):
        items = [_plain(each, depth + 1) for each in cast("Sequence[object]", value)]
        # SDKs before 1.45 take no sequence of several types.
        return items if len({type(each) for each in items}) < 2 else [_text(str(each)) for each in items]
    return _text(str(value))
