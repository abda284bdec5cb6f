"""From files and directories to the routes of a sidecar: which documents count, and what kind each is."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from meshaware.budgets.conditions import Caller
from meshaware.budgets.destination_rule import (
    ROOT_NAMESPACE,
    DestinationRule,
    DestinationRules,
    read_destination_rule,
)
from meshaware.budgets.documents import Document, read_documents
from meshaware.budgets.domains import Namespace
from meshaware.budgets.fields import Field
from meshaware.budgets.http_route import VERSIONS as GATEWAY_VERSIONS
from meshaware.budgets.http_route import merge_http_routes, read_http_route
from meshaware.budgets.precedence import Chooser
from meshaware.budgets.registry import Registry
from meshaware.budgets.route import RouteConfig, VirtualHost
from meshaware.budgets.virtual_service import VERSIONS as ISTIO_VERSIONS
from meshaware.budgets.virtual_service import VirtualService, read_virtual_service
from meshaware.errors import ManifestError

__all__ = ["read_manifests"]

_SUFFIXES = (".yaml", ".yml", ".json")
_MAX_BYTES = 16 << 20
_VERSIONS = {
    "VirtualService": ISTIO_VERSIONS,
    "DestinationRule": ISTIO_VERSIONS,
    "HTTPRoute": GATEWAY_VERSIONS,
}

_log = logging.getLogger("meshaware.routes")

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


def read_manifests(
    paths: Paths,
    home: Namespace,
    *,
    labels: Mapping[str, str] | None = None,
    source: str | None = None,
    connect_timeout: float | None = None,
    root: str = ROOT_NAMESPACE,
) -> tuple[RouteConfig, Mapping[str, int]]:
    """
    Read VirtualServices, HTTPRoutes and DestinationRules as they hold for a sidecar in the namespace `home`.

    Returns:
        The routes, for every port, and what was passed over, by kind or reason.

    Raises:
        ManifestError: A path is missing, or a document is not what Istio or the Gateway API accepts.
    """
    read = _Resources(home)
    named = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    for path in named:
        before = read.routes
        for document in _documents(Path(path)):
            read.take(document)
        if read.routes == before:
            found = ", ".join(f"{count} of kind {kind}" for kind, count in sorted(read.skipped.items()))
            _log.warning("no VirtualService in %s; read there so far: %s", path, found or "nothing at all")
    rules = DestinationRules(read.destination_rules, home, labels, root)
    chooser = Chooser(home, Caller(labels, source), rules, connect_timeout)
    hosts = chooser.hosts(read.virtual_services(), read.skipped)
    made = [VirtualHost(host, read.registry.domains(host), entries) for host, entries in hosts.items()]
    return RouteConfig("", tuple(made)), read.skipped


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


class _Resources:
    """The resources of all documents, by kind."""

    def __init__(self, home: Namespace) -> None:
        self.destination_rules: list[DestinationRule] = []
        self.registry = Registry(home)
        self.skipped: Counter[str] = Counter()
        self._home = home
        self._virtual_services: list[VirtualService] = []
        self._http_routes: list[Field] = []

    @property
    def routes(self) -> int:
        """How many documents had routes so far."""
        return len(self._virtual_services) + len(self._http_routes)

    def virtual_services(self) -> list[VirtualService]:
        """All VirtualServices, those that istiod makes of HTTPRoutes among them."""
        made = [each for field in self._http_routes for each in read_http_route(field, self._home, self.registry)]
        return [*self._virtual_services, *merge_http_routes(made)]

    def take(self, document: Document, listed: tuple[str, str] = ("", "")) -> None:
        """Take a document; `listed` is the kind and version of an item that does not say, by the kind of its list."""
        if document.is_empty:
            return
        kind, version = document.text("kind") or listed[0], document.text("apiVersion") or listed[1]
        inner = kind.removesuffix("List")
        if kind == "List" or (kind != inner and inner in _VERSIONS):
            for item in document.items():
                self.take(item, (inner, version) if inner else ("", ""))
            return
        versions = _VERSIONS.get(kind)
        if versions is None or (version and not version.startswith(versions[0].partition("/")[0] + "/")):
            self.skipped[f"{kind} of {version}" if versions else kind or "no kind"] += 1
            self._register(kind, version, document)
            return
        field = Field(document.load(), document.place, document.line)
        if version not in versions:
            rule = f"must be one of {', '.join(versions)}"
            raise field.need("apiVersion", rule).error(rule)
        match kind:
            case "VirtualService":
                self._virtual_services.append(read_virtual_service(field, self._home.name))
            case "HTTPRoute":
                # What its parents are, a document further on may tell.
                self._http_routes.append(field)
            case _:
                self.destination_rules.append(read_destination_rule(field, self._home.name))

    def _register(self, kind: str, version: str, document: Document) -> None:
        """Note what bounds no call, and yet tells how hosts are called."""
        if (kind, version) == ("Service", "v1") or (kind == "ServiceEntry" and version in ISTIO_VERSIONS):
            self.registry.add(kind, document.load())
