"""Routes from the live sidecar: kept fresh, kept when it cannot be read, said once, and asked for once a pod."""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from meshaware.budgets import RouteSource, RouteTable
from meshaware.budgets.sources import SidecarRoutes
from meshaware.instrumentation import RouteRefresh, on_route_refresh, routes_confirmed

pytestmark = pytest.mark.usefixtures("private_files")

_PATIENCE = 10.0
_MOVED = "route_configs&mask=last_updated"
_NAMES = "route_configs&mask=last_updated,route_config.name"
_FIRST = [_NAMES, "route_configs&name_regex=8080"]


@pytest.fixture(name="admin")
def _admin(fake_admin: Any, one_host: Any) -> Iterator[Any]:
    fake_admin.put("8080", one_host(timeout="2s"))
    with fake_admin.serving():
        yield fake_admin


def timeout(routes: RouteSource) -> float | None:
    route = routes.current.match("GET", "http://inventory:8080/")
    return None if route is None else route.budget.timeout


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + _PATIENCE
    while not holds():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.005)


async def async_until(holds: Callable[[], bool]) -> None:
    with anyio.fail_after(_PATIENCE):
        while not holds():
            await anyio.sleep(0.005)


def test_routes_are_those_of_the_fallback_until_the_sidecar_was_read(admin: Any) -> None:
    """Nothing is read before it is asked for; then the sidecar's word counts."""
    fallback = RouteTable.from_config_dump(b'[{"name": "9090"}]')
    routes = SidecarRoutes(f"{admin.url}/ignored", fallback=fallback)
    source: RouteSource = routes
    assert source.current is fallback
    assert (routes.live, routes.refreshed_at, routes.age, admin.asked) == (False, None, None, [])
    assert repr(routes) == f"<SidecarRoutes {admin.url}: not read yet, 0 routes>"
    assert routes.refresh() is True
    assert timeout(source) == 2.0
    assert routes.live
    assert routes.age is not None
    assert 0 <= routes.age < _PATIENCE
    assert admin.queries() == _FIRST
    assert repr(routes) == f"<SidecarRoutes {admin.url}: live, 1 routes>"
    assert SidecarRoutes(admin.url).current == RouteTable.empty()


@pytest.mark.anyio
async def test_they_are_read_without_blocking_too(admin: Any, one_host: Any) -> None:
    """On either event loop."""
    routes = SidecarRoutes(admin.url)
    assert await routes.async_refresh() is True
    assert timeout(routes) == 2.0
    admin.put("8080", one_host(timeout="3s"))
    assert await routes.async_refresh() is True
    assert timeout(routes) == 3.0
    admin.fail = 503, b"no"
    assert await routes.async_refresh() is False
    assert timeout(routes) == 3.0


def test_a_table_that_did_not_change_stays_the_same_one(admin: Any, one_host: Any) -> None:
    """What has been worked out for it is kept."""
    routes = SidecarRoutes(admin.url)
    routes.refresh()
    before = routes.current
    routes.refresh()
    assert routes.current is before
    admin.put("8080", one_host(timeout="2s"))
    routes.refresh()
    assert routes.current == before


@pytest.mark.parametrize(
    ("fail", "said"),
    [
        ((503, b"draining"), "answered 503, not 200: 'draining'"),
        ((200, b"<html>"), "config dump: is not JSON"),
        ((200, b'{"configs": [{"last_updated": '), "config dump: is not JSON"),
        ((200, b'{"configs": 5}'), "config dump.configs: 5: must be a list"),
    ],
)
@pytest.mark.parametrize("shared", [True, False])
def test_the_last_known_routes_stay_when_the_sidecar_fails(
    admin: Any, caplog: pytest.LogCaptureFixture, fail: tuple[int, bytes], said: str, shared: bool
) -> None:
    """One line when it begins to fail, one when it is back, none in between."""
    routes = SidecarRoutes(admin.url, shared=shared)
    with caplog.at_level(logging.INFO, "meshaware.routes"):
        assert routes.refresh()
        assert routes.refresh()
        known, known_at = routes.current, routes.refreshed_at
        admin.fail = fail
        assert not routes.refresh()
        assert not routes.refresh()
        assert (routes.current, routes.refreshed_at) == (known, known_at)
        assert (routes.failing, routes.failures, routes.live) == (True, 2, True)
        admin.fail = None
        assert routes.refresh()
        assert (routes.failing, routes.failures) == (False, 2)
    first, failed, back = caplog.messages
    assert first == back == f"1 routes read from the sidecar at {admin.url}"
    assert failed.startswith("the sidecar's routes cannot be read, the last known stay in use: ")
    assert said in failed


