"""
Identities in a mesh: SPIFFE ids as Istio writes them, and who called, as a proxy writes it into a header. Pure.

What is read here is hostile input. That the proxy wrote it, and not the caller, is for those to know who ask.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from types import MappingProxyType
from typing import NamedTuple

__all__ = ["PEER_HEADERS", "Peer", "SpiffeId", "find_peer", "parse_client_id", "parse_xfcc"]

_MAX_LENGTH = 2048
_SHOWN = 80
# A trust domain may hold a colon: GKE writes `example.com:project.svc.id.goog` for domain-scoped projects.
_TRUST_DOMAIN = r"(?P<trust_domain>[A-Za-z0-9][A-Za-z0-9._:-]{0,254})"
_NAMESPACE = r"(?P<namespace>[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)"
_SERVICE_ACCOUNT = r"(?P<service_account>[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?)"
_URI = re.compile(rf"spiffe://{_TRUST_DOMAIN}/ns/{_NAMESPACE}/sa/{_SERVICE_ACCOUNT}", re.ASCII)

# As much as Envoy lets through; with all of a chain of certificates in it (Consul) it is some kilobytes.
_MAX_HEADER = 1 << 16
# Of an element back to front: it ends at a comma outside quotes; in quotes, a quote with an odd number of
# backslashes before it, here behind it, is escaped. Possessive throughout, so each byte is looked at once.
_LAST_REVERSED = re.compile(rb'(?:[^",]++|"(?:[^"]++|"(?:\\\\)*+\\(?!\\))*+")*+(?=,|\Z)')
_PAIR = rb'([A-Za-z]{1,32})=(?:"((?:[^"\\]|\\.)*+)"|([^",;]*+))'
_match_element = re.compile(_PAIR + rb"(?:;" + _PAIR + rb")*+", re.DOTALL).fullmatch
_pairs = re.compile(_PAIR, re.DOTALL).findall
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
# RFC 3986, without the comma and the semicolon, which Envoy does not quote here.
_match_uri = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]{0,31}:[A-Za-z0-9._~:/?#\[\]@!$&'()*+=%-]{1,2048}").fullmatch
_match_dns = re.compile(
    rb"(?=.{1,253}\Z)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)+", re.IGNORECASE
).fullmatch


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


class Peer(NamedTuple):
    """
    Who called: the workload at the other end of the mTLS connection, as the proxy beside this process saw it.

    That is the last hop, perhaps a gateway; never the user behind it.
    """

    name: str
    """`spiffe://cluster.local/ns/shop/sa/orders`; for Linkerd `orders.shop.serviceaccount.identity...`."""

    by: str | None = None
    """The URI of the certificate that the proxy itself showed; None where it does not say, or says several."""

    @property
    def spiffe_id(self) -> SpiffeId | None:
        """The name taken apart; None where it is of another form, as Consul's and Linkerd's are."""
        try:
            return SpiffeId.parse(self.name)
        except ValueError:
            return None

    def __str__(self) -> str:
        return self.name


def parse_xfcc(value: bytes) -> Peer | None:
    """
    Read who called from `x-forwarded-client-cert`: from its last element, which the last proxy wrote.

    Elements before that were sent by the caller, and nothing in them, such as a quote that is never closed,
    changes how the last one is read. Of several URIs the one of SPIFFE counts; older Kumas add `kuma://` ones.

    Args:
        value: The header's value, of any length and content.

    Returns:
        None where the last element is not well-formed, names no URI or more than one.
    """
    if len(value) > _MAX_HEADER:
        return None
    last = _LAST_REVERSED.match(value[::-1])
    element = b"" if last is None else last[0][::-1].strip(b" \t")
    if _match_element(element) is None:
        return None
    pairs = [(key.lower(), _ESCAPED.sub(rb"\1", quoted) if quoted else plain) for key, quoted, plain in _pairs(element)]
    uris = [text for key, text in pairs if key == b"uri" and text]
    name = _only([uri for uri in uris if uri.startswith(b"spiffe://")] or uris)
    by = _only([text for key, text in pairs if key == b"by"])
    return None if name is None else Peer(name, by)


def parse_client_id(value: bytes) -> Peer | None:
    """
    Read who called from Linkerd's `l5d-client-id`: a name like DNS has them, or a SPIFFE id.

    Args:
        value: The header's value, of any length and content.

    Returns:
        None where it is neither.
    """
    if _match_dns(value) is None and not (value.startswith(b"spiffe://") and _match_uri(value)):
        return None
    return Peer(value.decode("ascii"))


PEER_HEADERS = MappingProxyType[str, Callable[[bytes], Peer | None]](
    {"x-forwarded-client-cert": parse_xfcc, "l5d-client-id": parse_client_id}
)
"""How each header is read in which a proxy says who called."""


def find_peer(header: str, headers: Iterable[tuple[bytes, bytes]]) -> Peer | None:
    """
    Read who called from a request's headers.

    Proxies write one line: Envoy joins what came with what it adds, Linkerd's replaces it. Where there are two,
    somebody else had the last word, and neither counts.

    Args:
        header: One of `PEER_HEADERS`.
        headers: All headers, names lower-case, as ASGI has them.
    """
    name = header.encode()
    lines = [value for key, value in headers if key == name]
    return PEER_HEADERS[header](lines[0]) if len(lines) == 1 else None


def _only(uris: list[bytes]) -> str | None:
    return uris[0].decode("ascii") if len(uris) == 1 and _match_uri(uris[0]) else None
