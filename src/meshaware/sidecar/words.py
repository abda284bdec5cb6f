"""What is said of a proxy that was not ready in time."""

from __future__ import annotations

from meshaware.durations import format_duration
from meshaware.flavours import Flavour
from meshaware.sidecar.waiting import GateState

__all__ = ["no_routes_in_time", "not_ready"]


def not_ready(state: GateState, flavour: Flavour) -> str:
    """The message of a `SidecarNotReady`: who was asked, how often, the last answer, and what to check next."""
    container = flavour.container or "proxy"
    check = {
        "refused": f"is there a container {container}, and does it run? Without one, set MESHAWARE_MESH=none",
        "503": f"why has the proxy no configuration yet? The log of the container {container} says",
        "silent": f"is it the proxy that listens there? Has the container {container} enough CPU to answer?",
    }.get(state.reason.rpartition(": ")[2], "is it the proxy that listens there? See MESHAWARE_READY_URL")
    return f"the sidecar ({flavour.title}) was not ready in {_last(state)}. To check next: {check}"


def no_routes_in_time(state: GateState, flavour: Flavour) -> str:
    """The same where the proxy is ready, and has no route for an upstream that was to be waited for."""
    return (
        f"the sidecar ({flavour.title}) takes calls, but not all routes that were waited for came in {_last(state)}. "
        "To check next: is there a service of that name and port, and may this workload see it? "
        "`meshaware budget GET http://HOST:PORT/` shows what the sidecar knows"
    )


def _last(state: GateState) -> str:
    times = "once" if state.attempts == 1 else f"{state.attempts} times"
    return f"{format_duration(state.waited)}; asked {times}, last: {state.reason}"
