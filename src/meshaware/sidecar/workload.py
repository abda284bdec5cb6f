"""
What the sidecar knows about this pod: its node metadata, and the identity in its certificate.

Istio's injector puts nothing into the application's container; but it tells the proxy everything, and the
proxy's admin port repeats it on loopback.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import cast

from meshaware.errors import SidecarUnavailable
from meshaware.flavours import Detected, Flavour
from meshaware.identity import SpiffeId
from meshaware.settings import MeshSettings, Workload
from meshaware.settings.facts import read_address, read_containers, read_namespace, read_pairs, read_service_account
from meshaware.settings.found import Found
from meshaware.settings.readers import read_text
from meshaware.sidecar.admin import AdminReply, async_fetch, fetch
from meshaware.sidecar.async_attempts import async_perform
from meshaware.sidecar.attempts import find_mesh, perform

__all__ = ["async_load_workload", "load_workload"]

_LOG = logging.getLogger(__name__)
_OK = 200
# Envoy lists every extension that it was built with, next to the little that is wanted.
_MAX_BYTES = 4 << 20
_LEAST_TIMEOUT = 0.001
_MAX_LABEL = 256
# JSON may escape half of a character: no encoder takes that.
_SURROGATE = re.compile("[\ud800-\udfff]")


def load_workload(settings: MeshSettings, *, timeout: float = 2.0, flavour: Flavour | None = None) -> Workload:
    """
    Return what the settings know of this pod and what its sidecar adds; never raises for a bad sidecar.

    What is declared (arguments, variables, files) wins over what the sidecar says, and that wins over what
    was computed. `origins` of the result names the source of each fact, for instance
    `sidecar /server_info node.metadata.WORKLOAD_NAME`; `settings.with_workload(...)` puts it into settings.
    Where the mesh has no Envoy beside the application, nothing is asked; where nothing tells which mesh this is, the
    ports of all are looked at first. A sidecar that should be there but
    gives no usable answer costs one warning in the log.

    The sidecar must be up: wait for the gate first.

    Args:
        settings: Says which mesh, where its admin answers, and what is known already.
        timeout: Seconds for everything together; more than 0.
        flavour: The mesh, where it is known better than by the settings, such as `gate.flavour`.

    Source: Envoy's `/server_info` and `/certs`; Istio's node metadata (`pkg/model/proxy.go`).
    """
    inquiry = _Inquiry(settings, timeout)
    try:
        inquiry.know(perform(find_mesh(_detected(settings, flavour), time.monotonic() + inquiry.left())))
        for path in inquiry.paths:
            inquiry.take(path, fetch(inquiry.base + path, timeout=inquiry.left(), max_bytes=_MAX_BYTES))
    except SidecarUnavailable as error:
        inquiry.report(error)
    return inquiry.result()


async def async_load_workload(
    settings: MeshSettings,
    *,
    timeout: float = 2.0,  # noqa: ASYNC109
    flavour: Flavour | None = None,
) -> Workload:
    """The same as `load_workload`, on asyncio and trio."""
    inquiry = _Inquiry(settings, timeout)
    try:
        found = find_mesh(_detected(settings, flavour), time.monotonic() + inquiry.left())
        inquiry.know(await async_perform(found))
        for path in inquiry.paths:
            reply = await async_fetch(inquiry.base + path, timeout=inquiry.left(), max_bytes=_MAX_BYTES)
            inquiry.take(path, reply)
    except SidecarUnavailable as error:
        inquiry.report(error)
    return inquiry.result()


def _detected(settings: MeshSettings, flavour: Flavour | None) -> Detected:
    return settings.detected if flavour is None else Detected(flavour, "the gate says so", settled=True)


class _Inquiry:
    """What to ask, what came of it; no I/O."""

    def __init__(self, settings: MeshSettings, timeout: float) -> None:
        self._known = settings.workload
        self._facts: dict[str, Found] = {}
        self._deadline = time.monotonic() + timeout
        self._declared = settings.admin_url
        self.base = ""

    def know(self, detected: Detected) -> None:
        """Take in which mesh this is."""
        self.base = self._declared or detected.flavour.admin_url or ""

    @property
    def paths(self) -> Iterator[str]:
        if self.base:
            yield "/server_info"
        if self.base and self._known.spiffe_id is None:
            yield "/certs"

    def left(self) -> float:
        return max(self._deadline - time.monotonic(), _LEAST_TIMEOUT)

    def take(self, path: str, reply: AdminReply) -> None:
        if reply.status != _OK:
            raise SidecarUnavailable(f"GET {self.base}{path}: status {reply.status} instead of {_OK}", "invalid")
        try:
            document = json.loads(reply.body)
        except (ValueError, RecursionError) as error:
            raise SidecarUnavailable(f"GET {self.base}{path}: the answer is not JSON", "invalid") from error
        if path == "/server_info":
            self._facts |= _from_server_info(document)
        else:
            self._facts = _from_certs(document, self._known.with_facts(self._facts)) | self._facts

    def report(self, error: SidecarUnavailable) -> None:
        _LOG.warning("the sidecar says no more about this pod: %s; going on with what is known", error)

    def result(self) -> Workload:
        return self._known.with_facts(self._facts) if self._facts else self._known


def _from_server_info(document: object) -> dict[str, Found]:
    metadata = _object(_object(_object(document).get("node")).get("metadata"))
    facts: dict[str, Found] = {}
    for key, fact, read in _METADATA:
        try:
            facts[fact] = Found(read(metadata.get(key)), f"sidecar /server_info node.metadata.{key}")
        except ValueError:
            continue
    return facts


def _from_certs(document: object, known: Workload) -> dict[str, Found]:
    # An egress certificate may stand beside the workload's own: it must fit what is known already.
    for place, identity in _identities(document):
        if known.namespace not in {None, identity.namespace}:
            continue
        if known.service_account in {None, identity.service_account}:
            return {fact: Found(text, f"sidecar /certs {place}") for fact, text in identity._asdict().items()}
    return {}


def _identities(document: object) -> Iterator[tuple[str, SpiffeId]]:
    for i, certificate in enumerate(_list(document, "certificates")):
        for j, link in enumerate(_list(certificate, "cert_chain")):
            for name in _list(link, "subject_alt_names"):
                uri = _object(name).get("uri")
                try:
                    identity = SpiffeId.parse(uri if isinstance(uri, str) else "")
                except ValueError:
                    continue
                yield f"certificates[{i}].cert_chain[{j}].subject_alt_names", identity


def _annotations(value: object) -> Mapping[str, str]:
    pairs = {key: text for key, text in _object(value).items() if isinstance(text, str) and _encodable(text)}
    if not pairs:
        raise ValueError("nothing is said")
    return read_pairs(pairs)


def _labels(value: object) -> Mapping[str, str]:
    # A label becomes the service's name in every log line and span: nothing wild may pass.
    pairs = _annotations(value)
    return {key: text for key, text in pairs.items() if text.isprintable() and len(text) <= _MAX_LABEL}


def _encodable(text: str) -> bool:
    return _SURROGATE.search(text) is None


def _object(value: object) -> Mapping[str, object]:
    return cast("Mapping[str, object]", value) if isinstance(value, dict) else {}


def _list(value: object, key: str) -> list[object]:
    items = _object(value).get(key)
    return cast("list[object]", items) if isinstance(items, list) else []


# The types are odd: INSTANCE_IPS and APP_CONTAINERS are "a,b" in one string. Numbers and booleans may be strings too.
_METADATA: tuple[tuple[str, str, Callable[[object], object]], ...] = (
    ("NAME", "pod_name", read_text),
    ("NAMESPACE", "namespace", read_namespace),
    ("SERVICE_ACCOUNT", "service_account", read_service_account),
    ("WORKLOAD_NAME", "workload_name", read_text),
    ("NODE_NAME", "node_name", read_text),
    ("INSTANCE_IPS", "pod_ip", read_address),
    ("CLUSTER_ID", "cluster_id", read_text),
    ("MESH_ID", "mesh_id", read_text),
    ("LABELS", "labels", _labels),
    ("ANNOTATIONS", "annotations", _annotations),
    ("APP_CONTAINERS", "app_containers", read_containers),
)
