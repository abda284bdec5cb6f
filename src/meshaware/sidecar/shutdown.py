"""
Letting the proxy go when a job is over.

A classic sidecar is a container like any other: as long as it runs, the pod of a Job does not complete. So the last
act of a job is to tell it. Where the kubelet or a control plane ends the proxy, nothing is said.

Sources: Istio's `pilot/cmd/pilot-agent/status/server.go`, Linkerd's `linkerd/app/admin/src/server.rs`,
consul-dataplane's `pkg/consuldp/lifecycle.go`; what each says stands in its file of `meshaware.flavours`.
"""

from __future__ import annotations

import math
import time

from meshaware.errors import SidecarUnavailable
from meshaware.flavours import Flavour
from meshaware.settings.addresses import parse_loopback
from meshaware.sidecar.blocking import fetch
from meshaware.sidecar.exchange import AdminReply
from meshaware.sidecar.farewell import Ask, Dismissal, Farewell, farewell

__all__ = ["DISMISSAL_TIMEOUT", "Dismissal", "async_dismiss", "dismiss"]

DISMISSAL_TIMEOUT = 2.0
"""Seconds that telling a proxy to go may take, unless somebody says otherwise."""

_MAX_BYTES = 1 << 12


def dismiss(flavour: Flavour, *, url: str | None = None, timeout: float = DISMISSAL_TIMEOUT) -> Dismissal:
    """
    Tell the proxy of this mesh to go, and return what came of it; a proxy that misbehaves raises nothing.

    Whether it should go is for the caller to decide: a native sidecar is ended by the kubelet, and would be started
    again; and other containers of the pod may still need it.

    Args:
        flavour: The mesh. Where it tells its proxies nothing, nothing is asked.
        url: Where the proxy is told, on loopback; by default where the mesh has it.
        timeout: Seconds for everything together; more than 0.

    Raises:
        ValueError: The URL is not on loopback, or the timeout cannot be used.
    """
    talk, deadline = _begin(flavour, url, timeout)
    try:
        ask = next(talk)
        while True:
            ask = talk.send(_put(ask, deadline))
    except StopIteration as end:
        dismissal: Dismissal = end.value
        return dismissal


async def async_dismiss(
    flavour: Flavour,
    *,
    url: str | None = None,
    timeout: float = DISMISSAL_TIMEOUT,  # noqa: ASYNC109  the same as dismiss
) -> Dismissal:
    """The same as `dismiss`, on asyncio and trio."""
    talk, deadline = _begin(flavour, url, timeout)
    try:
        ask = next(talk)
        while True:
            ask = talk.send(await _async_put(ask, deadline))
    except StopIteration as end:
        dismissal: Dismissal = end.value
        return dismissal


def _begin(flavour: Flavour, url: str | None, timeout: float) -> tuple[Farewell, float]:
    if not 0 < timeout < math.inf:
        raise ValueError(f"timeout {timeout!r} is not a number of seconds, more than 0")
    if url is not None:
        parse_loopback(url)
    return farewell(flavour, url), time.monotonic() + timeout


def _put(ask: Ask, deadline: float) -> AdminReply | SidecarUnavailable:
    try:
        return fetch(ask.url, timeout=_left(deadline), max_bytes=_MAX_BYTES, method=ask.method)
    except SidecarUnavailable as error:
        return error


async def _async_put(ask: Ask, deadline: float) -> AdminReply | SidecarUnavailable:
    from meshaware.sidecar.admin import async_fetch  # noqa: PLC0415 (an event loop, which a command has none of)

    try:
        return await async_fetch(ask.url, timeout=_left(deadline), max_bytes=_MAX_BYTES, method=ask.method)
    except SidecarUnavailable as error:
        return error


def _left(deadline: float) -> float:
    # A timeout of 0 means something else to a socket.
    return max(deadline - time.monotonic(), 0.001)
