"""What a task or thread carries."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from meshaware.deadline import detached, limit
from meshaware.deadline.work import Work, begin, end
from meshaware.errors import SettingsError
from meshaware.propagation.context import (
    Carried,
    attach,
    bind,
    bind_headers,
    current,
    outbound_headers,
    reset,
)
from meshaware.propagation.hosts import HostPolicy

URL = "http://inventory:8080/items/42"


def request_id() -> str | None:
    return outbound_headers(URL).get("x-request-id")


# Binding


def test_a_block_carries_its_headers_and_leaves_nothing() -> None:
    with bind_headers({"X-Request-Id": "1", "x-user-type": "premium"}):
        assert outbound_headers(URL) == {"x-request-id": "1", "x-user-type": "premium"}
    assert outbound_headers(URL) == {}


def test_blocks_nest_and_restore() -> None:
    with bind_headers({"x-request-id": "1", "x-user-type": "premium"}):
        with bind_headers([("x-request-id", "2"), ("x-canary", "1")]):
            assert outbound_headers(URL) == {"x-user-type": "premium", "x-request-id": "2", "x-canary": "1"}
        assert outbound_headers(URL) == {"x-request-id": "1", "x-user-type": "premium"}


def test_an_exception_restores_too() -> None:
    with pytest.raises(KeyError), bind_headers({"x-request-id": "1"}):
        raise KeyError
    assert current() is None


def test_one_binding_can_be_entered_again_and_again() -> None:
    binding = bind_headers({"x-request-id": "1"})
    for _ in range(2):
        with binding, binding:
            assert request_id() == "1"
        assert request_id() is None


def test_a_wrong_header_is_refused_before_the_block_begins() -> None:
    with pytest.raises(ValueError, match="x-tenant has no value"):
        bind_headers({"x-tenant": ""})


def test_an_inner_trace_replaces_the_outer_one() -> None:
    outer = {
        "traceparent": f"00-{'1' * 32}-{'2' * 16}-01",
        "tracestate": "a=1",
        "x-b3-traceid": "1" * 32,
        "x-b3-spanid": "2" * 16,
    }
    inner = {"traceparent": f"00-{'3' * 32}-{'4' * 16}-00"}
    with bind_headers(outer), bind_headers(inner):
        assert outbound_headers(URL) == inner


def test_the_hosts_of_the_outer_block_hold_unless_others_are_given() -> None:
    corp = HostPolicy([".corp.example"])
    with bind_headers({"x-request-id": "1"}, hosts=corp):
        with bind_headers({"x-canary": "1"}):
            assert len(outbound_headers("http://a.corp.example/")) == 2
        with bind_headers({"x-canary": "1"}, hosts=HostPolicy()):
            assert outbound_headers("http://a.corp.example/") == {}


def test_a_worker_is_told_by_variables_who_is_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no settings object where only bind_headers is used."""
    with bind_headers({"x-request-id": "1"}):
        assert outbound_headers("http://a.corp.example/") == {}
    monkeypatch.setenv("MESHAWARE_MESH_HOSTS", ".corp.example,10.0.0.0/8")
    monkeypatch.setenv("MESHAWARE_CLUSTER_DOMAIN", "mesh.corp")
    with bind_headers({"x-request-id": "1"}):
        for host in ("a.corp.example", "10.1.1.1", "a.b.svc.mesh.corp"):
            assert outbound_headers(f"http://{host}/") == {"x-request-id": "1"}
        assert outbound_headers("http://a.b.svc.cluster.local/") == {}
    monkeypatch.setenv("MESHAWARE_MESH_HOSTS", "http://a")
    with pytest.raises(SettingsError, match="MESHAWARE_MESH_HOSTS"), bind_headers({"x-request-id": "1"}):
        pass


def test_carried_headers_are_looked_at_once_and_never_shown() -> None:
    carried = Carried([(b"x-user-type", b"secret"), (b"x-canary", b"")], HostPolicy())
    assert carried.headers == ((b"x-user-type", b"secret"),)
    assert carried.cargo is carried.cargo
    assert "secret" not in repr(carried)
    assert "1 headers" in repr(carried)


def test_binding_nothing_carries_nothing() -> None:
    with bind_headers({"x-request-id": "1"}):
        token = bind(None)
        assert outbound_headers(URL) == {}
        reset(token)
        assert request_id() == "1"


# What goes out


