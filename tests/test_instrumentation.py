"""Clients and those who instrument them meet, whoever comes first."""

from __future__ import annotations

import gc
from weakref import ref

import pytest

from meshaware import instrumentation
from meshaware.instrumentation import announce_client, on_client


class Client:
    """Like a client of httpx: it can be referred to weakly."""


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instrumentation, "_callbacks", [])
    monkeypatch.setattr(instrumentation, "_clients", type(instrumentation._clients)())  # pyright: ignore[reportPrivateUsage]


def test_a_client_made_later_is_told() -> None:
    told: list[object] = []
    on_client(told.append)
    client = Client()

    announce_client(client)

    assert told == [client]


def test_a_client_made_before_is_told_at_once() -> None:
    client, told = Client(), list[object]()
    announce_client(client)

    on_client(told.append)

    assert told == [client]


def test_everybody_who_asked_is_told_of_every_client_once() -> None:
    first, second = list[object](), list[object]()
    on_client(first.append)
    announce_client(early := Client())
    on_client(second.append)
    on_client(first.append)
    announce_client(late := Client())

    assert first == [early, late]
    assert second == [early, late]


def test_a_client_is_not_kept_alive() -> None:
    client = Client()
    announce_client(client)
    gone = ref(client)
    del client
    gc.collect()
    told: list[object] = []

    on_client(told.append)

    assert gone() is None
    assert told == []
