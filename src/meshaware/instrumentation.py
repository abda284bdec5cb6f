"""
Where those who know what happens meet those who want to know.

The rooms announce; telemetry, where it is set up, listens, and so may anybody. Neither knows the other.

| announced | by | told to |
|---|---|---|
| a client was made | the client factories | `on_client` |
| what became of a call | the transports | `on_call` |
| how a request with a deadline ended | `MeshMiddleware` | `on_served` |
| a gate opened, or was given up | `ReadinessGate` | `on_gate` |
| live routes were confirmed, or could not be read | `SidecarRoutes` | `on_route_refresh`, `routes_confirmed` |

What may well happen before anybody listens is kept in mind and told to those who come later: clients as long as
they live, and the last few gates. Callbacks run in the thread or task where it happened and must not block. What they
raise is logged once and reaches nobody.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from threading import Lock
from time import monotonic
from typing import Generic, Literal, NamedTuple, TypeVar
from weakref import WeakSet

__all__ = [
    "Answerer",
    "CallOutcome",
    "DeadlineSource",
    "GateOutcome",
    "Moment",
    "RouteRefresh",
    "ServedOutcome",
    "Verdict",
    "announce_call",
    "announce_client",
    "announce_gate",
    "announce_routes",
    "announce_served",
    "calls_observed",
    "on_call",
    "on_client",
    "on_gate",
    "on_route_refresh",
    "on_served",
    "routes_confirmed",
    "served_observed",
]

Answerer = Literal["application", "sidecar", "peer-sidecar"]
DeadlineSource = Literal["header", "grpc-timeout", "envoy"]
Moment = Literal["answer", "end"]
Verdict = Literal["answered", "replied", "deadline", "overdue", "sidecar_unavailable", "error", "cancelled"]

_GATES = 16

_log = logging.getLogger("meshaware.instrumentation")


class CallOutcome(NamedTuple):
    """
    What became of one call: one request to one host, so a redirect makes two.

    | verdict | meaning | `reason` |
    |---|---|---|
    | `answered` | the application answered, whatever the status | |
    | `replied` | a sidecar answered in its place | why, in the words of `meshaware.sidecar.replies` |
    | `deadline` | its time was up, before the headers or in the body | the phase: `connect`, `wait`, ...; `unsent` |
    | `overdue` | deadlines are only observed: it would have been cut | as without |
    | `sidecar_unavailable` | the sidecar did not take the connection | `refused` |
    | `error` | any other error of the transport | the error's class |
    | `cancelled` | the caller gave it up before its end | |

    Attributes:
        verdict: One of these words.
        route: The name of the mesh's route that governs it, or None.
        origin: Where that route was read, or None.
        budget: Seconds the call might take from the end of the upload; None if unbounded.
        source: Who set the time that held: `route`, `settings`, `default`, `caller`, or `work`: the deadline of the
            request in hand, where it was nearer than the budget.
        left: Seconds left of it when the headers came, or when the call failed before; None if nothing ended it.
        answered_by: Whose answer it is; None if there was none.
        reason: A few fixed words, fit for a metric; see above.
    """

    verdict: Verdict
    route: str | None = None
    origin: str | None = None
    budget: float | None = None
    source: Literal["route", "settings", "default", "caller", "work"] = "default"
    left: float | None = None
    answered_by: Answerer | None = None
    reason: str | None = None


class ServedOutcome(NamedTuple):
    """
    How a request ended that came with a deadline.

    | verdict | meaning |
    |---|---|
    | `in_time` | its answer was whole before |
    | `late` | it was not; nothing ended it |
    | `cut` | it was not: it was answered 504 or its connection ended, and its handler cancelled |
    | `gone` | its caller was gone before, and its handler cancelled |

    Attributes:
        verdict: One of these words.
        seconds: What it was given.
        left: What was left when its answer was whole, or when it ended without; negative where time was up.
        source: What said so: meshaware's own header, `grpc-timeout`, or `x-envoy-expected-rq-timeout-ms`.
        held: False where deadlines are only observed.
        retried: Whether it was not the first try, so that its caller waits no longer than that, and perhaps less long.
    """

    verdict: Literal["in_time", "late", "cut", "gone"]
    seconds: float
    left: float
    source: DeadlineSource
    held: bool
    retried: bool


class GateOutcome(NamedTuple):
    """
    What came of waiting for a sidecar.

    Attributes:
        result: `opened`; `absent`, where there turned out to be no sidecar; `failed`, where the time of all who waited
            was up. A gate that failed may still open later.
        waited: Seconds.
        mesh: The name of the mesh's flavour.
    """

    result: Literal["opened", "absent", "failed"]
    waited: float
    mesh: str


class RouteRefresh(NamedTuple):
    """
    One attempt to read the live routes.

    Attributes:
        confirmed: Whether the routes in use are now known to be those of the sidecar.
        at: The instant of `time.monotonic()`.
    """

    confirmed: bool
    at: float


Fact = TypeVar("Fact")


class _Hearers(Generic[Fact]):
    """Who wants to be told of one kind of fact, and when."""

    __slots__ = ("_failed", "_lock", "callbacks", "conditions")

    def __init__(self) -> None:
        # Both are replaced as a whole, so that they can be read without the lock.
        self.callbacks: tuple[Callable[[Fact], object], ...] = ()
        self.conditions: tuple[Callable[[], bool] | None, ...] = ()
        self._failed: list[object] = []
        self._lock = Lock()

    def add(self, callback: Callable[[Fact], object], when: Callable[[], bool] | None = None) -> Callable[[], None]:
        with self._lock:
            if callback not in self.callbacks:
                self.conditions = (*self.conditions, when)
                self.callbacks = (*self.callbacks, callback)

        def stop() -> None:
            with self._lock:
                if callback in self.callbacks:
                    at = self.callbacks.index(callback)
                    self.callbacks = self.callbacks[:at] + self.callbacks[at + 1 :]
                    self.conditions = self.conditions[:at] + self.conditions[at + 1 :]

        return stop

    def wanted(self) -> bool:
        """Whether anybody would be told of something now."""
        for when in self.conditions:  # noqa: SIM110 (a generator would cost each call as much as the rest of this)
            if when is None or self._holds(when):
                return True
        return False

    def _holds(self, when: Callable[[], bool]) -> bool:
        try:
            return when()
        except Exception:  # noqa: BLE001 - whoever listens must not harm the call
            self._say_once(when, "%r failed when it was asked; this is not said again", when)
            return False

    def tell(self, fact: Fact) -> None:
        for callback in self.callbacks:
            self.tell_one(callback, fact)

    def tell_one(self, callback: Callable[[Fact], object], fact: Fact) -> None:
        try:
            callback(fact)
        except Exception:  # noqa: BLE001 - whoever listens must not harm the call
            self._say_once(callback, "%r failed when it was told of %r; this is not said again", callback, fact)

    def _say_once(self, culprit: object, message: str, *arguments: object) -> None:
        if culprit not in self._failed:
            self._failed.append(culprit)
            _log.exception(message, *arguments)


class _Registry:
    """What this process has announced, and to whom."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.clients: _Hearers[object] = _Hearers()
        self.answers: _Hearers[CallOutcome] = _Hearers()
        self.ends: _Hearers[CallOutcome] = _Hearers()
        self.served: _Hearers[ServedOutcome] = _Hearers()
        self.gates: _Hearers[GateOutcome] = _Hearers()
        self.refreshes: _Hearers[RouteRefresh] = _Hearers()
        self.past_gates: deque[GateOutcome] = deque(maxlen=_GATES)
        self.confirmed: float | None = None