def test_each_attempt_is_announced(admin: Any) -> None:
    """With the instant at which the routes were last known to be the sidecar's."""
    heard: list[RouteRefresh] = []
    stop = on_route_refresh(heard.append)
    routes = SidecarRoutes(admin.url)
    routes.refresh()
    admin.fail = 503, b"no"
    routes.refresh()
    stop()
    routes.refresh()
    read, failed = heard
    assert (read.confirmed, failed.confirmed) == (True, False)
    assert routes_confirmed() == read.at <= failed.at


def test_a_change_is_told_with_what_it_is(admin: Any, one_host: Any, caplog: pytest.LogCaptureFixture) -> None:
    """On one line."""
    routes = SidecarRoutes(admin.url)
    routes.refresh()
    admin.put("8080", one_host(timeout="5s"), one_host("stock"))
    with caplog.at_level(logging.INFO, "meshaware.routes"):
        routes.refresh()
        routes.refresh()
    (line,) = caplog.messages
    assert line == (
        "the sidecar's routes changed: 1 added (stock:8080 stock:8080); 1 changed (inventory:8080 inventory:8080)"
    )


def test_a_sidecar_that_is_not_there_leaves_what_is_known(fake_admin: Any) -> None:
    """Refused at once; nothing is raised."""
    with fake_admin.serving():
        pass
    routes = SidecarRoutes(fake_admin.url)
    assert routes.refresh() is False
    assert routes.current == RouteTable.empty()
    assert not routes.live
    assert repr(routes).endswith(": failing, 0 routes>")


def test_a_short_name_is_a_service_of_our_own_namespace(admin: Any, one_host: Any) -> None:
    """Of two services that have it; which one, only the namespace tells."""
    admin.put("inventory.shop.svc.cluster.local:7070", one_host("*", timeout="1s"))
    admin.put("inventory.stock.svc.cluster.local:7070", one_host("*", timeout="9s"))
    routes = SidecarRoutes(admin.url)

    def found() -> tuple[float | None, bool]:
        route = routes.current.match("GET", "http://inventory:7070/")
        assert route is not None
        return route.budget.timeout, bool(route.note)

    routes.refresh()
    assert found() == (9.0, True)
    routes.namespace = "shop"
    routes.refresh()
    assert found() == (1.0, False)
    assert routes.namespace == "shop"
    own = SidecarRoutes(admin.url, namespace="shop", cluster_domain="mesh.example")
    own.refresh()
    assert own.current.match("GET", "http://inventory.shop.svc.mesh.example:7070/") is None


def test_only_the_hosts_that_are_wanted_are_kept(admin: Any, one_host: Any) -> None:
    """For workloads that call few of many."""
    admin.put("8080", one_host(), one_host("stock"), one_host("*"))
    routes = SidecarRoutes(admin.url, hosts=["inventory"])
    routes.refresh()
    assert [route.host for route in routes.current] == ["inventory:8080", "*:8080"]
    assert routes.current.skipped == {"virtual host that was not asked for": 1}


@pytest.mark.parametrize("interval", [0, -1.0])
def test_an_interval_is_more_than_nothing(interval: float) -> None:
    """Or the sidecar would never rest."""
    with pytest.raises(ValueError, match=f"interval={interval}"):
        SidecarRoutes("http://127.0.0.1:15000", interval=interval)


