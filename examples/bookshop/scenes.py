"""
The scenes. The docstring of each is what meshaware promises; what the scene returns is what was seen.

Each looks at facts (replies, clocks, spans, what a peer recorded) and decides by them alone.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import NamedTuple

import httpx
from shop import NotYet, Shop
from terminal import say, step, width
from waterfall import Span, draw

from meshaware import report
from meshaware.errors import DeadlineExceeded

HAND_SET = 1.0
CAP = 4.0
PREMIUM = {"x-user-type": "premium"}


class Seen:
    """The facts of one scene; it is as promised when all of them are."""

    def __init__(self) -> None:
        self.facts: list[tuple[bool, str]] = []

    def that(self, fact: str, holds: bool) -> None:  # noqa: FBT001
        """Note a fact, and whether it is as promised."""
        self.facts.append((holds, fact))

    @property
    def as_promised(self) -> bool:
        """Whether there are facts, and all are as promised."""
        return bool(self.facts) and all(holds for holds, _ in self.facts)

    def __str__(self) -> str:
        return "\n".join(fact if holds else f"NOT AS PROMISED: {fact}" for holds, fact in self.facts)


class Scene(NamedTuple):
    """One scene: its name, how it is played, and whose logs tell why it failed."""

    name: str
    play: Callable[[Shop], Seen]
    logs: tuple[str, ...]

    @property
    def promise(self) -> str:
        """The docstring, in one line."""
        return " ".join((self.play.__doc__ or "").split())


def late_sidecar(shop: Shop) -> Seen:
    """A service that starts before its sidecar is 503 on /readyz until the sidecar takes calls, then 200."""
    seen = Seen()
    before = shop.wait_ready("storefront", 503)
    seen.that(f"503 while {before['gate']['reason']}", before["gate"]["status"] == "waiting")
    step("storefront runs and is not ready; now its sidecar starts")
    shop.members["storefront"].sidecar.start()
    after = shop.wait_ready("storefront", 200)
    waited = after["gate"]["waited_ms"]
    seen.that(f"200 once it was up; the gate waited {waited} ms", waited > 0)
    for name in shop.services:
        shop.wait_ready(name, 200)
    return seen


def one_trace(shop: Shop) -> Seen:
    """One request through three services has one x-request-id and one trace, in applications and Envoys."""
    seen = Seen()
    trace = secrets.token_hex(16)
    browser = {"traceparent": f"00-{trace}-{secrets.token_hex(8)}-01"}
    reply = shop.client.get("http://storefront:8080/books/42", headers=browser)
    seen.that(f"{reply.status_code} from the storefront", reply.status_code == 200)
    # Per service in and out, application and Envoy; inventory calls nobody, the visitor has no application.
    expected = 4 + 4 + 2 + 1
    spans = shop.collector.wait_for(trace, lambda found: len(found) >= expected)
    for line in draw(spans, width=width()):
        say(line)
    hops = [
        service
        for service in ("storefront", "orders", "inventory")
        if {span.by for span in spans if service in span.service} == {"app", "envoy"}
    ]
    seen.that(f"{len(spans)} spans, of application and Envoy at {', '.join(hops)}", len(hops) == 3)
    ids = {request_id(span) for span in spans} - {""}
    seen.that(f"x-request-id: {', '.join(sorted(ids))}", len(ids) == 1)
    told = [span for span in spans if span.by == "app" and span.kind == "server"]
    seen.that(f"seen by {len(told)} applications", len(told) == 3 and all(request_id(span) in ids for span in told))
    traces = {span.trace for span in shop.collector.where(lambda span: request_id(span) in ids)}
    seen.that(f"trace: {', '.join(sorted(traces))}", traces == {trace})
    return seen


def premium_route(shop: Shop) -> Seen:
    """`x-user-type: premium` reaches inventory v2, two hops after the storefront; everybody else gets v1."""
    seen = Seen()

    def versions(headers: dict[str, str]) -> set[str]:
        replies = [shop.client.get("http://storefront:8080/books/42", headers=headers) for _ in range(5)]
        return {str(reply.raise_for_status().json()["stock"]["version"]) for reply in replies}

    premium, others = versions(PREMIUM), versions({})
    seen.that(f"premium: {', '.join(premium)}, 5 of 5", premium == {"v2"})
    seen.that(f"others: {', '.join(others)}, 5 of 5", others == {"v1"})
    return seen


def mesh_retries(shop: Shop) -> Seen:
    """Two tries fail, the mesh retries, meshaware waits for it; a hand-set timeout gives up on a success."""
    seen = Seen()
    trace = secrets.token_hex(16)
    browser = {"traceparent": f"00-{trace}-{secrets.token_hex(8)}-01"}
    patient, hasty = f"patient-{secrets.token_hex(4)}", f"hasty-{secrets.token_hex(4)}"

    def wait() -> tuple[str, float]:
        begin = monotonic()
        reply = shop.client.put(f"http://storefront:8080/orders/{patient}", headers=browser)
        return str(reply.status_code), monotonic() - begin

    def give_up() -> tuple[str, float]:
        begin = monotonic()
        try:
            with shop.bare(HAND_SET) as client:
                return str(
                    client.put(f"http://storefront:8080/orders/{hasty}").status_code
                ), monotonic() - begin
        except httpx.TimeoutException as error:
            return type(error).__name__, monotonic() - begin

    (ours, waited), (theirs, gave_up) = together(wait, give_up)
    seen.that(f"meshaware: {ours} after {waited:.2f} s", ours == "201" and waited > HAND_SET)
    tries = shop.ask_process("inventory-v1", f"/tries/{patient}").json()
    seen.that(
        f"inventory counts {len(tries)} tries of {len(set(tries))} request",
        (len(tries), len(set(tries))) == (3, 1),
    )

    def complete(spans: list[Span]) -> bool:
        return (
            len(reservations(spans, "orders", "client")) >= 1
            and len(reservations(spans, "inventory", "server")) >= 3
        )

    spans = shop.collector.wait_for(trace, complete)
    made, came = reservations(spans, "orders", "client"), reservations(spans, "inventory", "server")
    seen.that(
        f"orders made {len(made)} request, inventory served {len(came)}", (len(made), len(came)) == (1, 3)
    )
    seen.that(f"httpx with timeout={HAND_SET}: {theirs} after {gave_up:.2f} s", theirs.endswith("Timeout"))

    def placed() -> int:
        reply = shop.ask_process("orders", f"/orders/{hasty}")
        if reply.status_code != 200:
            raise NotYet(f"{reply.status_code}")
        return reply.status_code

    shop.wait_for(f"order {hasty} to be placed", placed, timeout=5.0)
    seen.that("and yet its order was placed", holds=True)
    return seen


def endless_body(shop: Shop) -> Seen:
    """An upstream that dribbles bytes for ever hangs httpx; meshaware's call ends with its budget."""
    # The route bounds each try until its headers are there, and has no `timeout`: Envoy lets the body go on
    # for both clients alike. And httpx's own timeout starts anew with each byte.
    seen = Seen()
    url = "http://inventory:8080/feed"

    def hang() -> tuple[int, float]:
        begin, came = monotonic(), 0
        with shop.bare(HAND_SET) as client, client.stream("GET", url) as reply:
            for chunk in reply.iter_raw():
                came += len(chunk)
                if monotonic() - begin >= CAP:
                    break
        return came, monotonic() - begin

    def end() -> tuple[DeadlineExceeded | None, float]:
        begin = monotonic()
        try:
            shop.client.get(url)
        except DeadlineExceeded as error:
            return error, monotonic() - begin
        return None, monotonic() - begin

    (came, hung), (error, took) = together(hang, end)
    seen.that(
        f"httpx with timeout={HAND_SET}: {came} bytes in {hung:.1f} s and no end, cut by this scene",
        hung >= CAP,
    )
    if error is None or error.seconds is None:
        seen.that(f"meshaware: {error!r} after {took:.2f} s", holds=False)
        return seen
    name = type(error).__name__
    seen.that(
        f"meshaware: {name} after {took:.2f} s; the budget of route {error.route!r} is {error.seconds:.2f} s",
        error.seconds <= took < error.seconds + 0.5 and isinstance(error, httpx.ReadTimeout),
    )
    return seen


