"""The meshes as data: one row a mesh."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any, get_args

import pytest

from meshaware.flavours import FLAVOURS, Flavour
from meshaware.flavours.unknown import UNKNOWN
from meshaware.identity import PEER_HEADERS
from meshaware.settings.addresses import parse_loopback
from meshaware.settings.model import MeshName

# name, where readiness answers, what is asked where nobody listens there, Envoy's admin, whether it tells routes
ROWS = [
    (
        "istio",
        "http://localhost:15021/healthz/ready",
        "http://localhost:15020/healthz/ready",
        "http://localhost:15000",
        True,
    ),
    ("linkerd", "http://localhost:4191/ready", None, None, False),
    ("consul", "http://localhost:19000/ready", None, "http://localhost:19000", True),
    ("kuma", "http://localhost:9902/ready", "http://localhost:9901/ready", None, False),
    ("ambient", None, None, None, False),
    ("none", None, None, None, False),
]


@pytest.mark.parametrize(("name", "ready", "fallback", "admin", "has_routes"), ROWS, ids=[r[0] for r in ROWS])
def test_each_mesh_has_its_addresses(
    name: str, ready: str | None, fallback: str | None, admin: str | None, has_routes: bool
) -> None:
    """What is asked, where, and whether there is anything to wait for, stands in one object for each mesh."""
    flavour = FLAVOURS[name]
    assert (flavour.ready_url, flavour.ready_fallback_url) == (ready, fallback)
    assert (flavour.admin_url, flavour.has_routes) == (admin, has_routes)
    assert flavour.gates is (ready is not None)
    assert flavour.is_mesh is (name != "none")
    assert (flavour.container is not None) is flavour.gates


def test_what_is_not_known_is_no_mesh() -> None:
    """It cannot be set, has no address, and vouches for nobody."""
    assert "unknown" not in FLAVOURS
    assert (UNKNOWN.is_mesh, UNKNOWN.gates, UNKNOWN.peer_header, UNKNOWN.admin_url) == (False, False, None, None)


@pytest.mark.parametrize(
    ("name", "retries"), [("istio", 2), ("kuma", 5), ("linkerd", 0), ("consul", 0), ("ambient", 0), ("none", 0)]
)
def test_each_mesh_makes_calls_again_or_does_not(name: str, retries: int) -> None:
    """Where no route says: Istio's own list, Kuma's MeshRetry of every new mesh, and nothing elsewhere."""
    assert FLAVOURS[name].retries == retries


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("istio", "http://localhost:15020/quitquitquit"),
        ("linkerd", "http://localhost:4191/shutdown"),
        ("consul", "http://localhost:20600/graceful_shutdown"),
        ("kuma", None),
        ("ambient", None),
        ("none", None),
    ],
)
def test_each_mesh_lets_a_job_s_proxy_go_in_its_own_way(name: str, url: str | None) -> None:
    """Or leaves it to others; and says either way what comes of it. Without a mesh nobody has to hear of a stop."""
    flavour = FLAVOURS[name]
    assert flavour.quit.url == url
    assert flavour.quit.note
    assert (flavour.drain > 0) is (name != "none")
    if url is not None:
        parse_loopback(url)
        assert flavour.gates


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("istio", "x-forwarded-client-cert"),
        ("linkerd", "l5d-client-id"),
        ("consul", "x-forwarded-client-cert"),
        ("kuma", "x-forwarded-client-cert"),
        ("ambient", None),
        ("none", None),
    ],
)
def test_each_mesh_says_who_called_in_its_own_way(name: str, header: str | None) -> None:
    """In a header that can be read, or, where no proxy looks after it, in none."""
    assert FLAVOURS[name].peer_header == header
    assert header is None or header in PEER_HEADERS


@pytest.mark.parametrize(
    ("name", "tells"),
    [
        ("istio", False),
        ("linkerd", False),
        ("consul", True),
        ("kuma", True),
        ("ambient", True),
        ("none", True),
    ],
)
def test_where_envoys_word_about_the_time_arrives(name: str, tells: bool) -> None:
    """Istio's sidecar takes it away, and Linkerd has no Envoy: there, whoever wrote it was none."""
    assert FLAVOURS[name].tells_timeout is tells


def test_the_table_has_every_mesh_that_can_be_set() -> None:
    """`MESHAWARE_MESH` accepts exactly the flavours there are, and `auto`."""
    assert set(get_args(MeshName)) == {"auto", *FLAVOURS}
    assert [row[0] for row in ROWS] == list(FLAVOURS)


@pytest.mark.parametrize("flavour", FLAVOURS.values(), ids=list(FLAVOURS))
def test_every_address_is_on_this_host(flavour: Flavour) -> None:
    """No flavour can make meshaware call anything but loopback."""
    for url in (flavour.ready_url, flavour.ready_fallback_url, flavour.admin_url):
        if url is not None:
            assert parse_loopback(url).addresses == ("127.0.0.1", "::1")


@pytest.mark.parametrize("flavour", FLAVOURS.values(), ids=list(FLAVOURS))
def test_what_has_routes_has_an_admin_to_ask(flavour: Flavour) -> None:
    """Routes are only promised where there is an address to read them from."""
    assert flavour.admin_url is not None or not flavour.has_routes


def test_a_flavour_cannot_be_changed() -> None:
    """Flavours are shared by everybody in the process."""
    flavour: Any = FLAVOURS["istio"]
    with pytest.raises(FrozenInstanceError):
        flavour.name = "other"
    table: Any = FLAVOURS
    with pytest.raises(TypeError):
        table["other"] = flavour
