"""
What to ask the sidecar so that its routes are known, and as little as possible; decided here without any I/O.

The steps are a generator: it yields what is to be done, and is sent what came of it. `driving.py` does it, in a thread
or on an event loop.

| asked | when | why |
|---|---|---|
| `mask=last_updated` | each time | istiod sets no version that tells; this moves when the content does |
| `mask=last_updated,route_config.name` | something moved | the same with the names: five times as dear |
| `name_regex=<name>` | for each that moved | Envoy's main thread stands still for the part only, not for all |
| `resource=dynamic_route_configs` | where many moved | one question instead of many |
| `resource=dynamic_active_clusters` | where a connect timeout counts | new names at once, the known ones now and then |
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

from meshaware.budgets.config_dump import read_config_dump
from meshaware.budgets.dump_reader import ENVOYS_CONNECT_TIMEOUT, ReadConfig
from meshaware.budgets.envoy_json import Message
from meshaware.errors import ConfigDumpError, SidecarUnavailable

__all__ = [
    "NOTHING",
    "Ask",
    "Do",
    "Known",
    "Limits",
    "Part",
    "Pause",
    "Reply",
    "Step",
    "Steps",
    "is_current",
    "learn",
    "read_part",
]

T = TypeVar("T")

_DUMP = "/config_dump?resource=dynamic_route_configs"
_CLUSTERS = "/config_dump?resource=dynamic_active_clusters&mask=cluster.name,cluster.connect_timeout"
_MAX_LIST = 8 << 20
_FEW = 16
_EVERY = 10  # polls between two looks at the connect timeouts that are known
# Envoy refuses patterns whose program is longer than 100 instructions, about one for each character.
_MAX_PATTERN = 88
_LONGEST_PAUSE = 0.25


class Ask(NamedTuple):
    """Ask the admin port; what comes of it is the body of a reply with status 200."""

    path: str
    timeout: float
    max_bytes: int


class Do(NamedTuple):
    """Do something that may take long, beside the event loop; what comes of it is its result."""

    work: Callable[[], Any]


class Pause(NamedTuple):
    """Do nothing for a time, in seconds."""

    seconds: float


Step = Ask | Do | Pause
Steps = Generator[Step, Any, T]
Keep = Callable[[tuple[str, ...]], bool]


class Limits(NamedTuple):
    """
    What one refresh may cost.

    Attributes:
        request: Seconds for one question.
        refresh: Seconds for all of them.
        max_bytes: Bytes of all replies.
    """

    request: float
    refresh: float
    max_bytes: int


class Part(NamedTuple):
    """
    One route configuration of the sidecar's.

    Attributes:
        stamp: When Envoy changed it last; empty if that is not known.
        read: What was read of it; None if it was gone when it was asked for.
        clusters: The connect timeouts that were used, of those that count.
    """

    stamp: str
    read: ReadConfig | None
    clusters: Mapping[str, float]


class Known(NamedTuple):
    """
    All that is known of the sidecar's routes.

    Attributes:
        stamps: When Envoy changed its route configurations last, in order of time.
        parts: The route configurations, by name.
        clusters: Connect timeouts, by cluster; None for one that Envoy does not have.
        polls: How often it was asked whether something moved.
    """

    stamps: tuple[str, ...]
    parts: Mapping[str, Part]
    clusters: Mapping[str, float | None]
    polls: int = 0

    @property
    def timeouts(self) -> dict[str, float]:
        """The connect timeouts of the clusters that there are."""
        return {name: seconds for name, seconds in self.clusters.items() if seconds is not None}


NOTHING = Known((), {}, {})


class Reply(NamedTuple):
    """A reply about route configurations: name, and when Envoy changed it last."""

    configs: tuple[tuple[str, str], ...]
    body: bytes


def learn(
    known: Known, limits: Limits, keep: Keep | None, saved: Callable[[str], bytes | None]
) -> Steps[tuple[Known, list[Reply]]]:
    """
    The steps to what is so now.

    Args:
        known: What was known before.
        limits: What it may cost.
        keep: Whether a virtual host with such domains is wanted.
        saved: The reply about a route configuration, if it is at hand.

    Returns:
        What is known then, and the replies that are new.

    Raises:
        SidecarUnavailable: It takes longer than it may.
        ConfigDumpError: A reply is none of Envoy's.
    """
    asking = _Asking(limits)
    stamps: list[str] = []
    if known.parts:
        stamps = [stamp for _, stamp in (yield from asking.what_there_is(f"{_DUMP}&mask=last_updated"))]
    unchanged = bool(stamps) and "" not in stamps and tuple(sorted(stamps)) == known.stamps
    known = known._replace(polls=known.polls + 1)
    replies: list[Reply] = []
    if not unchanged:
        current = dict((yield from asking.what_there_is(f"{_DUMP}&mask=last_updated,route_config.name")))
        parts = {name: part for name, part in known.parts.items() if name in current}
        moved = [
            name for name, stamp in current.items() if not stamp or name not in parts or parts[name].stamp != stamp
        ]
        known = known._replace(stamps=tuple(sorted(current.values())), parts=parts)
        replies = yield from asking.routes(moved, current)
        known = yield Do(lambda: _take(known, replies, keep))
    return (yield from _learn_connect_timeouts(asking, known, replies, keep, saved))


def read_part(reply: Reply, clusters: Mapping[str, float], keep: Keep | None) -> dict[str, Part]:
    """
    The route configurations that a reply is about.

    Raises:
        ConfigDumpError: It is none of Envoy's.
    """
    dump = read_config_dump(reply.body, clusters=clusters, keep=keep)
    read = {each.config.name: each for each in dump.dynamic}
    parts: dict[str, Part] = {}
    for name, stamp in reply.configs:
        found = read.get(name or "unnamed")
        used = {} if found is None else {each: clusters[each] for each in found.timed if each in clusters}
        parts[name] = Part(stamp, found, used)
    return parts


def _take(known: Known, replies: Iterable[Reply], keep: Keep | None) -> Known:
    parts = dict(known.parts)
    for reply in replies:
        parts.update(read_part(reply, known.timeouts, keep))
    return known._replace(parts=parts)


def _learn_connect_timeouts(
    asking: _Asking,
    known: Known,
    replies: list[Reply],
    keep: Keep | None,
    saved: Callable[[str], bytes | None],
) -> Steps[tuple[Known, list[Reply]]]:
    timed = {each for part in known.parts.values() if part.read is not None for each in part.read.timed}
    wanted = timed if known.polls % _EVERY == 0 else timed - known.clusters.keys()
    if wanted:
        found = yield from asking.connect_timeouts(wanted)
        clusters = {name: seconds for name, seconds in known.clusters.items() if name in timed}
        known = known._replace(clusters={**clusters, **{name: found.get(name) for name in wanted}})
    timeouts = known.timeouts
    other = [name for name, part in known.parts.items() if not _is_timed(part, timeouts)]
    again, missing = yield Do(lambda: _at_hand(other, known, replies, saved))
    fetched = yield from asking.routes(missing, {name: known.parts[name].stamp for name in missing})
    if again or fetched:
        known = yield Do(lambda: _take(known, [*again, *fetched], keep))
    return known, [*replies, *fetched]


def is_current(part: Part | None, stamp: str, timeouts: Mapping[str, float]) -> bool:
    """Whether a route configuration that was changed last at `stamp`, with such connect timeouts, is known already."""
    return part is not None and bool(stamp) and part.stamp == stamp and _is_timed(part, timeouts)


def _is_timed(part: Part, timeouts: Mapping[str, float]) -> bool:
    read = part.read
    return read is None or part.clusters == {each: timeouts[each] for each in read.timed if each in timeouts}


def _at_hand(
    names: Iterable[str], known: Known, replies: Iterable[Reply], saved: Callable[[str], bytes | None]
) -> tuple[list[Reply], list[str]]:
    """The replies about some route configurations that need not be asked for, and the names of the others."""
    bodies = {name: reply.body for reply in replies for name, _ in reply.configs}
    found: dict[int, Reply] = {}
    missing: list[str] = []
    for name in names:
        body = bodies.get(name) or saved(name)
        if body is None:
            missing.append(name)
        else:
            before = found[id(body)].configs if id(body) in found else ()
            found[id(body)] = Reply((*before, (name, known.parts[name].stamp)), body)
    return list(found.values()), missing


class _Asking:
    """Questions within limits."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._end = time.monotonic() + limits.refresh
        self._bytes = limits.max_bytes

    def what_there_is(self, path: str) -> Steps[list[tuple[str, str]]]:
        """Ask for the route configurations that there are: name, and when Envoy changed it last."""
        body = yield from self._ask(path, _MAX_LIST)
        listed: list[tuple[str, str]] = yield Do(lambda: list(_listed(body)))
        return listed

    def routes(self, names: Sequence[str], stamps: Mapping[str, str]) -> Steps[list[Reply]]:
        """Ask for some route configurations, with pauses that leave Envoy's main thread the time for its own work."""
        if not names:
            return []
        if len(names) > _FEW or not all(names):
            body = yield from self._ask(_DUMP, self._limits.max_bytes)
            return [Reply(tuple((name, stamps[name]) for name in names), body)]
        replies: list[Reply] = []
        for name in names:
            begin = time.monotonic()
            body = yield from self._ask(f"{_DUMP}&name_regex={_pattern(name)}", self._limits.max_bytes)
            replies.append(Reply(((name, stamps[name]),), body))
            if name != names[-1]:
                yield Pause(min(time.monotonic() - begin, _LONGEST_PAUSE))
        return replies

    def connect_timeouts(self, names: Collection[str]) -> Steps[dict[str, float]]:
        """Ask for the connect timeouts of some clusters."""
        few = sorted(names) if len(names) <= _FEW else []
        paths = [f"{_CLUSTERS}&name_regex={_pattern(name)}" for name in few] or [_CLUSTERS]
        found: dict[str, float] = {}
        for path in paths:
            body = yield from self._ask(path, self._limits.max_bytes)
            found.update((yield Do(lambda body=body: dict(_connect_timeouts(body, names)))))  # type: ignore[misc]
        return found

    def _ask(self, path: str, max_bytes: int) -> Steps[bytes]:
        left = self._end - time.monotonic()
        if left <= 0:
            raise SidecarUnavailable(f"GET {path}: the refresh took longer than {self._limits.refresh:g} s", "timeout")
        if self._bytes <= 0:
            raise SidecarUnavailable(f"GET {path}: all replies together are too large", "too_large")
        body: bytes = yield Ask(path, min(left, self._limits.request), min(max_bytes, self._bytes))
        self._bytes -= len(body)
        return body


