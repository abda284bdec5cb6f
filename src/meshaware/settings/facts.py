"""How the facts of a workload read their values, as `readers` does for the other fields."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import cast

from meshaware.identity import SpiffeId
from meshaware.settings.mapping import FrozenMapping

__all__ = [
    "read_address",
    "read_containers",
    "read_namespace",
    "read_pairs",
    "read_service_account",
    "read_trust_domain",
]

_MAX_PAIRS = 4096
_MAX_CONTAINERS = 256
_CONTAINER = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_CONTAINERS = "the names of containers with commas between them: lower-case letters, digits and dashes, at most 63"


def read_namespace(value: object) -> str:
    """A namespace, as it stands in a SPIFFE id."""
    text = _text(value)
    if not _fits(SpiffeId("cluster.local", text, "default")):
        raise ValueError("the name of a namespace: lower-case letters, digits and dashes, at most 63")
    return text


def read_service_account(value: object) -> str:
    """A service account, as it stands in a SPIFFE id."""
    text = _text(value)
    if not _fits(SpiffeId("cluster.local", "default", text)):
        raise ValueError("the name of a service account: lower-case letters, digits, dashes and dots, at most 253")
    return text


def read_trust_domain(value: object) -> str:
    """A trust domain, as it stands in a SPIFFE id."""
    text = _text(value)
    if not _fits(SpiffeId(text, "default", "default")):
        raise ValueError("a trust domain such as cluster.local, without spiffe:// and path")
    return text


def read_address(value: object) -> str:
    """An IP address; of several with commas between them, as `status.podIPs` has them, the first."""
    text = _text(value).partition(",")[0].strip()
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise ValueError("an IP address, or several with commas between them") from None
    return text


def read_containers(value: object) -> tuple[str, ...]:
    """Names of containers, as a list or with commas between them."""
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list | tuple):
        raise ValueError(_CONTAINERS)  # noqa: TRY004  pydantic collects value errors, and lets type errors through
    found = tuple(_text(name) for name in cast("Sequence[object]", names))
    if len(found) > _MAX_CONTAINERS or not all(_CONTAINER.fullmatch(name) for name in found):
        raise ValueError(_CONTAINERS)
    return found


def read_pairs(value: object) -> FrozenMapping:
    """Labels or annotations: a mapping of strings, or `key=value` with commas between them."""
    pairs: list[tuple[object, object]] = []
    if isinstance(value, str):
        parts = [part.strip().partition("=") for part in value.split(",") if part.strip()]
        pairs = [(key.strip(), text.strip()) if equals else ("", None) for key, equals, text in parts]
    elif isinstance(value, Mapping):
        pairs = list(cast("Mapping[object, object]", value).items())
    else:
        pairs = [("", None)]
    checked: dict[str, str] = {}
    for key, text in pairs:
        if not isinstance(key, str) or not key or not isinstance(text, str):
            raise ValueError("a mapping of strings; in a variable key=value, comma-separated")
        checked[key] = text
    if len(checked) > _MAX_PAIRS:
        raise ValueError(f"at most {_MAX_PAIRS} labels or annotations")
    return FrozenMapping(checked)


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


def _fits(identity: SpiffeId) -> bool:
    try:
        return SpiffeId.parse(str(identity)) == identity
    except ValueError:
        return False
