"""The standard library's logging with the fields of the mesh."""

from __future__ import annotations

import io
import json
import logging
import logging.config
import logging.handlers
import math
import queue
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaware.errors import SettingsError
from meshaware.logs import FIELDS, MeshJsonFormatter, MeshLogFilter
from meshaware.propagation.context import Carried, bind_headers
from meshaware.propagation.inbound import mark
from meshaware.settings import MeshSettings

Say = Callable[[logging.Formatter, logging.Filter | None], tuple[logging.Logger, io.StringIO]]


@pytest.fixture(name="logger")
def _logger() -> Iterator[logging.Logger]:
    """A logger of one's own, outside the tree."""
    logger = logging.Logger("shop.orders")  # noqa: LOG001
    yield logger
    for handler in logger.handlers:
        handler.close()


def written(logger: logging.Logger, formatter: logging.Formatter, *filters: logging.Filter) -> io.StringIO:
    """Where the logger writes."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    for each in filters:
        handler.addFilter(each)
    logger.addHandler(handler)
    return stream


# MeshLogFilter


def test_any_format_can_name_the_fields(
    logger: logging.Logger, settings: MeshSettings, served: dict[str, object]
) -> None:
    stream = written(logger, logging.Formatter(" ".join(f"%({name})s" for name in FIELDS)), MeshLogFilter(settings))
    logger.info("hello")
    assert stream.getvalue().split() == [str(served[name]) for name in FIELDS]


@pytest.mark.parametrize(
    ("style", "text"), [("%", "%(request_id)s|%(peer)s"), ("{", "{request_id}|{peer}"), ("$", "$request_id|$peer")]
)
def test_what_is_not_known_is_a_dash(logger: logging.Logger, style: Any, text: str) -> None:
    stream = written(logger, logging.Formatter(text, style=style), MeshLogFilter())
    logger.info("hello")
    assert stream.getvalue() == "-|-\n"


def test_what_the_call_gives_stays(logger: logging.Logger) -> None:
    stream = written(logger, logging.Formatter("%(request_id)s %(peer)s"), MeshLogFilter())
    with bind_headers({"x-request-id": "1"}):
        logger.info("hello", extra={"request_id": "mine"})
    assert stream.getvalue() == "mine -\n"


def test_a_record_is_filled_in_where_it_is_made_and_not_again_in_another_thread(logger: logging.Logger) -> None:
    """With the filter on both ends of a queue, that of the request is the one that counts."""
    stream = io.StringIO()
    last = logging.StreamHandler(stream)
    last.setFormatter(logging.Formatter("%(request_id)s %(message)s"))
    last.addFilter(MeshLogFilter())
    records = queue.SimpleQueue[Any]()
    first = logging.handlers.QueueHandler(records)
    first.addFilter(MeshLogFilter())
    logger.addHandler(first)
    listener = logging.handlers.QueueListener(records, last)
    listener.start()
    with bind_headers({"x-request-id": "1"}):
        logger.info("hello")
    listener.stop()
    assert stream.getvalue() == "1 hello\n"


def test_settings_that_cannot_be_used_are_an_error_when_the_filter_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHAWARE_TIMEOUT", "soon")
    with pytest.raises(SettingsError, match="MESHAWARE_TIMEOUT"):
        MeshLogFilter()
    with pytest.raises(SettingsError, match="MESHAWARE_TIMEOUT"):
        MeshJsonFormatter()


# MeshJsonFormatter


def test_a_record_is_one_json_object_on_one_line(
    logger: logging.Logger, settings: MeshSettings, served: dict[str, object]
) -> None:
    stream = written(logger, MeshJsonFormatter(settings))
    logger.warning("%d items", 3, extra={"cart": ["a", 1], "user": None})
    text = stream.getvalue()
    assert text.endswith("\n")
    assert text.count("\n") == 1
    line = json.loads(text)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line["timestamp"])
    age = datetime.now(UTC) - datetime.fromisoformat(line.pop("timestamp"))
    assert 0 <= age.total_seconds() < 60
    assert line == {
        "level": "WARNING",
        "logger": "shop.orders",
        "message": "3 items",
        **served,
        "cart": ["a", 1],
        "user": None,
    }
    assert list(line)[:3] == ["level", "logger", "message"]


def test_what_is_not_known_is_left_out(logger: logging.Logger) -> None:
    stream = written(logger, MeshJsonFormatter())
    logger.info("hello")
    assert set(json.loads(stream.getvalue())) == {"timestamp", "level", "logger", "message"}


def test_with_the_filter_the_line_is_the_same(
    logger: logging.Logger, settings: MeshSettings, served: dict[str, object]
) -> None:
    streams = [
        written(logger, MeshJsonFormatter(settings)),
        written(logger, MeshJsonFormatter(settings), MeshLogFilter(settings)),
        written(logger, MeshJsonFormatter(MeshSettings())),
    ]
    logger.info("hello", extra={"count": 1})
    lines = [json.loads(stream.getvalue()) for stream in streams]
    assert lines[0] == lines[1] == lines[2]
    assert lines[0].items() >= served.items()


def test_a_second_of_time_without_a_fraction_has_one_all_the_same(logger: logging.Logger) -> None:
    record = logger.makeRecord("a", logging.INFO, "", 0, "hello", (), None)
    record.created = 1767225600.0
    assert json.loads(MeshJsonFormatter().format(record))["timestamp"] == "2026-01-01T00:00:00.000000Z"


def test_an_exception_and_a_stack_are_text(logger: logging.Logger) -> None:
    stream = written(logger, MeshJsonFormatter())
    try:
        raise LookupError("no\nsuch")
    except LookupError:
        logger.exception("failed", stack_info=True)
    line = json.loads(stream.getvalue())
    assert line["exception"].startswith("Traceback (most recent call last):")
    assert line["exception"].endswith("LookupError: no\nsuch")
    assert line["stack"].startswith("Stack (most recent call last):")


def test_an_error_logged_after_its_request_names_the_request(logger: logging.Logger, carried: Carried) -> None:
    plain = written(logger, logging.Formatter("%(request_id)s"), MeshLogFilter())
    stream = written(logger, MeshJsonFormatter())
    error = LookupError()
    mark(error, carried)
    logger.error("failed", exc_info=error)
    logger.error("failed", exc_info=(None, None, None))
    request_id = "4c7b9e2a-9a1d-9f9b-8c3e-5d1f2a3b4c5d"
    assert json.loads(stream.getvalue().splitlines()[0])["request_id"] == request_id
    assert plain.getvalue().splitlines()[0] == request_id


class _Unfriendly:
    def __repr__(self) -> str:
        raise RuntimeError


class _Key:
    def __repr__(self) -> str:
        return "<key>"


def test_no_value_costs_a_line(logger: logging.Logger) -> None:
    """What JSON cannot say is written as it shows itself."""
    stream = written(logger, MeshJsonFormatter())
    circle: list[object] = []
    circle.append(circle)
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    values: dict[str, object] = {
        "object": _Key(),
        "bytes": b"\xff\n",
        "set": {1},
        "nan": math.nan,
        "endless": {"a": [math.inf]},
        "keys": {(1, 2): 3},
        "circle": circle,
        "inside": {"a": _Key()},
        "unfriendly": _Unfriendly(),
        "surrogate": "\ud800",
        "fine": [1, {"a": "b"}],
    }
    logger.info("hello", extra=values)
    logger.info("hello", extra={"deep": deep, "fine": 1})
    text = stream.getvalue()
    assert text.isascii()
    one, two = (json.loads(line, parse_constant=_no_constant) for line in text.splitlines())
    assert (
        one.items()
        >= {
            "object": "<key>",
            "bytes": r"b'\xff\n'",
            "set": "{1}",
            "nan": "nan",
            "endless": "{'a': [inf]}",
            "keys": "{(1, 2): 3}",
            "circle": "[[...]]",
            "inside": {"a": "<key>"},
            "unfriendly": "<_Unfriendly without a repr>",
            "surrogate": "\ud800",
            "fine": [1, {"a": "b"}],
        }.items()
    )
    assert two["fine"] == 1
    assert two["deep"] == "<list without a repr>"


def _no_constant(name: str) -> object:
    raise AssertionError(f"{name} is no JSON")


def test_an_extra_cannot_take_the_place_of_what_the_line_says_itself(logger: logging.Logger) -> None:
    stream = written(logger, MeshJsonFormatter())
    logger.info("hello", extra={"level": 1, "logger": 2, "timestamp": 3, "exception": 4})
    line = json.loads(stream.getvalue())
    assert (line["level"], line["extra.level"]) == ("INFO", 1)
    assert (line["logger"], line["extra.logger"]) == ("shop.orders", 2)
    assert line["extra.timestamp"] == 3
    assert line["exception"] == 4


def test_uvicorns_message_in_colours_is_not_said_twice(logger: logging.Logger) -> None:
    stream = written(logger, MeshJsonFormatter())
    logger.info("Started", extra={"color_message": "\x1b[36mStarted\x1b[0m"})
    assert "color_message" not in json.loads(stream.getvalue())


@given(st.text(), st.text(), st.text())
def test_no_text_forges_a_second_line(message: str, value: str, key: str) -> None:
    logger = logging.Logger("a\nb")  # noqa: LOG001
    stream = written(logger, MeshJsonFormatter())
    logger.info("%s", message, extra={"value": value, "mapping": {key: value}})
    text = stream.getvalue()
    assert len(text.splitlines()) == 1
    line = json.loads(text)
    assert (line["message"], line["value"], line["mapping"]) == (message, value, {key: value})


@pytest.mark.parametrize("formatter", [MeshJsonFormatter, lambda: logging.Formatter("%(request_id)s %(message)s")])
@pytest.mark.parametrize("value", [b"1\x85forged", b"a b", b"a" * 4096, b"\xe2\x80\xa8forged", b'"}\\n{"level":"x"'])
def test_a_hostile_request_id_stays_within_its_line(
    logger: logging.Logger, formatter: Callable[[], logging.Formatter], value: bytes
) -> None:
    stream = written(logger, formatter(), MeshLogFilter())
    with bind_headers([("x-request-id", value)]):
        logger.info("hello")
    text = stream.getvalue()
    assert len(text.splitlines()) == 1
    assert text.isascii()
    assert len(text) < 500


def test_it_is_configured_from_a_dictionary(capsys: pytest.CaptureFixture[str]) -> None:
    name = "meshaware-test-dictionary"
    logging.config.dictConfig(
        {
            "version": 1,
            "incremental": False,
            "disable_existing_loggers": False,
            "filters": {"mesh": {"()": "meshaware.logs.MeshLogFilter"}},
            "formatters": {"json": {"()": "meshaware.logs.MeshJsonFormatter"}},
            "handlers": {
                "out": {
                    "class": "logging.StreamHandler",
                    "stream": "ext://sys.stdout",
                    "filters": ["mesh"],
                    "formatter": "json",
                }
            },
            "loggers": {name: {"handlers": ["out"], "level": "INFO", "propagate": False}},
        }
    )
    with bind_headers({"x-request-id": "1"}):
        logging.getLogger(name).info("hello")
    logging.getLogger(name).handlers.clear()
    assert json.loads(capsys.readouterr().out)["request_id"] == "1"