@pytest.mark.parametrize(
    "url",
    [
        "http://inventory",
        "http://inventory/",
        "HTTP://INVENTORY:8080",
        "https://inventory.shop.svc/path",
        "ws://inventory",
        "wss://inventory?x=1",
        "http://user:pass@inventory/",
        "http://inventory#fragment",
        "http://inventory:/",
        "http://inventory.shop.svc.cluster.local:8080/a@b.com",
        "http://inventory/?to=http://example.com/",
    ],
)
def test_calls_inside_the_mesh_get_headers(url: str) -> None:
    with bind_headers({"x-request-id": "1"}):
        assert outbound_headers(url) == {"x-request-id": "1"}


@pytest.mark.parametrize(
    "url",
    [
        "",
        "inventory",
        "inventory:8080",
        "//inventory/",
        "/items",
        "ftp://inventory/",
        "file:///inventory",
        "http:///inventory",
        "http:inventory",
        "http:/inventory",
        "http://",
        "http://example.com/",
        "http://inventory.example.com/",
        "http://inventory@example.com/",
        "http://inventory:80@example.com/",
        "http://example.com@evil@inventory/",
        "http://example.com\\@inventory/",
        "http://inventory\\.example.com/",
        "http://inventory\t.example.com/",
        "http://inventory\n.example.com/",
        "http://inventory%2eexample.com/",
        "http://inventory\u3002example.com/",
        "http://inventory:80:80/",
        "http://inventory:port/",
        "http://example.com#@inventory/",
        "http://example.com?@inventory/",
        "http://localhost:8080/",
        "http://127.0.0.1/",
        "http://[::1]:8080/",
        "http://[::1/",
        " http://inventory/",
        "http://inventory /",
        "http://\u212aube/",
        "http://" + "a." * 5000 + "svc/",
    ],
)
def test_calls_to_anywhere_else_get_none(url: str) -> None:
    with bind_headers({"x-request-id": "1"}):
        assert outbound_headers(url) == {}


def test_a_listed_address_gets_headers() -> None:
    with bind_headers({"x-request-id": "1"}, hosts=HostPolicy(["localhost", "127.0.0.1", "::1"])):
        for host in ("localhost", "127.0.0.1:8080", "[::1]:8080"):
            assert outbound_headers(f"http://{host}/") == {"x-request-id": "1"}


@pytest.mark.parametrize(
    ("host", "inside"), [("inventory", True), ("inventory.shop.svc:80", True), ("example.com", False), ("", False)]
)
def test_a_host_header_must_be_inside_as_well(host: str, inside: bool) -> None:
    with bind_headers({"x-request-id": "1"}):
        assert bool(outbound_headers(URL, {"HOST": host})) == inside
        assert outbound_headers("http://example.com/", {"Host": "inventory"}) == {}


def test_what_the_call_has_does_not_come_back() -> None:
    with bind_headers({"x-request-id": "1", "x-canary": "1", "x-user-type": "a"}):
        assert outbound_headers(URL, {"X-Request-ID": "mine", "x-user-type": "ä"}) == {"x-canary": "1"}


def test_values_that_clients_write_differently_stay_behind() -> None:
    with bind_headers([("x-user-type", b"caf\xe9"), ("x-canary", "1")]):
        assert outbound_headers(URL) == {"x-canary": "1"}
        assert attach([]) == [(b"x-user-type", b"caf\xe9"), (b"x-canary", b"1")]


def test_bytes_as_some_clients_hold_them_are_understood() -> None:
    class Url:
        def __str__(self) -> str:
            return URL

    with bind_headers({"x-request-id": "1", "x-canary": "1"}):
        assert outbound_headers(Url(), {b"x-canary": b"0"}) == {"x-request-id": "1"}  # type: ignore[arg-type, dict-item]


def test_a_request_keeps_its_headers_and_gets_those_it_lacks() -> None:
    raw = [(b"Host", b"inventory"), (b"X-Canary", b"mine"), (b"Cookie", b"a"), (b"Cookie", b"b")]
    with bind_headers({"x-request-id": "1", "x-canary": "1"}):
        assert attach(raw) == [*raw, (b"x-request-id", b"1")]
    assert list(attach(raw)) == raw
    with bind_headers({"x-canary": "1"}):
        assert attach(raw) is raw


# Where it holds


