"""What is known about the pod that this process runs in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, PlainValidator

from meshaware.identity import SpiffeId
from meshaware.settings.facts import (
    read_address,
    read_containers,
    read_namespace,
    read_pairs,
    read_service_account,
    read_trust_domain,
)
from meshaware.settings.found import ARGUMENT, COMPUTED, Found, first_wins
from meshaware.settings.gather import FACTS, complete
from meshaware.settings.mapping import FrozenMapping
from meshaware.settings.readers import read_text

__all__ = ["Workload", "assemble"]


def _or_none(read: Callable[[object], str]) -> BeforeValidator:
    return BeforeValidator(lambda value: None if value is None else read(value))


def _plain(pairs: Mapping[str, str]) -> dict[str, str]:
    return dict(pairs)


_Text = Annotated[str | None, _or_none(read_text)]
_Pairs = Annotated[Mapping[str, str], PlainValidator(read_pairs), PlainSerializer(_plain)]


class Workload(BaseModel):
    """
    What is known about the pod that this process runs in; `None` stands for what is not known.

    Frozen, and made of plain strings: it compares, hashes, copies and pickles. `MeshSettings` makes it from
    arguments, variables and files, `load_workload` adds what the sidecar says.

    `service` and `version` are Istio's canonical name and revision, so that logs and traces carry the names
    that the mesh's own telemetry has.

    `origins` says for each known fact where it comes from, as `{"namespace": "env POD_NAMESPACE"}`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pod_name: _Text = None
    pod_uid: _Text = None
    namespace: Annotated[str | None, _or_none(read_namespace)] = None
    service_account: Annotated[str | None, _or_none(read_service_account)] = None
    workload_name: _Text = None
    service: _Text = None
    version: _Text = None
    node_name: _Text = None
    pod_ip: Annotated[str | None, _or_none(read_address)] = None
    cluster_id: _Text = None
    mesh_id: _Text = None
    trust_domain: Annotated[str | None, _or_none(read_trust_domain)] = None
    labels: _Pairs = FrozenMapping()
    annotations: _Pairs = Field(default=FrozenMapping(), repr=False)
    app_containers: Annotated[tuple[str, ...], BeforeValidator(read_containers)] = ()
    origins: _Pairs = Field(default=FrozenMapping(), repr=False)

    @property
    def spiffe_id(self) -> SpiffeId | None:
        """The identity in the mesh; `None` unless all three parts of it are known."""
        if self.trust_domain is None or self.namespace is None or self.service_account is None:
            return None
        return SpiffeId(self.trust_domain, self.namespace, self.service_account)

    def declared(self) -> dict[str, Found]:
        """The facts that somebody stated, each with its origin; not what was computed from them."""
        stated = {name: Found(getattr(self, name), self.origins.get(name, ARGUMENT)) for name in FACTS}
        return {
            name: found
            for name, found in stated.items()
            if name in self.model_fields_set and not found.origin.startswith(COMPUTED)
        }

    def with_facts(self, facts: Mapping[str, Found]) -> Workload:
        """
        A workload that knows these too; what is declared already stays, what is computed is computed anew.

        Raises:
            pydantic.ValidationError: A fact has a value that the field cannot have.
        """
        known = first_wins((self.declared(), facts))
        found = complete({f"workload.{name}": each for name, each in known.items()})
        return Workload.model_validate(assemble(found))

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        return [(name, value) for name, value in super().__repr_args__() if value]


def assemble(found: Mapping[str, Found]) -> dict[str, object]:
    """The arguments of `Workload`, of the findings whose field begins with `workload.`."""
    facts = {field.removeprefix("workload."): each for field, each in found.items() if field.startswith("workload.")}
    values: dict[str, object] = {name: each.value for name, each in facts.items()}
    return values | {"origins": {name: each.origin for name, each in facts.items()}}
