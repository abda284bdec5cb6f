"""A copy of a request of httpx or httpx2, for the layers that change what leaves and not what the caller made."""

from __future__ import annotations

from typing import Any

__all__ = ["copy_request"]


def copy_request(request: object) -> Any:
    """
    Return a request of httpx or httpx2 that shares the stream of another, so that a layer may change its headers.

    Neither library has such a copy: `copy.copy` takes the way of pickling, which loses the stream and the extensions.
    """
    twin = object.__new__(type(request))
    vars(twin).update(vars(request))
    return twin
