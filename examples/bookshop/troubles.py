"""
Inventory on a bad day, for the scenes: run as `troubles:app` in place of `services.inventory:app`.

A reservation fails twice, slowly, before it succeeds; and `/feed` sends a byte now and then, for ever.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from services.inventory import app

SLOW = 0.45
DRIBBLE = 0.1

tries: dict[str, list[str]] = defaultdict(list)


@app.middleware("http")
async def fail_twice(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
    """Answer 503 to the first two tries of a reservation that come with the same x-request-id."""
    if not request.url.path.startswith("/reservations/"):
        return await go_on(request)
    number = request.url.path.rpartition("/")[2]
    this = request.headers.get("x-request-id", "none")
    tries[number].append(this)
    await asyncio.sleep(SLOW)
    return Response(status_code=503) if tries[number].count(this) <= 2 else await go_on(request)


@app.get("/tries/{number}")
async def tries_of(number: str) -> list[str]:
    """The x-request-id of each try to reserve, in the order in which they came."""
    return tries[number]


@app.get("/feed")
async def feed() -> StreamingResponse:
    """The news from the shelves; today it never ends."""

    async def dribble() -> AsyncIterator[bytes]:
        while True:
            yield b"."
            await asyncio.sleep(DRIBBLE)

    return StreamingResponse(dribble(), media_type="text/plain")
