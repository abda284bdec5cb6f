"""SPIFFE identities, and who called as proxies write it."""

from __future__ import annotations

import pickle
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaware.identity import Peer, SpiffeId, find_peer, parse_client_id, parse_xfcc

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


# x-forwarded-client-cert

OWN = "spiffe://cluster.local/ns/shop/sa/me"
ORDERS = "spiffe://cluster.local/ns/shop/sa/orders"
CONSUL = "spiffe://11.consul/ns/default/dc/dc1/svc/web"
HASH = "4a" * 32
ISTIO = f'By={OWN};Hash={HASH};Subject="";URI={ORDERS}'

GOOD = [
    # As Istio's documentation shows it.
    (ISTIO, Peer(ORDERS, OWN)),
    # Kuma, and a waypoint: nothing but the two URIs, with or without the hash.
    (f"By={OWN};Hash={HASH};URI={ORDERS}", Peer(ORDERS, OWN)),
    (f"By={OWN};URI={ORDERS}", Peer(ORDERS, OWN)),
    # Consul: whole certificates, and paths of its own.
    (
        f'By={CONSUL}2;Hash={HASH};Cert="-----BEGIN%20CERT%0A";Chain="%2B";Subject="";URI={CONSUL};DNS=web.svc',
        Peer(CONSUL, f"{CONSUL}2"),
    ),
    # Elements are joined; the last is that of the own proxy.
    (f"By=x:1;URI=spiffe://cluster.local/ns/a/sa/b,{ISTIO}", Peer(ORDERS, OWN)),
    (f"{ISTIO},{ISTIO},By=a:b;URI=c:d", Peer("c:d", "a:b")),
    # What stands before it needs not be well-formed: the caller wrote it.
    (f'Subject=",{ISTIO}', Peer(ORDERS, OWN)),
    (f'\\",{ISTIO}', Peer(ORDERS, OWN)),
    (f',,;;==,"""\\,{ISTIO}', Peer(ORDERS, OWN)),
    # Commas, semicolons, equals signs and escaped quotes between quotes divide nothing.
    (f'By={OWN};Subject="CN=a,O=\\"b\\";URI=x:y,URI=z";URI={ORDERS}', Peer(ORDERS, OWN)),
    (f'Subject="\\\\";URI={ORDERS}', Peer(ORDERS)),
    (f'URI={ORDERS};Subject="\\\\\\""', Peer(ORDERS)),
    # Keys are the same in any case, and need not be known.
    (f"BY={OWN};uRi={ORDERS};Later=1", Peer(ORDERS, OWN)),
    # A quoted URI is the same URI.
    (f'URI="{ORDERS}"', Peer(ORDERS)),
    (r'URI="spiffe://a\/b"', Peer("spiffe://a/b")),
    # An equals sign in a value that is not quoted is part of it.
    ("URI=spiffe://a/b?c=d", Peer("spiffe://a/b?c=d")),
    # Several URIs, one of them of SPIFFE: Kuma's before it followed SPIFFE.
    (f"URI=kuma://x/y;URI={ORDERS};URI=kuma://z/1", Peer(ORDERS)),
    # No By, an empty one, several: it is not known.
    (f"URI={ORDERS}", Peer(ORDERS)),
    (f"By=;URI={ORDERS}", Peer(ORDERS)),
    (f"By={OWN};By={OWN}2;URI={ORDERS}", Peer(ORDERS)),
    # Blanks around an element.
    (f"{ISTIO}, {ISTIO} ", Peer(ORDERS, OWN)),
]


@pytest.mark.parametrize(("value", "peer"), GOOD)
def test_the_last_element_tells_who_called(value: str, peer: Peer) -> None:
    assert parse_xfcc(value.encode()) == peer


@pytest.mark.parametrize(
    "value",
    [
        "",
        ",",
        # The last element is empty: nothing wrote one.
        f"{ISTIO},",
        # It has no URI, or an empty one: a certificate without one.
        f'By={OWN};Hash={HASH};Subject=""',
        f'By={OWN};Hash={HASH};Subject="";URI=',
        'URI=""',
        # Two identities are none.
        f"URI={ORDERS};URI={OWN}",
        "URI=a:b;URI=c:d",
        # Not pairs with semicolons between.
        ORDERS,
        f";URI={ORDERS}",
        f"URI={ORDERS};",
        f"URI={ORDERS};;By={OWN}",
        f"URI ={ORDERS}",
        f"=x;URI={ORDERS}",
        f"U-R-I={ORDERS}",
        # Quotes that do not match, or stand where none may.
        f'URI={ORDERS};Subject="',
        f'URI="{ORDERS}',
        f'URI={ORDERS}"',
        f'URI="{ORDERS}"x',
        f'URI=x"{ORDERS}"',
        f'Subject="\\";URI={ORDERS}',
        f'Subject=""";URI={ORDERS}',
        # No URI by its characters: blanks, quotes, no scheme, not ASCII.
        "URI=spiffe://a b/c",
        'URI="spiffe://a,b"',
        "URI=cluster.local/ns/shop/sa/orders",
        "URI=:x",
        "URI=spiffe://caf\xe9",
        "URI=spiffe://a\nb",
        "URI=spiffe://a\x1b[31m",
        # Longer than SPIFFE lets one be.
        "URI=spiffe://" + "a" * 2050,
        # Longer than Envoy lets a request be.
        f"{'x' * (1 << 16)},{ISTIO}",
    ],
)
def test_an_element_that_is_not_well_formed_tells_nobody(value: str) -> None:
    assert parse_xfcc(value.encode("latin-1")) is None