def test_one_process_is_enough_to_ask(admin: Any, one_host: Any) -> None:
    """The others take a small look once, then read what it has saved."""
    first, second = SidecarRoutes(admin.url), SidecarRoutes(admin.url)
    first.refresh()
    assert admin.queries() == _FIRST
    second.refresh()
    assert admin.queries() == [_MOVED]
    assert second.current == first.current
    admin.put("8080", one_host(timeout="3s"))
    second.refresh()
    assert admin.queries() == [_MOVED, *_FIRST]
    assert first.refresh(max_age=60.0)
    assert admin.queries() == []
    assert timeout(first) == 3.0
    assert first.age is not None


def test_that_the_sidecar_is_lost_and_back_the_others_hear_too(admin: Any, caplog: pytest.LogCaptureFixture) -> None:
    """They need not ask for it."""
    first, second = SidecarRoutes(admin.url), SidecarRoutes(admin.url)
    first.refresh()
    second.refresh()
    admin.fail = 503, b""
    first.refresh()
    admin.queries()
    assert second.refresh(max_age=60.0) is False
    assert (second.failing, second.failures, timeout(second)) == (True, 1, 2.0)
    admin.fail = None
    first.refresh()
    assert second.refresh(max_age=60.0) is True
    assert not second.failing
    assert len(admin.queries()) == 1
    lost = [message for message in caplog.messages if "cannot be read" in message]
    assert len(lost) == 2
    assert lost[0] == lost[1]


