"""
Where a client's routes come from while it runs: the live sidecar.

It is read in rounds (`rounds.py`), by a thread or a task that its user starts.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit
from weakref import WeakSet

import anyio

from meshaware.budgets.config_dump import MAX_BYTES
from meshaware.budgets.driving import async_run, run
from meshaware.budgets.filtering import keep_hosts
from meshaware.budgets.polling import Limits
from meshaware.budgets.rounds import Rounds, Terms
from meshaware.budgets.sharing import AVAILABLE, Share
from meshaware.budgets.table import RouteTable

__all__ = ["INTERVAL", "SidecarRoutes"]

INTERVAL = 30.0
"""Seconds between two looks at the sidecar, a fifth more or less at random."""

_REFRESH = 30.0
_LOOK = 1.0
_started: WeakSet[SidecarRoutes] = WeakSet()


class SidecarRoutes:
    """
    The routes that this workload's own Envoy has; a `RouteSource` for clients.

    istiod has already applied what a file cannot tell: which VirtualServices are exported to this workload, and what
    matches its labels. Until the first successful refresh, and whenever the sidecar cannot be read, the last known
    table stays: at first `fallback`. Nothing is read before one of these is called:

    | usage | meaning |
    |---|---|
    | `with SidecarRoutes(url) as routes:` | read once, then kept fresh by a daemon thread until the end of the block |
    | `routes.start()`, `routes.stop()` | the thread alone |
    | `await routes.async_follow()` | read and kept fresh until cancelled; `Mesh.lifespan` does it |
    | `routes.refresh()`, `await routes.async_refresh()` | made to say what the sidecar says now |

    The sidecar is asked every `interval` whether something moved, and then for what moved only. The processes of a pod
    share what they are told: one asks, the others read it from a file in a private directory. After a fork, the child's
    thread is its own.

    Args:
        admin_url: The admin address, such as `http://127.0.0.1:15000`; None: it is not known yet, and nothing is asked
            before `admin_url` is set.
        fallback: The table that holds until the sidecar was read; empty by default.
        namespace: Where this workload runs: it decides which service a short name is.
        cluster_domain: The cluster's DNS domain.
        hosts: Names (`inventory.shop.svc.cluster.local`) and suffixes (`.shop.svc.cluster.local`): only virtual hosts
            with such a domain are kept, and those for any host. All, if it is not given.
        interval: Seconds between two looks, a fifth more or less at random.
        timeout: Seconds one request may take.
        max_bytes: What all replies of one refresh may come to.
        shared: Whether to share with the other processes of this user that ask the same address.
    """

    def __init__(
        self,
        admin_url: str | None,
        *,
        fallback: RouteTable | None = None,
        namespace: str | None = None,
        cluster_domain: str = "cluster.local",
        hosts: Iterable[str] | None = None,
        interval: float = INTERVAL,
        timeout: float = 5.0,
        max_bytes: int = MAX_BYTES,
        shared: bool = True,
    ) -> None:
        if interval <= 0:
            raise ValueError(f"interval={interval!r}: must be a number of seconds, more than 0")
        self._url = _origin(admin_url)
        self._interval, self._request = interval, timeout
        self._terms = Terms(
            self._url, interval, Limits(timeout, _REFRESH, max_bytes), cluster_domain, keep_hosts(hosts)
        )
        self._sharing = shared and AVAILABLE
        self._rounds = self._make_rounds(RouteTable.empty() if fallback is None else fallback, namespace)
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._gate: Callable[[], bool] | None = None

    def __repr__(self) -> str:
        state = "failing" if self.failing else "live" if self.live else "not read yet"
        return f"<SidecarRoutes {self._url or 'not found yet'}: {state}, {len(self.current)} routes>"

    def _make_rounds(self, table: RouteTable, namespace: str | None) -> Rounds:
        known = self._sharing and self._url
        share = Share(self._url, max_bytes=2 * self._terms.limits.max_bytes) if known else None
        return Rounds(self._terms._replace(url=self._url), table, namespace, share)

    @property
    def admin_url(self) -> str | None:
        """The admin address; None for as long as it is not known. It may be set until then, and counts from then on."""
        return self._url or None

    @admin_url.setter
    def admin_url(self, url: str | None) -> None:
        if _origin(url) != self._url:
            self._url = _origin(url)
            self._rounds = self._make_rounds(self.current, self.namespace)

    @property
    def current(self) -> RouteTable:
        """The table read last."""
        return self._rounds.table

    @property
    def namespace(self) -> str | None:
        """Where this workload runs; a change counts from the next refresh on."""
        return self._rounds.namespace

    @namespace.setter
    def namespace(self, name: str | None) -> None:
        self._rounds.namespace = name

    @property
    def live(self) -> bool:
        """Whether the sidecar has been read, by this process or another."""
        return self._rounds.live

    @property
    def failing(self) -> bool:
        """Whether the sidecar could not be read the last time."""
        return self._rounds.failing

    @property
    def failures(self) -> int:
        """How many times it could not be read."""
        return self._rounds.failures

    @property
    def refreshed_at(self) -> float | None:
        """When the routes were last known to be the sidecar's, on the clock of `time.monotonic`; None before."""
        return self._rounds.refreshed_at

    @property
    def age(self) -> float | None:
        """Seconds since the routes were last known to be the sidecar's; None before."""
        known_at = self.refreshed_at
        return None if known_at is None else max(0.0, time.monotonic() - known_at)

    def refresh(self, *, max_age: float = 0.0) -> bool:
        """
        Read what moved at the sidecar; False, and the last known table stays, if that was not possible.

        Args:
            max_age: The sidecar is not asked if a process that shares with this one asked it so many seconds ago.
        """
        return bool(self._url) and run(self._rounds.steps(max_age), self._url, self._stopping)

    async def async_refresh(self, *, max_age: float = 0.0) -> bool:
        """The same as `refresh`, on asyncio and trio; large replies are read in a thread."""
        return bool(self._url) and await async_run(self._rounds.steps(max_age), self._url)

    async def async_follow(self) -> None:
        """Read the routes, and keep them fresh until cancelled."""
        while True:
            await self.async_refresh(max_age=self._rounds.patience)
            await anyio.sleep(self._rest())

    def start(self, *, after: Callable[[], bool] | None = None) -> None:
        """
        Keep the routes fresh in a daemon thread; nothing happens if it runs already.

        Args:
            after: Called in the thread first, such as `gate.wait`; the sidecar is not asked if it returns False.
        """
        if self._thread is not None:
            return
        self._gate, self._stopping = after, threading.Event()
        self._thread = threading.Thread(
            target=self._follow, args=(self._stopping,), name="meshaware-routes", daemon=True
        )
        _started.add(self)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; the table stays as it is."""
        thread, self._thread = self._thread, None
        _started.discard(self)
        self._stopping.set()
        if thread is not None and thread is not threading.current_thread():
            # It may be in the middle of a request.
            thread.join(self._request + 1.0)
        self._stopping = threading.Event()

    def __enter__(self) -> Self:
        self.refresh(max_age=self._interval)
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _follow(self, stopping: threading.Event) -> None:
        if self._gate is not None and not self._gate():
            return
        while not stopping.is_set():
            if self._url:
                run(self._rounds.steps(self._rounds.patience), self._url, stopping)
            stopping.wait(self._rest())

    def restart(self) -> None:
        """Begin anew in a process that was forked from the one that had the thread."""
        self._thread, self._stopping = None, threading.Event()
        self.start(after=self._gate)

    def _rest(self) -> float:
        """Seconds until the next look: at the file, or at the sidecar if there is none."""
        return min(_LOOK, self._interval / 4) if self._rounds.shared else self._rounds.patience


def _origin(url: str | None) -> str:
    parts = urlsplit(url or "")
    return f"{parts.scheme}://{parts.netloc}" if url else ""


def _after_fork() -> None:
    for routes in list(_started):
        routes.restart()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
