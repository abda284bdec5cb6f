"""
The scenes. The docstring of each is what meshaware promises; what it returns is what was seen.

Each goes by facts (replies, clocks, spans, what a peer recorded) and decides by them alone.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any, TypeVar

import httpx
from shop import LATE, NotYet, Shop
from terminal import say, step, width
from verdict import Scene, Seen
from waterfall import Span, draw

from meshaware import report
from meshaware.errors import DeadlineExceeded

A_WHILE = 500
HAND_SET = 1.0
CAP = 4.0
# Spans of one request: in and out, application and Envoy, at storefront and orders; inventory calls nobody, and the
# visitor is no application.
ONE_EACH = 4 + 4 + 2 + 1

A = TypeVar("A")
B = TypeVar("B")


def late_sidecar(shop: Shop) -> Seen:
    """A service that starts before its sidecar is 503 on /readyz until the sidecar takes calls, then 200."""
    seen = Seen()

    def waits() -> dict[str, Any]:
        gate: dict[str, Any] = shop.wait_ready(LATE, 503)["gate"]
        if gate["waited_ms"] < A_WHILE:
            raise NotYet(f"it has waited {gate['waited_ms']} ms")
        return gate

    before = shop.wait_for(f"{LATE} to wait for its sidecar", waits)
    seen.that(f"503 meanwhile: {before['reason']}", before["status"] == "waiting")
    step(f"{LATE} runs and is not ready; now its sidecar starts")
    shop.members[LATE].sidecar.start()
    after = shop.wait_ready(LATE, 200)["gate"]
    seen.that(f"200 at last; the gate waited {after['waited_ms']} ms", after["waited_ms"] > A_WHILE)
    for name in shop.services:
        shop.wait_ready(name, 200)
    return seen


def one_trace(shop: Shop) -> Seen:
    """One request through three services has one x-request-id and one trace, in applications and Envoys."""
    seen = Seen()
    trace, browser = begin_trace()
    reply = shop.client.get("http://storefront:8080/books/42", headers=browser)
    seen.that(f"{reply.status_code} from the storefront", reply.status_code == 200)
    spans = watch(shop, trace, ONE_EACH)
    hops = [
        service
        for service in ("storefront", "orders", "inventory")
        if {span.by for span in spans if span.service == service} == {"app", "envoy"}
    ]
    seen.that(f"{len(spans)} spans, of application and Envoy at {', '.join(hops)}", len(hops) == 3)
    ids = {request_id(span) for span in spans} - {""}
    seen.that(f"x-request-id everywhere: {', '.join(sorted(ids))}", len(ids) == 1)
    told = [span for span in spans if span.by == "app" and span.kind == "server" and request_id(span) in ids]
    seen.that(f"{len(told)} applications were given it", len(told) == 3)
    traces = {span.trace for span in shop.collector.where(lambda span: request_id(span) in ids)}
    seen.that(f"trace everywhere: {', '.join(sorted(traces))}", traces == {trace})
    return seen


def premium_route(shop: Shop) -> Seen:
    """`x-user-type: premium` reaches inventory v2, two hops after the storefront; everybody else gets v1."""
    seen = Seen()

    def versions(headers: dict[str, str]) -> set[str]:
        replies = [shop.client.get("http://storefront:8080/books/42", headers=headers) for _ in range(5)]
        return {str(reply.raise_for_status().json()["stock"]["version"]) for reply in replies}

    premium, others = versions({"x-user-type": "premium"}), versions({})
    seen.that(f"premium: {', '.join(premium)}, 5 of 5", premium == {"v2"})
    seen.that(f"others: {', '.join(others)}, 5 of 5", others == {"v1"})
    return seen


def mesh_retries(shop: Shop) -> Seen:
    """Two tries fail, the mesh retries, meshaware waits for it; a hand-set timeout gives up on a success."""
    seen = Seen()
    trace, browser = begin_trace()
    patient, hasty = f"patient-{secrets.token_hex(4)}", f"hasty-{secrets.token_hex(4)}"

    def wait() -> tuple[int, float]:
        begin = monotonic()
        reply = shop.client.put(f"http://storefront:8080/orders/{patient}", headers=browser)
        return reply.status_code, monotonic() - begin

    def give_up() -> tuple[str, float]:
        begin = monotonic()
        try:
            with shop.bare(HAND_SET) as client:
                answer = str(client.put(f"http://storefront:8080/orders/{hasty}").status_code)
        except httpx.TimeoutException as error:
            answer = type(error).__name__
        return answer, monotonic() - begin

    (ours, waited), (theirs, gave_up) = together(wait, give_up)
    seen.that(f"meshaware: {ours} after {waited:.2f} s", ours == 201 and waited > HAND_SET)
    tries = shop.ask_process("inventory-v1", f"/tries/{patient}").json()
    seen.that(f"{len(tries)} tries came to inventory", len(tries) == 3 and len(set(tries)) == 1)
    spans = watch(shop, trace, ONE_EACH + 2 * 2)
    made = [span for span in spans if (span.by, span.service, span.kind) == ("app", "orders", "client")]
    seen.that(f"orders made {len(made)} request: the mesh did the rest", len(made) == 1)
    seen.that(f"httpx with timeout={HAND_SET}: {theirs} after {gave_up:.2f} s", theirs == "ReadTimeout")

    def placed() -> bool:
        reply = shop.ask_process("orders", f"/orders/{hasty}")
        if reply.status_code != 200:
            raise NotYet(f"{reply.status_code} {reply.text}")
        return bool(reply.json()["placed"])

    seen.that("and yet its order was placed", shop.wait_for(f"order {hasty} to be placed", placed, timeout=5.0))
    return seen


def endless_body(shop: Shop) -> Seen:
    """An upstream that dribbles bytes for ever hangs httpx; meshaware's call ends with its budget."""
    # The route bounds each try until its headers are there, and has no `timeout`: Envoy lets the body go on for both
    # clients alike. And httpx's own timeout starts anew with each byte.
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
    seen.that(f"httpx, timeout={HAND_SET}: {came} bytes in {hung:.1f} s, and no end but this scene's", hung >= CAP)
    budget = 0.0 if error is None or error.seconds is None else error.seconds
    route = None if error is None else error.route
    seen.that(
        f"meshaware: {type(error).__name__} after {took:.2f} s, where route {route!r} allows {budget:.2f} s",
        issubclass(type(error), httpx.ReadTimeout) and route == "feed" and budget <= took < budget + 1,
    )
    return seen


