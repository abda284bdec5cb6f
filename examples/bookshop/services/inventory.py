"""Inventory: what is on the shelves. It asks nobody, and runs in two versions."""

from __future__ import annotations

import os
from typing import Any

from fastapi import FastAPI
from fastapi.responses import RedirectResponse

from meshaware import Mesh

PUBLISHER = os.environ.get("PUBLISHER_URL", "https://publisher.example")

mesh = Mesh()
app = FastAPI(title="inventory")
mesh.install(app)

reserved: set[str] = set()


@app.get("/stock/{sku}")
async def stock(sku: str) -> dict[str, Any]:
    """How many are left, and which version of inventory says so."""
    return {"sku": sku, "left": 3, "version": mesh.workload.version}


@app.put("/reservations/{number}")
async def reserve(number: str) -> dict[str, Any]:
    """Put a copy aside for an order; doing it again changes nothing."""
    reserved.add(number)
    return {"reserved": True}


@app.get("/covers/{sku}")
async def cover(sku: str) -> RedirectResponse:
    """The picture of a book is on the publisher's site."""
    return RedirectResponse(f"{PUBLISHER}/covers/{sku}", status_code=302)
