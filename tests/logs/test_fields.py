"""What a log line says of the moment in which it is written."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from threading import Thread

import anyio
import anyio.to_thread
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider

from meshaware.identity import Peer
from meshaware.logs.fields import FIELDS, MAX_SHOWN, MeshFields
from meshaware.propagation.context import Carried, bind, bind_headers, current, reset
from meshaware.propagation.hosts import HostPolicy
from meshaware.propagation.inbound import mark
from meshaware.propagation.threads import carry
from meshaware.settings import MeshSettings, Workload

NOBODY = MeshFields(Workload())


@pytest.fixture(name="fields")
def _fields(settings: MeshSettings) -> MeshFields:
    return MeshFields(settings.workload)


# Where


def test_within_a_request_every_field_is_known(fields: MeshFields, served: dict[str, object]) -> None:
    assert fields() == served
    assert set(served) == set(FIELDS)


def test_without_one_only_the_workload_is(fields: MeshFields, own: dict[str, object]) -> None:
    assert fields() == own
    assert NOBODY() == {}


def test_the_workload_s_name_is_the_mesh_s_else_its_own() -> None:
    both = Workload(service="orders", workload_name="orders-v2")
    assert MeshFields(both)() == {"workload": "orders"}
    assert MeshFields(Workload(workload_name="orders-v2"))() == {"workload": "orders-v2"}


@pytest.mark.anyio
async def test_tasks_and_worker_threads_of_a_request_know_it(fields: MeshFields, carried: Carried) -> None:
    seen = list[dict[str, str | bool]]()

    async def note() -> None:
        seen.append(fields())

    token = bind(carried)
    async with anyio.create_task_group() as group:
        group.start_soon(note)
        seen.append(await anyio.to_thread.run_sync(fields))
    seen.append(fields())
    reset(token)
    assert [line["request_id"] for line in seen] == ["4c7b9e2a-9a1d-9f9b-8c3e-5d1f2a3b4c5d"] * 3


def test_a_task_that_outlives_its_request_still_belongs_to_it(fields: MeshFields, carried: Carried) -> None:
    async def main() -> None:
        token = bind(carried)
        begun = asyncio.Event()

        async def later() -> object:
            await begun.wait()
            return fields().get("request_id")

        task = asyncio.create_task(later())
        reset(token)
        assert "request_id" not in fields()
        begun.set()
        assert await task == "4c7b9e2a-9a1d-9f9b-8c3e-5d1f2a3b4c5d"

    asyncio.run(main())


def test_plain_threads_and_executors_know_it_with_carry(fields: MeshFields, served: dict[str, object]) -> None:
    seen = list[dict[str, str | bool]]()

    def note() -> None:
        seen.append(fields())

    with ThreadPoolExecutor(1) as pool:
        assert "request_id" not in pool.submit(fields).result()
        assert pool.submit(carry(fields)).result() == served
    thread = Thread(target=carry(note))
    thread.start()
    thread.join(10)
    assert seen == [served]


def test_a_worker_s_lines_say_what_it_binds(fields: MeshFields, own: dict[str, object]) -> None:
    with bind_headers({"x-request-id": "job-17"}):
        assert fields() == own | {"request_id": "job-17"}
    assert fields() == own


def test_an_error_that_is_logged_after_its_request_says_which_it_was(
    fields: MeshFields, carried: Carried, own: dict[str, object]
) -> None:
    error = ValueError()
    assert fields(error) == own
    mark(error, carried)
    assert fields(error)["request_id"] == "4c7b9e2a-9a1d-9f9b-8c3e-5d1f2a3b4c5d"
    with bind_headers({"x-request-id": "other"}):
        assert fields(error)["request_id"] == "other"


# The trace


def test_a_live_span_goes_over_the_callers(fields: MeshFields, served: dict[str, object]) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    with provider.get_tracer("test").start_as_current_span("work") as span:
        position = span.get_span_context()
        assert fields() == served | {
            "trace_id": f"{position.trace_id:032x}",
            "span_id": f"{position.span_id:016x}",
            "trace_sampled": True,
        }
    assert fields() == served
    provider.shutdown()


def test_a_live_span_needs_no_request() -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    with provider.get_tracer("test").start_as_current_span("work"):
        assert set(NOBODY()) == {"trace_id", "span_id", "trace_sampled"}
    provider.shutdown()


def test_a_decision_that_is_left_to_the_receiver_is_no_field() -> None:
    with bind_headers({"b3": f"{'1' * 32}-{'2' * 16}"}):
        assert NOBODY() == {"trace_id": "1" * 32, "span_id": "2" * 16}
    with bind_headers({"x-b3-traceid": "1" * 16, "x-b3-spanid": "2" * 16, "x-b3-sampled": "0"}):
        # As long as everywhere else, so that one search finds all lines of a trace.
        assert NOBODY() == {"trace_id": "0" * 16 + "1" * 16, "span_id": "2" * 16, "trace_sampled": False}


# Hostile values


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b"job-17", "job-17"),
        # It must not look like two fields.
        (b"1 peer=admin", r"1\x20peer=admin"),
        (b"1\tpeer=admin", r"1\tpeer=admin"),
        # NEL and others over 127 end lines for some readers.
        (b"1\x85forged", r"1\x85forged"),
        (b"caf\xe9", r"caf\xe9"),
        (b"%s %(peer)s {peer} $peer", r"%s\x20%(peer)s\x20{peer}\x20$peer"),
        (b"a" * 256, "a" * 256),
        (b"a" * 257, "a" * 253 + "..."),
        (b"a" * 4096, "a" * 253 + "..."),
        (b"a" + b"\xff" * 4000, "a" + r"\xff" * 63 + "..."),
    ],
)
def test_a_request_id_is_shown_visible_and_bounded(value: bytes, shown: str) -> None:
    with bind_headers([("x-request-id", value)]):
        assert NOBODY() == {"request_id": shown}


@pytest.mark.parametrize("value", [b"", b"1\r\nforged", b"1\x00", b"\x1b[31m", b"a" * 4097])
def test_a_request_id_that_is_no_header_is_not_shown(value: bytes) -> None:
    token = bind(Carried([(b"x-request-id", value)], HostPolicy()))
    assert NOBODY() == {}
    reset(token)


_BYTES = st.one_of(st.binary(max_size=600), st.text(max_size=300).map(str.encode))
_NAMES = [b"x-request-id", b"traceparent", b"b3", b"x-b3-traceid", b"x-b3-spanid", b"x-b3-sampled"]


@given(st.lists(st.tuples(st.sampled_from(_NAMES), _BYTES), max_size=8), st.text(max_size=400), st.text(max_size=400))
def test_whatever_came_a_line_stays_one_line(found: list[tuple[bytes, bytes]], peer: str, service: str) -> None:
    fields = MeshFields(Workload.model_construct(service=service))
    token = bind(Carried(found, HostPolicy(), (lambda _: Peer(peer), [])))
    try:
        told = fields()
    finally:
        reset(token)
    for value in told.values():
        assert isinstance(value, bool) or (value.isascii() and value.isprintable() and " " not in value)
        assert isinstance(value, bool) or len(value) <= MAX_SHOWN
    assert current() is None


def test_no_value_ends_a_text_of_a_format_that_somebody_wrote_as_json() -> None:
    with bind_headers({"x-request-id": '1","peer":"spiffe://cluster.local/ns/admin/sa/root","x":"\\'}):
        shown = str(NOBODY()["request_id"])
    assert '"' not in shown
    assert shown.startswith("1\\x22,\\x22peer")
    assert shown.endswith("\\x5c")
