"""SPIFFE identities."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaware.identity import SpiffeId

_TRUST_DOMAINS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,40}", fullmatch=True)
_NAMESPACES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
_ACCOUNTS = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,80}[a-z0-9])?", fullmatch=True)


def test_the_identity_of_istio_is_taken_apart() -> None:
    """Trust domain, namespace and service account are fields of a tuple."""
    identity = SpiffeId.parse("spiffe://cluster.local/ns/shop/sa/inventory")
    assert identity == ("cluster.local", "shop", "inventory")
    assert identity.service_account == "inventory"


@given(_TRUST_DOMAINS, _NAMESPACES, _ACCOUNTS)
def test_writing_and_reading_an_identity_gives_it_back(trust_domain: str, namespace: str, account: str) -> None:
    """`parse` is the inverse of `str`."""
    identity = SpiffeId(trust_domain, namespace, account)
    assert SpiffeId.parse(str(identity)) == identity


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "cluster.local/ns/shop/sa/inventory",  # no scheme
        "SPIFFE://cluster.local/ns/shop/sa/inventory",  # compared byte for byte, so no second spelling
        "https://cluster.local/ns/shop/sa/inventory",
        "spiffe:///ns/shop/sa/inventory",  # no trust domain
        "spiffe://cluster.local/ns//sa/inventory",  # no namespace
        "spiffe://cluster.local/ns/shop/sa/",  # no service account
        "spiffe://cluster.local/ns/shop/sa/inventory/",  # six segments
        "spiffe://cluster.local/ns/shop/sa/a/b",
        "spiffe://cluster.local/ns/shop",  # three
        "spiffe://cluster.local/sa/inventory/ns/shop",  # the other way round
        "spiffe://cluster.local/ns/default/dc/dc1/svc/web",  # Consul's
        "spiffe://cluster.local/ns/shop/sa/inventory?x=1",
        "spiffe://cluster.local/ns/shop/sa/inventory#x",
        "spiffe://cluster.local/ns/Shop/sa/inventory",  # no such namespace in Kubernetes
        "spiffe://cluster.local/ns/shop/sa/inven%74ory",
        "spiffe://user@cluster.local/ns/shop/sa/inventory",
        "spiffe://cluster.local/ns/shop/sa/inventory\n",
        " spiffe://cluster.local/ns/shop/sa/inventory",
        "spiffe://cluster.local/ns/shop/sa/inventory;URI=spiffe://x",  # what a forged header would hold
        "spiffe://cluster.local/ns/shöp/sa/inventory",
        f"spiffe://cluster.local/ns/{'n' * 64}/sa/inventory",
        f"spiffe://cluster.local/ns/shop/sa/{'a' * 5000}",
    ],
)
def test_anything_else_is_refused(uri: str) -> None:
    """An identity is exact or it is none."""
    with pytest.raises(ValueError, match=r"is not spiffe://<trust domain>/ns/<namespace>/sa/<service account>"):
        SpiffeId.parse(uri)


@given(st.text())
def test_no_text_does_more_than_be_refused(uri: str) -> None:
    """`parse` returns what `str` gives back unchanged, or raises a `ValueError` of bounded length."""
    try:
        identity = SpiffeId.parse(uri)
    except ValueError as refused:
        message = str(refused)
    else:
        message = ""
        assert str(identity) == uri
    assert len(message) < 1200  # 80 characters of the text, each escaped at most


def test_a_trust_domain_may_hold_a_colon() -> None:
    """GKE's, for projects that belong to a domain."""
    identity = SpiffeId.parse("spiffe://example.com:project.svc.id.goog/ns/shop/sa/inventory")
    assert identity.trust_domain == "example.com:project.svc.id.goog"


def test_an_identity_pickles() -> None:
    """As every value of settings does."""
    identity = SpiffeId("cluster.local", "shop", "inventory")
    assert pickle.loads(pickle.dumps(identity)) == identity