@pytest.mark.anyio
async def test_tasks_and_worker_threads_inherit_and_cannot_touch_their_parent() -> None:
    seen = list[str | None]()

    async def child(number: str) -> None:
        assert request_id() == "1"
        with bind_headers({"x-request-id": number}):
            await anyio.lowlevel.checkpoint()
            seen.append(await anyio.to_thread.run_sync(request_id))

    with bind_headers({"x-request-id": "1"}):
        async with anyio.create_task_group() as group:
            for number in "234":
                group.start_soon(child, number)
        assert request_id() == "1"
    assert sorted(filter(None, seen)) == ["2", "3", "4"]


def test_asyncio_to_thread_and_tasks_that_outlive_the_block() -> None:
    async def later(event: asyncio.Event) -> str | None:
        await event.wait()
        return request_id()

    async def main() -> None:
        event = asyncio.Event()
        with bind_headers({"x-request-id": "1"}):
            task = asyncio.create_task(later(event))
            assert await asyncio.to_thread(request_id) == "1"
        assert request_id() is None
        event.set()
        assert await task == "1"

    asyncio.run(main())


def test_a_generator_that_nobody_finishes_makes_no_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed by another context than the one it began in, it has nothing to take back there."""
    complaints = list[object]()
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)

    def numbers() -> Iterator[str | None]:
        with bind_headers({"x-request-id": "1"}):
            yield request_id()

    generator = numbers()
    assert copy_context().run(next, generator) == "1"
    del generator
    gc.collect()
    assert complaints == []
    assert current() is None


def test_a_block_that_ends_in_another_context_is_an_error_that_says_what_to_do() -> None:
    binding = bind_headers({"x-request-id": "1"})
    Context().run(binding.__enter__)
    with pytest.raises(RuntimeError, match="Bind around each call"):
        binding.__exit__(None, None, None)
    assert current() is None


@pytest.mark.parametrize("error", [LookupError(), asyncio.CancelledError(), GeneratorExit(), KeyboardInterrupt()])
def test_an_error_that_leaves_a_block_in_another_context_stays_the_one_it_is(error: BaseException) -> None:
    """Above all a cancellation: whoever cancelled waits for it."""
    binding = bind_headers({"x-request-id": "1"})
    Context().run(binding.__enter__)
    with bind_headers({"x-request-id": "2"}):
        with pytest.raises(type(error)), contextlib.ExitStack() as stack:
            stack.push(binding.__exit__)
            raise error
        assert request_id() == "2"


def _numbers(number: str) -> Iterator[str | None]:
    with bind_headers({"x-request-id": number}):
        while True:
            yield request_id()


def test_a_generator_of_an_earlier_job_that_is_closed_in_a_later_one_brings_nothing_back() -> None:
    """A worker's jobs share one context, and the collector closes an unfinished generator when it likes."""
    with bind_headers({"x-request-id": "1"}):
        unfinished = _numbers("1a")
        next(unfinished)
    assert current() is None
    with bind_headers({"x-request-id": "2"}):
        unfinished.close()  # type: ignore[attr-defined]
        assert request_id() == "2"
    assert current() is None


def test_generators_that_are_closed_in_any_order_leave_nothing() -> None:
    for order in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)):
        generators = [_numbers(number) for number in "123"]
        assert [next(generator) for generator in generators] == ["1", "2", "3"]
        for index in order:
            generators[index].close()  # type: ignore[attr-defined]
        assert current() is None


def test_an_outer_block_ends_what_unfinished_generators_bound_inside() -> None:
    with bind_headers({"x-request-id": "1"}):
        with bind_headers({"x-request-id": "2"}):
            unfinished = _numbers("3")
            next(unfinished)
        assert request_id() == "1"
    assert current() is None


def test_one_binding_can_be_entered_by_many_threads_at_once() -> None:
    shared = bind_headers({"x-canary": "1"})
    barrier = threading.Barrier(4)

    def work(number: int) -> None:
        for _ in range(20):
            with bind_headers({"x-request-id": str(number)}):
                barrier.wait(10)
                with shared:
                    barrier.wait(10)
                    assert outbound_headers(URL) == {"x-request-id": str(number), "x-canary": "1"}
                assert outbound_headers(URL) == {"x-request-id": str(number)}
            assert current() is None

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