def outside(shop: Shop) -> Seen:
    """A call to a host outside the mesh, and a redirect there, carry none of the mesh's headers."""
    seen = Seen()
    trace, browser = begin_trace()
    ours = {**browser, "x-user-type": "premium", "x-canary": "1", "baggage": "basket=7"}
    for page in ("press", "cover"):
        reply = shop.client.get(f"http://storefront:8080/books/42/{page}", headers=ours)
        seen.that(f"{page}: {reply.status_code}", reply.status_code == 200)

    def redirects(span: Span) -> bool:
        return span.by == "app" and span.service == "inventory" and request_id(span) != ""

    inside = shop.collector.wait_for(trace, lambda spans: any(map(redirects, spans)))
    seen.that("inventory, inside, got trace and x-request-id", any(map(redirects, inside)))
    for what, path in (("called", "/press/42"), ("redirected", "/covers/42")):
        names = shop.publisher.visits.get(path, [])
        carried = [name for name in names if name.startswith(("x-", "trace", "b3", "baggage"))]
        seen.that(f"outside, {what}: {', '.join(names) or 'nothing came'}", bool(names) and not carried)
    return seen


def sidecar_returns(shop: Shop) -> Seen:
    """The sidecar dies: the error says so. It comes back: the service recovers, and was not restarted."""
    seen = Seen()
    orders, sidecar = shop.services["orders"], shop.members["orders"].sidecar
    pid = orders.pid
    shop.ask_process("orders", "/quotes/42").raise_for_status()
    sidecar.kill()
    step("the sidecar of orders is dead")
    own = shop.ask_process("orders", "/quotes/42", timeout=5.0)
    seen.that(f"orders: {own.status_code} {own.json().get('detail')}", own.status_code == 503)
    said = re.search(r"the sidecar at \S+ did not take the connection", "\n".join(orders.log()))
    seen.that(f"its log: {said[0] if said else 'nothing of it'}", said is not None)
    reply = shop.client.get("http://orders:8080/quotes/42")
    by = report(reply).reply
    who = "the application" if by is None else f"the {by.by}: {by.reason}"
    seen.that(f"its caller: {reply.status_code} from {who}", by is not None)
    sidecar.start()
    begin = monotonic()

    def works() -> float:
        answer = shop.client.get("http://storefront:8080/books/42")
        if answer.status_code != 200:
            raise NotYet(f"{answer.status_code} {answer.text[:200]}")
        return monotonic() - begin

    took = shop.wait_for("the storefront to work again", works)
    seen.that(f"all works {took:.2f} s after the sidecar's return", took < 10)
    seen.that(f"process {pid} before, {orders.pid} now", orders.runs and orders.pid == pid)
    return seen


SCENES: list[Scene[Shop]] = [
    Scene("1 late sidecar", late_sidecar, ("storefront",)),
    Scene("2 one trace", one_trace, ("storefront", "orders", "inventory-v1")),
    Scene("3 premium", premium_route, ("orders", "inventory-v2")),
    Scene("4 the mesh retries", mesh_retries, ("orders", "inventory-v1")),
    Scene("5 endless body", endless_body, ("inventory-v1",)),
    Scene("6 outside", outside, ("storefront", "inventory-v2")),
    Scene("7 sidecar returns", sidecar_returns, ("orders",)),
]


def request_id(span: Span) -> str:
    """The x-request-id of a span: Envoy's tag, or the header that the application's instrumentation noted."""
    return span.attributes.get("guid:x-request-id") or span.attributes.get("http.request.header.x_request_id", "")


def begin_trace() -> tuple[str, dict[str, str]]:
    """A trace id of our own, and the header by which a browser would begin that trace."""
    trace = secrets.token_hex(16)
    return trace, {"traceparent": f"00-{trace}-{secrets.token_hex(8)}-01"}


def watch(shop: Shop, trace: str, expected: int) -> list[Span]:
    """Wait for the spans of a trace, and draw them."""
    spans = shop.collector.wait_for(trace, lambda found: len(found) >= expected)
    for line in draw(spans, width=width()):
        say(line)
    return spans


def together(first: Callable[[], A], second: Callable[[], B]) -> tuple[A, B]:
    """Run both at once, each in a thread."""
    with ThreadPoolExecutor(2) as threads:
        one, other = threads.submit(first), threads.submit(second)
        return one.result(), other.result()
