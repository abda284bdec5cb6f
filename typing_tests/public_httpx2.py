"""What type checkers see of `meshaware.httpx2`. Not meant to be executed."""

from __future__ import annotations

from typing import assert_type

import httpx
import httpx2

from meshaware import MeshSettings, RouteTable, call_options, report
from meshaware.budgets import Budget
from meshaware.client.httpx2 import ReadDeadlineExceeded
from meshaware.client.retries import DoubleRetryWarning
from meshaware.errors import DeadlineExceeded
from meshaware.httpx2 import create_async_client, create_client


async def clients(routes: RouteTable) -> None:
    client = create_client(MeshSettings(), routes=routes, base_url="http://inventory:8080", timeout=2.0)
    assert_type(client, httpx2.Client)
    async_client = create_async_client(routes=routes, transport=httpx2.MockTransport(lambda _: httpx2.Response(200)))
    assert_type(async_client, httpx2.AsyncClient)
    response = await async_client.get("/items", extensions=call_options(timeout=2.0))
    assert_type(response, httpx2.Response)
    assert_type(report(response).budget, Budget | None)
    create_client(limits=httpx2.Limits(keepalive_expiry=60))
    create_client(base_ulr="http://inventory:8080")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    create_client(retries=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    # A transport of the other library fails with a bare AssertionError at the first call; type checkers say so before.
    create_client(transport=httpx.HTTPTransport())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def errors(error: ReadDeadlineExceeded, warning: DoubleRetryWarning) -> tuple[DeadlineExceeded, UserWarning]:
    assert_type(error.request, httpx2.Request)
    return error, warning
