"""
The factories for httpx2: `from meshaware.httpx2 import create_async_client, create_client`.

The same budgets, headers and reports as for httpx; clients and errors are httpx2's. Needs `pip install
meshaware[httpx2]`.
"""

from __future__ import annotations

from meshaware.client.httpx2 import create_async_client, create_client

__all__ = ["create_async_client", "create_client"]
