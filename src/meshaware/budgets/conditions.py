"""What a VirtualService's `match` asks for: read, checked as Istio checks it, and turned into what Envoy compares."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from meshaware.budgets.fields import Field
from meshaware.budgets.route import HeaderMatch, QueryMatch, RouteMatch, TextMatch

__all__ = ["Caller", "Condition", "read_condition"]

_PSEUDO = ("scheme", "method", "authority")
_KINDS = ("exact", "prefix", "regex")
_CLAIMS = "@request.auth.claims"

Texts = Mapping[str, TextMatch | None]
_NONE: Texts = MappingProxyType({})
_NO_LABELS: Mapping[str, str] = MappingProxyType({})


class Caller(NamedTuple):
    """What is known of the sidecar that a VirtualService is read for; None where it is not known."""

    labels: Mapping[str, str] | None = None
    namespace: str | None = None


class Condition(NamedTuple):
    """
    One element of `match`: all of it must hold. A value of None is a condition on presence.

    `pseudo` has method, authority and scheme.
    """

    name: str = ""
    uri: TextMatch | None = None
    ignore_uri_case: bool = False
    pseudo: Texts = _NONE
    headers: Texts = _NONE
    without: Texts = _NONE
    query: Texts = _NONE
    port: int = 0
    gateways: tuple[str, ...] = ()
    source_labels: Mapping[str, str] = _NO_LABELS
    source_namespace: str = ""

    def applies(self, caller: Caller) -> bool | None:
        """
        Whether istiod would give the sidecar a route for it; None where that depends on what is not known.

        Where gateways are named, the caller's labels and namespace are not asked for.
        """
        if self.gateways:
            return "mesh" in self.gateways
        verdicts: list[bool | None] = []
        if self.source_labels:
            known = caller.labels
            verdicts.append(None if known is None else self.source_labels.items() <= known.items())
        if self.source_namespace:
            verdicts.append(None if caller.namespace is None else self.source_namespace == caller.namespace)
        return False if False in verdicts else None if None in verdicts else True

    def route_match(self, *, doubt: str = "") -> RouteMatch:
        """The same as Envoy gets it from istiod."""
        headers = [
            *(HeaderMatch(name, text) for name, text in self.headers.items() if not _is_claim(name)),
            *(
                HeaderMatch(name, text, invert=True, missing_is_empty=text is not None)
                for name, text in self.without.items()
                if not _is_claim(name)
            ),
            *(HeaderMatch(f":{name}", text) for name, text in self.pseudo.items()),
        ]
        claims = [name for name in (*self.headers, *self.without) if _is_claim(name)]
        doubts = [doubt] if doubt else []
        if claims:
            doubts.append("claims of a token decide")
        path = TextMatch("prefix", "/") if self.uri is None else self.uri
        if self.ignore_uri_case and path.kind != "regex":
            path = path._replace(ignore_case=True)
        query = tuple(QueryMatch(name, text) for name, text in self.query.items())
        return RouteMatch(path, tuple(headers), query, self.port, "; ".join(doubts))


def read_condition(field: Field) -> Condition:
    """
    Read one element of `match`.

    Raises:
        ManifestError: It is not what Istio accepts.
    """
    name, uri, labels = field.get("name"), field.get("uri"), field.get("sourceLabels")
    ignore, gateways, namespace = field.get("ignoreUriCase"), field.get("gateways"), field.get("sourceNamespace")
    port = field.get("port")
    pseudo = {key: _text(found) for key in _PSEUDO if (found := field.get(key)) is not None}
    return Condition(
        name="" if name is None else name.text(),
        uri=None if uri is None else _text(uri, empty_prefix=True),
        ignore_uri_case=ignore is not None and ignore.flag(),
        pseudo=pseudo,
        headers=_texts(field.get("headers"), null=False),
        without=_texts(field.get("withoutHeaders")),
        query=_texts(field.get("queryParams"), lower=False),
        port=0 if port is None else port.whole(0, 65535),
        gateways=() if gateways is None else gateways.texts(),
        source_labels={} if labels is None else {key: value.text() for key, value in labels.entries()},
        source_namespace="" if namespace is None else namespace.text(),
    )


def _texts(field: Field | None, *, null: bool = True, lower: bool = True) -> Texts:
    if field is None:
        return {}
    found: dict[str, TextMatch | None] = {}
    for name, value in field.entries():
        if not name:
            raise field.error("has an empty name")
        if value.value is None and not null:
            raise value.error("must be {} where only presence counts, or have one of exact, prefix and regex")
        found[name.lower() if lower else name] = None if value.value is None else _text(value)
    return found


def _text(field: Field, *, empty_prefix: bool = False) -> TextMatch | None:
    said = [kind for kind in _KINDS if field.get(kind) is not None]
    if len(said) > 1:
        raise field.error(f"has {' and '.join(said)}: must be one of exact, prefix and regex")
    if not said:
        unknown = [key for key in field.keys() if key not in _KINDS]  # noqa: SIM118 (a Field, no dict)
        if unknown:
            raise field.error(f"has {unknown[0]!r}: must be one of exact, prefix and regex, or {{}} for presence")
        return None
    kind = said[0]
    value = field.need(kind, "must be a text")
    text = value.text()
    if not text and (kind == "regex" or (kind == "prefix" and not empty_prefix)):
        raise value.error("must not be empty")
    match kind:
        case "exact":
            return TextMatch("exact", text)
        case "prefix":
            return TextMatch("prefix", text)
        case _:
            # Istio takes a lone star, which is no RE2, as a condition on presence; a path is always present.
            return None if text == "*" and not empty_prefix else TextMatch("regex", text)


def _is_claim(name: str) -> bool:
    return name.startswith(_CLAIMS)
