"""Applications on real servers."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from meshaware.testing.serving import AppThread


@pytest.fixture(name="serving")
def _serving() -> Iterator[Callable[[Any], str]]:
    """Serve an application with uvicorn in a thread until the test is over; returns its URL."""
    running: list[AppThread] = []

    def serve(app: Any) -> str:
        listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        running.append(AppThread(app, listening, "test", {"log_config": None, "lifespan": "off"}))
        running[-1].start()
        return f"http://127.0.0.1:{listening.getsockname()[1]}"

    yield serve
    for each in running:
        each.stop()
