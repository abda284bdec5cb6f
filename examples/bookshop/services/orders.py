"""Orders: what a book costs, and who has bought it. It asks inventory."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, HTTPException

from meshaware import Mesh

mesh = Mesh()
app = FastAPI(title="orders")
mesh.install(app)

inventory = mesh.async_client(base_url="http://inventory:8080")
placed: set[str] = set()


@app.get("/quotes/{sku}")
async def quote(sku: str) -> dict[str, Any]:
    """The price of a book, and what inventory says of it."""
    stock = await inventory.get(f"/stock/{sku}")
    return {"price": "12.50", "stock": stock.raise_for_status().json()}


@app.put("/orders/{number}", status_code=201)
async def place(number: str) -> dict[str, Any]:
    """Place an order; placing it again changes nothing."""
    reservation = await inventory.put(f"/reservations/{number}")
    reservation.raise_for_status()
    placed.add(number)
    return {"placed": True}


@app.get("/orders/{number}")
async def order(number: str) -> dict[str, Any]:
    """An order that was placed."""
    if number not in placed:
        raise HTTPException(404, "There is no such order.")
    return {"placed": True}