def test_what_was_saved_of_another_sidecar_is_not_believed(admin: Any, one_host: Any, private_files: Path) -> None:
    """An address may be somebody else's a minute later."""
    SidecarRoutes(admin.url).refresh()
    admin.put("8080", one_host(timeout="9s"))
    admin.queries()
    late = SidecarRoutes(admin.url)
    late.refresh(max_age=60.0)
    assert timeout(late) == 9.0
    assert admin.queries() == [_MOVED, *_FIRST]


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_a_file_that_makes_no_sense_is_replaced(
    admin: Any, private_files: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing of it is used, and the sidecar is asked for all."""
    first, second = SidecarRoutes(admin.url), SidecarRoutes(admin.url)
    first.refresh()
    second.refresh()
    admin.queries()
    (data,) = private_files.glob("meshaware-*/*.data")
    good = data.read_bytes()
    # A head that is right, with a body that is no dump.
    bad = good[: -len(good.partition(b"\n")[2].partition(b"]}]}")[2])] if content is None else content
    data.write_bytes(bad + b"x" * (len(good) - len(bad)) if content is None else bad)
    for routes in (first, second):
        assert routes.refresh()
        assert timeout(routes) == 2.0
    assert admin.queries() == [*_FIRST, _MOVED]
    assert data.read_bytes() == good


def test_where_files_cannot_be_shared_each_process_asks(
    admin: Any, private_files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A directory that is not ours alone is one line in the log, and no error."""
    directory = private_files / f"meshaware-{os.geteuid()}"
    directory.mkdir()
    directory.chmod(0o777)
    routes = SidecarRoutes(admin.url)
    with caplog.at_level(logging.INFO, "meshaware.routes"):
        assert routes.refresh()
        assert routes.refresh()
    (line,) = [message for message in caplog.messages if "not shared" in message]
    assert line == (
        f"what the sidecar says is not shared with other processes: {directory} belongs to another user, others may use"
        " it, or it is something else"
    )
    assert admin.queries() == [*_FIRST, _MOVED]
    assert list(directory.iterdir()) == []


def test_sharing_can_be_left_off(admin: Any, private_files: Path) -> None:
    """Then no file is written."""
    routes = SidecarRoutes(admin.url, shared=False)
    assert routes.refresh()
    assert list(private_files.iterdir()) == []


def test_a_daemon_thread_keeps_them_fresh(admin: Any, one_host: Any) -> None:
    """Started on purpose, ended by the end of the block."""
    before = threading.active_count()
    with SidecarRoutes(admin.url, interval=0.05) as routes:
        assert timeout(routes) == 2.0
        routes.start()
        assert threading.active_count() == before + 1
        admin.put("8080", one_host(timeout="3s"))
        until(lambda: timeout(routes) == 3.0)
        admin.fail = 500, b""
        until(lambda: routes.failing)
        admin.fail = None
        until(lambda: not routes.failing)
    assert threading.active_count() == before
    routes.stop()
    admin.queries()
    routes.start()
    until(lambda: bool(admin.asked))
    routes.stop()


def test_a_thread_waits_for_what_it_is_told_to_wait_for(admin: Any) -> None:
    """Such as the gate; and asks nothing if there is no sidecar after all."""
    opened = threading.Event()
    routes = SidecarRoutes(admin.url, interval=0.05)
    routes.start(after=lambda: opened.wait(_PATIENCE))
    assert admin.asked == []
    opened.set()
    until(lambda: routes.live)
    routes.stop()
    admin.queries()
    other = SidecarRoutes(admin.url, interval=0.05)
    other.start(after=lambda: False)
    other.stop()
    assert admin.asked == []


@pytest.mark.anyio
async def test_a_task_keeps_them_fresh(admin: Any, one_host: Any) -> None:
    """Until it is cancelled, at once."""
    routes = SidecarRoutes(admin.url, interval=0.05)
    async with anyio.create_task_group() as group:
        group.start_soon(routes.async_follow)
        await async_until(lambda: routes.live)
        admin.put("8080", one_host(timeout="3s"))
        await async_until(lambda: timeout(routes) == 3.0)
        group.cancel_scope.cancel()
    admin.queries()


def test_looks_are_spread_in_time(admin: Any) -> None:
    """A fifth more or less, so that the pods of a deployment do not ask together; sooner after a failure."""
    from meshaware.budgets.rounds import Rounds

    def rounds() -> Rounds:
        return SidecarRoutes(admin.url, interval=100.0)._rounds  # pyright: ignore[reportPrivateUsage]

    drawn = {rounds().patience for _ in range(50)}
    assert len(drawn) > 40
    assert min(drawn) >= 80.0
    assert max(drawn) <= 120.0
    admin.fail = 500, b""
    routes = SidecarRoutes(admin.url, interval=100.0)
    patience: list[float] = []
    for _ in range(9):
        routes.refresh()
        patience.append(routes._rounds.patience)  # pyright: ignore[reportPrivateUsage]
    for number, seconds in enumerate(patience):
        assert 0.8 * min(100, 2**number) <= seconds <= 1.2 * min(100, 2**number)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_goes_on_with_a_thread_of_its_own(admin: Any, one_host: Any) -> None:
    """As the workers of a server that loads the application first, and forks then."""
    routes = SidecarRoutes(admin.url, interval=0.05)
    routes.refresh()
    routes.start()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover (in another process)
        try:
            os.write(write, b"2" if timeout(routes) == 2.0 else b"?")
            until(lambda: timeout(routes) == 3.0)
            os.write(write, b"3")
        finally:
            os._exit(0)

    def told() -> bytes:
        ready, _, _ = select.select([read], [], [], _PATIENCE)
        assert ready, "the child says nothing"
        return os.read(read, 1)

    assert told() == b"2", "the child has not what was read before"
    routes.stop()  # from here on the child has nobody to read from
    admin.put("8080", one_host(timeout="3s"))
    assert told() == b"3"
    os.waitpid(child, 0)
    os.close(read)
    os.close(write)


def test_a_lock_that_nobody_lets_go_of_does_not_stop_the_others_for_ever(
    admin: Any, one_host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is stopped in the middle of a refresh; after a time each asks for itself."""
    from meshaware.budgets import sources
    from meshaware.budgets.sharing import Attempt, Share

    monkeypatch.setattr(sources, "_REFRESH", 2.0)
    routes = SidecarRoutes(admin.url)
    routes.refresh()
    stuck = Share(admin.url, max_bytes=1)
    lock = stuck.lock()
    assert lock is not None
    admin.put("8080", one_host(timeout="3s"))
    stuck.note(lock, Attempt(time.time(), time.time() - 1))
    routes.refresh(max_age=-10.0)
    assert timeout(routes) == 2.0
    stuck.note(lock, Attempt(time.time() - 10, time.time() - 11))
    assert routes.refresh()
    assert timeout(routes) == 3.0
    lock.release()
    admin.queries()
    assert routes.refresh()
    assert timeout(routes) == 3.0
