"""Threads and executors carry what their creator carries, where they are asked to, and nothing else."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Thread
from typing import Any

import anyio.from_thread
import pytest
from opentelemetry import baggage, context

from meshaware.deadline import current_deadline, limit
from meshaware.propagation.context import Carried, bind, bind_headers, current, outbound_headers
from meshaware.propagation.hosts import HostPolicy
from meshaware.propagation.threads import CarryingThreadPoolExecutor, carry

URL = "http://inventory:8080/items/42"


def request_id() -> str | None:
    return outbound_headers(URL).get("x-request-id")


async def async_request_id() -> str | None:
    await asyncio.sleep(0)
    return request_id()


class Notes:
    """Where work without a result writes down what it carried."""

    def __init__(self) -> None:
        self.seen: list[str | None] = []
        self.done = threading.Event()

    def take(self, *_: object) -> None:
        self.seen.append(request_id())

    def finish(self) -> None:
        self.take()
        self.done.set()


def in_thread(function: Callable[[], object]) -> list[object]:
    """What a function returns in a new thread."""
    returned = list[object]()
    thread = Thread(target=lambda: returned.append(function()))
    thread.start()
    thread.join(10)
    return returned


@pytest.fixture(name="carrying")
def _carrying() -> Iterator[CarryingThreadPoolExecutor]:
    with CarryingThreadPoolExecutor(2) as executor:
        yield executor


@pytest.fixture(name="plain")
def _plain() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


# Threads


def test_a_thread_starts_with_nothing() -> None:
    with bind_headers({"x-request-id": "1"}), limit(60):
        assert in_thread(request_id) == [None]
        assert in_thread(current_deadline) == [None]


def test_a_thread_carries_what_its_target_was_wrapped_with() -> None:
    notes = Notes()
    with bind_headers({"x-request-id": "1"}):
        thread = Thread(target=carry(notes.take))
    thread.start()
    thread.join(10)
    assert notes.seen == ["1"]


def test_the_deadline_and_opentelemetry_s_context_come_along() -> None:
    def look() -> tuple[float | None, object]:
        return current_deadline(), baggage.get_baggage("user")

    token = context.attach(baggage.set_baggage("user", "alice"))
    try:
        with limit(60):
            deadline = current_deadline()
            carried = carry(look)
            with CarryingThreadPoolExecutor() as executor:
                assert executor.submit(look).result(10) == (deadline, "alice")
    finally:
        context.detach(token)
    assert in_thread(carried) == [(deadline, "alice")]
    assert look() == (None, None)


def test_a_timer_carries_what_its_function_was_wrapped_with() -> None:
    notes = Notes()
    with bind_headers({"x-request-id": "1"}):
        timer = threading.Timer(0, carry(notes.take))
    timer.start()
    timer.join(10)
    assert notes.seen == ["1"]


# What can be wrapped


class Worker:
    """Work in each of the forms that a callable has."""

    def method(self, number: int, *, word: str) -> str:
        return f"{request_id()} {number}{word}"

    @classmethod
    def class_method(cls, number: int, *, word: str) -> str:
        return f"{request_id()} {number}{word}"

    @staticmethod
    def static_method(number: int, *, word: str) -> str:
        return f"{request_id()} {number}{word}"

    @staticmethod
    def describe(number: int) -> str:
        return f"{request_id()} {number}"

    def __call__(self, number: int, *, word: str) -> str:
        return f"{request_id()} {number}{word}"


@pytest.mark.parametrize(
    "function",
    [
        Worker().method,
        Worker.class_method,
        Worker.static_method,
        Worker(),
        partial(Worker.static_method, word="a"),
    ],
)
def test_whatever_does_its_work_when_called_can_be_wrapped(function: Callable[..., str]) -> None:
    with bind_headers({"x-request-id": "1"}):
        carried = carry(function)
    assert in_thread(lambda: carried(7, word="a")) == ["1 7a"]


def test_a_wrapped_function_looks_as_it_did() -> None:
    carried = carry(Worker.static_method)
    assert carried.__name__ == "static_method"
    assert carried.__doc__ == Worker.static_method.__doc__


def test_a_wrapped_function_runs_many_times_side_by_side_and_later(plain: ThreadPoolExecutor) -> None:
    barrier = threading.Barrier(2)

    def together() -> str | None:
        barrier.wait(10)
        return request_id()

    with bind_headers({"x-request-id": "1"}):
        carried = carry(together)
    for _ in range(10):
        assert [each.result(10) for each in (plain.submit(carried), plain.submit(carried))] == ["1", "1"]


def test_what_a_wrapped_function_sets_stays_its_own() -> None:
    def work() -> str | None:
        seen = request_id()
        bind(Carried([(b"x-request-id", b"2")], HostPolicy()))
        return seen

    with bind_headers({"x-request-id": "1"}):
        carried = carry(work)
        assert [carried(), carried()] == ["1", "1"]
        assert request_id() == "1"


def test_an_error_of_a_wrapped_function_is_its_own() -> None:
    def work() -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        carry(work)()


async def _coroutine_function() -> None:
    pass


def _generator_function() -> Iterator[None]:
    yield


async def _async_generator_function() -> AsyncIterator[None]:
    yield


class _AsyncCallable:
    async def __call__(self) -> None:
        pass


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (_coroutine_function, r"_coroutine_function, a coroutine function.*asyncio\.run\(work\(\)\)"),
        (partial(_coroutine_function), "a coroutine function"),
        (_AsyncCallable(), "_AsyncCallable.*a coroutine function"),
        (_AsyncCallable().__call__, "a coroutine function"),
        (_generator_function, r"_generator_function, a generator function.*list\(work\(\)\)"),
        (_async_generator_function, "_async_generator_function, a generator function"),
        (_generator_function(), r"got a generator: write carry\(work\), not carry\(work\(\)\)"),
        (None, "got a NoneType"),
    ],
)
def test_what_would_run_only_later_is_refused_with_what_to_do_instead(function: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        carry(function)


def test_the_advice_for_coroutine_and_generator_functions_holds() -> None:
    def numbers() -> Iterator[str | None]:
        for _ in range(2):
            yield request_id()

    with bind_headers({"x-request-id": "1"}):
        run, consume = carry(lambda: asyncio.run(async_request_id())), carry(lambda: list(numbers()))
    assert in_thread(run) == ["1"]
    assert in_thread(consume) == [["1", "1"]]


# Executors


def test_a_plain_executor_loses_it(plain: ThreadPoolExecutor) -> None:
    with bind_headers({"x-request-id": "1"}):
        assert plain.submit(request_id).result(10) is None
        assert list(plain.map(Worker.describe, range(2))) == ["None 0", "None 1"]
        assert plain.submit(carry(request_id)).result(10) == "1"


def test_submitted_work_carries_what_is_carried_where_it_is_submitted(carrying: CarryingThreadPoolExecutor) -> None:
    def work(number: int, *, word: str) -> str:
        return f"{request_id()} {number}{word}"

    for number in ("1", "2"):
        with bind_headers({"x-request-id": number}):
            future = carrying.submit(work, 7, word="a")
        assert future.result(10) == f"{number} 7a"
    assert carrying.submit(request_id).result(10) is None


def test_mapped_work_does_also_where_the_results_are_asked_for_later(carrying: CarryingThreadPoolExecutor) -> None:
    def work(number: int, word: str) -> str:
        return f"{request_id()} {number}{word}"

    with bind_headers({"x-request-id": "1"}):
        results = carrying.map(work, range(5), "abcde", timeout=10, chunksize=2)
    with bind_headers({"x-request-id": "2"}):
        assert list(results) == ["1 0a", "1 1b", "1 2c", "1 3d", "1 4e"]


def test_work_that_is_queued_behind_other_work_keeps_its_own() -> None:
    gate = threading.Event()
    with CarryingThreadPoolExecutor(1) as executor:
        executor.submit(gate.wait, 10)
        futures = list[Any]()
        for number in range(100):
            with bind_headers({"x-request-id": str(number)}):
                futures.append(executor.submit(request_id))
        gate.set()
        assert [each.result(10) for each in futures] == [str(number) for number in range(100)]


def test_nothing_is_left_in_the_executor_s_thread() -> None:
    class Token:
        pass

    def work(token: Token) -> None:
        bind(Carried([(b"x-request-id", b"2")], HostPolicy()))

    with CarryingThreadPoolExecutor(1) as executor:
        token = Token()
        gone = weakref.ref(token)
        with bind_headers({"x-request-id": "1"}):
            executor.submit(work, token).result(10)
        assert executor.submit(request_id).result(10) is None
        del token
        gc.collect()
        assert gone() is None


def test_an_initializer_runs_with_nothing_since_it_belongs_to_no_submission() -> None:
    seen = list[str | None]()
    with (
        CarryingThreadPoolExecutor(1, initializer=lambda: seen.append(request_id())) as executor,
        bind_headers({"x-request-id": "1"}),
    ):
        executor.submit(request_id).result(10)
    assert seen == [None]


def test_an_executor_of_this_kind_can_stand_wherever_the_plain_one_does(carrying: CarryingThreadPoolExecutor) -> None:
    assert isinstance(carrying, ThreadPoolExecutor)
    with pytest.raises(LookupError):
        carrying.submit(_raise).result(10)
    with pytest.raises(TypeError):
        carrying.submit()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    carrying.shutdown()
    with pytest.raises(RuntimeError, match="shutdown"):
        carrying.submit(request_id)


def _raise() -> None:
    raise LookupError


# Event loops


@pytest.mark.parametrize("own", [False, True], ids=["default", "own"])
@pytest.mark.parametrize("kind", [ThreadPoolExecutor, CarryingThreadPoolExecutor])
def test_run_in_executor_carries_with_this_executor_only(kind: type[ThreadPoolExecutor], *, own: bool) -> None:
    """As the default executor and as one that is named."""

    async def main(executor: ThreadPoolExecutor) -> list[str | None]:
        loop = asyncio.get_running_loop()
        if not own:
            loop.set_default_executor(executor)
        used = executor if own else None
        with bind_headers({"x-request-id": "1"}):
            return [
                await loop.run_in_executor(used, request_id),
                await loop.run_in_executor(used, carry(request_id)),
                await asyncio.to_thread(request_id),
            ]

    with kind() as executor:
        kept = "1" if kind is CarryingThreadPoolExecutor else None
        assert asyncio.run(main(executor)) == [kept, "1", "1"]


def test_a_coroutine_sent_to_a_loop_from_a_thread_carries_what_the_thread_carries() -> None:
    """`run_coroutine_threadsafe` and `call_soon_threadsafe`: not what the loop's own tasks carry."""

    async def main() -> list[object]:
        loop = asyncio.get_running_loop()

        def from_thread() -> str | None:
            return asyncio.run_coroutine_threadsafe(async_request_id(), loop).result(10)

        def soon() -> str | None:
            notes = Notes()
            loop.call_soon_threadsafe(notes.finish)
            notes.done.wait(10)
            return notes.seen[0]

        with bind_headers({"x-request-id": "1"}):
            carried = [carry(from_thread), carry(soon)]
            bare = await asyncio.gather(*(asyncio.to_thread(in_thread, each) for each in (from_thread, soon)))
        with bind_headers({"x-request-id": "2"}):
            kept = await asyncio.gather(*(asyncio.to_thread(in_thread, each) for each in carried))
        return [*bare, *kept]

    assert asyncio.run(main()) == [[None], [None], ["1"], ["1"]]


def test_call_later_and_callbacks_of_tasks_carry_what_whoever_asked_for_them_carries() -> None:
    async def main() -> list[str | None]:
        loop = asyncio.get_running_loop()
        notes = Notes()
        done = asyncio.Event()
        task = asyncio.create_task(asyncio.sleep(0))
        with bind_headers({"x-request-id": "1"}):
            loop.call_soon(notes.take)
            task.add_done_callback(notes.take)
            loop.call_later(0.001, notes.take)
            loop.call_later(0.001, done.set)
        await asyncio.wait_for(done.wait(), 10)
        return notes.seen

    assert asyncio.run(main()) == ["1", "1", "1"]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_blocking_portal_carries_what_the_calling_thread_carries(backend: str) -> None:
    async def ask() -> str | None:
        return request_id()

    with anyio.from_thread.start_blocking_portal(backend) as portal:
        for number in ("1", "2"):
            with bind_headers({"x-request-id": number}):
                assert portal.call(ask) == number
                assert portal.start_task_soon(ask).result(10) == number
        assert portal.call(ask) is None
    assert current() is None
