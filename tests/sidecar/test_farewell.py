"""What is said to a proxy that shall go, and what its answers mean: no I/O."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaware.errors import SidecarUnavailable
from meshaware.flavours import FLAVOURS
from meshaware.sidecar.exchange import AdminReply
from meshaware.sidecar.farewell import Ask, Dismissal, farewell

ISTIO = FLAVOURS["istio"]
POST = "http://localhost:15020/quitquitquit"
REFUSED = SidecarUnavailable("nobody", "refused")
BROKEN = SidecarUnavailable("broke off", "invalid")
SILENT = SidecarUnavailable("silent", "timeout")


def talk(*answers: AdminReply | SidecarUnavailable, mesh: str = "istio", url: str | None = None) -> tuple[Any, ...]:
    """What was asked, and what came of it."""
    conversation, asked = farewell(FLAVOURS[mesh], url), list[Ask]()
    try:
        asked.append(next(conversation))
        for answer in answers:
            asked.append(conversation.send(answer))
    except StopIteration as end:
        return (*(f"{ask.method} {ask.url}" for ask in asked), end.value)
    raise AssertionError(f"it goes on asking: {asked}")


@pytest.mark.parametrize(
    ("mesh", "url", "next_"),
    [
        ("istio", POST, "it exits at once, without draining"),
        (
            "linkerd",
            "http://localhost:4191/shutdown",
            "it drains, for 2 minutes at most unless config.linkerd.io/shutdown-grace-period says otherwise",
        ),
        (
            "consul",
            "http://localhost:20600/graceful_shutdown",
            "it goes after its grace period, 30 seconds unless annotated otherwise",
        ),
    ],
)
@pytest.mark.parametrize("status", [200, 202])
def test_a_proxy_that_agrees_goes(mesh: str, url: str, next_: str, status: int) -> None:
    """Each mesh has its own address, and says its own goodbye."""
    title = FLAVOURS[mesh].title
    assert talk(AdminReply(status, b"OK"), mesh=mesh) == (
        f"POST {url}",
        Dismissal(told=True, reason=f"the sidecar ({title}) was told to go: {next_}"),
    )


@pytest.mark.parametrize(
    ("mesh", "reason"),
    [
        ("kuma", "Kuma: its control plane lets the sidecar go once the other containers have ended"),
        ("ambient", "Istio ambient: there is no sidecar in the pod"),
        ("none", "no mesh: there is no sidecar in the pod"),
    ],
)
@pytest.mark.parametrize("url", [None, POST])
def test_where_nobody_has_to_be_told_nobody_is(mesh: str, reason: str, url: str | None) -> None:
    """Wherever a proxy would be told."""
    assert talk(mesh=mesh, url=url) == (Dismissal(told=False, reason=reason),)


def test_another_address_is_asked_instead() -> None:
    """Of the same mesh."""
    url = "http://127.0.0.1:1234/quit"
    assert talk(AdminReply(200, b""), url=url)[0] == f"POST {url}"


@pytest.mark.parametrize(
    ("mesh", "reply", "meaning"),
    [
        ("istio", AdminReply(403, b"Only requests from localhost are allowed\n"), "only loopback may ask"),
        ("istio", AdminReply(405, b"Method Not Allowed\n"), "it takes no POST"),
        ("istio", AdminReply(404, b"404 page not found\n"), "is it the proxy that listens there?"),
        ("istio", AdminReply(307, b""), "is it the proxy that listens there?"),
        ("linkerd", AdminReply(404, b"shutdown endpoint is not enabled\n"), "the endpoint is not enabled; annotate"),
        ("linkerd", AdminReply(404, b""), "it knows no such path"),
        ("linkerd", AdminReply(404, b"<html>"), "is it the proxy that listens there?"),
        ("linkerd", AdminReply(403, b""), "only loopback may ask"),
        ("linkerd", AdminReply(405, b""), "it takes no POST"),
        ("linkerd", AdminReply(500, b""), "it has nobody left to tell"),
        ("consul", AdminReply(404, b"404 page not found\n"), "consul-dataplane has another path"),
    ],
)
def test_a_refusal_says_why_and_what_to_do(mesh: str, reply: AdminReply, meaning: str) -> None:
    """Linkerd's 404 is one of several things, and only its body tells which."""
    url, dismissal = talk(reply, mesh=mesh)
    assert (dismissal.told, dismissal.refused) == (False, True)
    start = f"the sidecar ({FLAVOURS[mesh].title}) was not let go: {url}: {reply.status}: "
    assert dismissal.reason.startswith(start + meaning)


@given(status=st.integers(100, 999), body=st.binary(max_size=200))
def test_nothing_of_an_answer_is_repeated_but_its_status(status: int, body: bytes) -> None:
    """Whatever listens there may write anything into it."""
    for mesh in ("istio", "linkerd", "consul"):
        (_, marked), (_, empty) = (talk(AdminReply(status, text), mesh=mesh) for text in (b"\x1b[31mX" + body, b"X"))
        assert marked == empty


def test_an_answer_that_breaks_off_may_be_that_of_one_who_went() -> None:
    """So it is asked once more: if nobody listens then, it has gone."""
    assert talk(BROKEN, REFUSED) == (
        f"POST {POST}",
        f"POST {POST}",
        Dismissal(told=True, reason="the sidecar (Istio) was told to go, and has gone"),
    )
    assert talk(BROKEN, AdminReply(200, b""))[2].told is True
    assert talk(BROKEN, BROKEN)[2] == Dismissal(
        told=False, reason="the sidecar (Istio) was not let go: broke off", refused=True
    )


@pytest.mark.parametrize("error", [SILENT, SidecarUnavailable("endless", "too_large")])
def test_one_who_does_not_answer_is_not_asked_again(error: SidecarUnavailable) -> None:
    """Nobody knows whether it goes: that is a warning."""
    assert talk(error) == (
        f"POST {POST}",
        Dismissal(told=False, reason=f"the sidecar (Istio) was not let go: {error}", refused=True),
    )


READY = "http://localhost:15021/healthz/ready"


def test_nobody_there_from_the_start_is_no_news() -> None:
    """Another one, `meshaware run` for instance, may have told it already."""
    assert talk(REFUSED, REFUSED) == (
        f"POST {POST}",
        f"GET {READY}",
        Dismissal(
            told=False, reason=f"nothing listens at {POST}: the sidecar (Istio) has gone already, or was never there"
        ),
    )


def test_a_mesh_that_does_not_tell_its_readiness_is_believed_to_have_gone() -> None:
    """There is nobody else to ask."""
    conversation = farewell(replace(ISTIO, ready_url=None))
    assert next(conversation).url == POST
    with pytest.raises(StopIteration) as end:
        conversation.send(REFUSED)
    assert not end.value.value.refused


@pytest.mark.parametrize("answer", [AdminReply(200, b""), AdminReply(503, b""), SILENT, BROKEN])
def test_a_proxy_that_is_told_elsewhere_is(answer: AdminReply | SidecarUnavailable) -> None:
    """Nobody takes the word, and yet the proxy runs: the pod would wait for ever."""
    dismissal = talk(REFUSED, answer)[2]
    assert (dismissal.told, dismissal.refused) == (False, True)
    assert dismissal.reason.endswith(
        f"nothing listens at {POST}, and at {READY} it answers; MESHAWARE_QUIT_URL says where it is told"
    )
