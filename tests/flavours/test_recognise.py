"""Which mesh's proxy is on this host, by what was heard at its ports."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaware.flavours import FLAVOURS, PORTS, Heard, recognise
from meshaware.flavours.recognise import unrecognised

LISTENING, SILENT, REFUSED = Heard("listening"), Heard("silent"), Heard("refused")


def said(body: bytes = b"", status: int = 200) -> Heard:
    return Heard("answered", status, body)


HEARD: list[tuple[str | None, dict[int, Heard]]] = [
    ("istio", {15021: said()}),
    ("istio", {15021: said(status=503), 15020: said(status=503)}),
    # Envoy answers for the agent that is not there yet.
    ("istio", {15021: said(b"upstream connect error or disconnect/reset before headers", 503)}),
    # The agent alone: Envoy's workers do not run yet, or there will be none.
    ("istio", {15020: said(status=503)}),
    ("istio", {15021: SILENT}),
    # A sidecar that takes HBONE listens on ambient's port.
    ("istio", {15021: said(), 15020: said(), 15006: LISTENING, 15008: LISTENING}),
    ("istio", {15020: said(status=503), 15008: LISTENING}),
    ("ambient", {15008: LISTENING, 15006: LISTENING}),
    ("linkerd", {4191: said(b"live\n")}),
    ("linkerd", {4191: SILENT}),
    ("consul", {19000: said(b"LIVE\n"), 20600: LISTENING}),
    ("consul", {19000: said(b"PRE_INITIALIZING\n", 503), 20600: LISTENING}),
    ("kuma", {9902: said(b"READY")}),
    ("kuma", {9902: said(b"NOT_READY", 503)}),
    ("kuma", {9902: said(b"TERMINATING", 503)}),
    ("kuma", {9902: said(b"LIVE\n"), 9901: said(b"LIVE\n"), 15006: LISTENING}),
    ("kuma", {9901: said(b"LIVE\n"), 15006: LISTENING}),
    ("kuma", {9901: said(b"INITIALIZING\n", 503), 15006: LISTENING}),
    # What proves nothing.
    (None, {}),
    (None, {15020: said(b"hello")}),
    (None, {15021: said(status=404)}),
    (None, {4191: said(b"not Linkerd")}),
    (None, {4191: said(b"live\n", 404)}),
    (None, {19000: said(b"LIVE\n")}),
    (None, {20600: LISTENING}),
    (None, {19000: said(b"hello"), 20600: LISTENING}),
    (None, {9901: said(b"LIVE\n")}),
    (None, {9902: said(b"<html>")}),
    (None, {15006: LISTENING}),
    (None, {9901: SILENT, 15006: LISTENING}),
    # A host that is too busy to refuse.
    (None, dict.fromkeys(PORTS, Heard("unreached"))),
]


@pytest.mark.parametrize(("name", "heard"), HEARD, ids=[str(row) for row in HEARD])
def test_ports_tell_the_mesh(name: str | None, heard: dict[int, Heard]) -> None:
    """Also where several meshes use the same ones; and another program at such a port is no proxy."""
    found = recognise(heard | {port: REFUSED for port in PORTS if port not in heard})
    assert (None if found is None else found.flavour.name) == name
    assert recognise(heard) == found, "where nobody knocked, nobody listens"
    if found is not None:
        assert found.settled
        assert found.native is None
        assert found.reason.startswith("localhost:")
        assert found.flavour.title in found.reason


def test_what_was_heard_instead_is_told_in_few_words() -> None:
    """Status and port, nothing that a stranger wrote."""
    nobody = dict.fromkeys(PORTS, REFUSED)
    place, word = unrecognised(nobody)
    assert word == "refused"
    assert all(str(port) in place for port in PORTS)
    others = nobody | {9901: said(b"\x1b[31m", 404), 15006: LISTENING}
    assert unrecognised(others) == ("no mesh's proxy on localhost", "9901 answered 404, 15006 listening")


@given(
    st.dictionaries(
        st.sampled_from(sorted(PORTS)),
        st.builds(Heard, st.sampled_from(["refused", "unreached", "listening", "answered", "silent", "invalid"]),
                  st.sampled_from([0, 200, 404, 503]), st.sampled_from([b"", b"LIVE\n", b"live\n", b"READY", b"x"])),
    )
)  # fmt: skip
def test_anything_heard_gives_an_answer(heard: dict[int, Heard]) -> None:
    """A flavour that is proved by its signs, or none."""
    found = recognise(heard)
    assert found is None or found.flavour.proved(heard)
    assert (found is None) == (not any(flavour.proved(heard) for flavour in FLAVOURS.values()))
