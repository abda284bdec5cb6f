"""
From Python's logging to OpenTelemetry's log records: the handler on the root logger.

The SDK's own handler is deprecated. This one never exports what the export itself has to say, holds no lock, and hands
over nothing that an exporter could refuse: one value that cannot be encoded costs a whole batch.
"""

from __future__ import annotations

import logging
import traceback
from typing import cast

from opentelemetry._logs import Logger, LoggerProvider, LogRecord, SeverityNumber
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.util.types import AnyValue

from meshaware.telemetry.served import served_request
from meshaware.telemetry.values import Values, bounded_text

__all__ = ["RecordHandler", "severity"]

# What every record has; all else was given by `extra=` or by a filter.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_OURS = ("opentelemetry", "meshaware.telemetry")
# What a `MeshLogFilter` leaves on a record, and what it writes where it does not know.
_FIELDS = frozenset(("trace_id", "span_id", "trace_sampled", "request_id", "workload", "namespace", "pod", "peer"))
_UNKNOWN = "-"


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
    values = Values()
    for name, value in vars(record).items():
        if name not in _STANDARD and value is not None and not (name in _FIELDS and value == _UNKNOWN):
            if not values.room():
                break
            attributes[bounded_text(name)] = values.make(value)
    if not values.whole:
        attributes["meshaware.truncated"] = True
    if error is not None:
        kind = type(error)
        of_python = kind.__module__ == "builtins"
        attributes["exception.type"] = kind.__qualname__ if of_python else f"{kind.__module__}.{kind.__qualname__}"
        attributes["exception.message"] = bounded_text(str(error))
        attributes["exception.stacktrace"] = bounded_text("".join(traceback.format_exception(error)), end=True)
    return LogRecord(
        timestamp=int(record.created * 1e9),
        severity_number=severity(record.levelno),
        severity_text=record.levelname,
        body=bounded_text(record.getMessage()),
        attributes=attributes,
    )