def outside(shop: Shop) -> Seen:
    """A call to a host outside the mesh, and a redirect there, carry none of the mesh's headers."""
    seen = Seen()
    ours = {
        **PREMIUM,
        "traceparent": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01",
        "b3": "1",
        "x-canary": "1",
    }
    for page in ("press", "cover"):
        reply = shop.client.get(f"http://storefront:8080/books/42/{page}", headers=ours)
        seen.that(f"{page}: {reply.status_code}", reply.status_code == 200)
    for what, path in (("called", "/press/42"), ("redirected", "/covers/42")):
        names = shop.publisher.visits.get(path)
        if names is None:
            seen.that(f"{what}: nothing came", holds=False)
            continue
        carried = [name for name in names if name.startswith(("x-", "trace", "b3", "baggage"))]
        seen.that(f"{what}: {', '.join(names)}", not carried)
    return seen


def sidecar_returns(shop: Shop) -> Seen:
    """The sidecar dies: the error says so. It comes back: the service recovers, and was not restarted."""
    seen = Seen()
    pid, sidecar = shop.services["orders"].pid, shop.members["orders"].sidecar
    shop.ask_process("orders", "/quotes/42").raise_for_status()
    sidecar.kill()
    step("the sidecar of orders is dead")
    own = shop.ask_process("orders", "/quotes/42", timeout=5.0)
    said = next(
        (line for line in reversed(shop.services["orders"].log()) if "did not take the connection" in line),
        "",
    )
    seen.that(f"orders answers {own.status_code}: {own.json()['detail']}", own.status_code == 503)
    seen.that("its log names its sidecar", "the sidecar at 127.0.0.1:" in said)
    reply = shop.client.get("http://orders:8080/quotes/42")
    by = report(reply).reply
    who = "the application" if by is None else f"the {by.by}: {by.reason}"
    seen.that(f"its caller gets {reply.status_code}, by {who}", by is not None)
    sidecar.start()
    begin = monotonic()

    def works() -> float:
        answer = shop.client.get("http://storefront:8080/books/42")
        if answer.status_code != 200:
            raise NotYet(f"{answer.status_code} {answer.text[:200]}")
        return monotonic() - begin

    took = shop.wait_for("the storefront to work again", works)
    orders = shop.services["orders"]
    seen.that(f"works {took:.2f} s after the sidecar's return", took < 5)
    seen.that(f"process {pid} before, {orders.pid} now", orders.runs and orders.pid == pid)
    return seen


