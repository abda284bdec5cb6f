"""What the sidecar is asked: little, and only for what moved."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from meshaware.budgets.polling import NOTHING, Ask, Do, Known, Limits, Pause, Reply, is_current, learn
from meshaware.errors import ConfigDumpError, SidecarUnavailable

LIMITS = Limits(request=5.0, refresh=30.0, max_bytes=1 << 20)
WHOLE = "route_configs"
MOVED = "route_configs&mask=last_updated"
NAMES = "route_configs&mask=last_updated,route_config.name"
CLUSTERS = "active_clusters&mask=cluster.name,cluster.connect_timeout"


def ask(
    admin: Any,
    known: Known = NOTHING,
    *,
    limits: Limits = LIMITS,
    saved: Callable[[str], bytes | None] = lambda _: None,
    pauses: list[float] | None = None,
) -> tuple[Known, list[Reply]]:
    """Do the steps against an admin port without a socket."""
    steps = learn(known, limits, None, saved)
    try:
        step = next(steps)
        while True:
            match step:
                case Ask(path, timeout, max_bytes):
                    assert timeout <= limits.request
                    status, body = admin.answer(path)
                    assert status == 200
                    assert len(body) <= max_bytes
                    came: Any = body
                case Do(work):
                    came = work()
                case Pause(seconds):
                    came = None
                    if pauses is not None:
                        pauses.append(seconds)
            step = steps.send(came)
    except StopIteration as end:
        done: tuple[Known, list[Reply]] = end.value
        return done


def timeouts(known: Known) -> dict[str, float | None]:
    return {
        name: entry.route.budget.timeout
        for name, part in known.parts.items()
        if part.read is not None
        for host in part.read.config.hosts
        for entry in host.entries
    }


def test_the_first_time_all_is_asked_part_by_part(fake_admin: Any, one_host: Any) -> None:
    """Names first, then each configuration, with a pause as long as the reply took."""
    fake_admin.put("80", one_host(timeout="1s"))
    fake_admin.put("inventory.shop.svc.cluster.local:8080", one_host("*", timeout="2s"))
    pauses: list[float] = []
    known, replies = ask(fake_admin, pauses=pauses)
    assert timeouts(known) == {"80": 1.0, "inventory.shop.svc.cluster.local:8080": 2.0}
    quoted = r"inventory\.shop\.svc\.cluster\.local\:8080"
    assert fake_admin.queries() == [NAMES, f"{WHOLE}&name_regex=80", f"{WHOLE}&name_regex={quoted}"]
    assert [names for names, _ in replies] == [
        (item,) for item in [("80", known.parts["80"].stamp), *replies[1].configs]
    ]
    assert len(pauses) == 1
    assert 0 <= pauses[0] <= 0.25


def test_where_nothing_moved_one_small_question_is_enough(fake_admin: Any, one_host: Any) -> None:
    """And what is known is what was known."""
    fake_admin.put("80", one_host())
    known, _ = ask(fake_admin)
    fake_admin.queries()
    again, replies = ask(fake_admin, known)
    assert fake_admin.queries() == [MOVED]
    assert again.parts is known.parts
    assert replies == []


def test_only_what_moved_is_asked_for(fake_admin: Any, one_host: Any) -> None:
    """What is new, what changed; what is gone is forgotten."""
    for name in ("80", "8080", "9090"):
        fake_admin.put(name, one_host())
    known, _ = ask(fake_admin)
    fake_admin.queries()
    fake_admin.put("8080", one_host(timeout="7s"))
    fake_admin.put("7070", one_host(timeout="3s"))
    del fake_admin.configs["9090"]
    after, replies = ask(fake_admin, known)
    assert fake_admin.queries() == [MOVED, NAMES, f"{WHOLE}&name_regex=8080", f"{WHOLE}&name_regex=7070"]
    assert timeouts(after) == {"80": 2.0, "8080": 7.0, "7070": 3.0}
    assert after.parts["80"] is known.parts["80"]
    assert len(replies) == 2
    del fake_admin.configs["7070"]
    gone, _ = ask(fake_admin, after)
    assert fake_admin.queries() == [MOVED, NAMES]
    assert timeouts(gone) == {"80": 2.0, "8080": 7.0}


def test_where_many_moved_all_is_asked_for_at_once(fake_admin: Any, one_host: Any) -> None:
    """One question instead of many."""
    for number in range(17):
        fake_admin.put(str(number), one_host(timeout=f"{number + 1}s"))
    known, (reply,) = ask(fake_admin)
    assert fake_admin.queries() == [NAMES, WHOLE]
    assert timeouts(known) == {str(number): number + 1.0 for number in range(17)}
    assert len(reply.configs) == 17


def test_what_has_no_stamp_is_asked_for_each_time(fake_admin: Any, one_host: Any) -> None:
    """An Envoy that does not say when is never believed to stand still."""
    fake_admin.put("80", one_host())
    fake_admin.configs["80"] = (fake_admin.configs["80"][0], "")
    known, _ = ask(fake_admin)
    fake_admin.queries()
    ask(fake_admin, known)
    assert fake_admin.queries() == [MOVED, NAMES, f"{WHOLE}&name_regex=80"]
    assert not is_current(known.parts["80"], "", {})
    assert not is_current(None, "x", {})


def test_what_is_gone_when_it_is_asked_for_is_no_error(fake_admin: Any, one_host: Any) -> None:
    """Envoy answers then that it has none of that name."""
    fake_admin.put("80", one_host())
    fake_admin.put("8080", one_host())
    whole = fake_admin.answer

    def answer(path: str) -> tuple[int, bytes]:
        return (200, b"{}") if path.endswith("name_regex=8080") else whole(path)

    fake_admin.answer = answer
    known, _ = ask(fake_admin)
    assert timeouts(known) == {"80": 2.0}
    assert known.parts["8080"].read is None


def test_a_long_name_is_asked_for_by_its_beginning(fake_admin: Any, one_host: Any) -> None:
    """Envoy refuses patterns of more than 100 instructions; what else begins so is left aside."""
    names = [f"{'long-' * 20}{letter}.svc.cluster.local:80" for letter in "ab"]
    for name in names:
        fake_admin.put(name, one_host())
    known, _ = ask(fake_admin)
    fake_admin.queries()
    fake_admin.put(names[1], one_host(timeout="9s"))
    after, _ = ask(fake_admin, known)
    pattern = fake_admin.queries()[2].partition("name_regex=")[2]
    assert pattern.endswith(r"\C*")
    assert len(re.sub(r"\\(.)", r"\1", pattern.removesuffix(r"\C*"))) == 88
    assert timeouts(after) == {names[0]: 2.0, names[1]: 9.0}


def per_try(one_host: Any, name: str, attempts: int = 2) -> dict[str, Any]:
    policy = {"retry_on": "5xx", "num_retries": attempts, "per_try_timeout": "1s"}
    host: dict[str, Any] = one_host(name, timeout="0s", retry_policy=policy)
    return host


def connects(known: Known) -> dict[str, float | None]:
    return {
        host.name: entry.route.budget.connect_timeout
        for part in known.parts.values()
        if part.read is not None
        for host in part.read.config.hosts
        for entry in host.entries
    }


def test_connect_timeouts_are_asked_for_where_they_count(fake_admin: Any, one_host: Any) -> None:
    """A route with a timeout needs none; with tries of their own, each connects anew."""
    fake_admin.put("80", one_host("a"), per_try(one_host, "b"), per_try(one_host, "c"), per_try(one_host, "d"))
    fake_admin.clusters = {"outbound|8080||a": "1s", "outbound|8080||b": "3s", "outbound|8080||c": None}
    known, replies = ask(fake_admin)
    assert fake_admin.queries() == [
        NAMES,
        f"{WHOLE}&name_regex=80",
        *(rf"{CLUSTERS}&name_regex=outbound\|8080\|\|{name}" for name in "bcd"),
    ]
    assert connects(known) == {"a:8080": None, "b:8080": 3.0, "c:8080": 5.0, "d:8080": None}
    assert len(replies) == 1
    ask(fake_admin, known)
    assert fake_admin.queries() == [MOVED]


def test_connect_timeouts_are_looked_at_again_now_and_then(fake_admin: Any, one_host: Any) -> None:
    """A DestinationRule changes them, and no route."""
    fake_admin.put("80", per_try(one_host, "b"))
    fake_admin.clusters = {"outbound|8080||b": "3s"}
    known, (reply,) = ask(fake_admin)
    fake_admin.clusters["outbound|8080||b"] = "4s"
    polls = 0
    while connects(known) == {"b:8080": 3.0}:
        polls += 1
        fake_admin.queries()
        known, _ = ask(fake_admin, known, saved={"80": reply.body}.get)
        assert polls < 20
    assert polls == 9
    assert connects(known) == {"b:8080": 4.0}
    assert fake_admin.queries() == [MOVED, rf"{CLUSTERS}&name_regex=outbound\|8080\|\|b"]
    fake_admin.clusters["outbound|8080||b"] = "5s"
    for _ in range(10):
        fake_admin.queries()
        known, _ = ask(fake_admin, known)
    assert fake_admin.queries()[-1] == f"{WHOLE}&name_regex=80"  # not saved anywhere: asked for once more
    assert connects(known) == {"b:8080": 5.0}


def test_of_many_clusters_all_are_asked_for_at_once(fake_admin: Any, one_host: Any) -> None:
    """Their names and connect timeouts alone."""
    names = [f"s{number}" for number in range(20)]
    fake_admin.put("80", *(per_try(one_host, name) for name in names))
    fake_admin.clusters = {f"outbound|8080||{name}": "2s" for name in names}
    known, _ = ask(fake_admin)
    assert fake_admin.queries()[2:] == [CLUSTERS]
    assert set(connects(known).values()) == {2.0}


def test_a_refresh_has_an_end(fake_admin: Any, one_host: Any) -> None:
    """In time, and in bytes of all replies together."""
    fake_admin.put("80", one_host())
    with pytest.raises(SidecarUnavailable, match=r"the refresh took longer than 0 s"):
        ask(fake_admin, limits=LIMITS._replace(refresh=0.0))
    big = [one_host(f"{number}") for number in range(5)]
    fake_admin.put("80", *big)
    fake_admin.put("81", *big)
    size = len(fake_admin.answer("/config_dump?resource=dynamic_route_configs")[1])
    with pytest.raises(SidecarUnavailable, match=r"all replies together are too large") as raised:
        exhaust(fake_admin, LIMITS._replace(max_bytes=size // 2 + 100))
    assert raised.value.cause == "too_large"


def exhaust(admin: Any, limits: Limits) -> None:
    """As `ask`, for replies that are longer than is left: the client refuses those."""
    steps = learn(NOTHING, limits, None, lambda _: None)
    step = next(steps)
    while True:
        if isinstance(step, Ask):
            body = admin.answer(step.path)[1]
            came: Any = body[: step.max_bytes].ljust(step.max_bytes) if len(body) > step.max_bytes else body
            step = (
                steps.send(came)
                if len(body) <= step.max_bytes
                else steps.throw(SidecarUnavailable("all replies together are too large", "too_large"))
            )
        else:
            step = steps.send(step.work() if isinstance(step, Do) else None)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"configs": 1}', b'{"configs": [{"last_updated": 1}]}'])
def test_nonsense_is_an_error(fake_admin: Any, body: bytes) -> None:
    """That says what came."""
    fake_admin.fail = 200, body
    with pytest.raises(ConfigDumpError, match="config dump"):
        ask(fake_admin)
