"""
The factories for httpx2: `from meshaware.httpx2 import create_async_client, create_client`.

The same budgets, headers and reports as for httpx; clients and errors are httpx2's. Needs `pip install
meshaware[httpx2]`.
"""

from __future__ import annotations

try:
    from meshaware.client.httpx2 import create_async_client, create_client
except ModuleNotFoundError as error:
    if error.name != "httpx2":
        raise
    raise ImportError("meshaware.httpx2 needs httpx2: pip install 'meshaware[httpx2]'") from error

__all__ = ["create_async_client", "create_client"]
