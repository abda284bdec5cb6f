"""A request as a sidecar passes it on, and the service that it comes to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

from meshaware.identity import Peer, find_peer
from meshaware.propagation.context import Carried, bind, current, reset
from meshaware.propagation.hosts import HostPolicy
from meshaware.settings import MeshSettings

_TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
_SPAN_ID = "b7ad6b7169203331"
_PEER = "spiffe://cluster.local/ns/shop/sa/web"
_HEADERS = [
    (b"x-forwarded-client-cert", f"By=spiffe://cluster.local/ns/shop/sa/orders;URI={_PEER}".encode()),
    (b"x-request-id", b"4c7b9e2a-9a1d-9f9b-8c3e-5d1f2a3b4c5d"),
    (b"traceparent", f"00-{_TRACE_ID}-{_SPAN_ID}-01".encode()),
]


def _read(headers: Iterable[tuple[bytes, bytes]]) -> Peer | None:
    return find_peer("x-forwarded-client-cert", headers)


@pytest.fixture(name="settings")
def _settings() -> MeshSettings:
    return MeshSettings(workload={"service": "orders", "namespace": "shop", "pod_name": "orders-7d9f"})


@pytest.fixture(name="own")
def _own() -> dict[str, object]:
    """The fields of that service."""
    return {"workload": "orders", "namespace": "shop", "pod": "orders-7d9f"}


@pytest.fixture(name="carried")
def _carried() -> Carried:
    """What the middleware carries of a request, behind a sidecar of Istio's."""
    return Carried(_HEADERS[1:], HostPolicy(), (_read, _HEADERS))


@pytest.fixture(name="served")
def _served(carried: Carried, own: dict[str, object]) -> Iterator[dict[str, object]]:
    """While the test runs, that request is served; these are its fields."""
    token = bind(carried)
    yield own | {
        "trace_id": _TRACE_ID,
        "span_id": _SPAN_ID,
        "trace_sampled": True,
        "request_id": "4c7b9e2a-9a1d-9f9b-8c3e-5d1f2a3b4c5d",
        "peer": _PEER,
    }
    reset(token)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    assert current() is None
    yield
    assert current() is None, "a test left something behind in its context"
