"""Who is inside the mesh: one row for each shape a host can have."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaware.errors import SettingsError
from meshaware.propagation.hosts import HostList, HostPolicy


@pytest.mark.parametrize(
    "host",
    [
        "orders",
        "orders:8080",
        "ORDERS",
        "orders-v2",
        "my_service",
        "4shop",
        # A single label like any other.
        "svc",
        "orders.shop.svc",
        "orders.shop.svc.",
        "orders.shop.svc:443",
        "orders.shop.svc.cluster.local",
        "Orders.Shop.SVC.Cluster.Local.:8080",
        "anything.cluster.local",
        "orders.shop.svc.clusterset.local",
        b"orders",
        b"orders.shop.svc.cluster.local:8080",
    ],
)
def test_hosts_of_the_cluster_are_inside(host: str | bytes) -> None:
    assert HostPolicy().inside(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        ".",
        "..",
        ":80",
        "example.com",
        # Two labels: a namespace, or somebody's domain.
        "orders.shop",
        # A top-level domain: the dot says that nothing is to be added.
        "orders.",
        "orders.:80",
        "evil.svc.attacker.com",
        "cluster.local.attacker.com",
        "orders.shop.svc.cluster.local.attacker.com",
        "orders.shop.svc.cluster.local..",
        "notcluster.local",
        "cluster.local",
        ".svc",
        "notsvc.com",
        "a.clusterset.local",
        "svc.clusterset.local",
        "attacker.com#.svc",
        "attacker.com/.svc",
        "attacker.com?.svc",
        "attacker.com\\.svc",
        "attacker.com@orders",
        "user:password@orders",
        "orders@attacker.com",
        "attacker.com%2f.svc",
        "attacker.com%00.svc",
        "attacker.com\x00.svc",
        "attacker.com\n.svc",
        "attacker.com .svc",
        " orders",
        "orders ",
        "orders\t",
        "or ders",
        "orders:http",
        "orders:80:80",
        "orders:123456",
        "orders,attacker.com",
        "*",
        "*.svc",
        "-orders",
        "orders-",
        "-a.svc",
        "a" * 64,
        # The machine itself.
        "localhost",
        "LOCALHOST:8080",
        "localhost.",
        "ip6-localhost",
        "a.localhost",
        "localhost.localdomain",
        # Addresses, in every way of writing them.
        "127.0.0.1",
        "127.0.0.1:8080",
        "127.1",
        "10.0.0.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "017700000001",
        "10.0.0.1.",
        "1.2.3.4.5",
        "::1",
        "[::1]",
        "[::1]:8080",
        "fd00::1",
        "[fd00::1]:80",
        "[::ffff:127.0.0.1]",
        "fe80::1%eth0",
        "[fe80::1%25eth0]",
        "[",
        "[]",
        "[]:80",
        "[::1",
        "[orders]",
        "[::1]orders",
        "[::1]:http",
        "::",
        ":::",
        # Not ASCII: what it becomes is for the client to say; write xn-- where it is meant.
        "bücher",
        "bücher.shop.svc",
        "orders\u3002shop\u3002svc",
        "\uff4frders",
        "orders\u200b",
        "\u212aube.svc",
        b"\xff\xfe",
        b"b\xc3\xbccher.svc",
    ],
)
def test_everything_else_is_outside(host: str | bytes) -> None:
    assert not HostPolicy().inside(host)


ITEMS = [
    "api.corp.example",
    ".mesh.corp.example",
    "*.wild.example",
    "LocalHost",
    "127.0.0.1",
    "10.1.0.0/16",
    "[fd00::5]",
    "fd01::/32",
    "xn--bcher-kva.example.",
    "bare.example.",
]
LISTED = HostPolicy(ITEMS)
LIST = HostList(ITEMS, variable="MESHAWARE_TRACE_HOSTS")


@pytest.mark.parametrize(
    "host",
    [
        "api.corp.example",
        "API.corp.example.:443",
        "a.mesh.corp.example",
        "a.b.mesh.corp.example",
        "a.wild.example",
        "localhost",
        "localhost:8080",
        "localhost.",
        "127.0.0.1:18080",
        "10.1.2.3",
        "[::ffff:10.1.2.3]",
        "fd00::5",
        "[FD00:0::5]:80",
        "fd01::1",
        "xn--bcher-kva.example",
        "bare.example",
        "bare.example.",
    ],
)
def test_what_is_listed_is_inside(host: str) -> None:
    """Of the mesh, and of a mere list."""
    assert LISTED.inside(host)
    assert LIST.inside(host)


@pytest.mark.parametrize(
    "host",
    [
        # An exact name does not mean what is under it, nor a suffix what is above.
        "x.api.corp.example",
        "corp.example",
        "mesh.corp.example",
        "wild.example",
        "notwild.example",
        "evilmesh.corp.example",
        "a.mesh.corp.example.attacker.com",
        "127.0.0.2",
        "10.2.0.1",
        "[fd00::6]",
        "[::ffff:10.2.0.1]",
        "10.1.2",
        "10.1.2.300",
        "1.2.3.4.5:80",
        "fd01:::1",
        "ip6-localhost",
        "b.bare.example",
    ],
)
def test_what_only_looks_like_it_is_not(host: str) -> None:
    assert not LISTED.inside(host)
    assert not LIST.inside(host)


@pytest.mark.parametrize(
    "host", ["orders", "orders.shop.svc", "orders.shop.svc.cluster.local", "a.svc.clusterset.local"]
)
def test_a_mere_list_knows_nothing_of_the_mesh(host: str) -> None:
    """Nor does an empty one hold everything."""
    assert LISTED.inside(host)
    assert not LIST.inside(host)
    assert not HostList(variable="X").inside(host)
    assert HostList([host], variable="X").inside(host)


@pytest.mark.parametrize("domain", ["mesh.corp", "Mesh.Corp.", ".mesh.corp"])
def test_the_cluster_has_its_own_domain(domain: str) -> None:
    policy = HostPolicy(cluster_domain=domain)
    assert policy.inside("orders.shop.svc.mesh.corp")
    assert policy.inside("orders")
    assert policy.inside("orders.shop.svc")
    assert not policy.inside("orders.shop.svc.cluster.local")


@pytest.mark.parametrize("domain", ["", ".", "a b", "bücher.example", "http://x", "a..b"])
def test_a_cluster_domain_is_a_domain(domain: str) -> None:
    with pytest.raises(SettingsError, match="MESHAWARE_CLUSTER_DOMAIN"):
        HostPolicy(cluster_domain=domain)


@pytest.mark.parametrize(
    ("item", "hint"),
    [
        ("*", "Write a host"),
        (".", "Write a host"),
        ("*.", "Write a host"),
        ("..corp", "Write a host"),
        ("*corp.example", "Write a host"),
        ("a.*.example", "Write a host"),
        ("http://orders", "no scheme"),
        ("orders:8080", "no scheme, port"),
        ("[::1]:80", "no scheme, port"),
        ("10.0.0.1:80", "no scheme, port"),
        ("orders/", "no scheme, port or path"),
        ("user@orders", "Write a host"),
        ("bücher.example", "xn--"),
        (".bücher.example", "xn--"),
        ("10.0.0.5/8", "10.0.0.0/8"),
        ("10.0.0.0/33", "Write a host"),
        ("10.0.0", "Write a host"),
        ("a b", "Write a host"),
        ("x" * 5000, "Write a host"),
    ],
)
def test_what_is_no_host_cannot_be_listed(item: str, hint: str) -> None:
    with pytest.raises(SettingsError, match=r"^MESHAWARE_MESH_HOSTS names") as caught:
        HostPolicy(["orders", item])
    assert hint in str(caught.value)
    assert len(str(caught.value)) < 400
    with pytest.raises(SettingsError, match=r"^MESHAWARE_TRACE_HOSTS names") as caught:
        HostList(["orders", item], variable="MESHAWARE_TRACE_HOSTS")
    assert hint in str(caught.value)


def test_a_list_may_be_one_string_and_hold_empty_items() -> None:
    assert HostPolicy(" api.corp.example, ,.x.example,") == HostPolicy([".x.example", "api.corp.example"])


def test_policies_compare_hash_and_show_themselves() -> None:
    one, other = HostPolicy(["b.c", "a.b", "10.0.0.1"]), HostPolicy(["10.0.0.1/32", "a.b", "b.c"])
    assert one == other
    assert hash(one) == hash(other)
    assert one != HostPolicy(cluster_domain="x.y")
    assert one != 1
    assert repr(one) == "HostPolicy(['a.b', 'b.c', '10.0.0.1/32'], cluster_domain='cluster.local')"


def test_lists_compare_hash_and_show_themselves() -> None:
    """By what they hold, whoever listed it; a list and a policy are two things."""
    one, other = HostList("b.c,.a.b,10.0.0.1", variable="X"), HostList(["10.0.0.1/32", "*.a.b", "b.c"], variable="Y")
    assert one == other
    assert hash(one) == hash(other)
    assert one != HostPolicy("b.c,.a.b,10.0.0.1")
    assert HostPolicy("b.c,.a.b,10.0.0.1") != one
    assert repr(one) == "HostList(['b.c', '.a.b', '10.0.0.1/32'])"


def test_what_is_remembered_is_bounded() -> None:
    """Who can choose the hosts of calls cannot fill the memory with them, neither by number nor by length."""
    policy = HostPolicy()
    remembered: dict[str | bytes, bool] = getattr(policy, "_cache")  # noqa: B009 (pyright minds the other way)
    for number in range(5000):
        policy.inside(f"a{number}.attacker.com")
    assert 0 < len(remembered) <= 1024
    before = len(remembered)
    assert not policy.inside("a." * 500 + "svc")
    assert not policy.inside(b"a" * 1_000_000)
    assert len(remembered) == before


def test_a_name_of_full_length_is_still_read() -> None:
    name = ("a" * 61 + ".") * 4 + "b."
    assert len(name + "svc") == 253
    assert HostPolicy().inside(f"{name}svc")
    assert HostPolicy().inside(f"{name}svc.:65535")
    assert not HostPolicy().inside(f"c{name}svc")


@given(st.text(max_size=40) | st.binary(max_size=40) | st.text("ab.-:[]0123fx@/", max_size=30))
def test_no_host_makes_it_fail_and_asking_twice_changes_nothing(host: str | bytes) -> None:
    policy = HostPolicy(["10.0.0.0/8", ".corp.example"])
    assert policy.inside(host) is policy.inside(host)
    listed = HostList(["10.0.0.0/8", ".corp.example"], variable="X")
    assert listed.inside(host) is listed.inside(host)
    assert policy.inside(host) or not listed.inside(host)


LABEL = st.from_regex(r"[a-z]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)


@given(st.lists(LABEL, min_size=2, max_size=5), st.sampled_from(["com", "example", "io", "localhost", "1"]))
def test_a_name_under_a_foreign_domain_is_outside(labels: list[str], top: str) -> None:
    assert not HostPolicy().inside(".".join([*labels, "svc", "cluster", "local", top]))
    assert not HostPolicy().inside(".".join([*labels, top]))


@given(st.lists(LABEL, min_size=1, max_size=4), st.sampled_from(["", ".", ":80", ".:80"]))
def test_a_name_under_the_cluster_is_inside_however_it_is_written(labels: list[str], end: str) -> None:
    name = ".".join([*labels, "svc", "cluster", "local"]) + end
    assert HostPolicy().inside(name)
    assert HostPolicy().inside(name.upper())
    assert HostPolicy().inside(name.encode())
