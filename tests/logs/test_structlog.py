"""structlog's events with the fields of the mesh."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from meshaware.errors import SettingsError
from meshaware.logs import MeshProcessor, add_mesh_fields
from meshaware.logs.structlog import _default_fields  # pyright: ignore[reportPrivateUsage]
from meshaware.propagation.context import Carried, bind_headers
from meshaware.propagation.inbound import mark
from meshaware.settings import MeshSettings


@pytest.fixture(autouse=True)
def _first_event() -> Iterator[None]:
    """The environment is read at the first event: each test has one."""
    _default_fields.cache_clear()
    yield
    _default_fields.cache_clear()


class _Lines:
    def __init__(self) -> None:
        self.written = list[dict[str, Any]]()

    def msg(self, text: str) -> None:
        self.written.append(json.loads(text))

    info = error = exception = msg


def logger_of(*processors: Any) -> tuple[Any, list[dict[str, Any]]]:
    lines = _Lines()
    return structlog.wrap_logger(lines, processors=[*processors, structlog.processors.JSONRenderer()]), lines.written


def test_an_event_says_all_that_is_known(
    monkeypatch: pytest.MonkeyPatch, settings: MeshSettings, served: dict[str, object]
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "orders")
    monkeypatch.setenv("POD_NAMESPACE", "shop")
    monkeypatch.setenv("POD_NAME", "orders-7d9f")
    for processor in (add_mesh_fields, MeshProcessor(), MeshProcessor(settings)):
        logger, lines = logger_of(processor)
        logger.info("hello", items=3)
        assert lines == [served | {"event": "hello", "items": 3}]


def test_outside_a_request_there_is_nothing_to_say() -> None:
    logger, lines = logger_of(add_mesh_fields)
    logger.info("hello")
    with bind_headers({"x-request-id": "job-17"}):
        logger.info("hello")
    assert lines == [{"event": "hello"}, {"event": "hello", "request_id": "job-17"}]


def test_what_the_event_has_stays() -> None:
    logger, lines = logger_of(add_mesh_fields)
    with bind_headers({"x-request-id": "job-17"}):
        logger.bind(request_id="mine").info("hello")
    assert lines == [{"event": "hello", "request_id": "mine"}]


def test_an_error_logged_after_its_request_names_the_request(carried: Carried) -> None:
    logger, lines = logger_of(add_mesh_fields, structlog.processors.format_exc_info)
    error = LookupError()
    mark(error, carried)
    logger.error("failed", exc_info=error)
    logger.error("failed", exc_info=(LookupError, error, None))
    try:
        raise error
    except LookupError:
        logger.exception("failed")
    assert [line.get("request_id") for line in lines] == ["4c7b9e2a-9a1d-9f9b-8c3e-5d1f2a3b4c5d"] * 3
    for nothing in (True, False, (), "text"):
        assert "request_id" not in add_mesh_fields(None, "error", {"event": "failed", "exc_info": nothing})


def test_settings_that_cannot_be_used_cost_no_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are an error where the application makes its own."""
    monkeypatch.setenv("MESHAWARE_TIMEOUT", "soon")
    monkeypatch.setenv("POD_NAME", "orders-7d9f")
    logger, lines = logger_of(add_mesh_fields)
    with bind_headers({"x-request-id": "1"}):
        logger.info("hello")
    assert lines == [{"event": "hello", "request_id": "1"}]
    with pytest.raises(SettingsError):
        MeshProcessor()


def test_structlog_is_not_loaded() -> None:
    script = (
        "import sys, meshaware.logs; print([n for n in ('structlog', 'opentelemetry', 'httpx') if n in sys.modules])"
    )
    seen = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    assert seen.stdout.strip() == "[]"