SCENES = [
    Scene("1 late sidecar", late_sidecar, ("storefront",)),
    Scene("2 one trace", one_trace, ("storefront", "orders", "inventory-v1")),
    Scene("3 premium", premium_route, ("orders", "inventory-v2")),
    Scene("4 the mesh retries", mesh_retries, ("orders", "inventory-v1")),
    Scene("5 endless body", endless_body, ("inventory-v1",)),
    Scene("6 outside", outside, ("storefront", "inventory-v1")),
    Scene("7 sidecar returns", sidecar_returns, ("orders",)),
]


def request_id(span: Span) -> str:
    """The x-request-id of a span: Envoy's tag, or the header that the application's instrumentation noted."""
    return span.attributes.get("guid:x-request-id") or span.attributes.get(
        "http.request.header.x_request_id", ""
    )


def reservations(spans: list[Span], service: str, kind: str) -> list[Span]:
    """The spans that one service's application made of reservations."""
    return [
        span
        for span in spans
        if span.by == "app"
        and span.kind == kind
        and span.service.startswith(service)
        and (kind == "client" or "/reservations" in span.name)
    ]


def together(first: Callable[[], tuple], second: Callable[[], tuple]) -> tuple:
    """Run both at once, each in a thread."""
    with ThreadPoolExecutor(2) as threads:
        one, other = threads.submit(first), threads.submit(second)
        return one.result(), other.result()