@pytest.mark.anyio
async def test_one_binding_can_be_entered_by_tasks_in_turn() -> None:
    shared = bind_headers({"x-canary": "1"})
    inside, left = anyio.Event(), anyio.Event()

    async def first() -> None:
        with shared:
            inside.set()
            await left.wait()
            assert outbound_headers(URL) == {"x-canary": "1"}
        assert current() is None

    async def second() -> None:
        await inside.wait()
        with shared:
            left.set()
            await anyio.lowlevel.checkpoint()
        assert current() is None

    async with anyio.create_task_group() as group:
        group.start_soon(first)
        group.start_soon(second)


@pytest.mark.anyio
async def test_a_cancelled_block_restores() -> None:
    with bind_headers({"x-request-id": "1"}):
        with anyio.move_on_after(0) as scope, bind_headers({"x-request-id": "2"}):
            await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert request_id() == "1"


def test_an_asynchronous_generator_that_nobody_finishes_makes_no_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop closes it in a task of its own."""
    complaints = list[object]()
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)

    async def numbers() -> AsyncIterator[str | None]:
        with bind_headers({"x-request-id": "2"}):
            yield request_id()

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, problem: complaints.append(problem))
        with bind_headers({"x-request-id": "1"}):
            unfinished: AsyncIterator[str | None] | None = numbers()
            assert await asyncio.create_task(anext(unfinished)) == "2"  # type: ignore[arg-type]
            unfinished = None
            gc.collect()
            await asyncio.sleep(0)
            assert request_id() == "1"

    asyncio.run(main())
    assert complaints == []


@pytest.mark.anyio
async def test_an_asynchronous_generator_sees_its_own_block() -> None:
    async def numbers() -> AsyncIterator[str | None]:
        with bind_headers({"x-request-id": "2"}):
            for _ in range(2):
                yield request_id()
                await anyio.lowlevel.checkpoint()

    assert [number async for number in numbers()] == ["2", "2"]
    assert request_id() is None


def test_many_threads_never_see_each_others_headers() -> None:
    def work(number: int) -> bool:
        for turn in range(50):
            mine = f"{number}-{turn}"
            with bind_headers({"x-request-id": mine, "x-user-type": mine}):
                if set(outbound_headers(URL).values()) != {mine}:
                    return False
        return outbound_headers(URL) == {}

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(64)))


def test_what_is_left_of_a_deadline_goes_along_inside_the_mesh() -> None:
    """Fresh each time, and never over what the call has already."""
    with bind_headers({"x-request-id": "1"}), limit(2):
        first = int(outbound_headers(URL)["x-mesh-deadline-ms"])
        assert 1900 < first <= 2000
        with limit(1):
            assert 900 < int(outbound_headers(URL)["x-mesh-deadline-ms"]) <= 1000
        with detached():
            assert outbound_headers(URL) == {"x-request-id": "1"}
        assert outbound_headers("http://example.com/") == {}
        assert outbound_headers(URL, {"X-Mesh-Deadline-Ms": "5"}) == {"x-request-id": "1"}
    with limit(0):
        assert outbound_headers(URL) == {"x-mesh-deadline-ms": "1"}
    with limit(float("inf")):
        assert outbound_headers(URL) == {}


def test_the_deadline_has_the_name_of_its_request_or_else_of_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """And goes nowhere where deadlines are off."""
    monkeypatch.setenv("MESHAWARE_DEADLINE_HEADER", " Deadline-Budget ")
    with limit(2):
        assert set(outbound_headers(URL)) == {"deadline-budget"}
    token = begin(Work(None, name=b"x-own"))
    with limit(2), detached(), limit(1):
        assert set(outbound_headers(URL)) == {"x-own"}
    end(token)
    for none in ("two words", "\udcff", ""):
        monkeypatch.setenv("MESHAWARE_DEADLINE_HEADER", none)
        with limit(2):
            assert set(outbound_headers(URL)) == {"x-mesh-deadline-ms"}
    monkeypatch.setenv("MESHAWARE_DEADLINE_HEADER", "deadline-budget")
    monkeypatch.setenv("MESHAWARE_DEADLINES", "Off")
    with limit(2), bind_headers({"deadline-budget": "7"}):
        assert outbound_headers(URL) == {"deadline-budget": "7"}


def test_a_value_that_came_is_not_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever bound it under a name of his own."""
    monkeypatch.setenv("MESHAWARE_DEADLINE_HEADER", "deadline-budget")
    with bind_headers({"deadline-budget": "7000"}):
        assert outbound_headers(URL) == {}
        with limit(1):
            assert 900 < int(outbound_headers(URL)["deadline-budget"]) <= 1000
