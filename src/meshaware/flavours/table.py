"""All flavours by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from meshaware.flavours.ambient import AMBIENT
from meshaware.flavours.consul import CONSUL
from meshaware.flavours.flavour import Flavour
from meshaware.flavours.istio import ISTIO
from meshaware.flavours.kuma import KUMA
from meshaware.flavours.linkerd import LINKERD
from meshaware.flavours.none import NONE

__all__ = ["FLAVOURS", "USUAL"]

# In the order in which a pod's metadata is read: ambient does not capture a pod that has a sidecar.
FLAVOURS: Mapping[str, Flavour] = MappingProxyType(
    {flavour.name: flavour for flavour in (ISTIO, LINKERD, CONSUL, KUMA, AMBIENT, NONE)}
)

USUAL = ISTIO
"""What a proxy is taken for where nothing tells whose it is."""
