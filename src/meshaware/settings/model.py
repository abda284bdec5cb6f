"""`MeshSettings`: everything that meshaware is told, and where each value comes from."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, PrivateAttr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from meshaware.deadline.header import DEFAULT_NAME
from meshaware.errors import SettingsError
from meshaware.flavours import Detected
from meshaware.settings.found import DEFAULT, Unusable
from meshaware.settings.gate import GateSettings
from meshaware.settings.gather import FACTS, gather
from meshaware.settings.mapping import FrozenMapping
from meshaware.settings.problems import problems_of, sentence_of
from meshaware.settings.readers import (
    read_choice,
    read_count,
    read_deadline_header,
    read_domain,
    read_flag,
    read_headers,
    read_hosts,
    read_loopback_origin,
    read_loopback_url,
    read_path,
    read_positive_seconds,
    read_proxy_url,
    read_routes,
    read_sampling,
    read_seconds,
    read_text,
    read_upstreams,
    read_why_not,
    unpath,
)
from meshaware.settings.sources.variables import unknown_variables
from meshaware.settings.workload import Workload, assemble

__all__ = ["MeshSettings", "UnknownVariableWarning"]

MeshName = Literal["auto", "istio", "ambient", "linkerd", "consul", "kuma", "none"]
BudgetPolicy = Literal["ceiling", "tight"]
Deadlines = Literal["enforce", "observe", "off"]
QuitPolicy = Literal["success", "always", "never"]
Sampling = Literal["mesh", "always"] | float
Names = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


class UnknownVariableWarning(UserWarning):
    """
    A variable begins with `MESHAWARE_`, but no such variable exists.

    A warning and no error: a variable that only a newer meshaware knows must not keep a pod from starting
    with an older one. And a warning of Python's rather than a log line, because settings are mostly read
    before logging is set up: it goes to stderr, once, a test run that makes warnings errors finds it, and
    `warnings.simplefilter("error", UnknownVariableWarning)` makes it fatal for those who want that.
    """


class _Unset:
    def __repr__(self) -> str:
        return "unset"


_UNSET: Any = _Unset()


def _read(reader: Callable[[object], object]) -> BeforeValidator:
    return BeforeValidator(reader)


def _read_or_none(reader: Callable[[object], object]) -> BeforeValidator:
    return BeforeValidator(lambda value: None if value is None else reader(value))


class MeshSettings(BaseSettings):
    """
    Everything that meshaware is told about its mesh, its budgets and its own pod.

    | usage | meaning |
    |---|---|
    | `MeshSettings()` | variables, the pod's own files, defaults; no network |
    | `MeshSettings(mesh="istio", timeout="2s")` | an argument wins over every variable and file |
    | `MeshSettings(workload={"namespace": "shop"})` | single facts; the others are found as always |
    | `settings.origins["timeout"]` | `"env MESHAWARE_TIMEOUT"`: where a value comes from |

    Sources, the first that knows a value wins: arguments, `MESHAWARE_*`, conventional variables
    (`POD_NAME`, `OTEL_SERVICE_NAME`, ...), `OTEL_RESOURCE_ATTRIBUTES`, downward-API files, the service
    account's namespace file, what follows from these, defaults. An empty string counts as not given. `None`
    counts as given: the default holds then, whatever variables say.

    Frozen; it compares, hashes, copies and pickles. A module reads it once and hands it on.

    Args:
        mesh: Which mesh, `auto` to find out.
        routes: Manifests of routes, files or directories; `"sidecar"` for the live ones; `()` is unset.
        timeout: Default timeout of a call in seconds or as a duration (`"2s"`); `None`: built-in 60 s.
        attempts: Default number of retries that the mesh makes, besides the first try.
        per_try_timeout: Default timeout of one try, as `timeout`.
        buffer: How much longer than the mesh the client waits.
        budget_policy: `ceiling` or `tight`.
        deadlines: `enforce`, `observe` or `off`.
        deadline_header: The header in which the next service is told how long its answer is waited for.
        deadline_floor: With less than this left of a request's deadline no further call is begun.
        deadline_cancel: Whether a request whose time is up is answered 504, and its handler cancelled.
        mesh_hosts: Further hosts, suffixes (`.corp.example`), addresses or networks that are inside the mesh.
        trace_hosts: Hosts, suffixes, addresses or networks outside the mesh that get the trace context, and nothing
            else.
        headers: Further header sets and names to pass on.
        sampling: Which spans are kept: `mesh` (what the mesh decided holds, what begins here is kept), `always`, or
            a ratio from 0 to 1 of the traces that begin here.
        cluster_domain: DNS domain of the cluster.
        admin_url: Where the proxy's admin answers, on loopback; `None`: by mesh.
        ready_url: Where the proxy says that it is ready, on loopback; `None`: by mesh.
        outbound_proxy: `http://host:port` that in-mesh plain-HTTP calls are sent through.
        podinfo: Directory of the downward-API files; `None`: `/etc/podinfo`, `/etc/istio/pod`.
        ready_timeout: How long to wait for the proxy.
        ready_fatal: Whether a proxy that is not ready in time is an error.
        wait_for: Upstreams (`inventory:8080`) whose routes the proxy has to know as well.
        wait_disabled: A reason not to wait for the proxy at all; `None`: none.
        livez_path: Path of the liveness endpoint.
        readyz_path: Path of the readiness endpoint.
        drain: How long to go on serving after SIGTERM, in seconds or as a duration; `None`: by mesh, 0 without one.
        quit: When a job lets its sidecar go: `success`, `always` (after a failure too) or `never`.
        quit_shared: Whether it does so where the pod has other containers of the application.
        quit_url: Where the proxy is told to go, on loopback; `None`: by mesh.
        in_kubernetes: Whether this process runs in a pod; left out, it is found out.
        workload: What is known about the pod: a `Workload`, or a mapping of some of its facts.

    Raises:
        SettingsError: One or more values cannot be used. One error names them all: variable, file with line
            or argument, the value, and what is accepted.
        TypeError: There is no argument of that name.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix="MESHAWARE_", validate_default=False)

    mesh: Annotated[MeshName, _read(read_choice("auto", "istio", "ambient", "linkerd", "consul", "kuma", "none"))] = (
        "auto"
    )
    routes: Annotated[tuple[str, ...], _read(read_routes)] = ()
    timeout: Annotated[float | None, _read_or_none(read_positive_seconds)] = None
    attempts: Annotated[int, _read(read_count)] = 0
    per_try_timeout: Annotated[float | None, _read_or_none(read_positive_seconds)] = None
    buffer: Annotated[float, _read(read_seconds)] = 0.25
    budget_policy: Annotated[BudgetPolicy, _read(read_choice("ceiling", "tight"))] = "ceiling"
    deadlines: Annotated[Deadlines, _read(read_choice("enforce", "observe", "off"))] = "enforce"
    deadline_header: Annotated[str, _read(read_deadline_header)] = DEFAULT_NAME
    deadline_floor: Annotated[float, _read(read_seconds)] = 0.005
    deadline_cancel: Annotated[bool, _read(read_flag)] = False
    mesh_hosts: Annotated[tuple[str, ...], _read(read_hosts)] = ()
    trace_hosts: Annotated[tuple[str, ...], _read(read_hosts)] = ()
    headers: Annotated[tuple[str, ...], _read(read_headers)] = ()
    sampling: Annotated[Sampling, _read(read_sampling)] = "mesh"
    cluster_domain: Annotated[str, _read(read_domain)] = "cluster.local"
    admin_url: Annotated[str | None, _read_or_none(read_loopback_origin)] = None
    ready_url: Annotated[str | None, _read_or_none(read_loopback_url)] = None
    outbound_proxy: Annotated[str | None, _read_or_none(read_proxy_url)] = None
    podinfo: Annotated[str | None, _read_or_none(lambda value: read_text(unpath(value)))] = None
    ready_timeout: Annotated[float, _read(read_seconds)] = 60.0
    ready_fatal: Annotated[bool, _read(read_flag)] = True
    wait_for: Annotated[tuple[str, ...], _read(read_upstreams)] = ()
    wait_disabled: Annotated[str | None, _read_or_none(read_why_not)] = None
    livez_path: Annotated[str, _read(read_path)] = "/livez"
    readyz_path: Annotated[str, _read(read_path)] = "/readyz"
    drain: Annotated[float | None, _read_or_none(read_seconds)] = None
    quit: Annotated[QuitPolicy, _read(read_choice("success", "always", "never"))] = "success"
    quit_shared: Annotated[bool, _read(read_flag)] = False
    quit_url: Annotated[str | None, _read_or_none(read_loopback_url)] = None
    in_kubernetes: Annotated[bool, _read(read_flag)] = False
    workload: Workload = Workload()

    _origins: FrozenMapping = PrivateAttr(default=FrozenMapping())

    def __init__(
        self,
        *,
        mesh: MeshName = _UNSET,
        routes: Names = _UNSET,
        timeout: float | str | None = _UNSET,
        attempts: int = _UNSET,
        per_try_timeout: float | str | None = _UNSET,
        buffer: float | str = _UNSET,
        budget_policy: BudgetPolicy = _UNSET,
        deadlines: Deadlines = _UNSET,
        deadline_header: str = _UNSET,
        deadline_floor: float | str = _UNSET,
        deadline_cancel: bool = _UNSET,
        mesh_hosts: str | Iterable[str] = _UNSET,
        trace_hosts: str | Iterable[str] = _UNSET,
        headers: str | Iterable[str] = _UNSET,
        sampling: Sampling = _UNSET,
        cluster_domain: str = _UNSET,
        admin_url: str | None = _UNSET,
        ready_url: str | None = _UNSET,
        outbound_proxy: str | None = _UNSET,
        podinfo: str | os.PathLike[str] | None = _UNSET,
        ready_timeout: float | str = _UNSET,
        ready_fatal: bool = _UNSET,
        wait_for: str | Iterable[str] = _UNSET,
        wait_disabled: str | None = _UNSET,
        livez_path: str = _UNSET,
        readyz_path: str = _UNSET,
        drain: float | str | None = _UNSET,
        quit: QuitPolicy = _UNSET,  # noqa: A002 (named as its variable)
        quit_shared: bool = _UNSET,
        quit_url: str | None = _UNSET,
        in_kubernetes: bool = _UNSET,
        workload: Workload | Mapping[str, object] = _UNSET,
    ) -> None:
        # All arguments by name; first of all, while these are the only local names.
        arguments: dict[str, object] = {name: value for name, value in locals().items() if value is not _UNSET}
        arguments = {name: value for name, value in arguments.items() if name in type(self).model_fields}
        if isinstance(workload, Workload):
            arguments["workload"] = workload.declared()
        for sentence in unknown_variables(os.environ):
            warnings.warn(sentence, UnknownVariableWarning, stacklevel=2)
        found = gather(arguments, os.environ)
        problems = [line for each in found.values() if isinstance(each.value, Unusable) for line in each.value.problems]
        usable = {field: each for field, each in found.items() if not isinstance(each.value, Unusable)}
        values: dict[str, Any] = {
            field: each.value for field, each in usable.items() if not field.startswith("workload.")
        }
        try:
            super().__init__(**values, workload=assemble(usable))
        except ValidationError as error:
            problems += problems_of(error, usable)
        if problems:
            raise SettingsError(sentence_of(problems)) from None
        self._origins = FrozenMapping({field: each.origin for field, each in usable.items() if field in values})

    @property
    def origins(self) -> Mapping[str, str]:
        """
        Where each value comes from: `argument`, `env NAME`, `file PATH`, `computed from ...` or `default`.

        By field, facts as `workload.namespace`; what `load_workload` adds says `sidecar ...`.
        """
        own = {name: self._origins.get(name, DEFAULT) for name in type(self).model_fields if name != "workload"}
        facts = {f"workload.{name}": self.workload.origins.get(name, DEFAULT) for name in FACTS}
        return FrozenMapping(own | facts)

    @property
    def detected(self) -> Detected:
        """Which mesh this is and what says so, by what is known without asking anybody; see `meshaware.flavours`."""
        return self.for_gate.detected

    @property
    def for_gate(self) -> GateSettings:
        """What waiting for the proxy needs of these."""
        return GateSettings(
            mesh=self.mesh,
            admin_url=self.admin_url,
            ready_url=self.ready_url,
            ready_timeout=self.ready_timeout,
            ready_fatal=self.ready_fatal,
            wait_for=self.wait_for,
            wait_disabled=self.wait_disabled,
            in_kubernetes=self.in_kubernetes,
            labels=self.workload.labels,
            annotations=self.workload.annotations,
        )

    def with_workload(self, workload: Workload) -> Self:
        """The same settings, for a workload of which `load_workload` has found out more."""
        return self.model_copy(update={"workload": workload})

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """
        Only what `__init__` gathered: pydantic-settings' own sources know no origins.

        Its reader of variables takes no alias of a nested field, so `POD_NAMESPACE` could not reach
        `workload.namespace`; and its errors name the field, never the variable that somebody has to correct.
        """
        return (init_settings,)

    @model_validator(mode="after")
    def _two_health_paths(self) -> Self:
        if self.livez_path == self.readyz_path:
            raise ValueError(f"livez_path and readyz_path are both {self.livez_path!r}; accepted: two different paths")
        return self

    @model_validator(mode="after")
    def _deadline_is_not_carried(self) -> Self:
        if self.deadline_header in map(str.lower, self.headers):
            raise ValueError(
                f"headers name {self.deadline_header!r}, the deadline_header, which is told anew with each call;"
                " accepted: headers without it"
            )
        return self

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        return [(name, value) for name, value in super().__repr_args__() if name in self._origins or name == "workload"]
