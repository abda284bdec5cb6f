"""What Istio's init container would set up in a pod: the rules that send its connections to the sidecar. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

__all__ = ["ISTIO_PORTS", "Exemption", "Named", "Tool", "address", "hosts_file", "rules"]

Tool = Literal["nft", "iptables-restore"]
Exemption = Literal["user", "mark"]
"""How the rules tell the sidecar's own connections: by its user, as Istio's do, or by a mark that Envoy sets."""

# Istio's user and group of the sidecar; its TPROXY rules use the same number as a mark.
_SIDECAR = 1337
_OUTBOUND, _INBOUND = 15001, 15006
ISTIO_PORTS = (15001, 15006, 15000, 15021)
"""Outbound, inbound, admin and readiness: nobody else is in the pod, so they are Istio's."""

# The default ranges of kubeadm with flannel: services, pods.
_NETWORKS = {"service": "10.96", "pod": "10.244"}


class Named(NamedTuple):
    """A service, and the address at which callers find it: Kubernetes' ClusterIP."""

    service: str
    namespace: str
    address: str


def address(network: Literal["service", "pod"], number: int) -> str:
    """The address of the so-manieth service or pod; number 0 of the pods is the bridge between them."""
    high, low = divmod(number + 1, 256)
    return f"{_NETWORKS[network]}.{high}.{low}"


def hosts_file(services: Sequence[Named], namespace: str, cluster_domain: str) -> str:
    """The names that the cluster's DNS would resolve for a pod in this namespace, as `/etc/hosts` has them."""
    lines = ["127.0.0.1 localhost", "::1 localhost"]
    for each in services:
        name = f"{each.service}.{each.namespace}"
        names = [name, f"{name}.svc", f"{name}.svc.{cluster_domain}"]
        lines.append(" ".join([each.address, *([each.service] if each.namespace == namespace else []), *names]))
    return "\n".join([*lines, ""])


def rules(tool: Tool, exemption: Exemption) -> str:
    """
    Istio's redirection, for IPv4 and as the input of a tool.

    All TCP that the application opens goes to 15001, all that comes in to 15006. Not redirected are the sidecar's own
    connections, whatever stays on loopback, and the readiness port.

    Source: `tools/istio-iptables/pkg/capture/run.go` of Istio.
    """
    if tool == "nft":
        own = f"meta skuid {_SIDECAR}" if exemption == "user" else f"meta mark {_SIDECAR}"
        return f"""\
table ip meshaware {{
  chain output {{
    type nat hook output priority -100; policy accept;
    {own} return
    oifname "lo" return
    ip daddr 127.0.0.0/8 return
    meta l4proto tcp redirect to :{_OUTBOUND}
  }}
  chain prerouting {{
    type nat hook prerouting priority -100; policy accept;
    iifname "lo" return
    tcp dport 15021 return
    meta l4proto tcp redirect to :{_INBOUND}
  }}
}}
"""
    own = f"-m owner --uid-owner {_SIDECAR}" if exemption == "user" else f"-m mark --mark {_SIDECAR}"
    return f"""\
*nat
-A OUTPUT {own} -j RETURN
-A OUTPUT -o lo -j RETURN
-A OUTPUT -d 127.0.0.0/8 -j RETURN
-A OUTPUT -p tcp -j REDIRECT --to-ports {_OUTBOUND}
-A PREROUTING -i lo -j RETURN
-A PREROUTING -p tcp --dport 15021 -j RETURN
-A PREROUTING -p tcp -j REDIRECT --to-ports {_INBOUND}
COMMIT
"""