def _listed(body: bytes) -> Iterable[tuple[str, str]]:
    for element in _elements(body):
        config = element.message("route_config")
        yield "" if config is None else config.text("name"), element.text("last_updated")


def _connect_timeouts(body: bytes, names: Collection[str]) -> Iterable[tuple[str, float]]:
    for element in _elements(body):
        cluster = element.message("cluster")
        name = "" if cluster is None else cluster.text("name")
        if cluster is not None and name in names:
            seconds = cluster.seconds("connect_timeout")
            yield name, ENVOYS_CONNECT_TIMEOUT if seconds is None else seconds


def _elements(body: bytes) -> Iterable[Message]:
    try:
        read: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        begin = body[:60]
        raise ConfigDumpError(f"config dump: is not JSON: {str(error)[:100]}; begins {begin!r}") from error
    return Message(read, "config dump").messages("configs")


def _pattern(name: str) -> str:
    """A pattern that a name matches in full, and if it is very long, others that begin like it."""
    head = name[:_MAX_PATTERN].encode()[:_MAX_PATTERN].decode(errors="ignore")
    quoted = "".join(char if char.isalnum() or char == "_" or not char.isascii() else f"\\{char}" for char in head)
    return quote(quoted if head == name else rf"{quoted}\C*", safe="")
