"""Letting the sidecar go after a command has ended: whether it should go, and what is said of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any, TypeVar

from meshaware.cli.terminal import say
from meshaware.errors import SettingsError, SidecarUnavailable
from meshaware.flavours import Flavour
from meshaware.settings.facts import read_containers
from meshaware.settings.found import Unusable
from meshaware.settings.gate import GateSettings, read_gate_settings
from meshaware.settings.gather import gather
from meshaware.settings.problems import describe, sentence_of
from meshaware.settings.readers import read_flag, read_loopback_url
from meshaware.sidecar.blocking import fetch
from meshaware.sidecar.shutdown import dismiss

__all__ = ["let_go"]

_T = TypeVar("_T")
_OK = 200
_TIMEOUT = 1.0


def let_go() -> None:
    """
    Tell the sidecar of this pod to go, if there is one that a job has to tell; say on standard error why it stays.

    A native sidecar is ended by the kubelet, and is told nothing. Where the pod has other containers of the
    application, they still need it: it is told only if `MESHAWARE_QUIT_SHARED` says so.
    """
    try:
        settings = read_gate_settings(os.environ)
        shared = _read("quit_shared", read_flag, default=False)
        url = _read("quit_url", read_loopback_url, default=None)
        containers = _read("workload.app_containers", read_containers, default=())
    except SettingsError as error:
        _say(f"the sidecar was not let go: {error}")
        return
    flavour = settings.detected.flavour
    if flavour.quit.url is None or flavour.is_native(settings.labels, settings.annotations):
        return
    if not shared:
        others = containers or _containers(flavour, settings)
        if len(others) > 1:
            _say(
                f"the sidecar ({flavour.title}) was not let go: the pod has the containers {', '.join(others)}, which"
                " may need it; MESHAWARE_QUIT_SHARED=true lets it go all the same"
            )
            return
    dismissal = dismiss(flavour, url=url)
    if dismissal.refused:
        _say(dismissal.reason)


def _read(field: str, reader: Callable[[object], _T], *, default: Any) -> _T:
    found = gather({}, os.environ).get(field)
    if found is None or isinstance(found.value, Unusable):
        return default  # type: ignore[no-any-return]
    try:
        return reader(found.value)
    except ValueError as error:
        raise SettingsError(sentence_of([describe(field, found, str(error))])) from None


def _containers(flavour: Flavour, settings: GateSettings) -> tuple[str, ...]:
    """The containers of the application, as Istio's injector tells the sidecar; nothing if they are not known."""
    admin = settings.admin_url or flavour.admin_url
    if admin is None:
        return ()
    try:
        reply = fetch(f"{admin}/server_info", timeout=_TIMEOUT)
        if reply.status != _OK:
            return ()
        return read_containers(json.loads(reply.body)["node"]["metadata"]["APP_CONTAINERS"])
    except (SidecarUnavailable, ValueError, LookupError, TypeError, RecursionError):
        return ()


def _say(message: str) -> None:
    say(f"meshaware run: {message}")