_clients: WeakSet[object] = WeakSet()
_registry = _Registry()


def announce_client(client: object) -> None:
    """
    Tell everybody who asked that a client was made, and remember it as long as it lives.

    Args:
        client: A client that can be referred to weakly, as those of httpx and httpx2 can.
    """
    with _registry.lock:
        _clients.add(client)
        callbacks = _registry.clients.callbacks
    for callback in callbacks:
        _registry.clients.tell_one(callback, client)


def on_client(callback: Callable[[object], object]) -> Callable[[], None]:
    """
    Have a function called for each client made from now on, and at once for each that is alive.

    Args:
        callback: Called in the thread that makes the client. Asking again with an equal callback changes
            nothing: it is still called once for each client.

    Returns:
        A function that ends it.
    """
    with _registry.lock:
        alive = () if callback in _registry.clients.callbacks else tuple(_clients)
        stop = _registry.clients.add(callback)
    for client in alive:
        _registry.clients.tell_one(callback, client)
    return stop


def calls_observed(at: Moment | None = None) -> bool:
    """
    Tell whether anybody wants to know now what becomes of calls: without one, nothing is made to be told.

    Args:
        at: At which of the two moments; None: at either.
    """
    if at is None:
        return _registry.ends.wanted() or _registry.answers.wanted()
    return (_registry.answers if at == "answer" else _registry.ends).wanted()


