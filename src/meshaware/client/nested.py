"""The transports inside a transport: what a wrapper of the caller's, or ours, passes its requests on to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["METHODS", "transports_within"]

METHODS = ("handle_request", "handle_async_request")
_MOST = 64


def transports_within(transport: Any) -> Iterator[Any]:
    """
    A transport, and whatever it keeps in its attributes that is a transport too, from the outside in.

    Wrapping transports have no common way to name what they wrap; all that are known keep it in an attribute.
    """
    waiting = [transport]
    seen: list[Any] = []
    while waiting and len(seen) < _MOST:
        each = waiting.pop(0)
        if any(each is other for other in seen) or not _is_transport(each):
            continue
        seen.append(each)
        yield each
        waiting.extend(getattr(each, "__dict__", {}).values())


def _is_transport(value: object) -> bool:
    return any(hasattr(type(value), method) for method in METHODS)
