"""
Everything meshaware raises on purpose.

    MeshawareError
    ├── SettingsError          a variable, file or argument has a value that cannot be used   (ValueError)
    ├── RouteError             a document of routes cannot be used                            (ValueError)
    │   ├── ManifestError      ... a VirtualService: file, document, field, value, rule
    │   └── ConfigDumpError    ... what an Envoy answered to /config_dump
    ├── SidecarError           the proxy beside this process
    │   ├── SidecarUnavailable ... cannot be asked: refused, silent, or an answer that makes no sense
    │   └── SidecarNotReady    ... was not ready when the wait was over
    ├── DeadlineExceeded       a call took longer than its budget; raised as the client library's own timeout too
    └── LocalMeshError         meshaware.testing could not run its Envoys
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = [
    "ConfigDumpError",
    "DeadlineExceeded",
    "LocalMeshError",
    "ManifestError",
    "MeshawareError",
    "RouteError",
    "SettingsError",
    "SidecarError",
    "SidecarNotReady",
    "SidecarUnavailable",
]


class MeshawareError(Exception):
    """The base of every error that meshaware raises on purpose."""


class SettingsError(MeshawareError, ValueError):
    """A setting has a value that cannot be used; the message names the variable or file, the value and the rule."""


class RouteError(MeshawareError, ValueError):
    """A document of routes cannot be used."""


class ManifestError(RouteError):
    """A Kubernetes manifest is not a valid route; the message names file, document, field, value and rule."""


class ConfigDumpError(RouteError):
    """The bytes are not a config dump of Envoy that routes can be read from."""


class SidecarError(MeshawareError):
    """Something is wrong with the proxy beside this process."""


class SidecarUnavailable(SidecarError):
    """
    The proxy could not be asked: it refused, stayed silent, or its answer makes no sense.

    `cause` is one of `refused`, `timeout`, `invalid` and `too_large`.
    """

    cause: str

    def __init__(self, message: str, cause: str = "invalid") -> None:
        super().__init__(message)
        self.cause = cause

    def __reduce__(self) -> tuple[type[SidecarUnavailable], tuple[str, str], dict[str, object]]:
        return type(self), (str(self), self.cause), self.__dict__


class SidecarNotReady(SidecarError):
    """The proxy was not ready when the time to wait for it was over."""


class DeadlineExceeded(MeshawareError):
    """
    A call was ended because its budget was used up.

    What a client raises is also that library's timeout of the phase (`httpx.ReadTimeout`, `httpx.ConnectTimeout`,
    ...), so `except httpx.TimeoutException` goes on working.

    Attributes:
        phase: Where the call was: `pool`, `connect`, `send`, `wait` or `body`; `unsent` where too little time was left
            to begin it.
        seconds: What it was given, from the end of the upload; None where the deadline of the work in hand ended it.
        route: The name of the route whose budget that is, or None.
        origin: Where that route was read, or None.
        spent: Seconds by phase.
    """

    phase: str = ""
    seconds: float | None = None
    route: str | None = None
    origin: str | None = None
    spent: Mapping[str, float] = MappingProxyType({})


class LocalMeshError(MeshawareError):
    """The local mesh for tests could not be built, started or changed; the message ends with what Envoy said last."""
