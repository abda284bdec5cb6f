"""Whether a connection was refused, however a client library, AnyIO or trio has wrapped the socket's error. Pure."""

from __future__ import annotations

from typing import cast

__all__ = ["was_refused"]

_DEPTH = 8


def was_refused(error: BaseException | None) -> bool:
    """
    Tell whether the socket's own error, under at most eight others, is a refused connection.

    Where a name has several addresses, the first one's error stands for all.
    """
    for _ in range(_DEPTH):
        if error is None or isinstance(error, ConnectionRefusedError):
            break
        if isinstance(error, BaseExceptionGroup):
            error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
        else:
            error = error.__cause__ or error.__context__
    return isinstance(error, ConnectionRefusedError)
