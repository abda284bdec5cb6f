"""
The few settings that waiting for the proxy needs, read without pydantic.

`MeshSettings` reads the same variables, files and defaults by the same readers; a test compares the two. What is wrong
with a setting that no gate needs is not found here: a container must not fail to start its sidecar's `meshaware wait`
for a budget that the application will refuse by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from meshaware.errors import SettingsError
from meshaware.flavours import Detected, detect
from meshaware.settings.facts import read_pairs
from meshaware.settings.found import Unusable
from meshaware.settings.gather import gather
from meshaware.settings.problems import describe, sentence_of
from meshaware.settings.readers import (
    read_choice,
    read_flag,
    read_loopback_origin,
    read_loopback_url,
    read_seconds,
    read_upstreams,
    read_why_not,
)

__all__ = ["GateSettings", "read_gate_settings"]

_READERS: Mapping[str, Callable[[object], object]] = MappingProxyType(
    {
        "mesh": read_choice("auto", "istio", "ambient", "linkerd", "consul", "kuma", "none"),
        "admin_url": read_loopback_origin,
        "ready_url": read_loopback_url,
        "ready_timeout": read_seconds,
        "ready_fatal": read_flag,
        "wait_for": read_upstreams,
        "wait_disabled": read_why_not,
        "in_kubernetes": read_flag,
        "workload.labels": read_pairs,
        "workload.annotations": read_pairs,
    }
)
_NO_PAIRS: Mapping[str, str] = MappingProxyType({})


class GateSettings(NamedTuple):
    """What waiting for the proxy needs to know; each field as in `MeshSettings` and `Workload`."""

    mesh: str = "auto"
    admin_url: str | None = None
    ready_url: str | None = None
    ready_timeout: float = 60.0
    ready_fatal: bool = True
    wait_for: tuple[str, ...] = ()
    wait_disabled: str | None = None
    in_kubernetes: bool = False
    labels: Mapping[str, str] = _NO_PAIRS
    annotations: Mapping[str, str] = _NO_PAIRS

    @property
    def detected(self) -> Detected:
        """Which mesh this is, by what is known without asking anybody."""
        return detect(
            self.mesh,
            self.labels,
            self.annotations,
            self.in_kubernetes,
            proxy_declared=self.ready_url is not None or self.admin_url is not None,
        )


def read_gate_settings(environ: Mapping[str, str]) -> GateSettings:
    """
    Read variables and the pod's own files.

    Raises:
        SettingsError: One or more values cannot be used; one error names them all.
    """
    found = gather({}, environ)
    problems: list[str] = []
    values: dict[str, Any] = {}
    for field, each in found.items():
        if isinstance(each.value, Unusable):
            problems += each.value.problems
        elif field in _READERS:
            try:
                values[field.removeprefix("workload.")] = _READERS[field](each.value)
            except ValueError as error:
                problems.append(describe(field, each, str(error)))
    if problems:
        raise SettingsError(sentence_of(problems))
    return GateSettings(**values)
