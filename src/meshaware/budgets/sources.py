"""Where a client's routes come from while it runs: the live sidecar."""

from __future__ import annotations

import logging
from urllib.parse import urlsplit

from meshaware.budgets.table import RouteTable
from meshaware.errors import ConfigDumpError, SidecarUnavailable
from meshaware.instrumentation import announce_routes
from meshaware.sidecar.admin import AdminReply, async_fetch, fetch

__all__ = ["SidecarRoutes"]

_log = logging.getLogger("meshaware.routes")

_DUMP = "/config_dump?resource=dynamic_route_configs"
_MAX_BYTES = 64 << 20


class SidecarRoutes:
    """
    The routes that this workload's own Envoy has, read from its admin port when `refresh` is called.

    istiod has already applied what a file cannot tell: which VirtualServices are exported to this workload, and what
    matches its labels. Until the first successful refresh, and whenever the sidecar cannot be read, the last known
    table stays: at first `fallback`.

    Args:
        admin_url: The admin address, such as `http://127.0.0.1:15000`.
        fallback: The table that holds until the sidecar was read; empty by default.
        timeout: Seconds one refresh may take.
    """

    def __init__(self, admin_url: str, *, fallback: RouteTable | None = None, timeout: float = 5.0) -> None:
        parts = urlsplit(admin_url)
        self._url = f"{parts.scheme}://{parts.netloc}{_DUMP}"
        self._timeout = timeout
        self._current = RouteTable.empty() if fallback is None else fallback
        self._failing = False
        self.live = False

    @property
    def current(self) -> RouteTable:
        """The table read last."""
        return self._current

    def refresh(self) -> bool:
        """Read the sidecar's routes; False, and the last known table stays, if that was not possible."""
        try:
            return self._take(fetch(self._url, timeout=self._timeout, max_bytes=_MAX_BYTES))
        except (SidecarUnavailable, ConfigDumpError) as error:
            return self._keep(error)

    async def async_refresh(self) -> bool:
        """Read the sidecar's routes; False, and the last known table stays, if that was not possible."""
        try:
            return self._take(await async_fetch(self._url, timeout=self._timeout, max_bytes=_MAX_BYTES))
        except (SidecarUnavailable, ConfigDumpError) as error:
            return self._keep(error)

    def _take(self, reply: AdminReply) -> bool:
        if reply.status != 200:
            raise SidecarUnavailable(f"{self._url} answered {reply.status}, not 200", "invalid")
        self._current = RouteTable.from_config_dump(reply.body)
        if self._failing or not self.live:
            _log.info("%d routes read from the sidecar at %s", len(self._current), self._url)
        self._failing, self.live = False, True
        announce_routes(confirmed=True)
        return True

    def _keep(self, error: Exception) -> bool:
        if not self._failing:
            _log.warning("the sidecar's routes cannot be read, the last known stay in use: %s", error)
        self._failing = True
        announce_routes(confirmed=False)
        return False
