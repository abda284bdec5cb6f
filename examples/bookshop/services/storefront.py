"""The storefront: what a browser talks to. It knows orders, and the publisher's site outside the mesh."""

from __future__ import annotations

import os
from typing import Any

from fastapi import FastAPI

from meshaware import Mesh

PUBLISHER = os.environ.get("PUBLISHER_URL", "https://publisher.example")

mesh = Mesh()
app = FastAPI(title="storefront")
mesh.install(app)

orders = mesh.async_client(base_url="http://orders:8080")
pictures = mesh.async_client(base_url="http://inventory:8080", follow_redirects=True)
publisher = mesh.async_client(base_url=PUBLISHER)


@app.get("/books/{sku}")
async def book(sku: str) -> dict[str, Any]:
    """The page of a book: what it costs, and whether it is there."""
    quote = await orders.get(f"/quotes/{sku}")
    return {"sku": sku, **quote.raise_for_status().json()}


@app.put("/orders/{number}", status_code=201)
async def order(number: str) -> dict[str, Any]:
    """Place an order under a number that the browser chose."""
    placed = await orders.put(f"/orders/{number}")
    return {"order": number, **placed.raise_for_status().json()}


@app.get("/books/{sku}/cover")
async def cover(sku: str) -> dict[str, Any]:
    """The picture of a book; inventory redirects to the publisher's site."""
    picture = await pictures.get(f"/covers/{sku}")
    return {"sku": sku, "bytes": len(picture.raise_for_status().content)}


@app.get("/books/{sku}/press")
async def press(sku: str) -> dict[str, Any]:
    """What the newspapers say, from the publisher's site."""
    reviews = await publisher.get(f"/press/{sku}")
    return {"sku": sku, "press": reviews.raise_for_status().text}
