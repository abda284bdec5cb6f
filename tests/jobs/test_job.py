"""One piece of work beside a sidecar: waited for, run, and the sidecar let go; every way on threads and tasks."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest

from meshaware import Mesh, MeshSettings
from meshaware.errors import SidecarNotReady
from meshaware.jobs.job import outcome_of
from meshaware.jobs.sigterm import Terminated

Work = Callable[[], object]
Run = Callable[..., object]


def run_sync(mesh: Mesh, work: Work, **arguments: Any) -> object:
    with mesh.job(**arguments):
        return work()


def run_decorated(mesh: Mesh, work: Work, **arguments: Any) -> object:
    return mesh.job(**arguments)(work)()


async def run_async(mesh: Mesh, work: Work, **arguments: Any) -> object:
    async with mesh.async_job(**arguments):
        await anyio.lowlevel.checkpoint()
        return work()


async def run_async_decorated(mesh: Mesh, work: Work, **arguments: Any) -> object:
    @mesh.async_job(**arguments)
    async def job() -> object:
        await anyio.lowlevel.checkpoint()
        return work()

    return await job()


WAYS: dict[str, Run] = {"with": run_sync, "decorator": run_decorated}
for backend in ("asyncio", "trio"):
    for name, way in (("async-with", run_async), ("async-decorator", run_async_decorated)):

        def blocking(
            way: Callable[..., Coroutine[Any, Any, object]], backend: str, mesh: Mesh, work: Work, **arguments: Any
        ) -> object:
            return anyio.run(functools.partial(way, mesh, work, **arguments), backend=backend)

        WAYS[f"{name}-{backend}"] = functools.partial(blocking, way, backend)


@pytest.fixture(name="run", params=list(WAYS.values()), ids=list(WAYS))
def _run(request: pytest.FixtureRequest) -> Run:
    run: Run = request.param
    return run


def fail() -> None:
    raise LookupError("shelf")


@pytest.fixture(name="lines")
def _lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[tuple[int, str]]]:
    """What a job logged: level and message."""
    caplog.set_level(logging.INFO, "meshaware.job")
    return lambda: [(each.levelno, each.message) for each in caplog.records if each.name == "meshaware.job"]


def test_the_sidecar_is_let_go_when_the_work_is_done(run: Run, sidecar: Any, lines: Any) -> None:
    """Once, after the work, whose result is its own; one line says so."""
    sidecar.events.clear()
    assert run(Mesh(sidecar.settings()), lambda: sidecar.events.append("work") or 42) == 42
    assert sidecar.events == ["work", "told"]
    assert lines() == [
        (logging.INFO, "the sidecar (Istio) was told to go: it exits at once, without draining"),
    ]


def test_the_work_waits_for_the_gate(run: Run, sidecar: Any) -> None:
    """And is not begun where it stays closed; the sidecar stays then, for the next attempt."""
    sidecar.ready = False
    mesh = Mesh(sidecar.settings(ready_timeout="50ms"))
    with pytest.raises(SidecarNotReady):
        run(mesh, lambda: pytest.fail("begun"))
    assert sidecar.told == 0


def test_a_gate_that_is_not_fatal_lets_the_work_begin(run: Run, sidecar: Any) -> None:
    """As the setting says."""
    sidecar.ready = False
    assert run(Mesh(sidecar.settings(ready_timeout="50ms", ready_fatal=False)), lambda: 42) == 42
    assert sidecar.told == 1


def test_a_job_that_never_began_leaves_nobody_asking(sidecar: Any) -> None:
    """The thread that would have read the routes ends with it."""
    sidecar.ready = False
    with pytest.raises(SidecarNotReady):
        run_sync(Mesh(sidecar.settings(ready_timeout="50ms")), fail)
    for thread in threading.enumerate():
        if thread.name == "meshaware-routes":
            thread.join(10)
            assert not thread.is_alive()


def test_a_failure_is_raised_as_it_is_and_the_sidecar_stays(run: Run, sidecar: Any, lines: Any) -> None:
    """For the attempt that may follow in the same pod; a warning says so."""
    with pytest.raises(LookupError, match="shelf"):
        run(Mesh(sidecar.settings()), fail)
    assert sidecar.told == 0
    ((level, message),) = lines()
    assert level == logging.WARNING
    assert message.endswith("MESHAWARE_QUIT=always lets it go all the same")


@pytest.mark.parametrize("where", ["argument", "setting"])
def test_after_a_failure_it_goes_by_choice(run: Run, sidecar: Any, where: str) -> None:
    """The argument wins over the setting."""
    settings = sidecar.settings(quit="always" if where == "setting" else "never")
    arguments = {"quit": "always"} if where == "argument" else {}
    with pytest.raises(LookupError):
        run(Mesh(settings), fail, **arguments)
    assert sidecar.told == 1


def test_never_is_never(run: Run, sidecar: Any, lines: Any) -> None:
    """And needs no word."""
    run(Mesh(sidecar.settings()), lambda: None, quit="never")
    assert (sidecar.told, lines()) == (0, [])


@pytest.mark.parametrize(
    ("code", "told"), [(None, 1), (0, 1), (1, 0), ("it went wrong", 0)], ids=["None", "0", "1", "message"]
)
def test_an_exit_is_a_success_or_a_failure_by_its_code(run: Run, sidecar: Any, code: Any, told: int) -> None:
    """And the process ends as it wanted to."""

    def leave() -> None:
        raise SystemExit(code)

    with pytest.raises(SystemExit) as exit_:
        run(Mesh(sidecar.settings()), leave)
    assert exit_.value.code == code
    assert sidecar.told == told


def test_an_interrupt_is_a_failure(run: Run, sidecar: Any) -> None:
    """A developer's Ctrl+C."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(Mesh(sidecar.settings()), interrupt)
    assert sidecar.told == 0


