"""A copy of a request may be changed; the request stays as its caller made it."""

from __future__ import annotations

from typing import Any

import pytest

from meshaware import instrumentation
from meshaware.request_copy import copy_request


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
def test_a_copy_shares_the_stream_and_may_have_headers_of_its_own(library: str) -> None:
    httpx: Any = pytest.importorskip(library)
    request = httpx.Request("POST", "http://orders/", content=iter([b"one", b"two"]), extensions={"timeout": {}})

    twin = copy_request(request)
    twin.headers = httpx.Headers({"x-request-id": "r-1"})

    assert isinstance(twin, httpx.Request)
    assert (twin.method, twin.url, twin.extensions) == (request.method, request.url, request.extensions)
    assert "x-request-id" not in request.headers
    assert list(twin.stream) == [b"one", b"two"]


def test_what_is_told_and_what_is_copied_are_rooms_of_their_own() -> None:
    assert not hasattr(instrumentation, "copy_request")
