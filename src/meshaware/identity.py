"""SPIFFE identities as Istio writes them into certificates: trust domain, namespace, service account."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["SpiffeId"]

_MAX_LENGTH = 2048
_SHOWN = 80
# A trust domain may hold a colon: GKE writes `example.com:project.svc.id.goog` for domain-scoped projects.
_TRUST_DOMAIN = r"(?P<trust_domain>[A-Za-z0-9][A-Za-z0-9._:-]{0,254})"
_NAMESPACE = r"(?P<namespace>[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)"
_SERVICE_ACCOUNT = r"(?P<service_account>[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?)"
_URI = re.compile(rf"spiffe://{_TRUST_DOMAIN}/ns/{_NAMESPACE}/sa/{_SERVICE_ACCOUNT}", re.ASCII)


class SpiffeId(NamedTuple):
    """
    Who a workload is: `spiffe://<trust_domain>/ns/<namespace>/sa/<service_account>`.

    A tuple of three strings, so identities compare, sort and hash as their parts do.

    Source: Istio `pkg/spiffe`, which wants exactly these five segments; the characters are those that
    Kubernetes allows in the names of namespaces and service accounts.
    """

    trust_domain: str
    namespace: str
    service_account: str

    @classmethod
    def parse(cls, uri: str) -> SpiffeId:
        """
        Read an identity from a URI, as found in a certificate or in `x-forwarded-client-cert`.

        Nothing is normalised: an identity is equal to another one only if it is so byte for byte.

        Raises:
            ValueError: The URI is not exactly `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
                Other meshes write other paths (Consul `/ns/default/dc/dc1/svc/web`): these are refused too.
        """
        match = _URI.fullmatch(uri) if len(uri) <= _MAX_LENGTH else None
        if match is None:
            shown = uri[:_SHOWN]
            raise ValueError(f"{shown!r} is not spiffe://<trust domain>/ns/<namespace>/sa/<service account>")
        return cls(match["trust_domain"], match["namespace"], match["service_account"])

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}/ns/{self.namespace}/sa/{self.service_account}"
