"""What is logged becomes a log record, and nothing that is logged can do harm."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor

from meshaware import MeshSettings, bind_headers
from meshaware.identity import Peer, find_peer
from meshaware.logs import FIELDS, MeshLogFilter
from meshaware.propagation.context import Carried, bind, reset
from meshaware.propagation.hosts import HostPolicy
from meshaware.propagation.inbound import mark
from meshaware.telemetry.records import RecordHandler, severity
from meshaware.telemetry.values import LONGEST, MOST


class Logs:
    """A logger provider of somebody else's that keeps what it was handed."""

    def __init__(self) -> None:
        self._exporter: Any = cast("Any", InMemoryLogRecordExporter)()
        self.provider = LoggerProvider(shutdown_on_exit=False)
        self.provider.add_log_record_processor(SimpleLogRecordProcessor(self._exporter))

    @property
    def records(self) -> list[Any]:
        return [each.log_record for each in self._exporter.get_finished_logs()]

    def bodies(self) -> list[object]:
        return [record.body for record in self.records]

    def encode(self) -> bytes:
        """As an exporter would send it; an error where it could not."""
        encoded: bytes = encode_logs(self._exporter.get_finished_logs()).SerializeToString()
        return encoded


@pytest.fixture(name="logs")
def _logs() -> Logs:
    return Logs()


@pytest.fixture(name="logger")
def _logger(logs: Logs) -> Iterator[logging.Logger]:
    """A logger of an application's, whose records reach the handler on the root logger."""
    handler = RecordHandler(logs.provider)
    logging.getLogger().addHandler(handler)
    logger = logging.getLogger("shop.inventory")
    logger.setLevel(logging.DEBUG)
    yield logger
    logger.setLevel(logging.NOTSET)
    logging.getLogger().removeHandler(handler)


def test_a_record_says_what_was_logged_where_and_how_grave_it_is(logger: logging.Logger, logs: Logs) -> None:
    logger.warning("%d items left", 3, extra={"item": 42, "shelf": None})

    (record,) = logs.records
    assert record.body == "3 items left"
    assert (record.severity_number, record.severity_text) == (SeverityNumber.WARN, "WARNING")
    assert record.attributes["code.file.path"] == __file__
    assert record.attributes["code.function.name"].startswith("test_a_record_says")
    assert record.attributes["item"] == 42
    assert set(record.attributes) == {"code.file.path", "code.function.name", "code.line.number", "item"}


def test_a_record_belongs_to_the_trace_it_was_logged_in(logger: logging.Logger, logs: Logs, spans: Any) -> None:
    with spans.provider.get_tracer("test").start_as_current_span("count") as span:
        logger.info("inside")
    logger.info("outside")

    inside, outside = logs.records
    assert (inside.trace_id, inside.span_id) == (span.get_span_context().trace_id, span.get_span_context().span_id)
    assert outside.trace_id == 0


SPIFFE = "spiffe://cluster.local/ns/shop/sa/web"
XFCC = [(b"x-forwarded-client-cert", f"URI={SPIFFE}".encode())]


def carried(request_id: bytes) -> Carried:
    """What the middleware carries of a request, behind a sidecar of Istio's."""

    def read(headers: Iterable[tuple[bytes, bytes]]) -> Peer | None:
        return find_peer("x-forwarded-client-cert", headers)

    return Carried([(b"x-request-id", request_id)], HostPolicy(), (read, XFCC))


def test_a_record_names_its_request_and_who_called(logger: logging.Logger, logs: Logs) -> None:
    """Cut where that is long, and unless the call says it itself."""
    for request_id in (b"r-1", b"r" * 1000):
        token = bind(carried(request_id))
        logger.info("served")
        reset(token)
    with bind_headers({"x-request-id": "job-17"}):
        logger.info("in a job")
        logger.info("by the call", extra={"request_id": "own", "peer": "me"})
    logger.info("outside")

    told = [(record.attributes.get("request_id"), record.attributes.get("peer")) for record in logs.records]
    assert told[0] == ("r-1", SPIFFE)
    assert told[1] == ("r" * 253 + "...", SPIFFE)
    assert told[2:] == [("job-17", None), ("own", "me"), (None, None)]


def test_an_error_that_is_logged_after_its_request_names_it(logger: logging.Logger, logs: Logs) -> None:
    error = LookupError("no such shelf")
    mark(error, carried(b"r-1"))
    logger.error("failed", exc_info=error)

    assert logs.records[0].attributes["request_id"] == "r-1"


