"""What is warned of on the way, by log or by `warnings`, said as the command says things."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager

from meshaware.cli.terminal import say

__all__ = ["heard"]


@contextmanager
def heard() -> Generator[None]:
    """Say warnings at once, a line each, instead of where Python would; the loggers are put back at the end."""
    logger, handler = logging.getLogger("meshaware"), _Sayer(logging.WARNING)
    propagated, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default", UserWarning)
            try:
                yield
            finally:
                for each in caught:
                    _warn(str(each.message))
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagated


class _Sayer(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _warn(record.getMessage())


def _warn(message: str) -> None:
    say(f"meshaware: warning: {message}")
