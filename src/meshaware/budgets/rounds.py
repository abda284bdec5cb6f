"""
One look at the sidecar's routes after another: what is known, who asks, and what is said about it.

`polling.py` knows what to ask; here stands when, and how the processes of a pod divide the work: whoever finds that a
look is due takes the lock and asks; the others read what it has saved.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from meshaware.budgets.config_dump import left_out, outbound
from meshaware.budgets.domains import Namespace
from meshaware.budgets.polling import (
    NOTHING,
    Do,
    Known,
    Limits,
    Part,
    Pause,
    Reply,
    Steps,
    is_current,
    learn,
    read_part,
)
from meshaware.budgets.sharing import Attempt, Lock, Segment, Share, Version
from meshaware.budgets.table import RouteTable
from meshaware.errors import ConfigDumpError
from meshaware.instrumentation import announce_routes

__all__ = ["Rounds", "Terms"]

_log = logging.getLogger("meshaware.routes")

_JITTER = 0.2
_CONTENDED = 0.05
_FIRST_RETRY = 1.0
# How often a refresh may take its whole time before who holds the lock counts as stopped, or stuck.
_STUCK = 2
# Intervals for which a file is believed that nobody has confirmed: it may be about another sidecar.
_TRUSTED = 4
_SLACK = 5.0


class Terms(NamedTuple):
    """What does not change from one round to the next."""

    url: str
    interval: float
    limits: Limits
    cluster_domain: str
    keep: Callable[[tuple[str, ...]], bool] | None


class Rounds:
    """
    What one process knows.

    Args:
        terms: What does not change.
        table: The table that holds until the sidecar was read.
        namespace: Where this workload runs.
        share: The files for other processes, or None.

    Attributes:
        table: The table that holds now.
        namespace: As above; a change counts from the next round on.
        shared: Whether other processes are told, and heard.
        patience: Seconds after which the sidecar is to be asked again.
        live, failing, refreshed_at, failures: As `SidecarRoutes` has them.
    """

    def __init__(self, terms: Terms, table: RouteTable, namespace: str | None, share: Share | None) -> None:
        self._terms = terms
        self._share = share
        self._known = NOTHING
        self._home: Namespace | None = None
        # The file that says what is known here, and one that says what cannot be read.
        self._version: Version | None = None
        self._refused: Version | None = None
        self._heard = Attempt()
        self._misses = 0
        self._asked = 0.0
        self._verified = False
        self.table = table
        self.namespace = namespace
        self.patience = self._draw()
        self.live = self.failing = False
        self.refreshed_at: float | None = None
        self.failures = 0

    @property
    def shared(self) -> bool:
        """Whether other processes are told, and heard."""
        return self._share is not None

    def _draw(self) -> float:
        # Soon after a failure, then less and less often.
        seconds = min(self._terms.interval, _FIRST_RETRY * 2 ** min(self._misses - 1, 16) if self._misses else math.inf)
        return seconds * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 (to spread, not to hide)

    def steps(self, max_age: float) -> Steps[bool]:
        """Know what the sidecar says, unless somebody asked it `max_age` seconds ago."""
        since = time.time() - max_age
        lock: Lock | None = None
        try:
            if self._share is not None:
                try:
                    yield from self._hear(self._share)
                    if not self._due(since):
                        return not self.failing
                    lock = yield from self._lock(self._share)
                    yield from self._hear(self._share)
                    # Whoever holds the lock for longer than a refresh may take is stopped, or stuck.
                    if not self._due(since) or (
                        lock is None and not self._due(time.time() - _STUCK * self._terms.limits.refresh)
                    ):
                        return not self.failing
                except OSError as error:
                    self._cannot_share(error)
            return (yield from self._ask(lock))
        finally:
            if lock is not None:
                lock.release()

    def _due(self, since: float) -> bool:
        # Each process asks for itself once: a file may be about another sidecar that was at this address before.
        at = self._heard.at if self._verified else self._asked
        return at < since or at > time.time() + _SLACK

    def _lock(self, share: Share) -> Steps[Lock | None]:
        end = time.monotonic() + self._terms.limits.refresh
        while (lock := share.lock()) is None and time.monotonic() < end:
            yield Pause(_CONTENDED)
        return lock

    def _hear(self, share: Share) -> Steps[None]:
        """Take over what another process was told."""
        attempt, version = share.last_attempt(), share.version()
        fresh = abs(time.time() - attempt.confirmed) < _TRUSTED * self._terms.interval
        if fresh and version is not None and version not in (self._version, self._refused):
            yield Do(partial(self._load, share))
        if attempt == self._heard:
            return
        news = attempt.at >= self._heard.at
        self._heard = attempt
        if attempt.error and news and self._verified:
            self._lost(attempt.error)
        elif fresh and self._verified and version == self._version:
            self._confirm(attempt.confirmed)

    def _load(self, share: Share) -> None:
        with share.open() as saved:
            if saved is None:
                self._refused = share.version()
                return
            parts: dict[str, Part] = {}
            try:
                for number, configs in enumerate(saved.configs):
                    fresh = [
                        (name, stamp)
                        for name, stamp in configs
                        if not is_current(self._known.parts.get(name), stamp, saved.clusters)
                    ]
                    parts.update(
                        (name, self._known.parts[name]) for name, stamp in configs if (name, stamp) not in fresh
                    )
                    if fresh:
                        reply = Reply(tuple(fresh), saved.body(number))
                        parts.update(read_part(reply, saved.clusters, self._terms.keep))
            except ConfigDumpError as error:
                _log.info("what another process saved of the sidecar's routes is not used: %s", error)
                self._refused = saved.version
                return
            stamps = tuple(sorted(part.stamp for part in parts.values()))
            known = Known(stamps, parts, saved.clusters, self._known.polls)
            if self._verified:
                self._take(known)
            else:
                self._known = known
            self._version = saved.version

    def _ask(self, lock: Lock | None) -> Steps[bool]:
        """Ask the sidecar, and tell the others if this process holds the lock."""
        share = self._share if lock is not None else None
        begin = self._asked = time.time()
        self._tell(lock, Attempt(begin, self._heard.confirmed, self._heard.error))
        before = self._known if share is None or self._holds(share) else NOTHING
        try:
            known, replies = yield from learn(before, self._terms.limits, self._terms.keep, partial(_saved, share))
            yield Do(partial(self._take, known))
        except Exception as error:  # noqa: BLE001 (whatever it is, the application goes on with the routes it has)
            self._tell(lock, Attempt(begin, self._heard.confirmed, str(error) or type(error).__name__))
            return self._lost(error)
        if share is None:
            self._version = None
        elif (known.parts, known.clusters) != (before.parts, before.clusters) or before is NOTHING:
            try:
                self._version = yield Do(partial(_save, share, known, replies))
            except OSError as error:
                self._cannot_share(error)
        self._verified = True
        self._tell(lock, Attempt(begin, time.time(), ""))
        self._confirm(time.time())
        return True

    def _holds(self, share: Share) -> bool:
        """Whether the file says what is known here, and has not grown by what was replaced."""
        try:
            version = share.version()
        except OSError:
            return False
        return version == self._version and (version is None or version[-1] <= self._terms.limits.max_bytes)

    def _tell(self, lock: Lock | None, attempt: Attempt) -> None:
        self._heard = attempt
        if self._share is not None and lock is not None:
            try:
                self._share.note(lock, attempt)
            except OSError as error:
                self._cannot_share(error)

    def _cannot_share(self, error: OSError) -> None:
        _log.info("what the sidecar says is not shared with other processes: %s", error)
        self._share = None

    def _take(self, known: Known) -> None:
        """Make the table of what is known."""
        home = None if self.namespace is None else Namespace(self.namespace, self._terms.cluster_domain)
        if self.live and known.parts == self._known.parts and home == self._home:
            self._known = known
            return
        read = [part.read for _, part in sorted(known.parts.items()) if part.read is not None]
        table = RouteTable(outbound(read), namespace=home, skipped=left_out(read))
        before, self.table = self.table, table
        self._known, self._home = known, home
        if self.live and (difference := before.diff(table)):
            _log.info("the sidecar's routes changed: %s", difference.summary())

    def _confirm(self, at: float) -> None:
        self._misses, self.patience = 0, self._draw()
        self.refreshed_at = time.monotonic() - max(0.0, time.time() - at)
        if self.failing or not self.live:
            _log.info("%d routes read from the sidecar at %s", len(self.table), self._terms.url)
        self.failing, self.live = False, True
        announce_routes(confirmed=True)

    def _lost(self, error: object) -> bool:
        self.failures += 1
        self._misses += 1
        self.patience = self._draw()
        if not self.failing:
            _log.warning("the sidecar's routes cannot be read, the last known stay in use: %s", error)
        self.failing = True
        announce_routes(confirmed=False)
        return False


def _saved(share: Share | None, name: str) -> bytes | None:
    """The reply about a route configuration, if it was saved."""
    if share is not None:
        with share.open() as saved:
            for segment in () if saved is None else saved.segments():
                if any(each == name for each, _ in segment.configs):
                    return segment.body()
    return None


def _save(share: Share, known: Known, replies: list[Reply]) -> Version:
    """Save the new replies, and of the old ones what they do not replace."""
    current = {name: part.stamp for name, part in known.parts.items()}
    segments: list[Segment] = []
    for reply in replies:
        configs = tuple((name, current.pop(name)) for name, _ in reply.configs if name in current)
        if configs:
            segments.append(Segment(configs, len(reply.body), partial(bytes, reply.body)))
    with share.open() as saved:
        for segment in () if saved is None else saved.segments():
            configs = tuple((name, stamp) for name, stamp in segment.configs if current.get(name) == stamp)
            if configs:
                segments.append(segment._replace(configs=configs))
        return share.save(segments, known.timeouts)