def test_what_a_filter_did_not_know_is_left_out(logs: Logs) -> None:
    """A `MeshLogFilter` writes `-` for it; elsewhere that is a value as any other."""
    record = logging.makeLogRecord({"name": "shop", "msg": "counted", "levelno": 20, "sign": "-"})
    MeshLogFilter(MeshSettings(mesh="none")).filter(record)
    assert record.__dict__["request_id"] == "-"

    with bind_headers({"x-request-id": "job-17"}):
        RecordHandler(logs.provider).handle(record)

    attributes = logs.records[0].attributes
    assert (attributes["sign"], attributes["request_id"]) == ("-", "job-17")
    assert not {name for name in FIELDS if attributes.get(name) == "-"}


def test_an_exception_is_told_with_its_trace(logger: logging.Logger, logs: Logs) -> None:
    try:
        raise LookupError("no such shelf")
    except LookupError:
        logger.exception("cannot count")

    (record,) = logs.records
    assert record.attributes["exception.type"] == "LookupError"
    assert record.attributes["exception.message"] == "no such shelf"
    assert "test_records.py" in record.attributes["exception.stacktrace"]


@pytest.mark.parametrize(
    "name",
    [
        "opentelemetry",
        "opentelemetry.exporter.otlp.proto.http._log_exporter",
        "opentelemetry.sdk._shared_internal",
        "meshaware.telemetry",
    ],
)
def test_what_the_export_has_to_say_is_not_exported(
    name: str, logger: logging.Logger, logs: Logs, caplog: pytest.LogCaptureFixture
) -> None:
    """Other handlers get it as before."""
    logging.getLogger(name).error("cannot export")

    assert logs.records == []
    assert caplog.messages == ["cannot export"]


@pytest.mark.parametrize("name", ["opentelemetrical", "meshaware.telemetry2", "meshaware.client"])
def test_a_name_that_merely_begins_alike_is_exported(name: str, logger: logging.Logger, logs: Logs) -> None:
    logging.getLogger(name).error("something else")

    assert logs.bodies() == ["something else"]


def test_what_any_library_logs_while_something_is_exported_is_not_exported(logger: logging.Logger, logs: Logs) -> None:
    """urllib3's "Starting new HTTP connection" would be the cause of the next one."""
    with suppress_instrumentation():
        logger.error("Starting new HTTP connection")

    assert logs.records == []


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("not now")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("\ud800", "\\ud800"),
        (1 << 63, str(1 << 63)),
        (-(1 << 63), -(1 << 63)),
        (Decimal("1.5"), "1.5"),
        ((1, 2), (1, 2)),
        ((1, "a", None), ("1", "a", "None")),
        ({"a": {"b": [1 << 64]}}, {"a": {"b": (str(1 << 64),)}}),
        ({1: "one"}, {"1": "one"}),
    ],
)
def test_a_value_that_cannot_be_encoded_is_written_as_text(
    value: object, expected: object, logger: logging.Logger, logs: Logs
) -> None:
    """It would cost the whole batch."""
    logger.info("see there", extra={"value": value})

    assert logs.records[0].attributes["value"] == expected
    assert logs.encode()


def test_a_value_that_contains_itself_ends(logger: logging.Logger, logs: Logs) -> None:
    loop: list[object] = []
    loop.append(loop)

    logger.info("round", extra={"loop": loop})

    assert len(logs.records) == 1
    assert logs.encode()


def test_what_is_logged_takes_little_time_and_room_however_much_it_is(logger: logging.Logger, logs: Logs) -> None:
    """And the record says that something is missing."""
    loop: list[object] = []
    loop.extend([loop] * 30)
    deep: list[object] = []
    for _ in range(30):
        deep = [deep] * 10
    extras: list[object] = [loop, deep, list(range(3_000_000)), {"loop": loop, "more": {*range(10_000)}}]

    for extra in extras:
        begin = time.process_time()
        logger.info("much", extra={"extra": extra})
        assert time.process_time() - begin < 0.25

    assert len(logs.encode()) < 200_000
    assert len(logs.records[2].attributes["extra"]) == MOST - 1
    assert [record.attributes["meshaware.truncated"] for record in logs.records] == [True] * 4