def announce_call(outcome: CallOutcome, at: Moment) -> None:
    """Tell everybody who asked what became of a call; see `on_call` for the two moments."""
    (_registry.answers if at == "answer" else _registry.ends).tell(outcome)


def on_call(
    callback: Callable[[CallOutcome], object], *, at: Moment = "end", when: Callable[[], bool] | None = None
) -> Callable[[], None]:
    """
    Have a function called once for each call that a client of meshaware makes.

    At the `end` the outcome is final: when the call has failed, also in its body, or when its response was closed. A
    response that is never closed is never told of. At the `answer` the headers are here, or the call has failed
    before: what the body will bring is not known yet, but a client span that OpenTelemetry opened is still open.

    Args:
        callback: Given the outcome. Asking again with an equal callback changes nothing.
        at: Which of the two moments.
        when: Asked of each call as its headers come, or as it fails before: where it says no, nothing is made to tell
            this callback. It is told all the same of what is made for others. It must be cheap.

    Returns:
        A function that ends it.
    """
    return (_registry.answers if at == "answer" else _registry.ends).add(callback, when)


def served_observed() -> bool:
    """Tell whether anybody wants to know how requests with a deadline end."""
    return bool(_registry.served.callbacks)


def announce_served(outcome: ServedOutcome) -> None:
    """Tell everybody who asked how a request with a deadline ended."""
    _registry.served.tell(outcome)


def on_served(callback: Callable[[ServedOutcome], object]) -> Callable[[], None]:
    """
    Have a function called as each request ends that came with a deadline.

    Returns:
        A function that ends it.
    """
    return _registry.served.add(callback)


def announce_gate(outcome: GateOutcome) -> None:
    """Tell everybody who asked, and those who ask later, that a gate opened or was given up."""
    with _registry.lock:
        _registry.past_gates.append(outcome)
    _registry.gates.tell(outcome)


def on_gate(callback: Callable[[GateOutcome], object]) -> Callable[[], None]:
    """
    Have a function called for each gate that opens or is given up, and at once for the last few that have.

    A gate that was never closed, as without a mesh, is not told of.

    Returns:
        A function that ends it.
    """
    with _registry.lock:
        past = tuple(_registry.past_gates)
    stop = _registry.gates.add(callback)
    for outcome in past:
        _registry.gates.tell_one(callback, outcome)
    return stop


def announce_routes(*, confirmed: bool) -> None:
    """
    Tell that the live routes were confirmed just now, or could not be.

    Args:
        confirmed: True also where the sidecar said that nothing has changed.
    """
    now = monotonic()
    if confirmed:
        _registry.confirmed = now
    _registry.refreshes.tell(RouteRefresh(confirmed, now))


def on_route_refresh(callback: Callable[[RouteRefresh], object]) -> Callable[[], None]:
    """
    Have a function called for each attempt to read the live routes.

    Returns:
        A function that ends it.
    """
    return _registry.refreshes.add(callback)


def routes_confirmed() -> float | None:
    """The instant of `time.monotonic()` at which live routes were last confirmed; None if they never were."""
    return _registry.confirmed
