"""What a task or thread carries."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from threading import Thread

import anyio
import anyio.to_thread
import pytest

from meshaware.errors import SettingsError
from meshaware.propagation.context import (
    Carried,
    attach,
    bind,
    bind_headers,
    carry,
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


def _append(seen: list[str | None], function: Callable[[], str | None]) -> None:
    seen.append(function())


def test_threads_and_executors_start_with_nothing_unless_carried() -> None:
    seen = list[str | None]()
    with ThreadPoolExecutor(4) as pool:
        with bind_headers({"x-request-id": "1"}):
            for function in (request_id, carry(request_id)):
                thread = Thread(target=_append, args=(seen, function))
                thread.start()
                thread.join(10)
            carried = carry(request_id)
            assert pool.submit(request_id).result(10) is None
        # Many at once, and after the block.
        assert {each.result(10) for each in [pool.submit(carried) for _ in range(100)]} == {"1"}
    assert seen == [None, "1"]


def test_run_in_an_executor_with_what_is_carried() -> None:
    async def main() -> tuple[str | None, str | None]:
        loop = asyncio.get_running_loop()
        with bind_headers({"x-request-id": "1"}):
            return (
                await loop.run_in_executor(None, request_id),
                await loop.run_in_executor(None, carry(request_id)),
            )

    assert asyncio.run(main()) == (None, "1")


def test_a_carried_function_is_called_as_it_is_and_leaks_nothing_back() -> None:
    def work(number: int, *, word: str) -> str:
        """Work."""
        bind(Carried([(b"x-request-id", b"2")], HostPolicy()))
        return f"{number}{word}"

    with bind_headers({"x-request-id": "1"}):
        carried = carry(work)
        assert carried(1, word="a") == "1a"
        assert carried.__doc__ == "Work."
        assert carried.__name__ == "work"
        assert request_id() == "1"


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


def test_leaving_a_block_in_another_context_is_an_error() -> None:
    binding = bind_headers({"x-request-id": "1"})
    Context().run(binding.__enter__)
    with pytest.raises(ValueError, match="different Context"):
        binding.__exit__(None, None, None)


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