def test_what_fits_is_whole(logger: logging.Logger, logs: Logs) -> None:
    """To the last of its values; what is nested too deeply is a text that says what it was."""
    logger.info("many", extra={"items": list(range(MOST - 1))})
    logger.info("deep", extra={"deep": [[[[[1]]]]], "items": [1, 2]})

    many, deep = (record.attributes for record in logs.records)
    assert many["items"] == tuple(range(MOST - 1))
    assert (deep["deep"], deep["items"]) == ((((("<list of 1>",),),),), (1, 2))
    assert not {"meshaware.truncated"} & {*many, *deep}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (range(3_000_000), "range(0, 3000000)"),
        ("x" * 100_000, "x" * (LONGEST - 3) + "..."),
        (b"x" * 100_000, b"x" * LONGEST),
        (bytearray(b"abc"), b"abc"),
        pytest.param(1 << 100_000, hex(1 << 100_000), id="an integer"),
    ],
)
def test_a_long_value_is_cut(value: object, expected: object, logger: logging.Logger, logs: Logs) -> None:
    logger.info("long", extra={"value": value})

    assert logs.records[0].attributes["value"] == expected
    assert logs.encode()


def test_a_view_of_memory_is_text(logger: logging.Logger, logs: Logs) -> None:
    logger.info("memory", extra={"value": memoryview(bytes(3_000_000))})

    assert logs.records[0].attributes["value"].startswith("<memory at ")


def test_of_a_long_message_the_beginning_is_kept_and_of_a_long_trace_the_end(
    logger: logging.Logger, logs: Logs
) -> None:
    try:
        raise LookupError("shelf " * 20_000 + "is not there")
    except LookupError:
        logger.exception("m" * 100_000)

    (record,) = logs.records
    assert len(record.body) == LONGEST
    assert record.attributes["exception.message"].startswith("shelf ")
    assert record.attributes["exception.stacktrace"].endswith("is not there\n")
    assert len(record.attributes["exception.stacktrace"]) == LONGEST


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.binary() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec=None)), inner, max_size=3),
    max_leaves=8,
)


@given(value=_VALUES, message=st.text(st.characters(codec=None)))
def test_whatever_is_logged_can_be_encoded(value: object, message: str) -> None:
    logs = Logs()
    record = logging.makeLogRecord({"name": "shop", "msg": message, "levelno": 20, "value": value})

    RecordHandler(logs.provider).handle(record)

    assert len(logs.records) == 1
    assert logs.encode()


def test_a_record_that_cannot_be_written_harms_only_itself(
    logger: logging.Logger, logs: Logs, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with any handler: told on stderr, never raised where it was logged."""
    monkeypatch.setattr(logging, "lastResort", None)
    record = logging.makeLogRecord({"name": "shop", "msg": "%s", "args": (Unprintable(),), "levelno": 40})

    assert RecordHandler(logs.provider).handle(record)
    logger.info("next")

    assert logs.bodies() == ["next"]
    assert "not now" in capsys.readouterr().err


def test_a_filter_may_keep_a_record_back(logs: Logs) -> None:
    handler = RecordHandler(logs.provider)
    handler.addFilter(lambda record: "secret" not in record.getMessage())

    kept = [
        handler.handle(logging.makeLogRecord({"name": "shop", "msg": text, "levelno": 20}))
        for text in ("a secret", "an item")
    ]

    assert kept == [False, True]
    assert logs.bodies() == ["an item"]


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (-1, "UNSPECIFIED"),
        (0, "UNSPECIFIED"),
        (5, "TRACE4"),
        (10, "DEBUG"),
        (12, "DEBUG3"),
        (19, "DEBUG4"),
        (20, "INFO"),
        (30, "WARN"),
        (40, "ERROR"),
        (50, "FATAL"),
        (1000, "FATAL4"),
    ],
)
def test_every_level_has_a_severity(level: int, expected: str) -> None:
    assert severity(level).name == expected


@contextmanager
def only_handler(logs: Logs) -> Generator[None]:
    """The root logger has no other handler, as in a process that never configured logging."""
    root = logging.getLogger()
    before = root.handlers[:]
    root.handlers[:] = [RecordHandler(logs.provider)]
    try:
        yield
    finally:
        root.handlers[:] = before


def test_where_it_is_the_only_handler_warnings_still_go_to_stderr(
    logs: Logs, capsys: pytest.CaptureFixture[str]
) -> None:
    with only_handler(logs):
        logging.getLogger("shop").warning("few left")
        logging.getLogger("shop").info("plenty left")
        logging.getLogger("opentelemetry.exporter").error("cannot export")

    assert logs.bodies() == ["few left"]
    assert capsys.readouterr().err == "few left\ncannot export\n"


def test_where_another_handler_is_there_stderr_is_left_to_it(logs: Logs, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = logging.NullHandler()
    logging.getLogger("shop").addHandler(theirs)
    try:
        with only_handler(logs):
            logging.getLogger("shop.till").warning("few left")
    finally:
        logging.getLogger("shop").removeHandler(theirs)

    assert capsys.readouterr().err == ""
