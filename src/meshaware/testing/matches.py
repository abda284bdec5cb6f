"""VirtualService `match` -> Envoy `RouteMatch`. Pure; after Istio's route.go (`TranslateRouteMatch`)."""

from __future__ import annotations

from typing import Any

from meshaware.testing.fields import Fields
from meshaware.testing.view import View

__all__ = ["EVERYTHING", "route_match"]

EVERYTHING: dict[str, Any] = {"prefix": "/"}
# Envoy routes see these as headers.
_PSEUDO = {"method": ":method", "authority": ":authority", "scheme": ":scheme"}
_PATHS = {"exact": "path", "prefix": "prefix"}
# Istio's way to write "is there, whatever it is".
_ANY_VALUE = "*"


def route_match(match: Fields, view: View, port: int) -> dict[str, Any] | None:
    """
    Translate one entry of `http[].match`; None when it does not concern this workload or this port.

    Conditions on the workload that sends (sourceLabels, sourceNamespace, gateways, port) are decided here, as
    istiod decides them: the proxy never sees them.
    """
    concerns = _concerns(match, view, port)
    match.text("name")
    result = _path(match)
    headers = _headers(match, "headers") + [_without(header) for header in _headers(match, "withoutHeaders")]
    headers = sorted(headers, key=lambda header: header["name"]) + _pseudo_headers(match)
    if headers:
        result["headers"] = headers
    parameters = _parameters(match)
    if parameters:
        result["query_parameters"] = parameters
    match.finish()
    return result if concerns else None


def _concerns(match: Fields, view: View, port: int) -> bool:
    gateways, labels, namespace = (
        match.texts("gateways"),
        match.pairs("sourceLabels"),
        match.text("sourceNamespace"),
    )
    wanted = match.integer("port")
    if wanted is not None and wanted != port:
        return False
    if gateways:
        # As in Istio, the source conditions of a match that names gateways are not looked at.
        return "mesh" in gateways
    if namespace is not None and namespace != view.client.namespace:
        return False
    return all(view.client.labels.get(key) == value for key, value in labels.items())


def _path(match: Fields) -> dict[str, Any]:
    uri, case_sensitive = match.fields("uri"), not match.flag("ignoreUriCase")
    if uri is None:
        return {**EVERYTHING, "case_sensitive": case_sensitive}
    kind, value = _string(uri)
    path = {"safe_regex": {"regex": value}} if kind == "regex" else {_PATHS[kind]: value}
    return {**path, "case_sensitive": case_sensitive}


def _pseudo_headers(match: Fields) -> list[dict[str, Any]]:
    return [
        {"name": name, "string_match": _string_match(value)}
        for field, name in _PSEUDO.items()
        if (value := match.fields(field)) is not None
    ]


def _headers(match: Fields, field: str) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = []
    for name, value in _named(match, field):
        if name.startswith("@request.auth"):
            match.refuse(field, f"with {name!r}: LocalMesh checks no tokens")
        present = {"name": name.lower(), "present_match": True}
        result.append(present if value is None else {"name": name.lower(), "string_match": _string_match(value)})
    return result


def _without(header: dict[str, Any]) -> dict[str, Any]:
    # A missing header counts as an empty one, so that it is without the value too.
    missing = {} if "present_match" in header else {"treat_missing_header_as_empty": True}
    return {**header, "invert_match": True, **missing}


def _parameters(match: Fields) -> list[dict[str, Any]]:
    return [
        {"name": name, "present_match": True} if value is None else {"name": name, "string_match": _string_match(value)}
        for name, value in _named(match, "queryParams")
    ]


def _named(match: Fields, field: str) -> list[tuple[str, Fields | None]]:
    """The string matches of a mapping; None for one that asks for presence only."""
    group = match.fields(field)
    if group is None:
        return []
    result: list[tuple[str, Fields | None]] = []
    for name in group:
        value = group.fields(name)
        empty = value is None or not list(value) or value.raw("regex") == _ANY_VALUE
        result.append((name, None if empty else value))
    return result


def _string_match(value: Fields) -> dict[str, Any]:
    kind, text = _string(value)
    return {"safe_regex": {"regex": text}} if kind == "regex" else {kind: text}


def _string(value: Fields) -> tuple[str, str]:
    found = [(kind, text) for kind in ("exact", "prefix", "regex") if (text := value.text(kind)) is not None]
    value.finish()
    if len(found) != 1:
        value.refuse("", "one of exact, prefix and regex is needed, and only one")
    return found[0]
