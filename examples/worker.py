"""
A worker without a web framework: it takes orders from a queue, and asks inventory for each.

The headers that came with a message go along with the calls that it causes: the mesh routes and traces them
as the work of whoever wrote the message.

    echo '{"headers": {"x-user-type": "premium"}, "order": "1"}' | python examples/worker.py
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import NamedTuple

import httpx

from meshaware import ReadinessGate, bind_headers, create_client


class Message(NamedTuple):
    """What a queue hands out: headers, as the producer got them from `outbound_headers`, and a body."""

    headers: dict[str, str]
    body: bytes


def work(messages: Iterable[Message], inventory: httpx.Client) -> None:
    """Reserve a copy for each order."""
    for message in messages:
        number = json.loads(message.body)["order"]
        with bind_headers(message.headers):
            reply = inventory.put(f"/reservations/{number}")
        print(f"order {number}: inventory answered {reply.raise_for_status().status_code}")


def from_lines(lines: Iterable[str]) -> Iterable[Message]:
    """Read messages as JSON, one a line: `{"headers": {"x-user-type": "premium"}, "order": "1"}`."""
    for line in lines:
        yield Message(json.loads(line).get("headers", {}), line.encode())


if __name__ == "__main__":
    ReadinessGate().wait()
    with create_client(base_url="http://inventory:8080") as client:
        work(from_lines(sys.stdin), client)
