"""From files and directories to the routes of a sidecar: which documents count, and which of them wins a host."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from meshaware.budgets.budget import Budget
from meshaware.budgets.conditions import Caller
from meshaware.budgets.delegates import resolve
from meshaware.budgets.documents import Document, read_documents
from meshaware.budgets.domains import Namespace
from meshaware.budgets.fields import Field
from meshaware.budgets.route import Entry, Route, RouteConfig, RouteMatch, VirtualHost
from meshaware.budgets.virtual_service import VERSIONS, Rule, VirtualService, read_virtual_service
from meshaware.errors import ManifestError

__all__ = ["read_manifests"]

_SUFFIXES = (".yaml", ".yml", ".json")
_MAX_BYTES = 16 << 20
_GROUP = "networking.istio.io/"

_log = logging.getLogger("meshaware.routes")

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


def read_manifests(
    paths: Paths,
    home: Namespace,
    *,
    labels: Mapping[str, str] | None = None,
    source: str | None = None,
    connect_timeout: float | None = None,
) -> tuple[RouteConfig, Mapping[str, int]]:
    """
    Read VirtualServices as they hold for a sidecar in the namespace `home`.

    Returns:
        The routes, for every port, and what was passed over, by kind or reason.

    Raises:
        ManifestError: A path is missing, or a document is not what Istio accepts.
    """
    skipped: Counter[str] = Counter()
    services: list[VirtualService] = []
    named = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    for path in named:
        before = len(services)
        for document in _documents(Path(path)):
            services.extend(_virtual_services(document, home.name, skipped))
        if len(services) == before:
            found = ", ".join(f"{count} of kind {kind}" for kind, count in sorted(skipped.items())) or "nothing at all"
            _log.warning("no VirtualService in %s; read there so far: %s", path, found)
    caller = Caller(labels, source)
    hosts = _hosts(services, home, caller, connect_timeout, skipped)
    return RouteConfig("", tuple(_virtual_host(host, entries, home) for host, entries in hosts.items())), skipped


def _documents(path: Path) -> Iterator[Document]:
    for file in _files(path, ()):
        try:
            with file.open("rb") as opened:
                content = opened.read(_MAX_BYTES + 1)
        except OSError as error:
            raise ManifestError(f"{file}: cannot be read: {error.strerror or error}") from error
        if len(content) > _MAX_BYTES:
            raise ManifestError(f"{file}: is larger than {_MAX_BYTES} bytes")
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ManifestError(f"{file}: is not UTF-8: byte {error.start}") from error
        yield from read_documents(text, str(file))


def _files(path: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    """A file itself; all files below a directory, without hidden names: there a mounted ConfigMap keeps its copies."""
    try:
        if not path.is_dir():
            if not path.is_file():
                raise ManifestError(f"{path}: there is no such file or directory")
            yield path
            return
        real = path.resolve()
        if real in above:
            return
        for child in sorted(path.iterdir()):
            if child.name.startswith("."):
                continue
            if child.is_dir() or (child.suffix.lower() in _SUFFIXES and child.is_file()):
                yield from _files(child, (*above, real))
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror or error}") from error


def _virtual_services(
    document: Document, namespace: str, skipped: Counter[str], listed: tuple[str, str] = ("", "")
) -> Iterator[VirtualService]:
    """Those in a document; `listed` is the kind and version of an item that does not say, by the kind of its list."""
    if document.is_empty:
        return
    kind, version = document.text("kind") or listed[0], document.text("apiVersion") or listed[1]
    if kind in ("List", "VirtualServiceList"):
        inherited = ("VirtualService", version) if kind == "VirtualServiceList" else ("", "")
        for item in document.items():
            yield from _virtual_services(item, namespace, skipped, inherited)
        return
    if kind != "VirtualService" or (version and not version.startswith(_GROUP)):
        skipped[f"VirtualService of {version}" if kind == "VirtualService" else kind or "no kind"] += 1
        return
    field = Field(document.load(), document.place, document.line)
    if version not in VERSIONS:
        rule = f"must be one of {', '.join(VERSIONS)}"
        raise field.need("apiVersion", rule).error(rule)
    yield read_virtual_service(field, namespace)


def _hosts(
    given: Sequence[VirtualService],
    home: Namespace,
    caller: Caller,
    connect_timeout: float | None,
    skipped: Counter[str],
) -> Mapping[str, tuple[Entry, ...]]:
    """
    The routes of each host: of several VirtualServices for it, those of the first by rank.

    One without a rule for this caller leaves its host to the next one of that very name, but not to a wildcard: istiod
    looks for the most specific host first, and for rules in it afterwards.
    """
    delegates = {(service.namespace, service.name): service for service in reversed(given) if not service.hosts}
    hosts: dict[str, tuple[Entry, ...]] = {}
    for service in sorted(given, key=lambda service: _rank(service, home.name)):
        reason = _passed_over(service, home.name)
        if reason:
            skipped[f"VirtualService {reason}"] += 1
            continue
        rules = resolve(service.rules, service.namespace, delegates)
        for name in service.hosts:
            host = home.full(name, service.namespace).removesuffix(".")
            if hosts.get(host) or (host in hosts and host.startswith("*")):
                skipped["VirtualService for a host that another one has"] += 1
            else:
                hosts[host] = tuple(_entries(rules, host, caller, connect_timeout))
    return hosts


def _virtual_host(host: str, entries: tuple[Entry, ...], home: Namespace) -> VirtualHost:
    return VirtualHost(host, (host,) if host.startswith("*") else home.names(host), entries)


def _rank(service: VirtualService, namespace: str) -> tuple[int, bool, str, str, str]:
    """As istiod ranks them: private to the namespace, exported to it, public; then the oldest, then by name."""
    visibility = 2 if "*" in (service.export_to or ("*",)) else 0 if service.namespace == namespace else 1
    if not service.created:
        # No date: sorting is stable, so the one read first stays first, behind those that are in a cluster already.
        return visibility, True, "", "", ""
    return visibility, False, service.created, service.name, service.namespace


def _passed_over(service: VirtualService, namespace: str) -> str:
    if not service.hosts:
        return "to delegate to"
    if service.gateways and "mesh" not in service.gateways:
        return "for gateways only"
    if not service.visible(namespace):
        return f"not exported to {namespace}"
    return ""


def _entries(rules: Iterable[Rule], host: str, caller: Caller, connect_timeout: float | None) -> Iterator[Entry]:
    for rule in rules:
        unknown = rule.delegate is not None
        note = ""
        if rule.delegate is not None:
            note = f"its delegate {'/'.join(rule.delegate)} is not among the manifests: no bound is assumed"
        budget = Budget() if unknown else rule.budget(connect_timeout)
        route = Route(rule.name or rule.label, budget, rule.origin, host, rule.action, note)
        if not rule.conditions:
            yield Entry(RouteMatch(doubt=note), route)
            if not unknown:
                return
        for condition in rule.conditions:
            applies = condition.applies(caller)
            if applies is False:
                continue
            named = replace(route, name=f"{rule.name}.{condition.name}") if condition.name else route
            doubts = [note, "" if applies else "the caller's labels or namespace decide"]
            yield Entry(condition.route_match(doubt="; ".join(filter(None, doubts))), named)
