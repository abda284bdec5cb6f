"""Letting the sidecar go after a command has ended: whether it should go, and what is said of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any, NamedTuple, TypeVar, cast

from meshaware.cli.terminal import say
from meshaware.errors import SettingsError, SidecarUnavailable
from meshaware.flavours import Flavour
from meshaware.settings.facts import read_containers, read_pairs
from meshaware.settings.gate import GateSettings, read_gate_settings
from meshaware.settings.gather import gather
from meshaware.settings.problems import describe, sentence_of
from meshaware.settings.readers import read_flag, read_loopback_url
from meshaware.sidecar.attempts import find_mesh, perform
from meshaware.sidecar.blocking import fetch
from meshaware.sidecar.parting import Outcome, QuitPolicy, objection
from meshaware.sidecar.shutdown import dismiss

__all__ = ["let_go"]

_T = TypeVar("_T")
_OK = 200
_TIMEOUT = 1.0
_NOTHING: Mapping[str, str] = {}


class _Pod(NamedTuple):
    """What the sidecar knows of the pod, and the settings may not."""

    annotations: Mapping[str, str] = _NOTHING
    containers: tuple[str, ...] = ()


def let_go(policy: QuitPolicy, outcome: Outcome) -> None:
    """
    Tell the sidecar of this pod to go, if that is right; say on standard error why it stays although the pod waits.

    Args:
        policy: When it is let go.
        outcome: How the command ended.
    """
    try:
        settings = read_gate_settings(os.environ)
        shared = _read("quit_shared", read_flag, default=False)
        url = _read("quit_url", read_loopback_url, default=None)
        containers = _read("workload.app_containers", read_containers, default=())
    except SettingsError as error:
        _say(f"the sidecar was not let go: {error}")
        return
    flavour = perform(find_mesh(settings.detected, monotonic() + _TIMEOUT)).flavour
    told = _ask(flavour, settings)
    dismissal = objection(
        flavour,
        policy,
        outcome,
        labels=settings.labels,
        annotations=settings.annotations or told.annotations,
        containers=containers or told.containers,
        shared=shared,
    )
    if dismissal is None:
        dismissal = dismiss(flavour, url=url)
    if dismissal.refused:
        _say(dismissal.reason)


def _read(field: str, reader: Callable[[object], _T], *, default: Any) -> _T:
    found = gather({}, os.environ).get(field)
    if found is None:
        return default  # type: ignore[no-any-return]
    try:
        return reader(found.value)
    except ValueError as error:
        raise SettingsError(sentence_of([describe(field, found, str(error))])) from None


def _ask(flavour: Flavour, settings: GateSettings) -> _Pod:
    """What Istio's injector told the sidecar; nothing where it does not answer, and where nothing hangs on it."""
    admin = settings.admin_url or flavour.admin_url
    if admin is None or flavour.quit.url is None:
        return _Pod()
    try:
        reply = fetch(f"{admin}/server_info", timeout=_TIMEOUT)
        metadata = json.loads(reply.body)["node"]["metadata"] if reply.status == _OK else None
    except (SidecarUnavailable, ValueError, LookupError, TypeError, RecursionError):
        return _Pod()
    if not isinstance(metadata, dict):
        return _Pod()
    told = cast("dict[str, object]", metadata)
    return _Pod(
        _usable(told.get("ANNOTATIONS"), read_pairs, _NOTHING),
        _usable(told.get("APP_CONTAINERS"), read_containers, ()),
    )


def _usable(value: object, reader: Callable[[object], _T], otherwise: _T) -> _T:
    try:
        return reader(value)
    except ValueError:
        return otherwise


def _say(message: str) -> None:
    say(f"meshaware run: {message}")
