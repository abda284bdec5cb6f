"""VirtualServices and DestinationRules, read from YAML: files, directories or a text."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from meshaware.errors import LocalMeshError
from meshaware.testing.fields import Fields

__all__ = ["Manifest", "Manifests", "read_manifests"]

# The pure Python one is ten times slower, and all there is where PyYAML was built without libyaml.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_ISTIO = "networking.istio.io/"
_KINDS = ("VirtualService", "DestinationRule")
# Traffic that comes from outside does not come here.
_NOT_HERE = ("Gateway", "GatewayClass")
_SUFFIXES = (".yaml", ".yml", ".json")
# Groups whose other kinds would change what a real mesh does with a request.
_ROUTING_GROUPS = ("istio.io/", "gateway.networking.k8s.io/")

Manifests = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


class Manifest(NamedTuple):
    """One document: which resource it is, its `spec`, and where it was found."""

    kind: str
    namespace: str
    name: str
    spec: object
    where: str

    def fields(self) -> Fields:
        """The `spec`, to be read field by field."""
        return Fields(self.spec, self.where, "spec")


def read_manifests(manifests: Manifests, *, namespace: str) -> list[Manifest]:
    """
    Read VirtualServices and DestinationRules in the order in which they stand.

    Args:
        manifests: A file, a directory (its `.yaml`, `.yml` and `.json` files, sorted), several of these; or a
            text of YAML, known by its line breaks.
        namespace: Where a document says none.

    Documents that route nothing inside the mesh (Deployments, Services, Gateways, ...) are skipped.

    Raises:
        LocalMeshError: Something cannot be read, is no YAML, or is a routing resource that is not supported.
    """
    found: list[Manifest] = []
    for name, text in _texts(manifests):
        try:
            documents: list[Any] = list(yaml.load_all(text, Loader=_LOADER))
        # ValueError: a text that looks like a date and is none.
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise LocalMeshError(f"{name}: not YAML: {' '.join(str(error).split())[:300]}") from error
        for number, document in enumerate(documents, start=1):
            found += _manifests(document, f"{name}, document {number}", namespace)
    return found


def _texts(manifests: Manifests) -> Iterator[tuple[str, str]]:
    if isinstance(manifests, str) and "\n" in manifests:
        yield "the given YAML", manifests
        return
    for item in [manifests] if isinstance(manifests, str | os.PathLike) else manifests:
        if isinstance(item, str) and "\n" in item:
            yield "the given YAML", item
            continue
        path = Path(item)
        try:
            files = sorted(f for f in path.rglob("*") if f.suffix in _SUFFIXES) if path.is_dir() else [path]
            for file in files:
                yield str(file), file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise LocalMeshError(f"{path}: cannot be read: {error}") from error


def _manifests(document: object, where: str, namespace: str) -> Iterator[Manifest]:
    if document is None:
        return
    top = Fields(document, where)
    kind, version = top.text("kind") or "", top.text("apiVersion") or ""
    if kind == "List":
        for i, item in enumerate(top.raw("items") or []):
            yield from _manifests(item, f"{where}, items[{i}]", namespace)
        return
    if not (version.startswith(_ISTIO) and kind in _KINDS):
        if any(group in version for group in _ROUTING_GROUPS) and kind not in _NOT_HERE:
            raise LocalMeshError(f"{where}: LocalMesh does not support the kind {kind} of {version}")
        return
    metadata = top.fields("metadata")
    name = metadata.text("name") if metadata else None
    if metadata is None or not name:
        raise LocalMeshError(f"{where}: metadata.name: a {kind} needs a name")
    home = metadata.text("namespace") or namespace
    yield Manifest(kind, home, name, top.raw("spec"), f"{where} ({kind} {home}/{name})")
