"""
Gateway API HTTPRoutes whose parent is a service, as the VirtualServices that istiod makes of them.

Reference: https://gateway-api.sigs.k8s.io/reference/spec/#httproute, GEP-1742 (timeouts), GEP-1731 (retry), GEP-2257
(durations). Sources in Istio: convertHTTPRoute, createURIMatch, sortHTTPRoutes (pilot/pkg/config/kube/gateway). What
the API server fills in where it is left out is filled in here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from meshaware.budgets.budget import DEFAULT_RETRY_ON
from meshaware.budgets.conditions import Condition
from meshaware.budgets.destination_rule import Destination
from meshaware.budgets.domains import Namespace
from meshaware.budgets.fields import Field, home_of, timestamp
from meshaware.budgets.registry import Registry
from meshaware.budgets.route import TextMatch
from meshaware.budgets.virtual_service import DEFAULT_ATTEMPTS, Retries, Rule, VirtualService

__all__ = ["GROUP", "VERSIONS", "merge_http_routes", "read_http_route"]

GROUP = "gateway.networking.k8s.io/"
VERSIONS = (f"{GROUP}v1", f"{GROUP}v1beta1")

_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")
_BACKEND_FILTERS = frozenset({"RequestHeaderModifier", "ResponseHeaderModifier"})
_RULE_FILTERS = _BACKEND_FILTERS | {"CORS", "RequestMirror", "RequestRedirect", "URLRewrite"}
_NOT_IN_A_PATH = ("//", "/./", "/../", "%2f", "%2F", "#")
_NOT_AT_ITS_END = ("/.", "/..")
_RANKS = {"exact": 3, "prefix": 2, "segments": 2, "regex": 1}
_MAX_ATTEMPTS = (1 << 31) - 1
_MAX_WEIGHT = 1_000_000
_CATCH_ALL = TextMatch("prefix", "/")


class _Parent(NamedTuple):
    """What an HTTPRoute is attached to: hosts in a namespace, on one port or, if that is 0, on all of them."""

    hosts: tuple[str, ...] = ()
    namespace: str = ""
    port: int = 0
    unused: str = ""


def read_http_route(field: Field, home: Namespace, registry: Registry) -> Iterator[VirtualService]:
    """
    Read a document: one result for each host of each parent.

    Args:
        field: The whole document.
        home: Where the caller runs, and the document is if its metadata do not say.
        registry: Knows the hosts of a parent that is a ServiceEntry.

    Raises:
        ManifestError: It is not what the Gateway API accepts.
    """
    name, namespace, metadata = home_of(field, "HTTPRoute", home.name)
    spec = field.need("spec", "must have parentRefs and rules")
    unsupported = ""
    read: list[Rule] = []
    for number, rule in enumerate(_elements(spec.get("rules"))):
        unsupported = unsupported or _unsupported(rule)
        read.extend(_rules(rule, f"{namespace}.{name}.{number}", namespace))
    route = VirtualService(
        name=name,
        namespace=namespace,
        hosts=(),
        gateways=("mesh",),
        export_to=(),
        rules=tuple(read),
        created=timestamp(metadata.get("creationTimestamp")),
        origin=field.origin,
        kind="HTTPRoute",
    )
    found = [_parent(each, namespace, home, registry) for each in _elements(spec.get("parentRefs"))]
    meant = [parent for parent in found if parent.hosts] or found[:1] or [_Parent(unused="without parents")]
    for hosts, owner, port, unused in meant:
        attached = route._replace(
            parent=owner,
            port=port,
            unused=unused or unsupported,
            rules=tuple(_on_port(rule, port) for rule in route.rules),
        )
        for host in hosts or ("",):
            yield attached._replace(hosts=(host,))


def merge_http_routes(routes: Iterable[VirtualService]) -> Iterator[VirtualService]:
    """
    One for each host and port, as the Gateway API has it: all rules together, the most specific condition first.

    That is: an exact path before a prefix before a regular expression, the longer one, one with a method, with more
    headers, with more query parameters; then the older route, by namespace and name, and the order of its rules.
    """
    groups: dict[tuple[str, int, str], list[VirtualService]] = {}
    for route in routes:
        if route.unused:
            yield route
        else:
            groups.setdefault((route.namespace, route.port, route.hosts[0]), []).append(route)
    for (namespace, port, host), group in groups.items():
        ordered = sorted(group, key=_age)
        rules = sorted((rule for route in ordered for rule in route.rules), key=_precedence)
        name = "~".join(filter(None, (namespace, str(port or ""), host)))
        yield ordered[0]._replace(name=name, rules=tuple(rules))


def _parent(field: Field, namespace: str, home: Namespace, registry: Registry) -> _Parent:
    group, kind, own, port = field.get("group"), field.get("kind"), field.get("namespace"), field.get("port")
    name = field.need("name", "must be the name of the parent").text()
    owner = namespace if own is None else own.text()
    number = 0 if port is None else port.whole(1, 65535)
    what = ("gateway.networking.k8s.io" if group is None else group.text(), "Gateway" if kind is None else kind.text())
    if what == ("", "Service"):
        return _Parent((home.full(name, owner),), owner, number)
    if what == ("networking.istio.io", "ServiceEntry"):
        hosts = registry.entry(owner, name)
        return _Parent(
            hosts or (), owner, number, "" if hosts else "for a ServiceEntry that is not among the manifests"
        )
    if what[1] == "Service":
        return _Parent(unused='for a Service in the group of gateways: its parentRef lacks group: ""')
    return _Parent(unused="for gateways only")


def _unsupported(rule: Field) -> str:
    """The filter of which istiod makes no route, not even of the other rules; empty if there is none."""
    places = [(rule, _RULE_FILTERS), *((backend, _BACKEND_FILTERS) for backend in _elements(rule.get("backendRefs")))]
    for place, known in places:
        for kind in map(_kind, _elements(place.get("filters"))):
            if kind not in known:
                return f"with a filter of type {kind[:40]}, of which istiod makes no route"
    return ""


def _rules(field: Field, label: str, namespace: str) -> Iterator[Rule]:
    name, matches = field.get("name"), field.get("matches")
    said = label if name is None else name.text()
    destinations = _destinations(field.get("backendRefs"), namespace)
    redirects = any(_kind(each) == "RequestRedirect" for each in _elements(field.get("filters")))
    timeout, retries = _times(field.get("timeouts"), field.get("retry"))
    rule = Rule(
        name=said,
        conditions=(),
        timeout=timeout,
        retries=retries,
        delay=None,
        action="redirect" if redirects else "route" if destinations else "direct_response",
        delegate=None,
        label=said,
        origin=field.origin,
        destinations=destinations,
    )
    conditions = [_condition(each) for each in _elements(matches)] or [Condition(uri=_CATCH_ALL)]
    for condition in conditions:
        yield rule._replace(conditions=(condition,))


def _elements(field: Field | None) -> Iterator[Field]:
    return iter(()) if field is None else field.elements()


def _kind(field: Field) -> str:
    return field.need("type", "must be the type of the filter").text()


def _times(timeouts: Field | None, retry: Field | None) -> tuple[float | None, Retries | None]:
    """What Istio makes of both: the time of a try is the time of all where no retries are asked for."""
    request = None if timeouts is None else timeouts.get("request")
    backend = None if timeouts is None else timeouts.get("backendRequest")
    whole = None if request is None else request.gateway_duration() or None
    single = None if backend is None else backend.gateway_duration() or None
    if backend is not None and whole is not None and single is not None and single > whole:
        raise backend.error("must not be longer than timeouts.request")
    if retry is None:
        return single or whole, None
    attempts, codes, backoff = retry.get("attempts"), retry.get("codes"), retry.get("backoff")
    return whole, Retries(
        DEFAULT_ATTEMPTS if attempts is None else attempts.whole(0, _MAX_ATTEMPTS),
        single,
        DEFAULT_RETRY_ON | {str(code.whole(400, 599)) for code in _elements(codes)},
        None if backoff is None else backoff.gateway_duration() or None,
    )


def _destinations(field: Field | None, namespace: str) -> tuple[Destination, ...]:
    found: list[Destination] = []
    for each in _elements(field):
        group, kind, weight = each.get("group"), each.get("kind"), each.get("weight")
        own, port = each.get("namespace"), each.get("port")
        name = each.need("name", "must be the name of the backend").text()
        what = ("" if group is None else group.text(), "Service" if kind is None else kind.text())
        if what == ("", "Service") and port is None:
            raise each.error("must have a port: a Service needs one")
        if weight is None or weight.whole(0, _MAX_WEIGHT):
            number = 0 if port is None else port.whole(1, 65535)
            found.append(Destination(name, namespace if own is None else own.text(), number))
    return tuple(found)


def _condition(field: Field) -> Condition:
    path, method = field.get("path"), field.get("method")
    return Condition(
        uri=_CATCH_ALL if path is None else _path(path),
        pseudo={} if method is None else {"method": TextMatch("exact", method.one_of(*_METHODS))},
        headers={name.lower(): text for name, text in _texts(field.get("headers"))},
        query=dict(_texts(field.get("queryParams"))),
    )


def _path(field: Field) -> TextMatch:
    kind, said = field.get("type"), field.get("value")
    how = "PathPrefix" if kind is None else kind.one_of("Exact", "PathPrefix", "RegularExpression")
    value = "/" if said is None else said.text()
    if how == "RegularExpression":
        if not value:
            raise field.error("has no regular expression: must not be empty")
        return TextMatch("regex", value)
    wrong = next((part for part in _NOT_IN_A_PATH if part in value), None)
    wrong = wrong or next((part for part in _NOT_AT_ITS_END if value.endswith(part)), None)
    if said is not None and (not value.startswith("/") or wrong):
        raise said.error("must begin with /" if not wrong else f"must not have {wrong} in it")
    if how == "Exact":
        return TextMatch("exact", value)
    prefix = value.removesuffix("/")
    return TextMatch("segments", prefix) if prefix else _CATCH_ALL


def _texts(field: Field | None) -> Iterator[tuple[str, TextMatch | None]]:
    for each in _elements(field):
        kind = each.get("type")
        how = "Exact" if kind is None else kind.one_of("Exact", "RegularExpression")
        name = each.need("name", "must be the name that is compared").text()
        value = each.need("value", "must be the text that is compared")
        text = value.text()
        if not name or not text:
            raise (each.error("has an empty name") if not name else value.error("must not be empty"))
        # Istio takes a lone star, which is no RE2, as a condition on presence.
        yield name, TextMatch("exact", text) if how == "Exact" else None if text == "*" else TextMatch("regex", text)


def _on_port(rule: Rule, port: int) -> Rule:
    return rule._replace(conditions=tuple(condition._replace(port=port) for condition in rule.conditions))


def _age(route: VirtualService) -> tuple[bool, str, str]:
    # No date: as it was read, behind those that are in a cluster already.
    return not route.created, route.created, route.name if route.created else ""


def _precedence(rule: Rule) -> tuple[int, int, bool, int, int]:
    condition = rule.conditions[0]
    path = _CATCH_ALL if condition.uri is None else condition.uri
    return (
        -_RANKS[path.kind],
        -len(path.value),
        "method" not in condition.pseudo,
        -len(condition.headers),
        -len(condition.query),
    )
