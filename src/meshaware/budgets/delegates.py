"""
Rules that delegate: what a root VirtualService says, joined with what the one it names says.

Source: mergeVirtualServicesIfNeeded in Istio's virtualservice.go. The delegate's own word counts, the root's where it
says nothing; a delegate's rule is dropped where it matches more than the root does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from meshaware.budgets.conditions import Condition, Texts
from meshaware.budgets.route import TextMatch
from meshaware.budgets.virtual_service import Rule, VirtualService

__all__ = ["resolve"]


def resolve(rules: Iterable[Rule], namespace: str, delegates: Mapping[tuple[str, str], VirtualService]) -> list[Rule]:
    """
    The rules of a VirtualService, with those of its delegates in place.

    A rule whose delegate is not among the manifests, or not exported to the root, stays as it is, and `delegate` tells.
    """
    resolved: list[Rule] = []
    for rule in rules:
        delegate = None if rule.delegate is None else delegates.get(rule.delegate)
        if delegate is None or not delegate.visible(namespace):
            resolved.append(rule)
        else:
            merged = (_merged(rule, leaf) for leaf in delegate.rules)
            resolved.extend(leaf for leaf in merged if leaf is not None)
    return resolved


def _merged(root: Rule, leaf: Rule) -> Rule | None:
    conditions = _conditions(root.conditions, leaf.conditions)
    if conditions is None:
        return None
    return leaf._replace(
        name=_joined(root.name, leaf.name),
        conditions=conditions,
        timeout=root.timeout if leaf.timeout is None else leaf.timeout,
        retries=root.retries if leaf.retries is None else leaf.retries,
        delay=root.delay if leaf.delay is None else leaf.delay,
        origin=f"{leaf.origin}, delegated by {root.origin}",
    )


def _joined(root: str, leaf: str) -> str:
    return f"{root}-{leaf}" if root and leaf else root or leaf


def _conditions(roots: tuple[Condition, ...], leaves: tuple[Condition, ...]) -> tuple[Condition, ...] | None:
    if not roots or not leaves:
        return roots or leaves
    merged: list[Condition] = []
    for leaf in leaves:
        fitting = [_condition(root, leaf) for root in roots if not _conflict(root, leaf)]
        if not fitting:
            return None
        merged.extend(fitting)
    return tuple(merged)


def _condition(root: Condition, leaf: Condition) -> Condition:
    return Condition(
        name=_joined(root.name, leaf.name),
        uri=leaf.uri or root.uri,
        ignore_uri_case=leaf.ignore_uri_case,
        pseudo={**root.pseudo, **leaf.pseudo},
        headers={**root.headers, **leaf.headers},
        without={**root.without, **leaf.without},
        query={**root.query, **leaf.query},
        port=leaf.port or root.port,
        gateways=leaf.gateways or root.gateways,
        source_labels={**root.source_labels, **leaf.source_labels},
        source_namespace=leaf.source_namespace or root.source_namespace,
    )


def _conflict(root: Condition, leaf: Condition) -> bool:
    """Whether the leaf matches anything that the root does not."""
    if root.ignore_uri_case != leaf.ignore_uri_case or (root.port and leaf.port and root.port != leaf.port):
        return True
    if root.source_namespace and root.source_namespace != leaf.source_namespace:
        return True
    if any(root.source_labels.get(label, value) != value for label, value in leaf.source_labels.items()):
        return True
    if root.gateways and leaf.gateways and not set(leaf.gateways) <= set(root.gateways):
        return True
    if root.uri is not None and leaf.uri is not None and _wider(root.uri, leaf.uri):
        return True
    pairs = (
        (root.pseudo, leaf.pseudo),
        (root.headers, leaf.headers),
        (root.without, leaf.without),
        (root.query, leaf.query),
    )
    return any(_texts_conflict(mine, theirs) for mine, theirs in pairs)


def _texts_conflict(root: Texts, leaf: Texts) -> bool:
    return any(name in root and _wider(root[name], text) for name, text in leaf.items())


def _wider(root: TextMatch | None, leaf: TextMatch | None) -> bool:
    if root is None or leaf is None or "regex" in (root.kind, leaf.kind):
        return True
    if root.kind == "exact":
        return leaf != root
    return not root.value or not leaf.value.startswith(root.value)