@pytest.mark.parametrize("status", [403, 405, 500])
def test_a_sidecar_that_refuses_is_a_warning_and_no_failure(run: Run, sidecar: Any, lines: Any, status: int) -> None:
    """The work is done."""
    sidecar.quit_status = status
    assert run(Mesh(sidecar.settings()), lambda: 42) == 42
    ((level, message),) = lines()
    assert level == logging.WARNING
    assert message.startswith(f"the sidecar (Istio) was not let go: POST {sidecar.url}/quitquitquit: {status}: ")


def test_a_native_sidecar_is_left_alone(run: Run, sidecar: Any, lines: Any) -> None:
    """The sidecar's own metadata say that it is one, where the application knows nothing of its pod."""
    sidecar.metadata["ANNOTATIONS"] = {"sidecar.istio.io/status": '{"initContainers":["istio-proxy"]}'}
    run(Mesh(sidecar.settings()), lambda: None)
    assert (sidecar.told, lines()) == (0, [])


def test_other_containers_of_the_application_keep_it(run: Run, sidecar: Any, lines: Any) -> None:
    """Unless it was said that they do not matter, by argument or setting."""
    sidecar.metadata["APP_CONTAINERS"] = "job,logger"
    run(Mesh(sidecar.settings()), lambda: None)
    assert sidecar.told == 0
    assert "the containers job, logger" in lines()[0][1]
    run(Mesh(sidecar.settings()), lambda: None, shared=True)
    assert sidecar.told == 1
    run(Mesh(sidecar.settings(quit_shared=True)), lambda: None)
    assert sidecar.told == 2
    run(Mesh(sidecar.settings(quit_shared=True)), lambda: None, shared=False)
    assert sidecar.told == 2


@pytest.mark.parametrize("mesh", ["none", "ambient"])
def test_where_there_is_no_sidecar_the_work_is_just_done(run: Run, lines: Any, mesh: Any) -> None:
    """Not a line in the log."""
    assert run(Mesh(MeshSettings(mesh=mesh)), lambda: 42) == 42
    assert lines() == []


def test_the_mesh_s_clients_are_closed_before(run: Run, sidecar: Any) -> None:
    """Connections to peers keep their sidecars from draining."""

    class Transport(httpx.MockTransport):
        def close(self) -> None:
            sidecar.events.append("closed")

        async def aclose(self) -> None:
            sidecar.events.append("closed")

    mesh = Mesh(sidecar.settings())
    client = mesh.client(transport=Transport(lambda _: httpx.Response(204)))
    run(mesh, lambda: sidecar.events.append("work"))
    assert not client.is_closed
    assert sidecar.events == ["work", "closed", "told"]


def test_one_job_may_follow_the_other(sidecar: Any) -> None:
    """A decorated function, called twice, is two jobs; and one object may be entered again, or inside itself."""
    mesh = Mesh(sidecar.settings())
    job = mesh.job()
    work = job(abs)
    assert [work(1), work(2)] == [1, 2]
    assert sidecar.told == 2
    with job, job:
        assert sidecar.told == 2
    assert sidecar.told == 4


def test_a_decorated_function_keeps_its_name() -> None:
    """For logs and tests."""
    mesh = Mesh(MeshSettings(mesh="none"))

    @mesh.job()
    def count(copies: int) -> int:
        """Count."""
        return copies

    @mesh.async_job()
    async def async_count(copies: int) -> int:
        """Count, too."""
        return copies

    assert (count.__name__, count.__doc__, count(copies=3)) == ("count", "Count.", 3)
    assert (async_count.__name__, async_count.__doc__) == ("async_count", "Count, too.")
    assert asyncio.run(async_count(4)) == 4


def test_what_would_only_be_made_and_not_run_is_refused() -> None:
    """The job would be over before it began."""
    mesh = Mesh(MeshSettings(mesh="none"))

    async def later() -> None: ...

    async def stream() -> AsyncGenerator[int]:
        yield 1

    def generator() -> Generator[int]:
        yield 1

    for asynchronous in (later, stream):
        with pytest.raises(TypeError, match=r"is asynchronous: write @mesh\.async_job"):
            mesh.job()(asynchronous)
    with pytest.raises(TypeError, match="generator is a generator"):
        mesh.job()(generator)
    for wrong in (generator, stream, fail):
        with pytest.raises(TypeError, match=r"is no `async def`: write @mesh\.job"):
            mesh.async_job()(wrong)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@pytest.mark.anyio
async def test_a_job_that_is_cancelled_leaves_in_order(sidecar: Any) -> None:
    """A failure as any other; the cancellation goes on afterwards."""
    with anyio.CancelScope() as scope:
        async with Mesh(sidecar.settings()).async_job(quit="always"):
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert sidecar.told == 1


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "success"),
        (SystemExit(), "success"),
        (SystemExit(0), "success"),
        (SystemExit(3), "failure"),
        (SystemExit(False), "success"),
        (Terminated(), "terminated"),
        (KeyboardInterrupt(), "failure"),
        (ValueError(), "failure"),
    ],
)
def test_how_a_job_ended(error: BaseException | None, outcome: str) -> None:
    """By what was raised out of it."""
    assert outcome_of(error) == outcome