_CALLERS_PART = st.one_of(st.binary(max_size=60), st.text('",;=\\\\URIBy:/a ', max_size=60).map(str.encode))
_QUOTED = st.text(st.sampled_from('a",;=\\ '), max_size=20).map(
    lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
)
_URIS = st.builds("spiffe://{}/{}".format, _TRUST_DOMAINS, st.from_regex(r"[a-z0-9/._~%=-]{1,30}", fullmatch=True))


@given(_CALLERS_PART, _URIS, _URIS, _QUOTED, st.permutations(range(4)))
def test_nothing_that_a_caller_sends_changes_what_the_proxy_appended(
    before: bytes, uri: str, own: str, subject: str, order: list[int]
) -> None:
    """Whatever it is, and in whatever order the proxy writes its pairs."""
    pairs = [f"By={own}", f"Hash={HASH}", f"Subject={subject}", f"URI={uri}"]
    element = ";".join(pairs[index] for index in order).encode()
    assert parse_xfcc(element) == Peer(uri, own)
    assert parse_xfcc(before + b"," + element) == Peer(uri, own)


@given(st.one_of(st.binary(), _CALLERS_PART))
def test_no_bytes_do_more_than_tell_nobody(value: bytes) -> None:
    for parse in (parse_xfcc, parse_client_id):
        peer = parse(value)
        if peer is not None:
            assert peer.name.isascii()
            assert peer.name.isprintable()
            assert " " not in peer.name


@pytest.mark.parametrize("piece", [b'"', b'\\"', b'"\\', b"\\", b",", b";", b"a=", b'a="",', b"URI=a:b;", b'"\\\\"'])
def test_the_longest_header_is_read_in_a_moment(piece: bytes) -> None:
    """In time that grows with its length and not faster: a second would be a thousand times what it takes."""
    for value in (piece * ((1 << 16) // len(piece)), b'a="' + piece * ((1 << 16) // len(piece) - 3)):
        begun = perf_counter()
        parse_xfcc(value)
        parse_client_id(value)
        assert perf_counter() - begun < 1


# l5d-client-id


@pytest.mark.parametrize(
    "value",
    [
        "orders.shop.serviceaccount.identity.linkerd.cluster.local",
        "with.dots.shop.serviceaccount.identity.linkerd.cluster.local",  # service accounts may have them
        "spiffe://root.linkerd.cluster.local/external/vm-1",  # a workload outside the cluster
    ],
)
def test_linkerds_names_are_taken_as_they_are(value: str) -> None:
    peer = parse_client_id(value.encode())
    assert peer == Peer(value)
    assert peer is not None
    assert peer.spiffe_id is None
    assert str(peer) == value


@pytest.mark.parametrize(
    "value",
    [
        "",
        "orders",  # a single label
        ".orders.shop",
        "orders..shop",
        "orders.shop.",
        "-orders.shop",
        "orders shop.local",
        "orders.shop,admin.shop",
        "orders.shop\n",
        "https://orders.shop",
        "spiffe://a b",
        "sp\xefffe.local",
        "a." * 127 + "local",
    ],
)
def test_no_other_client_id_tells_anybody(value: str) -> None:
    assert parse_client_id(value.encode("latin-1")) is None


# A peer


def test_a_peer_of_istio_is_a_spiffe_id_and_one_of_consul_a_text() -> None:
    peer = parse_xfcc(ISTIO.encode())
    assert peer is not None
    assert peer.spiffe_id == SpiffeId("cluster.local", "shop", "orders")
    assert str(peer) == ORDERS
    assert Peer(CONSUL).spiffe_id is None


def test_one_line_counts_and_two_are_none() -> None:
    """Envoy joins what comes with what it adds, so on a second line somebody else had the last word."""
    line = (b"x-forwarded-client-cert", ISTIO.encode())
    other = (b"l5d-client-id", b"orders.shop.serviceaccount.identity.linkerd.cluster.local")
    assert find_peer("x-forwarded-client-cert", [(b"host", b"me"), line, other]) == Peer(ORDERS, OWN)
    assert find_peer("x-forwarded-client-cert", [line, line]) is None
    assert find_peer("x-forwarded-client-cert", [other]) is None
    assert find_peer("l5d-client-id", [line, other]) == Peer(other[1].decode())
    assert find_peer("l5d-client-id", [other, other]) is None
