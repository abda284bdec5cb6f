"""VirtualService `headers` -> what Envoy adds to and removes from messages. Pure; after Istio's route.go."""

from __future__ import annotations

from typing import Any, NamedTuple

from meshaware.testing.fields import Fields

__all__ = ["Operations", "header_operations"]

_AUTHORITY = ("host", ":authority")


class Operations(NamedTuple):
    """
    What is done to headers.

    Attributes:
        fields: For an Envoy route or weighted cluster, by the name of its field.
        authority: What the Host header is set to, or an empty text: Envoy has a field of its own for it.
    """

    fields: dict[str, list[Any]]
    authority: str

    def put_into(self, target: dict[str, Any]) -> None:
        """Append to what the route or weighted cluster has already."""
        for name, items in self.fields.items():
            target[name] = [*target.get(name, ()), *items]


def header_operations(headers: Fields | None) -> Operations:
    """
    Translate `headers`, of a rule or of one of its destinations; None is nothing to do.

    Raises:
        LocalMeshError: It has a field that is not supported.
    """
    fields: dict[str, list[Any]] = {}
    authority = ""
    for side in ("request", "response"):
        operations = headers.fields(side) if headers is not None else None
        if operations is None:
            continue
        setting, adding = operations.pairs("set"), operations.pairs("add")
        removing = [name for name in operations.texts("remove") if not _is_internal(name)]
        operations.finish()
        pairs = _added(setting, "OVERWRITE_IF_EXISTS_OR_ADD") + _added(adding, "APPEND_IF_EXISTS_OR_ADD")
        fields |= {f"{side}_headers_to_add": pairs} if pairs else {}
        fields |= {f"{side}_headers_to_remove": removing} if removing else {}
        if side == "request":
            authority = _authority(setting) or _authority(adding)
    if headers is not None:
        headers.finish()
    return Operations(fields, authority)


def _added(pairs: dict[str, str], action: str) -> list[dict[str, Any]]:
    return [
        {"header": {"key": name, "value": value}, "append_action": action}
        for name, value in sorted(pairs.items())
        if not _is_internal(name)
    ]


def _is_internal(name: str) -> bool:
    return name.startswith(":") or name.lower() == "host"


def _authority(pairs: dict[str, str]) -> str:
    return next((value for name, value in pairs.items() if name.lower() in _AUTHORITY), "")
